"""Missingness: how often each thing is absent, and what that depends on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from foundation.simulation import presence
from foundation.simulation.latent import draw_patient
from foundation.simulation.presence import Presence, draw_presence
from foundation.simulation.sites import SITES
from foundation.simulation.streams import stream
from foundation.simulation.subject import draw_subject


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rows = []
    for subject in (draw_subject(5, index) for index in range(3000)):
        there = subject.presence
        rows.append(
            {
                "site": subject.patient.site.number,
                "stage": subject.patient.stage,
                "mri": bool(there.channels),
                "lone": len(there.channels) == 1,
                "t1 only": there.channels == ("t1",),
                "subtype": there.subtype,
                "response": there.response,
                "toxicity": there.toxicity,
                "seizure": there.seizure,
                "blood": there.blood,
                "further": there.samples,
                **{name: name in there.assays for name in ("rna", "mutation", "cnv", "protein")},
            }
        )
    return pd.DataFrame(rows)


def test_each_modality_is_absent_about_as_often_as_in_a_hospital(table):
    absent = 1 - table[["mri", "rna", "mutation", "cnv", "protein"]].mean()
    assert 0.11 < absent["mri"] < 0.19
    assert (absent[["rna", "mutation", "cnv"]] > 0.28).all() and (absent[["rna", "mutation", "cnv"]] < 0.40).all()
    assert 0.40 < absent["protein"] < 0.60


def test_some_scans_have_one_channel_and_either_may_be_it(table):
    assert 0.07 < table["lone"].mean() < 0.20
    assert 0.35 < table.loc[table["lone"], "t1 only"].mean() < 0.65


def test_absence_depends_on_the_site(table):
    mri = table.groupby("site")["mri"].mean()
    for site in SITES:
        assert abs(1 - mri[site.number] - site.without_scan) < 0.05
    protein = table.groupby("site")["protein"].mean()
    assert protein[4] < 0.3 * protein[1]


def test_tissue_depends_on_the_stage(table):
    rna = table.groupby("stage")["rna"].mean()
    assert rna[1] > rna[4] + 0.05


def test_assays_are_absent_together(table):
    none = ~table[["rna", "mutation", "cnv", "protein"]].any(axis=1)
    alone = np.prod(1 - table[["rna", "mutation", "cnv", "protein"]].mean())
    assert none.mean() > 3 * alone


def test_who_lacks_an_assay_has_no_other_sample_of_it(table):
    assert not table.loc[~table["rna"], "further"].any()
    assert not table.loc[~table["cnv"], "blood"].any()
    kinds = set().union(*table["further"])
    assert kinds == {"11A", "01B", "02A"}


def test_some_endpoints_are_unknown(table):
    assert 0.02 < 1 - table["subtype"].mean() < 0.08
    assert 0.12 < 1 - table["response"].mean() < 0.28
    assert 0.09 < 1 - table["toxicity"].mean() < 0.15
    assert 0.05 < 1 - table["seizure"].mean() < 0.11


def test_who_is_told_of_toxicity_and_seizures_is_drawn_from_a_stream_of_its_own(monkeypatch):
    def draw() -> list[Presence]:
        return [draw_presence(5, draw_patient(5, index)) for index in range(200)]

    before = draw()
    monkeypatch.setattr(presence, "stream", lambda seed, what, *n: stream(seed + (what == "recorded"), what, *n))
    for field in dataclasses.fields(Presence):
        one, other = ([getattr(each, field.name) for each in drawn] for drawn in (before, draw()))
        assert (one == other) != (field.name in {"toxicity", "seizure"}), field.name
