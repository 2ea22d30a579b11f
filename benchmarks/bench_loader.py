"""Loader samples/s against MONAI's PersistentDataset on the same volumes, and against a plain memory-map read.

Run `python benchmarks/bench_loader.py`. One process with one thread, warm page cache, seconds of processor time; the
loaders take turns, so that whatever slows the machine slows all of them, and ratios are taken turn by turn.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch.utils.data import DataLoader

CHANNELS = ["t1", "t2"]
LOW, HIGH = 0.5, 99.5
RESULT = Path(__file__).parent / "results" / "loader.json"


def write_volumes(folder: Path, patients: int, side: int, stored_as: str) -> None:
    """NIfTI files of heads in air, brighter on one side, LAS, on a grid a little larger than the cohort's."""
    import nibabel

    axes = np.meshgrid(*[np.linspace(-1, 1, side + 8)] * 3, indexing="ij", sparse=True)
    distance = sum(axis**2 for axis in axes)
    for patient in range(patients):
        random = np.random.default_rng(patient)
        for channel in CHANNELS:
            texture = random.standard_normal(distance.shape, dtype=np.float32)
            voxels = (
                np.where(distance < 0.8, 600 - 300 * distance + 90 * axes[0] + 40 * texture, 0)
                .clip(0, 2000)
                .astype(stored_as)
            )
            path = folder / f"P{patient:03d}_{channel}.nii"
            nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, 1.0, 1.0, 1.0])), path)


def write_cohort(source: Path, folder: Path, patients: int, side: int, stored_as: str) -> None:
    """The same volumes as a prepared cohort, through the code that `chiasma prepare` uses."""
    import nibabel

    from foundation.cohort.imaging import standardise
    from foundation.cohort.manifest import FILE, ImageEntry, Manifest
    from foundation.cohort.records import Image, Record, record_features, write_index, write_shard
    from foundation.cohort.sources.base import Volume
    from foundation.cohort.spec import ImageRecipe

    modality = ImageRecipe.model_validate(
        {
            "kind": "image",
            "channels": CHANNELS,
            "source": {"format": "nifti", "files": "{patient}_{channel}.nii"},
            "size": [side] * 3,
            "stored_as": stored_as,
        }
    )

    def records() -> Iterator[Record]:
        for patient in range(patients):
            volumes = {}
            for channel in CHANNELS:
                file = nibabel.load(source / f"P{patient:03d}_{channel}.nii")
                volumes[channel] = Volume(np.asarray(file.dataobj), file.affine)
            image = standardise(volumes, modality)
            yield Record(
                f"P{patient:03d}", images={"mri": Image(image.voxels, image.channels_present, image.statistics)}
            )

    spec = SimpleNamespace(images=lambda: {"mri": modality}, omics=dict, endpoints={}, annotations={})
    schema = record_features(spec, {})  # type: ignore[arg-type]
    (folder / "records").mkdir(parents=True)
    shard = folder / "records" / "data-00000-of-00001.arrow"
    write_shard(shard, schema.arrow_schema, records())
    write_index(folder / "records", schema, [shard], "0" * 64)
    entry = ImageEntry(
        patients=patients,
        shape=[side] * 3,
        channels=dict.fromkeys(CHANNELS, patients),
        orientation=modality.orientation,
        spacing=modality.spacing,
        intensity=modality.intensity,
        stored_as=stored_as,
        mirror=[],
    )
    counted = {"modalities": {"mri": entry}, "patients": patients, "records": patients, "quarantined": 0}
    empty = {key: {} for key in ("patterns", "endpoints", "sites", "groups", "folds", "sources", "versions")}
    manifest = Manifest(name="benchmark", fingerprint="0" * 64, **counted, **empty)
    (folder / FILE).write_text(manifest.to_json())
    (folder / "features.json").write_text("{}")


def chiasma_loader(cohort_folder: Path, batch_size: int) -> Callable[[], Iterator[torch.Tensor]]:
    """Batches as a training run gets them: shuffled, standardised, checked for damage."""
    from foundation.cohort.store import PreparedCohort
    from foundation.data.alignment import align
    from foundation.data.dataset import CohortDataset, whole
    from foundation.data.sampler import PatientOrder
    from foundation.data.scaling import fit_preprocessing

    cohort = PreparedCohort(cohort_folder)
    rows = np.arange(len(cohort))
    dataset = CohortDataset(align(fit_preprocessing(cohort, rows), cohort))
    order = PatientOrder(rows, batch_size, seed=0, batches=len(rows) // batch_size)
    loader = DataLoader(dataset, batch_sampler=order, collate_fn=whole)
    return lambda: (batch.images["mri"] for batch in loader)


def monai_loader(source: Path, cache: Path, patients: int, side: int, batch_size: int):
    """The equivalent pipeline of MONAI; all of it is deterministic, so all of it is cached as tensors on disk."""
    from monai.data import PersistentDataset
    from monai.transforms import (
        CenterSpatialCropd,
        Compose,
        EnsureChannelFirstd,
        EnsureTyped,
        LoadImaged,
        Orientationd,
        ScaleIntensityRangePercentilesd,
        Spacingd,
        SpatialPadd,
    )

    def labels() -> tuple:
        return (("L", "R"), ("P", "A"), ("I", "S"))

    steps = Compose(
        [
            LoadImaged("mri"),
            EnsureChannelFirstd("mri"),
            Orientationd("mri", axcodes="RAS", labels=labels()),
            Spacingd("mri", pixdim=(1.0, 1.0, 1.0), mode="bilinear"),
            SpatialPadd("mri", spatial_size=[side] * 3),
            CenterSpatialCropd("mri", roi_size=[side] * 3),
            ScaleIntensityRangePercentilesd("mri", LOW, HIGH, 0.0, 1.0, clip=True, channel_wise=True),
            EnsureTyped("mri", dtype=torch.float32, track_meta=False),
        ]
    )
    files = [{"mri": [str(source / f"P{p:03d}_{c}.nii") for c in CHANNELS]} for p in range(patients)]
    dataset = PersistentDataset(files, steps, cache_dir=cache)
    for position in range(patients):
        dataset[position]
    shuffle = torch.Generator().manual_seed(0)
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, generator=shuffle)
    return lambda: (batch["mri"] for batch in loader)


def plain_loader(
    cohort_folder: Path, file: Path, batch_size: int, allocate: Callable[..., torch.Tensor]
) -> Callable[[], Iterator[torch.Tensor]]:
    """The least that has to happen: the same bytes from a memory map, cast into a float32 batch, and nothing else."""
    from foundation.cohort.store import PreparedCohort

    cohort = PreparedCohort(cohort_folder)
    first = cohort.voxels("mri", 0)
    assert first is not None
    with file.open("wb") as stream:
        for row in range(len(cohort)):
            stream.write(cohort.voxels("mri", row))  # type: ignore[arg-type]
    voxels = np.memmap(file, dtype=first.dtype, mode="r", shape=(len(cohort), *first.shape))

    def batches() -> Iterator[torch.Tensor]:
        order = np.random.default_rng(0).permutation(len(voxels))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            batch = allocate(batch_size, *first.shape)
            for position, row in enumerate(order[start : start + batch_size]):
                batch[position].numpy()[...] = voxels[row]
            yield batch

    return batches


def samples_per_second(loader: Callable[[], Iterator[torch.Tensor]]) -> float:
    """Samples per second of processor time: the rate of one core, whatever else the machine does."""
    start, samples = time.process_time(), 0
    for batch in loader():
        samples += len(batch)
    return samples / (time.process_time() - start)


def measure(patients: int, side: int, stored_as: str, batch_size: int, turns: int) -> dict:
    """Rates of the loaders, and the medians of their ratios turn by turn."""
    from foundation.data.memory import zeros

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "nifti").mkdir()
        write_volumes(folder / "nifti", patients, side, stored_as)
        write_cohort(folder / "nifti", folder / "cohort", patients, side, stored_as)
        loaders = {
            "chiasma": chiasma_loader(folder / "cohort", batch_size),
            "persistent": monai_loader(folder / "nifti", folder / "cache", patients, side, batch_size),
            "plain": plain_loader(folder / "cohort", folder / "plain.bin", batch_size, torch.empty),
            "plain_huge_pages": plain_loader(folder / "cohort", folder / "plain.bin", batch_size, zeros),
        }
        check_same_images(loaders)
        for loader in loaders.values():
            samples_per_second(loader)
        rates = [{name: samples_per_second(loader) for name, loader in loaders.items()} for _ in range(turns)]
    return {
        "stored_as": stored_as,
        "samples_per_second": {name: round(statistics.median(r[name] for r in rates), 1) for name in loaders},
        "ratio_to_persistent_dataset": round(statistics.median(r["chiasma"] / r["persistent"] for r in rates), 3),
        "ratio_to_plain_read": round(statistics.median(r["chiasma"] / r["plain"] for r in rates), 3),
        "ratio_to_plain_read_in_huge_pages": round(
            statistics.median(r["chiasma"] / r["plain_huge_pages"] for r in rates), 3
        ),
    }


def check_same_images(loaders: dict[str, Callable[[], Iterator[torch.Tensor]]]) -> None:
    """The two pipelines must do the same work: within the head, their mean images differ by an affine map at most."""
    ours, theirs = (
        torch.cat([b.mean(dim=0, keepdim=True) for b in loaders[name]()]).mean(dim=0).flatten()
        for name in ("chiasma", "persistent")
    )
    # The two take percentiles of the foreground and of the whole image, so they clip air differently.
    head = ours > ours.mean()
    correlation = torch.corrcoef(torch.stack([ours[head], theirs[head]]))[0, 1]
    if correlation < 0.99:
        raise SystemExit(f"the pipelines differ: correlation of the mean images {correlation:.4f}")


def main() -> None:
    """Measure, print the ratios, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=64)
    parser.add_argument("--side", type=int, default=96, help="voxels along each axis")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {"patients": arguments.patients, "side": arguments.side, "batch_size": arguments.batch_size}
    results = [measure(stored_as=kind, turns=arguments.turns, **sizes) for kind in ("float32", "int16")]
    for result in results:
        print(
            f"{result['stored_as']}: {result['samples_per_second']['chiasma']} samples/s, "
            f"{result['ratio_to_persistent_dataset']} x PersistentDataset (aim 2), "
            f"{result['ratio_to_plain_read']} x plain read, "
            f"{result['ratio_to_plain_read_in_huge_pages']} x plain read into our own memory (aim 0.5)"
        )
    machine = {
        "processor": platform.processor() or platform.machine(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"sizes": sizes, "results": results, "machine": machine}, indent=2) + "\n")


if __name__ == "__main__":
    main()
