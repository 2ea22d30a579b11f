"""`chiasma embed`: a prepared cohort through a model folder, into a table of embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import align
from foundation.data.dataset import CohortDataset
from foundation.data.preprocessing import Preprocessing
from foundation.files.hashing import sha256_of
from foundation.files.parts import write_table
from foundation.model import model_folder
from foundation.model.embedding import embed as embed_records
from foundation.model.multimodal import MultimodalModel
from foundation.model.view import FUSED, View
from foundation.progress import Progress, Silent, Within
from foundation.training.parallel.base import usable_device
from foundation.wording import counted


@dataclass(frozen=True)
class Embedder:
    """A model that embeds cohorts.

    Attributes:
        model: On its device.
        preprocessing: What a cohort must agree with.
    """

    model: MultimodalModel
    preprocessing: Preprocessing

    @classmethod
    def open(cls, folder: Path) -> Embedder:
        """Read a model folder; see `model_folder.read`."""
        model, preprocessing = model_folder.read(folder)
        return cls(model.to(usable_device()), preprocessing)  # type: ignore[arg-type]

    def table(
        self, cohort: PreparedCohort, rows: np.ndarray | None = None, progress: Progress | None = None
    ) -> pd.DataFrame:
        """Embeddings of records of a cohort, one row each.

        Args:
            cohort: A prepared cohort.
            rows: Of it; all by default.
            progress: Told of records.

        Returns:
            ``patient``, ``time_point``; ``modalities`` that the model reads of the record, as ``mri+rna``; and
            ``embedding`` of all of them fused: D numbers of length 1, or none where nothing is read.

        Raises:
            DataError: The cohort was prepared otherwise, or shares too little with what the model knows; or a record is
                damaged.
        """
        rows = np.arange(len(cohort)) if rows is None else rows
        aligned = align(self.preprocessing, cohort)
        # No record may stand for another one here, as it may in training.
        data = CohortDataset(aligned, stop_above=0.0)
        z_ND = embed_records(self.model, data, rows, {FUSED: View(FUSED)}, progress=progress).z[FUSED]
        present_NM, _ = aligned.presence(rows)
        names, has_N = np.array(aligned.modalities, dtype=object), np.logical_or.reduce(present_NM, axis=1).tolist()
        return pd.DataFrame(
            {
                "patient": cohort.patients[rows].astype(str),
                "time_point": cohort.time_points[rows].astype(str),
                "modalities": ["+".join(names[here_M]) for here_M in present_NM],
                "embedding": [z_ND[n].numpy(force=True) if has_N[n] else [] for n in range(len(rows))],
            }
        )

    def sentences(self, cohort: PreparedCohort) -> list[str]:
        """What a cohort and the model do not share, and who has nothing to embed."""
        aligned = align(self.preprocessing, cohort)
        present_NM, _ = aligned.presence(np.arange(len(cohort)))
        nothing = int((~np.logical_or.reduce(present_NM, axis=1)).sum())
        lacking = f"{counted(nothing, 'record')} cannot be embedded: nothing that the model reads is there."
        return aligned.sentences() + ([lacking] if nothing else [])


def embed(folder: Path, cohort: Path | str, out: Path, progress: Progress | None = None) -> list[str]:
    """Embed every record of a cohort, into a Parquet file as `Embedder.table` has it; stopped, the next call goes on.

    Args:
        folder: Of a model.
        cohort: Folder or URL of a prepared cohort.
        out: The file.
        progress: Told of records.

    Returns:
        Sentences for whoever embeds: see `Embedder.sentences`.

    Raises:
        CheckpointError: The model folder is damaged.
        DataError: As of `Embedder.table`, or the cohort is damaged.
        ConfigError: Something else is at `out`.
    """
    embedder, prepared, told = Embedder.open(folder), PreparedCohort(cohort), progress or Silent()
    prepared.verify(told)
    sentences = embedder.sentences(prepared)
    identity = {"cohort": prepared.hash, "model": sha256_of(folder / "model.safetensors")}

    def part(rows: np.ndarray) -> pd.DataFrame:
        return embedder.table(prepared, rows, Within(told))

    told.start("embedding", len(prepared), "records")
    write_table(out, np.arange(len(prepared)), part, identity, doing="is being embedded", skipped=told.advance)
    told.finish()
    return sentences
