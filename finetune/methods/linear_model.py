"""A fitted linear baseline of one endpoint: it predicts any prepared cohort, and is a folder of JSON and tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from finetune.methods.image_features import ImageFeatures
from finetune.methods.linear_parts import Part, PartDocument
from finetune.methods.sealed import Sealed
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import align_part
from foundation.files.hashing import sha256_of
from foundation.files.whole import replacing
from foundation.wording import counted, listed

EVERYBODY = ""
"""The part that speaks for all groups, where none has one of its own; also the name of patients without a group."""


OTHERS = "of no group"
"""Where the file names the group of each part: that of `LinearModel.others`, which comes last."""

DOCUMENT = "model.json"
TENSORS = "model.safetensors"


class Document(Sealed):
    """model.json; of the attributes of `LinearModel`, all that are no arrays."""

    format_version: Literal[1] = 1
    baseline: str
    endpoint: str
    declared: dict[str, Any]
    modalities: tuple[str, ...]
    parts: list[PartDocument]


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A fitted linear baseline.

    Attributes:
        baseline: Its name.
        endpoint: What it predicts.
        declared: Of the endpoint, its ``kind``, and the names of its ``classes`` and ``causes`` where it has some.
        modalities: That the baseline may read; those that training had are in the parts.
        parts: By group for survival, of which only patients of one group are compared; else `EVERYBODY` alone.
        others: For survival, what is said of groups that training did not have: no risk, and the baseline hazards of
            all training patients together.
    """

    baseline: str
    endpoint: str
    declared: Mapping[str, Any]
    modalities: tuple[str, ...]
    parts: Mapping[str, Part]
    others: Part = field(default_factory=Part)

    @property
    def endings(self) -> list[str]:
        """Of columns: of each kind of event where there are several, else one that is empty."""
        return [f"/{cause}" for cause in self.declared.get("causes", ())] or [""]

    def predict(
        self,
        cohort: PreparedCohort,
        rows: np.ndarray,
        images: ImageFeatures | None = None,
        times: Sequence[float] = (),
    ) -> dict[str, np.ndarray]:
        """Predict records of any prepared cohort; channels and features are matched by name.

        Args:
            cohort: The prepared cohort.
            rows: Of the cohort.
            images: Of the cohort; who holds on to it reads each image once.
            times: For survival, at which the probability of being free of any event is told too.

        Returns:
            For survival ``risk`` [N], or ``risk/CAUSE`` for each cause where there are several, 0 for patients of whose
            group nothing was learned, and ``survival_probability/TIME`` [N]; for classes ``probability`` [N, K] in
            the order of their codes; for a number ``value`` [N].

        Raises:
            DataError: The cohort was prepared otherwise than the training cohort or shares too little with it, or a
                record is damaged.
        """
        images = images or ImageFeatures(cohort)
        if self.declared["kind"] != "survival":
            part = self.parts[EVERYBODY]
            assert part.inputs is not None
            x_ND = part.inputs.read(cohort, rows, images)
            return {k + ending: v for ending, fitted in part.fitted.items() for k, v in fitted(x_ND).items()}
        risk = {ending: np.zeros(len(rows)) for ending in self.endings}
        hazard_NT = np.zeros((len(rows), len(times)))
        for part, here in self.by_part(cohort, rows):
            if part.inputs is not None:
                x_ND = part.inputs.read(cohort, rows[here], images)
                for ending, fitted in part.fitted.items():
                    risk[ending][here] = fitted(x_ND)["risk"]
            for ending, hazard in part.hazards.items():
                hazard_NT[here] += np.exp(risk[ending][here, None]) * hazard.at(np.asarray(times))
        columns = {f"risk{ending}": risk_N for ending, risk_N in risk.items()}
        free_NT = np.exp(-hazard_NT)
        return columns | {f"survival_probability/{at:g}": free_NT[:, t] for t, at in enumerate(times)}

    def sentences(self, cohort: PreparedCohort, rows: np.ndarray) -> list[str]:
        """What this model and a cohort do not share, and what follows, to be shown to whoever predicts with it.

        Raises:
            DataError: The cohort was prepared otherwise than the training cohort, or shares too little with it.
        """
        parts = list(self.by_part(cohort, rows))
        told = [
            sentence
            for part, _ in parts
            if part.inputs is not None and part.inputs.preprocessing is not None
            for sentence in align_part(part.inputs.preprocessing, cohort).only(self.modalities).matched()
        ]
        for ending in self.endings:
            alike = [here for part, here in parts if ending not in part.fitted]
            if alike:
                here = np.concatenate(alike)
                groups = listed([f"'{group}'" for group in np.unique(cohort.groups[rows[here]].astype(str))])
                told.append(
                    f"'{self.endpoint}{ending}': {counted(len(here), 'record')} of {groups} have equal risks: the "
                    "model was trained on too few events of such patients, or on none."
                )
        return list(dict.fromkeys(told))

    def by_part(self, cohort: PreparedCohort, rows: np.ndarray) -> Iterator[tuple[Part, np.ndarray]]:
        """Each part that speaks for some of the rows, and the positions of those among them."""
        groups_N = cohort.groups[rows].astype(str)
        if set(self.parts) == {EVERYBODY}:
            groups_N = np.full(len(rows), EVERYBODY)  # Training knew of no groups, so it speaks for any.
        for group in np.unique(groups_N):
            yield self.parts.get(group, self.others), np.flatnonzero(groups_N == group)

    def write(self, folder: Path) -> None:
        """Write the model as a folder, which appears only when it is whole; no patient is named in it.

        Args:
            folder: To write, or to replace.
        """
        from safetensors.numpy import save_file

        named = [*self.parts.items(), (OTHERS, self.others)]
        with replacing(folder) as partial:
            arrays = {f"{n}.{name}": v for n, (_, part) in enumerate(named) for name, v in part.state().items()}
            save_file(arrays, partial / TENSORS)
            document = Document(
                baseline=self.baseline,
                endpoint=self.endpoint,
                declared=dict(self.declared),
                modalities=self.modalities,
                parts=[part.document(group) for group, part in named],
                tensors=sha256_of(partial / TENSORS),
            )
            document.write(partial / DOCUMENT)

    @classmethod
    def read(cls, folder: Path) -> LinearModel:
        """Read a folder that `write` wrote; what it predicts is the same to the last bit.

        Raises:
            CheckpointError: A file is missing or damaged, or of another version.
        """
        from safetensors.numpy import load_file

        document = Document.read(
            folder / DOCUMENT,
            folder / TENSORS,
            of="a linear model",
            fix="name the folder of a linear model in a fine-tuning run",
        )
        # Copied: in the file arrays lie at any address, and sums over memory that is not aligned are rounded otherwise.
        arrays = {name: np.array(array) for name, array in load_file(folder / TENSORS).items()}
        parts = []
        for n, one in enumerate(document.parts):
            state = {name.removeprefix(f"{n}."): v for name, v in arrays.items() if name.startswith(f"{n}.")}
            parts.append(Part.of(one, state, document.declared["kind"]))
        groups = [one.group for one in document.parts]
        return cls(
            document.baseline,
            document.endpoint,
            document.declared,
            document.modalities,
            dict(zip(groups[:-1], parts[:-1], strict=True)),
            parts[-1],
        )
