"""One token per gene set of a GMT file and modality; features in no set go to tokens of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from foundation.cohort.gene_sets import read_gene_sets
from foundation.config import Config, YamlPath
from foundation.errors import ConfigError
from foundation.modality import OmicsModality
from foundation.model.tokenizers.base import tokenizers
from foundation.model.tokenizers.grouped import GroupedTokenizer


class PathwayConfig(Config):
    """Gene sets, from a file or written out."""

    tokenizer: Literal["pathway"] = "pathway"
    gene_sets: YamlPath | None = Field(default=None, description="GMT file.")
    sets: dict[str, list[str]] | None = Field(default=None, description="Name of a set to its genes, without a file.")
    rest: Literal["chunk", "gene"] = Field(
        default="chunk",
        description="Tokens of the features in no set: several together, ordered by name, or each its own.",
    )
    rest_size: int = Field(default=64, ge=1, description="Features of such a token, with `rest: chunk`.")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.gene_sets is None) == (self.sets is None):
            raise ValueError("give either gene_sets or sets")
        return self


@tokenizers.register("pathway")
class PathwayTokenizer(GroupedTokenizer):
    """See `GroupedTokenizer`; each membership of a feature in a set has a weight that is learned.

    Raises:
        ConfigError: No feature is in any set, or the file cannot be read.
        DataError: The file is not a GMT file.
    """

    Config = PathwayConfig

    def __init__(self, config: PathwayConfig, features: Mapping[str, OmicsModality], width: int) -> None:
        sets = self.self_contained(config).sets or {}
        known = set().union(*sets.values())
        if not any(known.intersection(part.features) for part in features.values()):
            example = next(name for part in features.values() for name in part.features)
            raise ConfigError(
                f"none of the features of {', '.join(features)} is in any gene set, for example '{example}'",
                where=str(config.gene_sets or "sets"),
                fix="use gene sets with the same kind of names, or `tokenizer: chunk`",
            )
        rest = config.rest_size if config.rest == "chunk" else 1
        groups = {name: _groups(part.features, sets, rest) for name, part in features.items()}
        super().__init__(config, features, width, groups, weighted=True)

    @classmethod
    def tiny(cls) -> PathwayConfig:
        """See `Tokenizer.tiny`."""
        return PathwayConfig(sets={"GLIOMA": ["EGFR", "IDH1", "TP53"], "CYCLE": ["CDK4", "RB1", "TP53"]}, rest_size=2)

    @classmethod
    def self_contained(cls, config: PathwayConfig) -> PathwayConfig:
        """The same config with the sets in place of the file that they are in."""
        if config.gene_sets is None:
            return config
        return config.model_copy(update={"gene_sets": None, "sets": read_gene_sets(config.gene_sets)})


def _groups(names: Sequence[str], sets: Mapping[str, Sequence[str]], rest: int) -> list[list[int]]:
    """Members of each set that the modality has, ordered by name, then its other features, `rest` at a time."""
    position = {name: i for i, name in enumerate(names)}
    # Not the order of the file, which is lost when a config is saved as JSON.
    found = ([position[gene] for gene in dict.fromkeys(sets[name]) if gene in position] for name in sorted(sets))
    groups = [members for members in found if members]
    inside = {i for members in groups for i in members}
    outside = [position[name] for name in sorted(position) if position[name] not in inside]
    return groups + [outside[start : start + rest] for start in range(0, len(outside), rest)]
