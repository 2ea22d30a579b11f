"""Attributions on disk: a folder of parquet files, one for each batch, so that a run that was stopped goes on.

A row is one record and one score; each omics modality is a column of lists, in the order of features.tsv, null where
the record lacks the modality and NaN where a feature was not observed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from finetune.explain.attribution import Attributed, Explainer
from finetune.explain.methods import Columns, Score
from foundation.progress import Progress, Silent

FOLDER, FEATURES = "attributions", "features.tsv"


def write_parts(
    explainer: Explainer,
    rows: np.ndarray,
    labels: Sequence[str],
    spread_S: np.ndarray,
    folder: Path,
    progress: Progress | None = None,
) -> None:
    """Attribute records and write them, batch by batch; what is there already is left as it is.

    Args:
        explainer: Of the cohort.
        rows: Records.
        labels: [N] what each is called.
        spread_S: Of each score over patients.
        folder: To write to.
        progress: Told of records.
    """
    progress = progress or Silent()
    folder.mkdir(parents=True, exist_ok=True)
    _write_features(explainer.columns, folder.parent / FEATURES)
    progress.start("explaining", len(rows), "records")
    start = 0
    for number, part in enumerate(explainer.split(rows)):
        path = folder / f"part-{number:05d}.parquet"
        if not path.is_file():
            attributed = explainer.attribute(part, explainer.read(part), spread_S)
            table = _table(explainer, attributed, labels[start : start + len(part)])
            partial = path.with_suffix(".partial")
            pq.write_table(table, partial)
            partial.replace(path)
        start += len(part)
        progress.advance(len(part))
    progress.finish()


def read_parts(explainer: Explainer, folder: Path) -> Iterator[Attributed]:
    """The batches that `write_parts` wrote, in their order; 0 where not observed."""
    count = len(explainer.scores)
    for path in sorted(folder.glob("part-*.parquet")):
        table = pq.read_table(path)
        rows = table["row"].to_numpy().reshape(-1, count)[:, 0]
        found = np.zeros((table.num_rows, len(explainer.columns)), dtype=np.float32)
        for name, at in explainer.columns.slices().items():
            column = table[name].combine_chunks()
            here = ~np.asarray(column.is_null())
            found[here, at] = np.nan_to_num(np.asarray(column.flatten())).reshape(-1, at.stop - at.start)
        value, baseline, error = (
            table[name].to_numpy().reshape(-1, count) for name in ("value", "baseline", "completeness_error")
        )
        steps = int(table["steps"][0].as_py())
        yield Attributed(rows, found.reshape(len(rows), count, len(explainer.columns)), value, baseline, error, steps)


def _table(explainer: Explainer, attributed: Attributed, labels: Sequence[str]) -> pa.Table:
    scores, rows = explainer.scores, attributed.rows
    observed_BP = ~np.isnan(explainer.columns.values(rows))
    told_BSP = np.where(observed_BP[:, None], attributed.attribution_BSP, np.float32(np.nan))
    columns = {
        "patient": pa.array(np.repeat(np.asarray(labels, dtype=str), len(scores))),
        "row": pa.array(np.repeat(rows, len(scores))),
        "task": pa.array([score.task for score in scores] * len(rows)),
        "score": pa.array([score.name for score in scores] * len(rows)),
        "value": pa.array(attributed.score_BS.reshape(-1)),
        "baseline": pa.array(attributed.baseline_BS.reshape(-1)),
        "completeness_error": pa.array(attributed.error_BS.reshape(-1)),
        "steps": pa.array(np.full(len(rows) * len(scores), attributed.steps)),
    }
    for name, at in explainer.columns.slices().items():
        present = np.repeat(observed_BP[:, at].any(axis=1), len(scores))
        values = told_BSP[:, :, at].reshape(len(present), -1)
        lengths = np.where(present, values.shape[1], 0)
        offsets = pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int64())
        columns[name] = pa.LargeListArray.from_arrays(
            offsets, pa.array(values[present].reshape(-1)), mask=pa.array(~present)
        )
    return pa.table(columns)


def _write_features(columns: Columns, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["modality", "position", "feature"])
        for name, at in columns.slices().items():
            writer.writerows([name, place, columns.names[at.start + place]] for place in range(at.stop - at.start))


def name_of(score: Score) -> str:
    """A score in a file's name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in f"{score.task}-{score.name}")
