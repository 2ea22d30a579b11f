"""preprocessing.json: what reads back, and what is refused."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.data.preprocessing import ImageScaling, OmicsScaling, Preprocessing
from foundation.data.scaling import PreprocessingConfig, fit_preprocessing
from foundation.errors import CheckpointError

ROWS = np.arange(0, 40, 2)
number = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.tuples(number, number), min_size=1, max_size=5))
def test_numbers_read_back_to_the_same_bits(values):
    scaling = OmicsScaling(
        features=[f"g{i}" for i in range(len(values))],
        values="continuous",
        unit="",
        transform=[],
        center=[v for v, _ in values],
        scale=[v for _, v in values],
        clip=10,
        minimum_overlap=0.5,
        patients=1,
    )
    before = Preprocessing(cohort="c", patients=1, records=1, modalities={"rna": scaling})
    after = Preprocessing.from_json(before.to_json())
    for part in ("center", "scale"):
        bits = [np.array(getattr(p.modalities["rna"], part)).tobytes() for p in (before, after)]
        assert bits[0] == bits[1]
    assert after == before


def test_a_file_reads_back(cohort, tmp_path):
    fitted = fit_preprocessing(cohort, ROWS)
    fitted.write(tmp_path)
    assert Preprocessing.read(tmp_path) == fitted
    assert isinstance(Preprocessing.read(tmp_path).modalities["mri"], ImageScaling)


def test_no_patient_is_named_in_the_file(cohort):
    assert not re.search(r"P\d{4}", fit_preprocessing(cohort, ROWS).to_json())


def damage(**changes):
    def change(document):
        document.update(changes)

    return change


def shorten(document):
    document["modalities"]["rna"]["center"].pop()


def unknown_inside(document):
    document["modalities"]["rna"]["centre"] = [1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage(format_version=2), "format version 2, not 1"),
        (damage(extra=1), "unknown key 'extra'"),
        (unknown_inside, "did you mean 'center'"),
        (shorten, "the lists of 'rna' differ in length"),
    ],
)
def test_a_file_that_is_not_ours_is_refused(cohort, change, message):
    document = json.loads(fit_preprocessing(cohort, ROWS).to_json())
    change(document)
    with pytest.raises(CheckpointError, match=message):
        Preprocessing.from_json(json.dumps(document))


def test_a_truncated_or_missing_file_is_refused(cohort, tmp_path):
    with pytest.raises(CheckpointError, match=r"is no model folder: it has no preprocessing.json"):
        Preprocessing.read(tmp_path)
    (tmp_path / "preprocessing.json").write_text(fit_preprocessing(cohort, ROWS).to_json()[:200])
    with pytest.raises(CheckpointError, match="cannot be understood"):
        Preprocessing.read(tmp_path)
    with pytest.raises(CheckpointError, match="format version None"):
        Preprocessing.from_json("[]")


def test_two_are_joined_in_the_order_of_the_axis_m(cohort):
    one, other = (
        fit_preprocessing(cohort, rows, PreprocessingConfig(modalities=names))
        for rows, names in ((ROWS, ["mut", "mri"]), (ROWS[:9], ["rna"]))
    )
    both = one.joined(other)
    assert list(both.modalities.items()) == [*one.modalities.items(), *other.modalities.items()]
    assert (both.patients, both.records) == (one.patients, one.records)
    assert list(one.modalities) == ["mut", "mri"], "neither is changed"
    assert one.joined(None) == one
    with pytest.raises(ValueError, match="mri"):
        both.joined(one)
