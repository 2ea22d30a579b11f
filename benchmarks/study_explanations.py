"""Whether explanations find the genes that a simulated outcome was drawn from.

    python benchmarks/study_explanations.py runs/explained demo/source/truth --out runs/explanations.json

Takes a folder that `chiasma explain` wrote of a simulated cohort, and the truth that `chiasma simulate` wrote. A
feature is causal for an endpoint where it follows a number of the latent that the endpoint was drawn from. Printed for
each score is how well the mean absolute attribution tells causal features from all others (AUROC), among all modalities
and within each; and, of endpoints that are weighted sums of the latent, the share of causal features of which more does
to the score what the simulation says.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from finetune.explain.methods import Score
from finetune.explain.parts import name_of
from foundation.files.whole import write_json
from foundation.simulation.outcomes import HAZARD, RESPONSE, SEIZURE, TOXICITY

DRIVERS: dict[str, dict[str, float]] = {
    "subtype": dict.fromkeys(("side", "depth", "brightness"), 0.0),
    "response": RESPONSE,
    "os": HAZARD,
    "toxicity": dict.fromkeys(next(iter(TOXICITY)), 0.0),
    "seizure": dict.fromkeys(next(iter(SEIZURE)), 0.0),
}
"""Endpoint to the latent numbers it is drawn from, and their weights in a score that is a weighted sum of them."""

WANTED = 0.8


def causal_features(truth: Path) -> pd.DataFrame:
    """Modality, feature, latent and weight of all that the simulation made follow the latent."""
    genes = pd.read_csv(truth / "causal_genes.tsv", sep="\t").rename(columns={"gene": "feature"})
    arms = pd.read_csv(truth / "causal_arms.tsv", sep="\t").rename(columns={"arm": "feature"})
    return pd.concat([genes, arms.assign(modality="cnv")], ignore_index=True)


def measure(table: pd.DataFrame, causal: pd.DataFrame, drivers: dict[str, float]) -> dict[str, Any]:
    """AUROC among all modalities and within each; and the share of causal features of the right direction."""
    known = table[table["modality"].isin(causal["modality"].unique())].copy()
    driving = causal[causal["latent"].isin(list(drivers))]
    pairs = set(zip(driving["modality"], driving["feature"], strict=True))
    known["causal"] = [pair in pairs for pair in zip(known["modality"], known["feature"], strict=True)]
    found: dict[str, Any] = {"causal": int(known["causal"].sum()), "features": len(known)}
    for name, part in [("all", known), *known.groupby("modality")]:
        if part["causal"].nunique() == 2:
            found[f"auroc/{name}"] = float(roc_auc_score(part["causal"], part["mean_absolute"]))
    if any(drivers.values()):
        # A feature may follow several numbers of the latent: its effect is the sum over them.
        effect = (driving["weight"] * driving["latent"].map(drivers)).groupby([driving["modality"], driving["feature"]])
        known = known[known["causal"]].set_index(["modality", "feature"])
        expected = np.sign(effect.sum()).reindex(known.index)
        found["right_direction"] = float((np.sign(known["association"]) == expected).mean())
    return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("explained", type=Path, help="folder that `chiasma explain` wrote")
    parser.add_argument("truth", type=Path, help="folder `truth` of the simulated cohort")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the result")
    asked = parser.parse_args()
    causal = causal_features(asked.truth)
    scores = pd.read_parquet(next((asked.explained / "attributions").glob("*.parquet")), columns=["task", "score"])
    found = {}
    for task, name in scores.drop_duplicates().itertuples(index=False):
        table = pd.read_csv(asked.explained / "genes" / f"{name_of(Score(task, name))}.features.tsv", sep="\t")
        found[f"{task}: {name}"] = measure(table, causal, DRIVERS[task])
        numbers = {key: round(value, 3) for key, value in found[f"{task}: {name}"].items()}
        print(f"{task}: {name}", numbers, flush=True)
    mean = float(np.mean([one["auroc/all"] for one in found.values()]))
    print(f"mean AUROC {mean:.3f}, {'as' if mean >= WANTED else 'NOT as'} wanted (at least {WANTED})")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(asked.out, {"scores": found, "mean_auroc": mean})


if __name__ == "__main__":
    main()
