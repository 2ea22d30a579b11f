"""How often outcomes of new patients are within the sets, intervals and bounds that a run tells, by what they have.

python benchmarks/study_coverage.py RUN COHORT: a fine-tuning run, and a prepared cohort, with outcomes, of patients who
did not teach it. Simulated ones: chiasma simulate NEW --patients 1000 --seed 1 --after 1000.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

FEWEST = 50
"""Patients of a pattern that is told by itself."""


def main() -> None:
    """Print a line for each outcome and pattern, and write them as JSON."""
    from finetune.predict import TRAINED_ON, Run
    from foundation.cohort.store import PreparedCohort
    from foundation.metrics.score import with_interval

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--level", type=float, default=0.9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    run, cohort = Run.open(arguments.run), PreparedCohort(arguments.cohort)
    table = run.table(cohort, level=arguments.level)
    new = ((table[TRAINED_ON] == "") & (table["modalities"] != "none")).to_numpy()
    patterns = [p for p, n in table["modalities"][new].value_counts().items() if n >= FEWEST]
    found: dict[str, Any] = {"level": arguments.level, "patients": int(new.sum()), "coverage": {}}
    for name, task in run.predictor.tasks.items():
        for one in task.uncertain():
            for pattern in ("all", *patterns):
                here = new & (np.ones(len(table), bool) if pattern == "all" else table["modalities"].eq(pattern))
                told = {
                    c.removeprefix(f"{name}/"): table[c].to_numpy()[here] for c in table if c.startswith(f"{name}/")
                }
                truth = {e: {p: v[here] for p, v in cohort.endpoint(e).items()} for e in task.endpoints}
                score = one.coverage(told, truth)
                if score is None:
                    continue
                share, bounds = with_interval(score, int(here.sum()), np.random.default_rng(0))
                found["coverage"][f"{name}{one.ending}: {pattern}"] = {"share": share, "ci95": bounds}
                low, high = (float("nan") if bound is None else bound for bound in bounds)
                patients = f"{int(here.sum()):,} patients"
                print(f"{name}{one.ending}, {pattern}: {share:.3f} [{low:.3f}, {high:.3f}] of {patients}")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
