"""What a model card is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.publish.bases import Base
from finetune.report.answer import Entry
from foundation.cohort.manifest import Manifest
from foundation.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Facts:
    """What a card is made of.

    Attributes:
        name: Of the model.
        licence: SPDX identifier.
        metrics: Content of the run's metrics.json.
        preprocessing: Of everything that is read.
        methods: Task to the methods that predict, in words.
        novelty: Unit to the document of `Validity`.
        level: Share of patients whose outcome sets and bounds should hold.
        settings: Content of adapter.json.
        stands_on: What the model was made of.
        cohort: Of the run; None where another one was searched for names.
        about: What whoever publishes has written; see `finetune.publish.checklist`.
    """

    name: str
    licence: str
    metrics: Entry
    preprocessing: Preprocessing
    methods: Mapping[str, str]
    novelty: Mapping[str, Mapping[str, Any]]
    level: float
    settings: Mapping[str, Any]
    stands_on: Sequence[Base]
    cohort: Manifest | None
    about: Mapping[str, str]
