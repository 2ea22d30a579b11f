"""Whether maps of scans show the lesion that a simulated outcome follows, and which explainer agrees with occlusion.

    python benchmarks/study_explanations_of_scans.py runs/demo demo/cohort demo/source/truth --out runs/scans.json

Takes a fine-tuning run, a simulated cohort that it did not see, and the truth that `chiasma simulate` wrote, where
every scanned patient has a mask of the lesion. For each explainer are printed: its rank correlation with occlusion over
cells with tissue; in what share of patients the voxel in the middle of its highest cell (sign aside) lies in the
lesion, against the lesion's share of the tissue, and against the highest cells of all other patients, which know where
lesions tend to be; how much of the map lies in the lesion, against its share; and seconds for a scan. Scores are those
whose outcomes were drawn from what the lesion is like.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from finetune.explain.images.explainers import EXPLAINERS
from finetune.explain.images.guards import agreement
from finetune.explain.images.scan import Scan
from finetune.explain.networks import network_methods
from finetune.kept_predictor import KeptPredictor
from foundation.cohort.store import PreparedCohort
from foundation.files.whole import write_json

WANTED = 3.0
"""Times the lesion's share of the tissue."""

SEED = 0


def on_grid(mask: Path, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bool [*shape], which voxels of a prepared scan lie in a mask on the grid of the source scan."""
    image: Any = nib.load(mask)  # type: ignore[attr-defined]
    lesion = np.asarray(image.dataobj) > 0
    voxels = np.stack([*np.indices(shape), np.ones(shape)], axis=-1)
    at = (voxels @ (np.linalg.inv(image.affine) @ affine).T)[..., :3].round().astype(int)
    inside = ((at >= 0) & (at < lesion.shape)).all(axis=-1)
    found = np.zeros(shape, dtype=bool)
    found[inside] = lesion[tuple(at[inside].T)]
    return found


def measure(scan: Scan, lesion_XYZ: np.ndarray, used: list[int]) -> dict[str, dict[str, np.ndarray]]:
    """Explainer to its numbers [S'] for one scan."""
    cells = scan.cells
    chance = lesion_XYZ[scan.foreground_XYZ.numpy()].mean()
    share_G = cells.sums(torch.from_numpy(lesion_XYZ).double()) / cells.sums(torch.ones(cells.shape).double())
    found, against = {}, None
    for name, explain in EXPLAINERS.items():
        began = time.perf_counter()
        map_SG = (explain(scan) * scan.tissue_G)[used]
        seconds = time.perf_counter() - began
        against = map_SG if against is None else against
        size_SG = map_SG.abs()
        peak = [np.unravel_index(int(of.argmax()), cells.grid) for of in size_SG]
        middle = [tuple(int(c[i]) for c, i in zip(cells.center, at, strict=True)) for at in peak]
        inside_S = (size_SG * share_G).flatten(1).sum(dim=1) / size_SG.flatten(1).sum(dim=1)
        found[name] = {
            "agreement": np.array(
                [
                    agreement(a[scan.tissue_G].numpy(), b[scan.tissue_G].numpy())
                    for a, b in zip(map_SG, against, strict=True)
                ]
            ),
            "pointed": np.array([lesion_XYZ[at] for at in middle], dtype=float),
            "middle": np.array(middle),
            "inside": inside_S.numpy(),
            "chance": np.full(len(used), chance),
            "seconds": np.full(len(used), seconds),
        }
    return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="fine-tuning run that ended with `final: true`")
    parser.add_argument("cohort", type=Path, help="prepared simulated cohort")
    parser.add_argument("truth", type=Path, help="folder `truth` of the simulated cohort")
    parser.add_argument("--modality", default="mri")
    parser.add_argument("--task", default="subtype", help="whose outcome the lesion drives")
    parser.add_argument("--patients", type=int, default=24)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    asked = parser.parse_args()
    cohort, kept = PreparedCohort(asked.cohort), KeptPredictor.read(asked.run)
    networks = network_methods(kept, cohort)
    rows = np.flatnonzero(cohort.present_NM[:, cohort.modalities.index(asked.modality)])[: asked.patients]
    parts: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in EXPLAINERS}
    affine_N44, lesions = cohort.affine_N44(asked.modality, rows), []
    for row, affine in zip(rows.tolist(), affine_N44, strict=True):
        scan = Scan(networks, asked.modality, row)
        mask = asked.truth / "lesion_masks" / f"{cohort.patients[row]}.nii.gz"
        lesion_XYZ = on_grid(mask, affine, scan.cells.shape)
        lesions.append(lesion_XYZ)
        used = [s for s, score in enumerate(scan.scores) if score.task == asked.task]
        for name, numbers in measure(scan, lesion_XYZ, used).items():
            for key, value in numbers.items():
                parts[name].setdefault(key, []).append(value)
    random, found = np.random.default_rng(SEED), {}
    for name, numbers in parts.items():
        of = {key: np.stack(values) for key, values in numbers.items()}
        middle_NS3 = of.pop("middle")
        of["pointed_by_others"] = np.array(
            [
                lesion[tuple(np.delete(middle_NS3, n, axis=0).reshape(-1, 3).T)].mean()
                for n, lesion in enumerate(lesions)
            ]
        )
        drawn = random.integers(len(rows), size=(2000, len(rows)))
        ratios = of["pointed"].mean(axis=1)[drawn].mean(axis=1) / of["chance"].mean(axis=1)[drawn].mean(axis=1)
        found[name] = {key: float(np.nanmean(value)) for key, value in of.items()}
        found[name]["times_chance"] = found[name]["pointed"] / found[name]["chance"]
        found[name]["times_chance_ci95"] = np.percentile(ratios, [2.5, 97.5]).tolist()
        found[name]["inside_times_chance"] = found[name]["inside"] / found[name]["chance"]
        print(name, {key: np.round(value, 3) for key, value in found[name].items()}, flush=True)
    best = max(found, key=lambda name: found[name]["times_chance"])
    ratio = found[best]["times_chance"]
    print(f"best {best}: {ratio:.2f} x, {'as' if ratio >= WANTED else 'NOT as'} wanted (at least {WANTED} x)")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(asked.out, {"patients": len(rows), "task": asked.task, "explainers": found})


if __name__ == "__main__":
    main()
