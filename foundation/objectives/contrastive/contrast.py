"""Contrastive losses on embeddings: several positives, missing sides, many processes, never all scores at once.

Each loss compares the rows of two sides of a batch, a and b. Row i of either side belongs to record i; a side that is
absent takes no part at all. Rows of the same patient are positives, of which a patient may have several on either
side; rows of other patients are negatives, also those of a patient who lacks the other side.

Across processes: each holds its own rows of a, and gathers side b. It makes the scores of its rows of a against all of
b once, for both directions: sums along rows are complete, sums along columns are added over processes. The gradient of
b goes back to the process whose rows they are. The result is that of one process with the whole batch, whichever way
the records are dealt out.

Memory: scores exist one tile at a time, and are made again when gradients are wanted, so that memory grows as
(records of the whole batch) x (width). Loss and gradients are computed in one go in the forward pass, and the backward
pass only scales them: no collective ever runs in a backward pass, where its order could differ between processes, and
the embeddings need not be kept. The gradient of the loss is that of its sum over processes, so what the loss is
multiplied by before `backward` has to be the same on every process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from foundation.collectives import logsumexp_over_processes, sum_over_processes, world_size
from foundation.objectives.contrastive.tiles import Gradients, Layout, Scores


@dataclass(frozen=True)
class Contrast:
    """A contrastive loss of two sides of a batch.

    Attributes:
        value: Scalar, this process's equal share of the loss: the sum over processes is the loss of the whole batch.
        loss: Scalar, the loss of the whole batch, detached.
        rows: Scalar, rows of side a in the whole batch that have a positive; without any, the loss is zero.
    """

    value: Tensor
    loss: Tensor
    rows: Tensor


def infonce(
    a_BD: Tensor,
    b_BD: Tensor,
    present_a_B: Tensor,
    present_b_B: Tensor,
    patients_B: Tensor,
    scale: Tensor,
    *,
    chunk: int | None = None,
) -> Contrast:
    """Symmetric InfoNCE in which a positive is compared with negatives only, never with another positive.

    With s = scale * a @ b.T, the loss of a row with positives P and negatives N is the mean over p in P of
    -log(exp(s_p) / (exp(s_p) + sum over n in N of exp(s_n))), the form of SINCERE (Feeney and Hughes 2023,
    arXiv:2309.14277). With one positive it is InfoNCE. With several, SupCon would count a patient's other scans in
    the denominator and so push them away, and the sum of positives within the logarithm (MIL-NCE) would be content
    with the nearest scan alone; here every scan is drawn near and none is pushed off.

    The loss is the mean over the rows of a that have a positive, and the same from b to a, averaged. Means are over
    the batch of all processes.

    Args:
        a_BD: Embeddings of side a, normalised; whatever where absent.
        b_BD: Embeddings of side b, of the same records.
        present_a_B: Bool.
        present_b_B: Bool.
        patients_B: [B] int64, equal for records of one patient, on all processes.
        scale: Scalar that similarities are multiplied by, the inverse of the temperature.
        chunk: Rows and columns of a tile of scores; None takes what suits the device.
    """
    return _contrast(_infonce, (a_BD, b_BD, scale), (present_a_B, present_b_B, patients_B), chunk)


def siglip(
    a_BD: Tensor,
    b_BD: Tensor,
    present_a_B: Tensor,
    present_b_B: Tensor,
    patients_B: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    chunk: int | None = None,
) -> Contrast:
    """Pairwise sigmoid loss (Zhai et al. 2023, arXiv:2303.15343): is a row of b of the same patient as a row of a?

    With s = scale * a @ b.T + bias, the sum over all pairs of present rows of -log sigmoid(s) for the same patient and
    of -log sigmoid(-s) for different ones, divided by the number of present rows, the mean of that of a and of b, in
    the batch of all processes. A batch without any positive has no loss, since it could only push apart.

    Args:
        a_BD: Embeddings of side a, normalised; whatever where absent.
        b_BD: Embeddings of side b, of the same records.
        present_a_B: Bool.
        present_b_B: Bool.
        patients_B: [B] int64, equal for records of one patient, on all processes.
        scale: Scalar that similarities are multiplied by.
        bias: Scalar that is added to them.
        chunk: Rows and columns of a tile of scores; None takes what suits the device.
    """
    return _contrast(_siglip, (a_BD, b_BD, scale, bias), (present_a_B, present_b_B, patients_B), chunk)


def _contrast(
    evaluate: Callable, inputs: tuple[Tensor, ...], who: tuple[Tensor, Tensor, Tensor], chunk: int | None
) -> Contrast:
    """Loss and gradients of all processes, the gradients attached to this process's share of the loss."""
    a_BD, b_BD, scale, *bias = inputs
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    with torch.no_grad(), torch.autocast(a_BD.device.type, enabled=False):
        layout = Layout(*who, a_BD.device)
        scores = Scores(a_BD, b_BD, scale, layout, chunk)
        gradients = Gradients(scores) if wanted else None
        # Of the loss, the scale and, where there is one, the bias.
        sums = scores.rows_PD.new_zeros(2 + len(bias))
        if layout.matched_a:
            sums[0], sums[2:] = evaluate(scores, gradients, *bias)
        if gradients is not None:
            sums[1] = gradients.of_scale()
        loss, *of_scalars = sum_over_processes(sums)
        share = loss / world_size()
        if gradients is not None:
            known = *gradients.of_embeddings(a_BD, b_BD), *(each / world_size() for each in of_scalars)
            with torch.enable_grad():
                share = _WithGradients.apply(share, known, *inputs)
    return Contrast(share, loss, torch.tensor(layout.matched_a, device=a_BD.device))


class _WithGradients(torch.autograd.Function):
    """A scalar whose gradients are known already; the backward pass scales them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*(g.to(i.dtype).view_as(i) for g, i in zip(gradients, inputs, strict=True)))
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (factor,) = grad_outputs
        return None, None, *(gradient * factor for gradient in ctx.saved_tensors)


def _infonce(scores: Scores, gradients: Gradients | None) -> tuple[Tensor, Tensor]:
    """This process's part of the loss, and no gradient of a bias."""
    layout = scores.layout
    row_negatives, column_negatives = _negatives(scores)
    row_weights = _mean_weights(layout.row_positives, layout.matched_a, scores.dtype)
    column_weights = _mean_weights(layout.column_positives, layout.matched_b, scores.dtype)
    loss = row_negatives.new_zeros(())
    # How much a row's negatives are to be pushed: what its positives fall short of certainty.
    row_push, column_push = torch.zeros_like(row_weights), torch.zeros_like(column_weights)
    for rows, columns, score, same in scores.tiles(positives_only=True):
        by_row = row_negatives[rows, None] - score
        by_column = column_negatives[None, columns] - score
        loss -= _where(same, logsigmoid(-by_row)).sum(1) @ row_weights[rows]
        loss -= _where(same, logsigmoid(-by_column)).sum(0) @ column_weights[columns]
        row_push[rows] += _where(same, by_row.sigmoid_()).sum(1) * row_weights[rows]
        column_push[columns] += _where(same, by_column.sigmoid_()).sum(0) * column_weights[columns]
    if gradients is None:
        return loss, loss.new_zeros(0)
    row_shift = _shift(row_negatives, row_push)
    column_shift = _shift(column_negatives, sum_over_processes(column_push))
    for tile in scores.tiles():
        rows, columns, score, same = tile
        pull = None
        if same is not None:
            pull = (row_negatives[rows, None] - score).sigmoid_().mul_(row_weights[rows, None])
            pull += (column_negatives[None, columns] - score).sigmoid_().mul_(column_weights[None, columns])
        push = torch.sub(score, row_shift[rows, None], out=scores.spare_like(score)).exp_()
        push += score.sub_(column_shift[None, columns]).exp_()
        gradients.add(tile, push if same is None or pull is None else torch.where(same, pull.neg_(), push))
    return loss, loss.new_zeros(0)


def _negatives(scores: Scores) -> tuple[Tensor, Tensor]:
    """Logarithm of the sum of exponentials of the negatives of each row, and of each column over all processes."""
    row_sums = scores.rows_PD.new_full((len(scores.rows_PD),), -torch.inf)
    column_sums = scores.columns_QD.new_full((len(scores.columns_QD),), -torch.inf)
    for rows, columns, score, same in scores.tiles():
        if same is not None:
            score.masked_fill_(same, -torch.inf)
        spare = scores.spare_like(score)
        row_sums[rows] = torch.logaddexp(row_sums[rows], _logsumexp(score, 1, spare))
        column_sums[columns] = torch.logaddexp(column_sums[columns], _logsumexp(score, 0, spare))
    return row_sums, logsumexp_over_processes(column_sums)


def _logsumexp(score: Tensor, axis: int, spare: Tensor) -> Tensor:
    """As `torch.logsumexp`, without new memory of the size of a tile."""
    # Where all are -inf, a finite maximum keeps the difference from becoming NaN.
    top = score.amax(axis, keepdim=True).clamp_(min=torch.finfo(score.dtype).min)
    return torch.sub(score, top, out=spare).exp_().sum(axis).log_().add_(top.squeeze(axis))


def _mean_weights(positives: Tensor, matched: int, dtype: torch.dtype) -> Tensor:
    """What each of a row's positives counts in half the mean over rows of the mean over positives."""
    return torch.where(positives > 0, 0.5 / (positives.clamp(min=1).to(dtype) * matched), 0.0)


def _shift(negatives: Tensor, push: Tensor) -> Tensor:
    """What to take from a score so that its exponential is the gradient of the loss with respect to it."""
    return torch.where(push == 0, torch.inf, negatives - push.log())


def _where(same: Tensor | None, values: Tensor) -> Tensor:
    assert same is not None
    return values.masked_fill_(~same, 0.0)


def _siglip(scores: Scores, gradients: Gradients | None, bias: Tensor) -> tuple[Tensor, Tensor]:
    """This process's part of the loss, and of the gradient of the bias."""
    weight = 2.0 / (scores.layout.count_a + scores.layout.count_b)
    loss, of_bias = scores.rows_PD.new_zeros(2)
    for tile in scores.tiles():
        margin = tile.scores.add_(bias).neg_()
        if tile.same is not None:
            margin = torch.where(tile.same, -margin, margin)
        loss -= logsigmoid(margin).sum() * weight
        if gradients is not None:
            of_scores = margin.neg_().sigmoid_().mul_(weight)
            if tile.same is not None:
                of_scores = torch.where(tile.same, -of_scores, of_scores)
            of_bias += of_scores.sum()
            gradients.add(tile, of_scores)
    return loss, of_bias[None]
