"""Figures of predicted classes: confusion, reliability, ROC, precision over recall, decision curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from foundation.metrics.class_scores import BINS, bins, net_benefit
from foundation.metrics.score import Score
from foundation.report.drawing import BLUE, GREY, PALETTE, SMALL, drawing, picture
from foundation.report.page import Picture
from foundation.wording import shortened

HEIGHT = 300
THRESHOLDS = np.arange(1, 100) / 100


def class_figures(code_N: np.ndarray, probability_NK: np.ndarray, classes: Sequence[str]) -> list[Picture]:
    """All figures of several classes: `probability_NK` of each, in the order of `classes`."""
    guess_N, stated_N = probability_NK.argmax(axis=1), probability_NK.max(axis=1)
    curves = {name: (code_N == k, probability_NK[:, k]) for k, name in enumerate(classes)}
    # Of two classes one curve is the other's mirror.
    curves = dict([list(curves.items())[1]]) if len(classes) == 2 else curves
    return [
        confusion_matrix(code_N, guess_N, classes),
        reliability(code_N == guess_N, stated_N, "likeliest class"),
        roc(curves),
        precision_recall(curves),
    ]


def binary_figures(yes_N: np.ndarray, probability_N: np.ndarray, title: str) -> list[Picture]:
    """All figures of yes or no, of which `probability_N` is the probability of yes."""
    curves = {title: (yes_N, probability_N)}
    return [
        reliability(yes_N, probability_N, title),
        roc(curves),
        precision_recall(curves),
        decision_curve(yes_N, probability_N, title),
    ]


def confusion_matrix(code_N: np.ndarray, guess_N: np.ndarray, classes: Sequence[str]) -> Picture:
    """Draw how many patients of each true class are predicted as which: counts, shaded by their share of the class."""
    count_KK = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(count_KK, (code_N, guess_N), 1)
    share_KK = count_KK / np.maximum(count_KK.sum(axis=1, keepdims=True), 1)
    names = [shortened(name, 18) for name in classes]
    with drawing(SMALL, 110 + 44 * len(classes)) as (figure, stream):
        axes = figure.add_subplot()
        axes.imshow(share_KK, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
        for (row, column), count in np.ndenumerate(count_KK):
            text = f"{count:,}\n{100 * share_KK[row, column]:.0f} %"
            axes.text(column, row, text, ha="center", va="center", fontsize=8)
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted", ylabel="true")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    right = ", ".join(f"{name} {100 * share_KK[k, k]:.0f} %" for k, name in enumerate(classes))
    return picture(
        stream, SMALL, f"Confusion matrix; right of each class: {right}", "Confusion", "Percent of each true class."
    )


def reliability(right_N: np.ndarray, stated_N: np.ndarray, title: str) -> Picture:
    """Draw the observed share over the predicted probability, in bins of equal width, with the patients in each.

    Args:
        right_N: [N] bool, whether it was so.
        stated_N: [N] how likely that was said to be.
        title: What "it" is.
    """
    bin_N = bins(stated_N)
    count_B = np.bincount(bin_N, minlength=BINS)
    filled = count_B > 0
    stated_B, right_B = (
        np.bincount(bin_N, weights=values, minlength=BINS)[filled] / count_B[filled] for values in (stated_N, right_N)
    )
    error_2B = np.abs(_wilson(right_B, count_B[filled]) - right_B)
    with drawing(SMALL, HEIGHT) as (figure, stream):
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        above.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
        above.errorbar(stated_B, right_B, yerr=error_2B, fmt="o-", color=BLUE, markersize=4, linewidth=1.2)
        above.set(xlim=(0, 1), ylim=(0, 1), ylabel="observed share")
        below.bar((np.arange(BINS) + 0.5) / BINS, count_B, width=0.9 / BINS, color=GREY)
        below.set(xlabel="probability predicted", ylabel="patients")
        figure.align_ylabels()
    gap = float(np.sum(count_B[filled] * np.abs(right_B - stated_B)) / max(count_B.sum(), 1))
    alt = f"Reliability of {title}: predicted probability and observed share differ by {gap:.2f} on average"
    return picture(
        stream,
        SMALL,
        alt,
        f"Reliability: {title}",
        "Bins with 95\u00a0% intervals; on the dashed line, predicted and observed agree.",
    )


def roc(curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> Picture:
    """Draw ROC curves: name to which patients are positive, and their scores."""
    with drawing(SMALL, HEIGHT) as (figure, stream):
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
        for color, (name, (positive_N, score_N)) in zip(_colours(), curves.items(), strict=False):
            found, called = _thresholds(positive_N, score_N)
            wrong = (called - found) / max(called[-1] - found[-1], 1)
            axes.plot(wrong, found / max(found[-1], 1), color=color, linewidth=1.4, label=shortened(name))
        axes.set(xlim=(-0.01, 1), ylim=(0, 1.01), xlabel="1 − specificity", ylabel="sensitivity")
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    return picture(stream, SMALL, f"ROC curves of {', '.join(curves)}", "ROC", "The dashed line is chance.")


def precision_recall(curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> Picture:
    """Draw precision over recall: name to which patients are positive, and their scores."""
    with drawing(SMALL, HEIGHT) as (figure, stream):
        axes = figure.add_subplot()
        for color, (name, (positive_N, score_N)) in zip(_colours(), curves.items(), strict=False):
            found, called = (counts[1:] for counts in _thresholds(positive_N, score_N))
            recall = found / max(found[-1], 1)
            axes.step(recall, found / called, where="pre", color=color, linewidth=1.4, label=shortened(name))
            axes.axhline(positive_N.mean(), color=color, linewidth=0.8, linestyle="--")
        axes.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall (sensitivity)", ylabel="precision")
        axes.legend(frameon=False, fontsize=8, loc="best")
    alt = f"Precision over recall of {', '.join(curves)}"
    return picture(stream, SMALL, alt, "Precision over recall", "The dashed lines are chance: the share of positives.")


def decision_curve(yes_N: np.ndarray, probability_N: np.ndarray, title: str) -> Picture:
    """Draw the net benefit of treating by the model, all, or nobody, over the threshold (Vickers and Elkin 2006)."""

    def benefit(probability_N: np.ndarray) -> list[float]:
        return [_of_all(net_benefit(yes_N, probability_N, threshold), len(yes_N)) for threshold in THRESHOLDS]

    by_model, of_all = benefit(probability_N), benefit(np.ones(len(yes_N)))
    top = max(*by_model, *of_all, 0.02)
    with drawing(SMALL, HEIGHT) as (figure, stream):
        axes = figure.add_subplot()
        axes.plot(THRESHOLDS, of_all, color=GREY, linewidth=1.2, label="treat all")
        axes.axhline(0, color=GREY, linewidth=1.2, linestyle=":", label="treat nobody")
        axes.plot(THRESHOLDS, by_model, color=BLUE, linewidth=1.6, label="treat by the model")
        axes.set(xlim=(0, 1), ylim=(-0.25 * top, 1.1 * top), xlabel="threshold probability", ylabel="net benefit")
        axes.legend(frameon=False, fontsize=8)
    better = THRESHOLDS[np.array(by_model) > np.maximum(of_all, 0) + 1e-9]
    range_ = f"from {better.min():.2f} to {better.max():.2f}" if len(better) else "nowhere"
    alt = f"Decision curve of {title}: the model has more net benefit than treating all or nobody {range_}"
    return picture(
        stream, SMALL, alt, f"Decision curve: {title}", "True positives less weighted false positives, per patient."
    )


def _thresholds(positive_N: np.ndarray, score_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives and patients at or above each distinct score, the highest first, from 0 on."""
    order = np.argsort(-score_N, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score_N[order]) != 0, True))
    return np.append(0, np.cumsum(positive_N[order])[last]), np.append(0, last + 1)


def _wilson(share: np.ndarray, count: np.ndarray) -> np.ndarray:
    """95 % interval [2, ...] of a share of a count, by Wilson's score."""
    z = 1.96
    middle = share + z**2 / (2 * count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return np.stack([middle - half, middle + half]) / (1 + z**2 / count)


def _of_all(score: Score, patients: int) -> float:
    return float(score(np.ones((1, patients)))[0])


def _colours() -> list[str]:
    return [*PALETTE, *[GREY] * 100]
