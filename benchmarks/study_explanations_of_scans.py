"""Whether maps of scans show the lesion that an outcome follows, and which explainer agrees with occlusion.

    python benchmarks/study_explanations_of_scans.py runs/demo demo/cohort demo/source/truth --out runs/scans.json
    python benchmarks/study_explanations_of_scans.py runs/idh-0 runs/idh-1 cohorts/glioma source/mri --task idh \
        --files '{patient}/tumor_mask.nii.gz' --new --adapted --patients 200 --out runs/scans-glioma.json

Takes fine-tuning runs, a cohort, and a folder with a mask of the lesion for each patient: those that `chiasma simulate`
wrote in its `truth`, or drawn by hand. Patients without one are left out. With `--new` a run explains only patients
whom it was not fine-tuned on, so that two runs, each fine-tuned on the other's patients, explain all.

For each explainer are printed: its rank correlation with occlusion over cells with tissue; in what share of patients
the voxel in the middle of its highest cell (sign aside) lies in the lesion, against the lesion's share of the tissue,
and against the highest cells of all other patients, which know where lesions tend to be; how much of the map lies in
the lesion, sign aside, against its share, with an interval by bootstrap over patients; the same of the map of the same
networks with their weights in disorder, which knows what the scan is like and nothing of what was learned; and of the
maps of others, which know where lesions tend to be; and seconds for a scan. Scores are those of one task.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from finetune.config import OURS
from finetune.explain.images import readers_of
from finetune.explain.images.explainers import EXPLAINERS
from finetune.explain.images.explainers.integrated import STEPS, integrated_gradients
from finetune.explain.images.guards import agreement
from finetune.explain.images.scan import Scan
from finetune.explain.networks import ExplainedNetwork
from finetune.kept_predictor import KeptPredictor
from finetune.predictor import ADAPTER, Predictor
from foundation.cohort.imaging import standardise
from foundation.cohort.manifest import ImageEntry
from foundation.cohort.sources.base import Volume
from foundation.cohort.spec import ImageRecipe
from foundation.cohort.store import PreparedCohort
from foundation.files.whole import write_json
from foundation.model.seen_patients import SeenPatients

WANTED = 3.0
"""Times the lesion's share of the tissue."""

SEED, DRAWS = 0, 2000

Networks = Mapping[str, ExplainedNetwork]


def on_grid(mask: Path, affine: np.ndarray, entry: ImageEntry) -> np.ndarray:
    """Bool [*shape], which voxels of a prepared scan lie in a mask on the grid of the source scan.

    Through both affines; where the cohort distrusts those of its scans, the mask is prepared as they were.
    """
    image: Any = nib.load(mask)  # type: ignore[attr-defined]
    shape = tuple(entry.shape)
    if not np.isfinite(affine).all():
        return _prepared(Volume(np.asarray(image.dataobj, dtype=np.float32), image.affine), entry) >= 0.5
    lesion = np.asarray(image.dataobj) > 0
    voxels = np.stack([*np.indices(shape), np.ones(shape)], axis=-1)
    at = (voxels @ (np.linalg.inv(image.affine) @ affine).T)[..., :3].round().astype(int)
    inside = ((at >= 0) & (at < lesion.shape)).all(axis=-1)
    found = np.zeros(shape, dtype=bool)
    found[inside] = lesion[tuple(at[inside].T)]
    return found


def _prepared(mask: Volume, entry: ImageEntry) -> np.ndarray:
    """A mask of 0 and 1 on the grid of a modality."""
    if entry.crop_foreground:
        raise SystemExit("scans were cropped to their own foreground, and do not say where they lie")
    recipe = ImageRecipe.model_validate(
        {
            "kind": "image",
            "channels": ["mask"],
            "source": {"format": "nifti", "files": "{patient}"},
            "orientation": entry.orientation,
            "spacing": "untrue",
            "size": entry.shape,
            "stretch": entry.stretch,
            "background": 0.0,
        }
    )
    mask.voxels = (mask.voxels > 0).astype(np.float32)
    return standardise({"mask": mask}, recipe).voxels[0]


def measure(scan: Scan, disorder: Networks, lesion_XYZ: np.ndarray, used: list[int], names: list[str]) -> dict:
    """Explainer to its numbers [S'] for one scan, and the sizes of its map as shares [S', *grid]."""
    cells = scan.cells
    chance = lesion_XYZ[scan.foreground_XYZ.numpy()].mean()
    share_G = share_of(scan, lesion_XYZ)
    other = Scan(disorder, scan.name, scan.row)
    found, against = {}, None
    for name in names:
        began = time.perf_counter()
        map_SG = (EXPLAINERS[name](scan) * scan.tissue_G)[used]
        seconds = time.perf_counter() - began
        against = map_SG if against is None and name == "occlusion" else against
        size_SG = sizes(map_SG)
        peak = [np.unravel_index(int(of.argmax()), cells.grid) for of in size_SG]
        middle = [tuple(int(c[i]) for c, i in zip(cells.center, at, strict=True)) for at in peak]
        in_disorder_SG = sizes((_fast(name)(other) * other.tissue_G)[used])
        found[name] = {
            "agreement": np.full(len(used), np.nan)
            if against is None
            else np.array(
                [
                    agreement(a[scan.tissue_G].numpy(), b[scan.tissue_G].numpy())
                    for a, b in zip(map_SG, against, strict=True)
                ]
            ),
            "pointed": np.array([lesion_XYZ[at] for at in middle], dtype=float),
            "middle": np.array(middle),
            "inside": (size_SG * share_G).flatten(1).sum(dim=1).numpy(),
            "inside_in_disorder": (in_disorder_SG * share_G).flatten(1).sum(dim=1).numpy(),
            "size": size_SG.numpy(),
            "chance": np.full(len(used), chance),
            "seconds": np.full(len(used), seconds),
        }
    return found


def _fast(name: str) -> Callable[[Scan], torch.Tensor]:
    """An explainer for a map of which little is asked: with the fewest steps."""
    explain = EXPLAINERS[name]
    return partial(integrated_gradients, steps=STEPS[:1]) if explain is integrated_gradients else explain


def sizes(map_SG: torch.Tensor) -> torch.Tensor:
    """[S, *grid] absolute values that add up to 1."""
    size_SG = map_SG.abs()
    return size_SG / size_SG.flatten(1).sum(dim=1).clamp(min=1e-12).view(-1, *[1] * (map_SG.ndim - 1))


def share_of(scan: Scan, lesion_XYZ: np.ndarray) -> torch.Tensor:
    """[*grid] the lesion's share of the tissue of each cell, as all that a map says of a cell is about its tissue."""
    tissue_G = scan.cells.sums(scan.foreground_XYZ.double())
    both = torch.from_numpy(lesion_XYZ) & scan.foreground_XYZ
    return scan.cells.sums(both.double()) / tissue_G.clamp(min=1)


def ratio_of(found: np.ndarray, against: np.ndarray, drawn: np.ndarray) -> tuple[float, list[float]]:
    """A mean [N] over that of what is expected [N], with an interval over patients drawn again [D, N]."""
    ratios = found[drawn].mean(axis=1) / against[drawn].mean(axis=1)
    return float(found.mean() / against.mean()), np.percentile(ratios, [2.5, 97.5]).tolist()


def summed_up(of: dict[str, np.ndarray], lesions: list[np.ndarray], shares: np.ndarray) -> dict[str, Any]:
    """The numbers of one explainer over all scans.

    Args:
        of: Name to [N, S'], or more axes.
        lesions: N masks.
        shares: [N, *grid] of lesions.
    """
    middle_NS3, size_NSG = of.pop("middle"), of.pop("size")
    count = len(lesions)
    of["pointed_by_others"] = np.array(
        [lesion[tuple(np.delete(middle_NS3, n, axis=0).reshape(-1, 3).T)].mean() for n, lesion in enumerate(lesions)]
    )
    # A map's cells times another's lesion, [N maps, N lesions]; without the own ones.
    inside_NN = size_NSG.mean(axis=1).reshape(count, -1) @ shares.reshape(count, -1).T
    of["inside_by_others"] = (inside_NN.sum(axis=0) - inside_NN.diagonal()) / (count - 1)
    by_patient = {key: value if value.ndim == 1 else value.mean(axis=1) for key, value in of.items()}
    drawn = np.random.default_rng(SEED).integers(count, size=(DRAWS, count))
    found: dict[str, Any] = {key: float(np.nanmean(value)) for key, value in by_patient.items()}
    for key, value, against in (
        ("times_chance", "pointed", "chance"),
        ("inside_times_chance", "inside", "chance"),
        ("inside_times_disorder", "inside", "inside_in_disorder"),
        ("inside_times_others", "inside", "inside_by_others"),
    ):
        found[key], found[f"{key}_ci95"] = ratio_of(by_patient[value], by_patient[against], drawn)
    found["inside_ci95"] = np.percentile(by_patient["inside"][drawn].mean(axis=1), [2.5, 97.5]).tolist()
    found["more_than_chance"] = int((by_patient["inside"] > by_patient["chance"]).sum())
    return found


def main() -> None:
    """Measure and print a table."""
    asked = arguments()
    cohort = PreparedCohort(asked.cohort)
    names = [name for name in EXPLAINERS if name in asked.explainers]
    parts: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in names}
    lesions, shares, done = [], [], set()
    entry = cohort.image(asked.modality)
    for run in asked.runs:
        networks = networks_of(run, cohort, asked)
        disorder = {key: network.randomised(SEED) for key, network in networks.items()}
        for row in rows_of(run, cohort, asked):
            mask = asked.masks / asked.files.format(patient=cohort.patients[row])
            if row in done or not mask.is_file() or len(done) >= asked.patients:
                continue
            scan = Scan(networks, asked.modality, row)
            lesion_XYZ = on_grid(mask, cohort.affine_N44(asked.modality, [row])[0], entry)
            if not (lesion_XYZ & scan.foreground_XYZ.numpy()).any():
                print(f"{cohort.patients[row]}: nothing of the mask lies in tissue", flush=True)
                continue
            done.add(row)
            lesions.append(lesion_XYZ)
            shares.append(share_of(scan, lesion_XYZ).numpy())
            used = [s for s, score in enumerate(scan.scores) if score.task == asked.task]
            for name, numbers in measure(scan, disorder, lesion_XYZ, used, names).items():
                for key, value in numbers.items():
                    parts[name].setdefault(key, []).append(value)
    found = {}
    for name, numbers in parts.items():
        found[name] = summed_up({k: np.stack(v) for k, v in numbers.items()}, lesions, np.stack(shares))
        print(name, {key: np.round(value, 3).tolist() for key, value in found[name].items()}, flush=True)
    best = max(found, key=lambda name: found[name]["times_chance"])
    ratio = found[best]["times_chance"]
    verdict = "as" if ratio >= WANTED else "NOT as"
    print(f"{len(done)} patients; best {best}: {ratio:.2f} x, {verdict} wanted (at least {WANTED} x)")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    what = {"patients": len(done), "task": asked.task, "new": asked.new, "adapted": asked.adapted}
    write_json(asked.out, {**what, "explainers": found})


def networks_of(run: Path, cohort: PreparedCohort, asked: argparse.Namespace) -> dict[str, ExplainedNetwork]:
    """Networks of a run that read scans: those that are kept, in their shares, or the adapted one alone."""
    kept = KeptPredictor.read(run)
    if asked.adapted:
        weights = {task: {OURS: 1.0} for task in kept.tasks}
        kept = replace(kept, weights=weights, networks={OURS: Predictor.read(run)}, linear={})
    found = readers_of(kept, cohort).get(asked.modality)
    if not found:
        raise SystemExit(f"{run} keeps no network that reads {asked.modality}; ask for the adapted one with --adapted")
    return found


def rows_of(run: Path, cohort: PreparedCohort, asked: argparse.Namespace) -> list[int]:
    """Records that have a scan, and where asked whose patient the run was not fine-tuned on."""
    here = cohort.present_NM[:, cohort.modalities.index(asked.modality)].copy()
    seen = SeenPatients.read(run / ADAPTER) if asked.new else None
    if asked.new and seen is None:
        raise SystemExit(f"{run} does not say whom it was fine-tuned on")
    if seen is not None:
        here &= ~seen.among(cohort.patients)
    return np.flatnonzero(here).tolist()


def arguments() -> argparse.Namespace:
    """What was asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", help="fine-tuning runs that ended with `final: true`")
    parser.add_argument("cohort", type=Path, help="prepared cohort")
    parser.add_argument("masks", type=Path, help="folder of masks, such as `truth` of a simulated cohort")
    parser.add_argument("--files", default="lesion_masks/{patient}.nii.gz", help="mask of a patient in that folder")
    parser.add_argument("--new", action="store_true", help="only patients whom a run was not fine-tuned on")
    parser.add_argument("--adapted", action="store_true", help="the adapted network alone, kept or not")
    parser.add_argument("--explainers", nargs="+", choices=[*EXPLAINERS], default=[*EXPLAINERS])
    parser.add_argument("--modality", default="mri")
    parser.add_argument("--task", default="subtype", help="whose outcome the lesion drives")
    parser.add_argument("--patients", type=int, default=24)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    return parser.parse_args()


if __name__ == "__main__":
    main()
