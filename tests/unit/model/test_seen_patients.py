"""Whom a model has seen, as hashes in a file that names nobody."""

from __future__ import annotations

import json

import numpy as np
import pytest

from foundation.errors import CheckpointError
from foundation.model.seen_patients import FILE, SeenPatients


def test_who_was_seen_is_known_again_after_a_round_trip(tmp_path):
    SeenPatients.of(["P2", "P1", "P2"]).write(tmp_path)
    seen = SeenPatients.read(tmp_path)
    assert seen is not None
    assert seen.among(np.array(["P1", "P3", "P2", "p1"], dtype=object)).tolist() == [True, False, True, False]


def test_the_file_names_nobody_and_depends_on_the_patients_alone(tmp_path):
    SeenPatients.of(["Sentinel-17", "P1"]).write(tmp_path)
    text = (tmp_path / FILE).read_text()
    assert "Sentinel" not in text
    assert len(json.loads(text)["hashes"]) == 2
    assert SeenPatients.of(["P1", "Sentinel-17", "P1"]) == SeenPatients.read(tmp_path)


def test_a_patient_has_another_hash_in_another_model():
    one, other = SeenPatients.of(["P1", "P2"]), SeenPatients.of(["P1", "P3"])
    assert not set(one.hashes) & set(other.hashes)


def test_a_folder_without_the_file_says_nothing(tmp_path):
    assert SeenPatients.read(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", '{"format_version": 2, "salt": "", "hashes": []}', '{"salt": "a"}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CheckpointError, match=FILE):
        SeenPatients.read(tmp_path)
