"""The answer on top of a pretraining report: success, failure first, and what was not measured."""

from __future__ import annotations

import pytest

from pretrain.report.answer import headline


def result(recall, p_value):
    return {"n": 57, "recall@10": recall, "chance@10": 10 / 57, "p_value": p_value}


def test_headline_says_the_answer():
    words = headline({"mri->omics": result(0.61, 0.001), "omics->mri": result(0.55, 0.001)}).replace("\u00a0", " ")
    assert words == (
        "From mri alone, the right patient's omics is among the first 10 of 57 in 61 % of cases "
        "(chance 18 %, p = 0.001)."
    )


@pytest.mark.parametrize("bad", [result(0.19, 0.4), result(0.1, 0.01)])
def test_headline_says_failure_first(bad):
    assert headline({"mri->omics": bad}).startswith("Not better than chance: from mri alone")
    both = headline({"mri->omics": result(0.61, 0.001), "omics->mri": bad})
    assert both.startswith("omics → mri is not better than chance. From mri alone")


def test_headline_skips_what_was_not_measured():
    skipped = {"n": 3, "skipped": "few"}
    assert headline({"mri->cnv": skipped, "mri->rna": result(0.61, 0.001)}).startswith(
        "From mri alone, the right patient's rna"
    )
