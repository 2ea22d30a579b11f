"""The config of a fine-tuning run: every key of its YAML, and which keys go together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

import finetune.tasks  # noqa: F401  (registers every task)
import foundation.model.fusion
import foundation.model.towers  # noqa: F401  (registers every part)
from finetune.methods.modes import AdaptConfig, Frozen, Full, Lora, Scratch
from finetune.methods.reading import ALL, Kind
from finetune.splits import SplitConfig
from finetune.tasks.base import tasks
from foundation.config import Config, Place, YamlPath, load_config
from foundation.data.augment import Augmentation
from foundation.data.modality_dropout import ModalityDropout
from foundation.data.scaling import PreprocessingConfig
from foundation.files.cache import CacheConfig
from foundation.finding.finder import names_of
from foundation.hub.address import pinned
from foundation.model import model_folder
from foundation.model.fusion.base import fusions
from foundation.model.towers.base import towers
from foundation.model.weight_files import file_of
from foundation.training.optimiser import OptimiserConfig

DECIDES_NOTHING = {"cohort", "out", "cache", "processes", "oracle"}
"""Keys that may change between the start of a run and its resumption."""

OURS, FROM_SCRATCH, FROZEN_PROBE, KEPT = "ours", "from scratch", "frozen probe", "kept"
DORA, ALL_WEIGHTS = "DoRA", "all weights"

MEMBERS = (FROZEN_PROBE, OURS, FROM_SCRATCH)
"""Networks among which inner folds choose what is kept, beside the linear baselines; the more cautious first."""

UNPRETRAINED = "kept without pretraining"
"""What inner folds would keep of the methods that know nothing of the pretrained model."""

AnyTask = tasks.configs()
AnyTower = towers.configs()
AnyFusion = fusions.configs()


class Network(Config):
    """A network that chiasma has not pretrained; its towers may begin with weights of others."""

    preprocessing: PreprocessingConfig = PreprocessingConfig()
    towers: dict[str, AnyTower] = Field(min_length=1)  # type: ignore[valid-type]
    fusion: AnyFusion  # type: ignore[valid-type]
    width: int = Field(default=128, gt=0, description="Of the fused embedding.")

    def begins_with(self) -> dict[str, Path | str]:
        """Tower to the weights of others that it begins with, of those that do."""
        begins = {name: tower.begins_with for name, tower in self.towers.items()}
        return {name: weights for name, weights in begins.items() if weights is not None}

    def weight_files(self) -> dict[str, Path]:
        """Tower to the file that its weights are in, of those that name one.

        Raises:
            ConfigError: There is no such file.
        """
        return {name: file_of(weights) for name, weights in self.begins_with().items() if isinstance(weights, Path)}


class Pretraining(Network):
    """Of a pretraining YAML, what its model will be; all else is for `chiasma pretrain` to check."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, data: Any) -> Any:
        return data


class FitOptimiser(OptimiserConfig):
    """As in pretraining; but squared gradients are averaged over more steps, since few labels make them noisy."""

    betas: tuple[float, float] = (0.9, 0.99)


class TaskDropout(ModalityDropout):
    """As in pretraining; but there is some unless it is set to 0, so that one model serves every subset."""

    default: float = Field(
        default=0.2, ge=0, le=1, description="Probability for a modality that `modalities` leaves out."
    )


class FitConfig(Config):
    """How a model is trained on the training patients of a fold."""

    epochs: int = Field(
        default=20,
        ge=0,
        description="Passes over the training patients at most; inner folds choose how many.",
    )
    batch_size: int = Field(default=32, ge=1)
    optimiser: FitOptimiser = FitOptimiser()
    ema: float | None = Field(
        default=0.9,
        gt=0,
        lt=1,
        description="Decay of a moving average of what is trained, which is then what is judged and kept; or null.",
    )
    augmentation: Augmentation | None = None


class Search(Config):
    """What inner folds choose from, beside the number of epochs; an empty list leaves a setting as it is."""

    learning_rate: list[Annotated[float, Field(gt=0)]] = Field(
        default=[], description="Instead of fit.optimiser.learning_rate."
    )
    rank: list[Annotated[int, Field(ge=1)]] = Field(default=[], description="Instead of adapt.rank.")
    dropout: list[Annotated[float, Field(ge=0, lt=1)]] = Field(default=[], description="Instead of adapt.dropout.")
    inner_folds: int | None = Field(
        default=None, ge=1, description="On how many of splits.inner_folds training is tried; null for all of them."
    )


NEEDED = {
    "per_fold": ("pretraining", "the YAML of `chiasma pretrain`"),
    "none": ("network", "`towers`, `fusion` and `width`, as such a YAML has them"),
}
"""In place of a model folder, to the key that must stand beside it, and what that holds."""


class FinetuneConfig(Config):
    """A fine-tuning run: one model per fold, for one or several tasks."""

    cohort: Place = Field(description="Folder of a prepared cohort, or a URL that it was copied to.")
    out: YamlPath = Field(description="Run folder.")
    cache: CacheConfig = CacheConfig()
    seed: int = Field(default=0, ge=0)
    pretrain: Annotated[Literal["per_fold", "none"] | Place, Field(union_mode="left_to_right")] = Field(
        description="A model folder, or hf://organisation/name@revision; or per_fold, to pretrain for each fold "
        "without its test patients; or none, where there is something to adapt if the network's towers have `weights`."
    )
    pretraining: YamlPath | None = Field(
        default=None, description="With pretrain: per_fold, the YAML of `chiasma pretrain`."
    )
    pretraining_changes: list[str] = Field(default=[], description="key=value changes to that YAML.")
    network: Network | None = Field(default=None, description="With pretrain: none, the network.")
    allow_seen: bool = Field(
        default=False, description="Test also on patients whom the model was pretrained on; the report then says so."
    )
    tasks: list[AnyTask] = Field(min_length=1)  # type: ignore[valid-type]
    modalities: list[str] = Field(
        default=[],
        description="What may be seen of a patient; empty for all that the model knows, and the covariates.",
    )
    covariates: list[str] = Field(
        default=[],
        description="Omics modalities, such as clinical, whose values heads read beside the embedding; the model need "
        "not know them.",
    )
    find: list[str] = Field(
        default=[],
        description="Annotations of the cohort whose regions are found in every image, as drawn on those of training "
        "patients; heads and a linear model read what is found in numbers.",
    )
    reads: list[Kind] = Field(
        default=list(ALL),
        description="What heads read beside the fused embedding: towers, each tower's own embedding; modalities, that "
        "of each omics modality; values, components of each, or all of few features; images, intensities on a grid.",
    )
    splits: SplitConfig = SplitConfig()
    adapt: AdaptConfig = Lora()
    dropout: TaskDropout = TaskDropout()
    fit: FitConfig = FitConfig()
    search: Search = Search()
    compare: list[Literal["from scratch", "frozen probe", "DoRA", "all weights"]] = Field(
        default=[FROM_SCRATCH, FROZEN_PROBE], description="What else is trained on the same folds."
    )
    labels: list[int] = Field(
        default=[], description="Numbers of labelled training patients for the curve of few labels."
    )
    final: bool = Field(default=True, description="Train also on all patients, for new ones: the adapter that is kept.")
    processes: int | None = Field(
        default=None, ge=1, description="Folds at a time; null for as many as cores and memory allow."
    )
    oracle: YamlPath | None = Field(default=None, description="Of a simulated cohort: its truth/oracle.json.")

    @model_validator(mode="after")
    def _has_what_it_starts_from(self) -> FinetuneConfig:
        for needs, (key, what) in NEEDED.items():
            if self.pretrain == needs and getattr(self, key) is None:
                raise ValueError(f"`pretrain: {needs}` needs the key `{key}`: {what}")
            if self.pretrain != needs and getattr(self, key) is not None:
                raise ValueError(f"`{key}` is used with `pretrain: {needs}` only: remove it")
        least = 2 * self.splits.inner_folds
        if any(count < least for count in self.labels):
            raise ValueError(
                f"`labels` must be {least} or more, two patients for each of {self.splits.inner_folds} inner folds"
            )
        if (self.search.inner_folds or 1) > self.splits.inner_folds:
            raise ValueError("`search.inner_folds` is larger than `splits.inner_folds`")
        if self.adapt.mode != "lora" and (self.search.rank or self.search.dropout):
            raise ValueError("`search.rank` and `search.dropout` need `adapt: {mode: lora}`")
        if self.untrained and self.adapt.mode != "scratch":
            raise ValueError(
                "`pretrain: none` leaves nothing to adapt: write `adapt: {mode: scratch}`, or name the `weights` that "
                "a tower of the network begins with"
            )
        if self.network is not None and not self.untrained and self.adapt.mode == "scratch":
            [name, *_] = self.network.begins_with()
            raise ValueError(
                f"`adapt: {{mode: scratch}}` would not read the weights of tower '{name}': leave them out, or write "
                "`mode: lora`, frozen or full, beside which `compare` has the network from scratch"
            )
        return self

    @property
    def untrained(self) -> bool:
        """Whether the network begins with nothing but random numbers."""
        return self.network is not None and not self.network.begins_with()

    def pinned(self) -> FinetuneConfig:
        """The same config, with the commit of what comes from a model hub."""
        network = self.network
        if network is not None:
            towers = {name: tower.pinned() for name, tower in network.towers.items()}
            network = network.model_copy(update={"towers": towers})
        return self.model_copy(update={"pretrain": pinned(self.pretrain), "network": network})

    def model_folder(self) -> Path | None:
        """Where the pretrained model lies; None where it is still to be made.

        Raises:
            ConfigError, CheckpointError, StoreError: As of `foundation.model.model_folder.of`.
        """
        return None if self.pretrain in NEEDED else model_folder.of(self.pretrain)

    def to_be_built(self) -> Network | None:
        """The network, where it is not read from a model folder."""
        if self.pretraining is not None:
            return load_config(Pretraining, self.pretraining, self.pretraining_changes)
        return self.network

    def methods(self) -> dict[str, AdaptConfig]:
        """What is trained on every fold, by name."""
        lora = self.adapt if isinstance(self.adapt, Lora) else Lora()
        dora = lora.model_copy(update={"dora": True})
        others: dict[str, AdaptConfig] = {
            FROM_SCRATCH: Scratch(), FROZEN_PROBE: Frozen(), DORA: dora, ALL_WEIGHTS: Full()
        }  # fmt: skip
        chosen = [] if self.untrained else self.compare
        return {OURS: self.adapt, **{name: others[name] for name in chosen if others[name] != self.adapt}}

    def read_by_heads(self) -> list[str]:
        """Omics modalities whose values heads read one by one: covariates, and what is found in images."""
        return [*self.covariates, *names_of(self.find)]

    def members(self, *, pretrained: bool = True) -> list[str]:
        """Networks that may be kept; without those that begin with a pretrained model, if asked."""
        methods = self.methods()
        chosen = [name for name in MEMBERS if name in methods]
        return chosen if pretrained else [name for name in chosen if isinstance(methods[name], Scratch)]

    def document(self) -> dict[str, Any]:
        """What decides the result: everything but where things are and how fast it goes."""
        return self.model_dump(mode="json", exclude=DECIDES_NOTHING)
