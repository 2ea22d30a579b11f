"""The config of a pretraining run: every key of its YAML."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from foundation.cohort.united import EqualNames
from foundation.config import Config, Place, YamlPath
from foundation.data.augment import Augmentation
from foundation.data.modality_dropout import ModalityDropout
from foundation.data.order import OrderConfig
from foundation.data.scaling import PreprocessingConfig
from foundation.files.cache import CacheConfig
from foundation.model.fusion.base import fusions
from foundation.model.towers.base import towers
from foundation.objectives.base import objectives
from foundation.training.optimiser import OptimiserConfig
from foundation.training.parallel.strategies import STRATEGIES, Strategy
from foundation.urls import is_url
from pretrain.split import HeldOut
from pretrain.tracking import Wandb

DECIDES_NOTHING = {
    "cohort",
    "out",
    "cache",
    "workers",
    "hang_after",
    "evaluate_every",
    "probes",
    "checkpoint_every",
    "keep_checkpoints",
    "wandb",
    "activation_checkpointing",
    "compile",
    "strategy",
}
"""Keys that may change between the start of a run and its resumption."""

AnyTower = towers.configs()
AnyFusion = fusions.configs()
AnyObjective = objectives.configs()


class Weighted(Config):
    """An objective and how much it counts."""

    weight: float = Field(default=1.0, gt=0)
    loss: AnyObjective  # type: ignore[valid-type]


class CohortPart(Config):
    """One of several cohorts."""

    path: Place = Field(description="Folder of a prepared cohort, or a URL that it was copied to.")
    weight: float = Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        description="How often its records are drawn, against those of a cohort with weight 1; with `pairs`, pairs are "
        "weighed against pairs and others against others.",
    )
    name: str | None = Field(default=None, min_length=1, description="What it is called; by default as its YAML does.")


class PretrainConfig(Config):
    """A pretraining run."""

    cohort: Place | None = Field(
        default=None, description="Folder of a prepared cohort, or a URL that it was copied to."
    )
    cohorts: list[CohortPart] | None = Field(
        default=None, min_length=1, description="Several, in place of `cohort`: one with pairs, one with scans alone …"
    )
    pairs: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of every batch that are records with both sides of a contrast, with an image on one side "
        "where there are images; null draws every record equally often, but for the weights of cohorts.",
    )
    equal_names: EqualNames | None = Field(
        default=None,
        description="What the same name of a patient in two cohorts means: `same_patient`, who is then held out from "
        "both or from neither, or `different_patients`; needed where there is one.",
    )
    out: YamlPath = Field(description="Run folder.")
    cache: CacheConfig = CacheConfig()
    order: OrderConfig = OrderConfig(shuffle="full")
    seed: int = Field(default=0, ge=0)
    held_out: HeldOut = HeldOut()
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    towers: dict[str, AnyTower] = Field(min_length=1)  # type: ignore[valid-type]
    fusion: AnyFusion  # type: ignore[valid-type]
    width: int = Field(default=128, gt=0, description="Of the shared space.")
    objectives: dict[str, Weighted] = Field(min_length=1)
    init: Literal["cohort", "random"] = Field(
        default="cohort",
        description="Initial weights of omics and projections: from factors that training patients share, or random.",
    )
    factors: int = Field(
        default=16,
        ge=1,
        description="Of `init: cohort`. Few hold what modalities share, and scans learn to meet them sooner; as many "
        "as a tower is wide hold also what one omics alone knows.",
    )
    dropout: ModalityDropout = ModalityDropout()
    augmentation: Augmentation | None = None
    epochs: float = Field(default=30, gt=0, description="Passes over the training patients.")
    batch_size: int = Field(default=64, ge=2)
    chunk_size: int | None = Field(
        default=None, ge=1, description="Embed a batch in chunks of this size: same gradients, less memory."
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        description="Batches whose mean gradient makes one step. Each is a contrast of its own, among batch_size "
        "records; the exact way to a large contrast in little memory is a large batch_size with chunk_size.",
    )
    optimiser: OptimiserConfig = OptimiserConfig()
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Decay of a moving average of the weights, such as 0.999, which is then what is evaluated and "
        "written to model/; null keeps the weights as they are.",
    )
    activation_checkpointing: bool = Field(
        default=False, description="Compute activations again in the backward pass: less memory, same result, slower."
    )
    compile: bool = Field(
        default=False, description="Compile the blocks of every tower with torch.compile; differs by rounding alone."
    )
    precision: Literal["float32", "bfloat16"] = "float32"
    strategy: Strategy = Field(
        default="ddp",
        description="How several processes share the work: ddp, every one holds all; fsdp or zero3, parameters, "
        "gradients and moments dealt out; zero2, gradients and moments. The result is the same.",
    )
    workers: int = Field(default=0, ge=0, description="Processes that load batches.")
    log_every: int = Field(
        default=1, ge=1, description="Steps between rows of metrics.jsonl; nothing is fetched from a GPU in between."
    )
    evaluate_every: int = Field(default=0, ge=0, description="Steps between evaluations; 0 evaluates at the end only.")
    probes: bool = Field(
        default=True,
        description="Measure what linear models read from the embeddings, before training and at the end: endpoints, "
        "and the site. It embeds all training patients.",
    )
    checkpoint_every: int = Field(default=100, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(default=2, ge=1)
    stop_after_bad_steps: int = Field(default=3, ge=1, description="Non-finite steps in a row that end the run.")
    hang_after: float = Field(
        default=900,
        gt=0,
        le=1700,
        description="Seconds without a step after which each process writes where it stands, and the run ends.",
    )
    permutations: int = Field(default=1000, ge=100, description="For the p-value of retrieval.")

    wandb: Wandb | None = None

    @model_validator(mode="before")
    @classmethod
    def _blocks_from_afar(cls, data: Any) -> Any:
        several = data.get("cohorts") if isinstance(data, dict) else None
        paths = [part.get("path") for part in several if isinstance(part, dict)] if isinstance(several, list) else []
        afar = isinstance(data, dict) and any(map(is_url, [data.get("cohort"), *paths]))
        return {"order": {"shuffle": "blocks"}, **data} if afar else data

    @model_validator(mode="after")
    def _sizes_agree(self) -> PretrainConfig:
        if self.chunk_size is not None and self.chunk_size > self.batch_size:
            raise ValueError("chunk_size is larger than batch_size")
        for key in STRATEGIES[self.strategy].cannot:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"strategy {self.strategy} cannot do `{key}`; fsdp can, and deals out the same")
        return self

    @model_validator(mode="after")
    def _cohorts_in_one_way(self) -> PretrainConfig:
        if (self.cohort is None) == (self.cohorts is None):
            raise ValueError("give either `cohort`, the folder of one, or `cohorts`, a list with the `path` of each")
        return self

    @property
    def parts(self) -> list[CohortPart]:
        """The cohorts, however they were given."""
        return self.cohorts or [CohortPart(path=self.cohort)]  # type: ignore[arg-type]

    @property
    def samples_per_step(self) -> int:
        """Records that one step of the optimiser learns from."""
        return self.batch_size * self.accumulate

    def document(self) -> dict[str, Any]:
        """What decides the result: everything but where things are, how fast it goes, and how often it reports."""
        # The training patients are told apart by themselves, wherever the file is that names the others.
        of_several = ("cohorts", "equal_names", "pairs")
        exclude = {**dict.fromkeys((*DECIDES_NOTHING, *of_several), True), "held_out": {"patients"}}
        document = self.model_dump(mode="json", exclude=exclude)
        # Of one cohort they say nothing, so that a run may go on in which it is named the other way.
        weights = [part.model_dump(mode="json", exclude={"path"}) for part in self.parts]
        several = {"cohorts": weights, "equal_names": self.equal_names} if len(weights) > 1 else {}
        if self.pairs is not None:
            several["pairs"] = self.pairs
        return document | several
