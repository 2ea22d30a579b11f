"""What linear models read of a record: as computed by hand, of any cohort, matched by name, and learned once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from finetune.methods import inputs as module
from finetune.methods.image_features import ImageFeatures
from finetune.methods.inputs import Inputs, LearnedInputs
from foundation.cohort.manifest import Manifest
from foundation.cohort.records import Record
from foundation.cohort.store import PreparedCohort
from foundation.data.preprocessing import Preprocessing
from foundation.errors import DataError

FEATURES = {"rna": [f"G{i}" for i in range(30)], "mutation": [f"M{i}" for i in range(8)], "clinical": ["age", "grade"]}
NAMES = list(FEATURES)
PATIENTS = 80
TRAIN, TEST = np.arange(0, PATIENTS, 2), np.arange(1, PATIENTS, 2)

Write = Callable[[list[Record], dict[str, list[str]]], PreparedCohort]


def people() -> list[Record]:
    random = np.random.default_rng(0)
    loading = random.standard_normal(30)
    records = []
    for number in range(PATIENTS):
        omics = {
            "rna": 5 + random.standard_normal() * loading + random.standard_normal(30),
            "mutation": (random.random(8) < 0.3).astype(float),
            "clinical": np.array([60 + 10 * random.standard_normal(), random.integers(1, 4)]),
        }
        omics["clinical"][1] = np.nan if random.random() < 0.2 else omics["clinical"][1]
        omics["rna"][random.random(30) < 0.05] = np.nan
        if random.random() < 0.2:
            del omics["rna"]
        omics = {name: values.astype(np.float32) for name, values in omics.items()}
        records.append(Record(patient=f"P{number:03d}", site="A", group=None, omics=omics))
    return records


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory, make_cohort: Callable[..., PreparedCohort]) -> Write:
    return lambda records, features: make_cohort(tmp_path_factory.mktemp("inputs") / "cohort", records, features, {})


@pytest.fixture(scope="module")
def cohort(write: Write) -> PreparedCohort:
    return write(people(), FEATURES)


def learned(cohort: PreparedCohort, names: list[str] = NAMES) -> tuple[Inputs, np.ndarray]:
    return Inputs.learn(cohort, names, ImageFeatures(cohort), TRAIN)


def test_what_is_read_of_others_is_what_training_rows_taught(cohort):
    """Against scikit-learn, step by step."""
    inputs, x = learned(cohort)
    many, one_by_one = [], []
    for name in ("rna", "mutation"):
        values = cohort.values_NF(name, np.arange(PATIENTS)).astype(np.float64)
        if name == "rna":
            low, middle, high = np.nanquantile(values[TRAIN], [0.25, 0.5, 0.75], axis=0)
            values = (values - middle) / ((high - low) / 1.349)
            one_by_one.append(np.isnan(values).all(axis=1, keepdims=True))
        many.append(np.where(np.isnan(values), np.nanmean(values[TRAIN], axis=0), values))
    clinical = cohort.values_NF("clinical", np.arange(PATIENTS)).astype(np.float64)
    one_by_one += [np.where(np.isnan(clinical), np.nanmean(clinical[TRAIN], axis=0), clinical), np.isnan(clinical)]
    stacked = np.hstack(many)
    components = PCA(20).fit(stacked[TRAIN]).transform(stacked)
    components /= components[TRAIN, 0].std()
    rest = np.hstack(one_by_one)
    rest = rest[:, rest[TRAIN].std(axis=0) > 0]
    expected = np.hstack([components, StandardScaler().fit(rest[TRAIN]).transform(rest)])
    for rows, found in ((TRAIN, x), (TEST, inputs.read(cohort, TEST, ImageFeatures(cohort)))):
        sign = np.sign((found * expected[rows]).sum(axis=0))
        np.testing.assert_allclose(found * sign, expected[rows], atol=1e-4)
        np.testing.assert_array_equal(sign[20:], 1)


def test_training_rows_are_read_as_they_were_learned_from(cohort):
    inputs, x = learned(cohort)
    np.testing.assert_array_equal(inputs.read(cohort, TRAIN, ImageFeatures(cohort)), x)
    assert inputs.read(cohort, TEST[:0], ImageFeatures(cohort)).shape == (0, x.shape[1])


def test_rebuilt_from_arrays_and_json_it_reads_the_same_to_the_last_bit(cohort):
    inputs, _ = learned(cohort)
    assert inputs.preprocessing is not None
    again = Inputs.of(Preprocessing.from_json(inputs.preprocessing.to_json()), inputs.state())
    before, after = (one.read(cohort, TEST, ImageFeatures(cohort)) for one in (inputs, again))
    np.testing.assert_array_equal(after, before)


def test_features_are_matched_by_name_and_those_that_are_missing_count_as_not_measured(cohort, write):
    random, records = np.random.default_rng(1), people()
    order = {name: random.permutation(len(features)) for name, features in FEATURES.items()}
    order["rna"] = order["rna"][:-7]
    there = {name: [FEATURES[name][i] for i in order[name]] for name in FEATURES} | {"protein": ["P1"]}
    for record in records:
        record.omics = {name: values[order[name]] for name, values in record.omics.items()}
        record.omics["protein"] = np.ones(1, dtype=np.float32)
    other = write(records, {name: there[name] for name in ("protein", "clinical", "mutation", "rna")})
    blanked = people()
    for record in blanked:
        if "rna" in record.omics:
            record.omics["rna"][[FEATURES["rna"].index(g) for g in set(FEATURES["rna"]) - set(there["rna"])]] = np.nan
    inputs, _ = learned(cohort)
    found = inputs.read(other, TEST, ImageFeatures(other))
    without = write(blanked, FEATURES)
    np.testing.assert_array_equal(found, inputs.read(without, TEST, ImageFeatures(without)))
    assert np.abs(found - inputs.read(cohort, TEST, ImageFeatures(cohort))).max() > 0.01


def test_a_modality_that_another_cohort_lacks_stands_at_the_training_mean(cohort, write):
    records = people()
    for record in records:
        record.omics = {"clinical": record.omics["clinical"]}
    other = write(records, {"clinical": FEATURES["clinical"]})
    inputs, x = learned(cohort)
    found = inputs.read(other, TEST, ImageFeatures(other))
    assert np.ptp(found[:, :20], axis=0).max() == 0
    here = inputs.read(cohort, TEST, ImageFeatures(cohort))
    np.testing.assert_array_equal(found[:, -3:], here[:, -3:])
    assert found.shape[1] == x.shape[1]


def test_a_cohort_that_shares_too_little_is_refused(cohort, write):
    inputs, _ = learned(cohort)
    records = people()
    other = write(records, FEATURES | {"rna": [f"H{i}" for i in range(30)]})
    with pytest.raises(DataError, match="at least 50% are needed"):
        inputs.read(other, TEST, ImageFeatures(other))


def test_an_infinite_value_is_refused_and_not_cut(cohort, write):
    records = people()
    records[TEST[3]].omics["clinical"][0] = np.inf
    other = write(records, FEATURES)
    inputs, _ = learned(cohort)
    with pytest.raises(DataError, match=rf"record {TEST[3]}: 'clinical' holds an infinite value"):
        inputs.read(other, TEST, ImageFeatures(other))


def test_where_no_training_row_has_anything_there_is_nothing_to_read(write):
    records = people()
    for number, record in enumerate(records):
        if number % 2 == 0:
            record.omics.pop("rna", None)
            record.omics["mutation"][:] = np.nan
    other = write(records, FEATURES)
    inputs, x = learned(other, ["rna", "mutation"])
    assert inputs.preprocessing is None
    assert x.shape == (len(TRAIN), 0)
    assert inputs.read(other, TEST, ImageFeatures(other)).shape == (len(TEST), 0)
    with_clinical, _ = learned(other, NAMES)
    assert with_clinical.preprocessing is not None
    assert list(with_clinical.preprocessing.modalities) == ["clinical"]


class Rearranged(PreparedCohort):
    """A cohort whose images have other channels, say in another order."""

    def __init__(self, path: Path, order: list[int]) -> None:
        super().__init__(path)
        self.order = order
        document = json.loads(self.manifest.to_json())
        channels = list(document["modalities"]["mri"]["channels"].items())
        document["modalities"]["mri"]["channels"] = dict(channels[c] for c in order)
        self.manifest = Manifest.model_validate(document)

    def channels_NC(self, name, rows):
        return super().channels_NC(name, rows)[:, self.order]

    def statistics_NC4(self, name, rows):
        return super().statistics_NC4(name, rows)[:, self.order]

    def voxels(self, name, row):
        stored = PreparedCohort(self.path).voxels(name, row)
        return None if stored is None else stored[self.order]


def test_of_nobody_an_image_too_is_read_as_nothing(simulated):
    cohort = PreparedCohort(simulated / "cohort")
    inputs, x = Inputs.learn(cohort, ["mri", "rna"], ImageFeatures(cohort), np.arange(30))
    assert inputs.read(cohort, np.arange(0), ImageFeatures(cohort)).shape == (0, x.shape[1])


def test_channels_of_an_image_are_matched_by_name(simulated):
    cohort = PreparedCohort(simulated / "cohort")
    train = np.arange(0, len(cohort), 2)
    test = np.setdiff1d(np.arange(len(cohort)), train)[:12]
    inputs, _ = Inputs.learn(cohort, ["mri"], ImageFeatures(cohort), train)
    before = inputs.read(cohort, test, ImageFeatures(cohort))
    count = len(cohort.image("mri").channels)
    assert count > 1
    turned = Rearranged(simulated / "cohort", list(range(count))[::-1])
    np.testing.assert_array_equal(inputs.read(turned, test, ImageFeatures(turned)), before)
    fewer = Rearranged(simulated / "cohort", list(range(count))[:0:-1])
    found = inputs.read(fewer, test, ImageFeatures(fewer))
    has = cohort.channels_NC("mri", test)[:, 0]
    assert np.abs(found - before)[has].max(axis=1).min() > 0.01
    np.testing.assert_array_equal(found[~has], before[~has])
    # The channel that is lacking is told as what it is.
    missing_first = inputs.read(cohort, test, ImageFeatures(cohort))[:, -count]
    assert set(found[:, -count]) == {missing_first[~has][0]}


def test_inputs_that_endpoints_share_are_learned_once(cohort, monkeypatch):
    calls = []
    fit = module.fit_preprocessing
    monkeypatch.setattr(module, "fit_preprocessing", lambda *args: calls.append(args) or fit(*args))
    known, images = LearnedInputs(), ImageFeatures(cohort)
    first, x = known.learn(cohort, NAMES, images, TRAIN)
    again, same = known.learn(cohort, NAMES, images, TRAIN.copy())
    assert len(calls) == 1
    assert again is first and same is x
    known.learn(cohort, NAMES, images, TEST)
    known.learn(cohort, NAMES[:1], images, TRAIN)
    assert len(calls) == 3
