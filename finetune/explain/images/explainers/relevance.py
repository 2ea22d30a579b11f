"""Relevance of attention (after Chefer et al. 2021): what tokens mean to a score, followed back through attention.

After the last block a token counts with its values times the score's gradient at them, so that it has a sign and the
pools that follow, over slices or tokens, need no rule of their own. Each block's attention, weighted by its gradient,
its positive part, averaged over heads, then says from which tokens that came.

Attention is written out while the tower runs, whoever built it: timm's, MONAI's and this project's all call one
function of torch, which keeps the weights to itself. What heads read of intensities beside the tower is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from finetune.explain.images.scan import Scan, instead
from foundation.errors import ConfigError
from foundation.model.towers.base import ImageTower, Tokens


def relevance(scan: Scan) -> Tensor:
    """[S, *grid] float64; above 0 where a cell raises the score, not in its unit."""
    found = torch.zeros(len(scan.scores), *scan.cells.grid, dtype=torch.float64)
    for key in scan.networks:
        tower = scan.tower(key)
        with _written_out(tower) as kept:
            scores_S = scan.of_network(key, scan.x_CXYZ[None].clone().requires_grad_())[0]
        tokens_NTD = kept.tokens()
        for s, score in enumerate(scores_S):
            if score.requires_grad:
                of_tokens, *of_attention = torch.autograd.grad(
                    score, [tokens_NTD, *kept.attention], retain_graph=True, materialize_grads=True
                )
                count_NT = (tokens_NTD * of_tokens).sum(dim=2)
                for a, slope in zip(reversed(kept.attention), reversed(of_attention), strict=True):
                    through_NTT = (a * slope).clamp(min=0).mean(dim=1)
                    count_NT = count_NT + torch.einsum("nt,nts->ns", count_NT, _rows_to_one(through_NTT))
                patches = count_NT[:, count_NT.shape[1] - len(scan.cells) // len(count_NT) :]
                found[s] += scan.cells.from_tokens(patches.detach().cpu().double().flatten())
    return found


def _rows_to_one(x_NTT: Tensor) -> Tensor:
    """Rows that add up to 1, so that what a token counts is passed on, neither grown nor lost."""
    return x_NTT / x_NTT.sum(dim=2, keepdim=True).clamp(min=1e-12)


class _WrittenOut(TorchFunctionMode):
    """Attention as a product whose weights are kept, and gradients of them."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Tensor] = []
        self.attention: list[Tensor] = []
        self.last: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            return self._attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **others: Any
    ) -> Tensor:
        scores = query @ key.transpose(-2, -1) * (others.get("scale") or 1 / math.sqrt(query.shape[-1]))
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        self.all.append(scores.softmax(dim=-1))
        return self.all[-1] @ value

    def end_of_blocks(self, _module: Any, _args: Any, output: Tensor) -> None:
        """Attention from here on is that of pools."""
        self.last, self.attention = output, [*self.all]

    def tokens(self) -> Tensor:
        """[N, T, D] after the last block.

        Raises:
            ConfigError: The tower is no plain transformer.
        """
        fits = self.last is not None and self.last.ndim == 3 and self.attention
        if not fits or any(a.ndim != 4 or a.shape[-1] != self.last.shape[1] for a in self.attention):  # type: ignore[union-attr]
            raise ConfigError("the tower has no attention over all of its tokens", fix="choose another explainer")
        assert self.last is not None
        return self.last


@contextmanager
def _written_out(tower: ImageTower) -> Iterator[_WrittenOut]:
    """Attention of a tower is kept while this lasts."""
    kept, forward = _WrittenOut(), tower.forward
    apart: list[Any] = [module for module in tower.modules() if getattr(module, "fused_attn", True) is False]

    def recorded(*args: Any) -> Tokens:
        with kept:
            return forward(*args)

    handle = tower.stack()[-1].register_forward_hook(kept.end_of_blocks)
    for module in apart:
        module.fused_attn = True
    try:
        with instead(tower, recorded):
            yield kept
    finally:
        handle.remove()
        for module in apart:
            module.fused_attn = False
