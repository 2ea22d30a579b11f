"""The config of a pretraining run: every key of its YAML."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

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
from foundation.urls import is_url
from pretrain.split import HeldOut
from pretrain.tracking import Wandb

DECIDES_NOTHING = {
    "cohort",
    "out",
    "cache",
    "workers",
    "evaluate_every",
    "checkpoint_every",
    "keep_checkpoints",
    "wandb",
    "activation_checkpointing",
    "compile",
}
"""Keys that may change between the start of a run and its resumption."""

AnyTower = towers.configs()
AnyFusion = fusions.configs()
AnyObjective = objectives.configs()


class Weighted(Config):
    """An objective and how much it counts."""

    weight: float = Field(default=1.0, gt=0)
    loss: AnyObjective  # type: ignore[valid-type]


class PretrainConfig(Config):
    """A pretraining run."""

    cohort: Place = Field(description="Folder of a prepared cohort, or a URL that it was copied to.")
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
    workers: int = Field(default=0, ge=0, description="Processes that load batches.")
    log_every: int = Field(
        default=1, ge=1, description="Steps between rows of metrics.jsonl; nothing is fetched from a GPU in between."
    )
    evaluate_every: int = Field(default=0, ge=0, description="Steps between evaluations; 0 evaluates at the end only.")
    checkpoint_every: int = Field(default=100, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(default=2, ge=1)
    stop_after_bad_steps: int = Field(default=3, ge=1, description="Non-finite steps in a row that end the run.")
    permutations: int = Field(default=1000, ge=100, description="For the p-value of retrieval.")

    wandb: Wandb | None = None

    @model_validator(mode="before")
    @classmethod
    def _blocks_from_afar(cls, data: Any) -> Any:
        afar = isinstance(data, dict) and is_url(data.get("cohort"))
        return {"order": {"shuffle": "blocks"}, **data} if afar else data

    @model_validator(mode="after")
    def _sizes_agree(self) -> PretrainConfig:
        if self.chunk_size is not None and self.chunk_size > self.batch_size:
            raise ValueError("chunk_size is larger than batch_size")
        return self

    @property
    def samples_per_step(self) -> int:
        """Records that one step of the optimiser learns from."""
        return self.batch_size * self.accumulate

    def document(self) -> dict[str, Any]:
        """What decides the result: everything but where things are, how fast it goes, and how often it reports."""
        # The training patients are told apart by themselves, wherever the file is that names the others.
        exclude = {**dict.fromkeys(DECIDES_NOTHING, True), "held_out": {"patients"}}
        return self.model_dump(mode="json", exclude=exclude)
