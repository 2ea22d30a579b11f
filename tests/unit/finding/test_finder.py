"""Regions are found in patients whose drawings were not learned from, and read alike in everybody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from foundation.cohort.store import PreparedCohort
from foundation.errors import CheckpointError, ConfigError, DataError
from foundation.finding.finder import FEWEST, SHARES, Finder, dice, shares_of


def test_tumours_are_found(finder, drawn, scanned):
    values = [
        dice(finder.found(drawn, row)[0] > 0.5, annotation.regions[0])
        for row in scanned.tolist()
        if (annotation := drawn.annotation("tumour", row)) is not None
    ]
    assert len(values) == finder.document.patients >= 20
    assert np.median(values) > 0.6


def test_nobodys_own_drawing_has_a_part_in_what_is_found_in_him(finder, described, drawn, scanned, monkeypatch):
    """Whatever was drawn on a patient, what is found in his image stays the same to the bit; in others it does not."""
    annotated = scanned[drawn.annotated_NR("tumour", scanned).any(axis=1)]
    row, whole = int(annotated[0]), PreparedCohort.annotation

    def redrawn(self, name, at):
        found = whole(self, name, at)
        return replace(found, regions=~found.regions) if at == row else found

    monkeypatch.setattr(PreparedCohort, "annotation", redrawn)
    again = Finder.learn(drawn, "tumour", scanned, seed=0).described(drawn, scanned)
    alike = shares_of(drawn.patients[scanned]) == shares_of(drawn.patients[[row]])
    np.testing.assert_array_equal(again[alike], described[alike])
    assert alike[scanned == row].all() and not np.array_equal(again[~alike], described[~alike], equal_nan=True)


def test_what_is_found_in_a_record_depends_on_no_other(finder, described, drawn, scanned):
    some = scanned[::-3]
    np.testing.assert_array_equal(finder.described(drawn, some), described[::-3])
    assert described.shape == (len(scanned), len(finder.features))


def test_who_has_no_scan_has_no_numbers(finder, drawn):
    without = np.flatnonzero(~drawn.present_NM[:, drawn.modalities.index("mri")])
    assert len(without) and np.isnan(finder.described(drawn, without)).all()


def test_it_comes_back_from_its_file(finder, described, drawn, scanned, tmp_path):
    finder.write(tmp_path / "f.safetensors")
    again = Finder.read(tmp_path / "f.safetensors")
    assert again.document == finder.document
    np.testing.assert_array_equal(again.described(drawn, scanned[:4]), described[:4])
    (tmp_path / "f.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Finder.read(tmp_path / "f.safetensors")


def test_the_same_seed_finds_the_same(drawn, scanned, finder):
    again = Finder.learn(drawn, "tumour", scanned, seed=0)
    assert all((again.tensors[name] == tensor).all() for name, tensor in finder.tensors.items())


def test_too_few_drawings_are_refused(drawn, scanned):
    annotated = scanned[drawn.annotated_NR("tumour", scanned).any(axis=1)]
    with pytest.raises(ConfigError, match=rf"too few training patients \({FEWEST}\) have a drawing of 'tumour'"):
        Finder.learn(drawn, "tumour", annotated[:FEWEST], seed=0)


def test_images_prepared_otherwise_are_refused(finder, drawn, scanned):
    form = finder.document.form.model_copy(update={"spacing": (1.0, 1.0, 1.0)})
    other = Finder(finder.document.model_copy(update={"form": form}), finder.tensors)
    with pytest.raises(DataError, match="spacing"):
        other.described(drawn, scanned[:1])


def test_shares_are_about_equal_and_follow_the_name_alone():
    names = [f"P{n}" for n in range(4000)]
    counts = np.bincount(shares_of(names), minlength=SHARES)
    assert len(counts) == SHARES and counts.min() > 900
    assert shares_of(names[::-1]).tolist() == shares_of(names)[::-1].tolist()


@pytest.mark.parametrize(("found", "expected"), [([1, 1, 0, 0], 0.5), ([0, 0, 0, 0], 0.0), ([1, 0, 1, 0], 1.0)])
def test_dice(found, expected):
    assert dice(np.array(found, dtype=bool), np.array([1, 0, 1, 0], dtype=bool)) == expected
    assert dice(np.zeros(4, dtype=bool), np.zeros(4, dtype=bool)) == 1
