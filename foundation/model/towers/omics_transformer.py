"""A transformer over the tokens of all omics modalities in one sequence, with a learned token that sums them up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

import foundation.model.tokenizers  # noqa: F401  Registers the tokenizers that a config may name.
from foundation.modality import OmicsModality
from foundation.model.layers.packing import Packing, pack
from foundation.model.layers.transformer import Block
from foundation.model.layers.values import masked
from foundation.model.tokenizers.base import Tokenized, Tokenizer, tokenizers
from foundation.model.towers.base import FactorInit, OmicsTower, Tokens, TowerConfig, towers

AnyTokenizer = tokenizers.configs()
INITIAL_SCALE = 0.02


class OmicsTransformerConfig(TowerConfig):
    """Size of the transformer, and how features become tokens."""

    tower: Literal["omics_transformer"] = "omics_transformer"
    tokenizer: AnyTokenizer = Field(description="gene, pathway or chunk, with its settings.")  # type: ignore[valid-type]
    width: int = Field(default=256, ge=1)
    depth: int = Field(default=4, ge=1, description="Number of blocks.")
    heads: int = Field(default=4, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    max_tokens: int = Field(
        default=1024,
        ge=1,
        description="Tokens of a sequence; in training a random choice, in evaluation several sequences.",
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self


class OmicsTransformerSettings(PretrainedConfig):
    """What config.json of a saved tower holds.

    Attributes:
        part: The tower's config, without reference to any file.
        features: For each modality its name and what it is.
    """

    model_type = "chiasma_omics_transformer"
    part: dict[str, Any] | None = None
    # A list, as the keys of an object are sorted when they are written.
    features: list[list[Any]] | None = None

    @classmethod
    def of(cls, config: OmicsTransformerConfig, features: Mapping[str, OmicsModality]) -> Self:
        """What to save of a tower made of these."""
        part = OmicsTransformer.self_contained(config).model_dump(mode="json")
        return cls(
            part=part, features=[[name, modality.model_dump(mode="json")] for name, modality in features.items()]
        )


@towers.register("omics_transformer")
class OmicsTransformer(PreTrainedModel, OmicsTower, FactorInit):
    """See `OmicsTower`; `save_pretrained` and `from_pretrained` work as for any model of transformers.

    Args:
        config: The part's own config; or, without `features`, what was saved, which holds them.
        features: Modality to what it is, in the order in which tokens name modalities.
    """

    Config = OmicsTransformerConfig
    config_class = OmicsTransformerSettings
    base_model_prefix = "tower"
    main_input_name = "omics"
    _supports_sdpa = True
    _no_split_modules = ["Block"]
    stem = ("tokenizer.", "summary")

    def __init__(
        self,
        config: OmicsTransformerConfig | OmicsTransformerSettings,
        features: Mapping[str, OmicsModality] | None = None,
    ) -> None:
        if isinstance(config, OmicsTransformerConfig):
            config = OmicsTransformerSettings.of(config, features or {})
        super().__init__(config)
        part = OmicsTransformerConfig.model_validate(config.part)
        features = {name: OmicsModality.model_validate(modality) for name, modality in config.features or []}
        self.width = part.width
        self.max_tokens = part.max_tokens
        self.tokenizer: Tokenizer = tokenizers.build(part.tokenizer, features, part.width)
        self.summary = nn.Parameter(torch.zeros(part.width))
        self.blocks = nn.ModuleList(
            Block(part.width, part.heads, part.mlp_ratio, part.dropout) for _ in range(part.depth)
        )
        self.norm = nn.LayerNorm(part.width)
        self.post_init()

    @classmethod
    def tiny(cls) -> OmicsTransformerConfig:
        """See `Tower.tiny`."""
        tokenizer = tokenizers["gene"].tiny()
        return OmicsTransformerConfig(tokenizer=tokenizer, width=16, depth=2, heads=2, mlp_ratio=2, max_tokens=8)

    @classmethod
    def self_contained(cls, config: OmicsTransformerConfig) -> OmicsTransformerConfig:
        """The same config without reference to any file, so that a model that is moved still knows all of it."""
        tokenizer = tokenizers[config.tokenizer.tokenizer].self_contained(config.tokenizer)
        return config.model_copy(update={"tokenizer": tokenizer})

    def stack(self) -> list[nn.Module]:
        """See `Tower.stack`."""
        return list(self.blocks)

    @property
    def possible_tokens(self) -> int:
        """See `OmicsTower.possible_tokens`."""
        return self.tokenizer.possible_tokens

    def init_from(self, weights: Mapping[str, Tensor]) -> None:
        """See `FactorInit.init_from`."""
        self.tokenizer.embedding.init_from(weights)

    def forward(
        self,
        omics: Mapping[str, Tensor],
        observed: Mapping[str, Tensor],
        draws_BS: Tensor | None = None,
    ) -> Tokens:
        """See `OmicsTower.forward`.

        A record with more than `max_tokens` tokens in evaluation is seen in several sequences; its vector is their
        mean, each weighted by its number of tokens.
        """
        tokenized = self.tokenizer(omics, observed)
        packing = pack(tokenized.real_BS, self.max_tokens, draws_BS)
        if len(packing.rows_V) > len(tokenized.real_BS):
            return self._in_several_sequences(tokenized, packing)
        pooled_BD, tokens_BTD = self._encode(tokenized, packing.rows_V, packing.index_VT, packing.real_VT)
        return Tokens(pooled_BD, tokens_BTD, packing.real_VT, self.tokenizer.modality_S[packing.index_VT])

    def _encode(self, tokenized: Tokenized, rows_V: Tensor, index_VT: Tensor, real_VT: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled [V, D] and tokens [V, T, D] of some sequences."""
        tokens_VTD = tokenized.take(rows_V, index_VT).to(self.summary.dtype)
        x_VTD = torch.cat([self.summary.expand(len(rows_V), 1, -1), tokens_VTD], dim=1)
        # The summary may always be attended to, so that a sequence without tokens is defined too.
        real_VT = torch.cat([torch.ones_like(real_VT[:, :1]), real_VT], dim=1)
        for block in self.blocks:
            x_VTD = block(x_VTD, real_VT)
        x_VTD = self.norm(x_VTD)
        # The mean of the tokens carries what was measured from the first step on; the summary learns what it misses.
        count_V1 = real_VT[:, 1:].sum(dim=1, keepdim=True).clamp(min=1)
        mean_VD = masked(x_VTD[:, 1:], real_VT[:, 1:, None]).sum(dim=1) / count_V1
        return x_VTD[:, 0] + mean_VD, x_VTD[:, 1:]

    def _in_several_sequences(self, tokenized: Tokenized, packing: Packing) -> Tokens:
        real_BS = tokenized.real_BS
        pooled_BD = torch.zeros(len(real_BS), self.width, device=real_BS.device)
        tokens_BSD = torch.zeros(*real_BS.shape, self.width, device=real_BS.device)
        count_B = real_BS.sum(dim=1).clamp(min=1)
        # As many sequences at a time as there are records, so that memory is that of a training step.
        for rows_V, index_VT, real_VT in zip(
            *(part.split(len(real_BS)) for part in (packing.rows_V, packing.index_VT, packing.real_VT)), strict=True
        ):
            pooled_VD, tokens_VTD = self._encode(tokenized, rows_V, index_VT, real_VT)
            share_V = real_VT.sum(dim=1) / count_B[rows_V]
            pooled_BD = pooled_BD.index_add(0, rows_V, pooled_VD.float() * share_V[:, None])
            places = (rows_V[:, None].expand_as(index_VT)[real_VT], index_VT[real_VT])
            tokens_BSD = tokens_BSD.index_put(places, tokens_VTD[real_VT].float())
        return Tokens(pooled_BD, tokens_BSD, real_BS, self.tokenizer.modality_S)

    def _init_weights(self, module: nn.Module) -> None:
        # transformers asks for this where a saved model lacks a weight; each module knows how it starts.
        if module is self:
            nn.init.normal_(self.summary, std=INITIAL_SCALE)
            return
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
