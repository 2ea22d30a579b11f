"""What is told of how far predictions can be off holds as often as it says, of patients with any pattern."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from finetune.uncertainty.base import Known, bound_of, bounds
from finetune.uncertainty.classes import BETWEEN, OfClasses
from finetune.uncertainty.numbers import OfNumber
from finetune.uncertainty.times import OfTime

CLASSES = ["a", "b", "c"]
COLUMNS = [f"probability/{name}" for name in CLASSES]
TIMES = np.linspace(100, 1200, 12)


def some(seed, patients=12000):
    """Random numbers; who has which modalities; and inner folds."""
    random = np.random.default_rng(seed)
    return random, random.choice(["mri", "mri+rna"], patients, p=[0.3, 0.7]), random.integers(0, 3, patients)


def of_classes(seed, *, temperature=1.0, prior=(0, 0, 0)):
    """Patients of whom a scan alone tells less than a scan and RNA; probabilities told as by a distorted model."""
    random, patterns, inner = some(seed)
    sharp = np.where(patterns == "mri", 0.5, 3.0)[:, None]
    logits = sharp * random.standard_normal((len(patterns), 3))
    true_NK = softmax(logits + np.array(prior), axis=1)
    code = (random.random(len(patterns))[:, None] > true_NK.cumsum(axis=1)).sum(axis=1)
    told = softmax(logits * temperature, axis=1)
    return Known(dict(zip(COLUMNS, told.T, strict=True)), {"y": {"code": code}}, patterns, inner), true_NK


def classes(**changes):
    return OfClasses("y", CLASSES, COLUMNS, lambda truth: truth["y"]["code"], **changes)


def within(one, told, known):
    return one.coverage(told, known.truth)(np.ones((1, len(known.patterns))))[0]


def test_sets_cover_what_they_promise_within_each_pattern():
    one = classes()
    one.learn(of_classes(0)[0])
    new, _ = of_classes(1)
    told = one.tell(new.predicted, new.patterns)
    for pattern in ("mri", "mri+rna"):
        here = new.only(new.patterns == pattern)
        assert within(one, one.tell(here.predicted, here.patterns), here) == pytest.approx(0.9, abs=0.02)
    sizes = np.array([len(names.split(BETWEEN)) for names in told["set"]])
    assert sizes[new.patterns == "mri"].mean() > sizes[new.patterns == "mri+rna"].mean() + 0.5


def test_sets_of_another_level_are_nested():
    one = classes()
    one.learn(of_classes(0)[0])
    new, _ = of_classes(1)
    small, large = (one.tell(new.predicted, new.patterns, level)["set"] for level in (0.7, 0.95))
    assert all({*a.split(BETWEEN)} <= {*b.split(BETWEEN)} for a, b in zip(small, large, strict=True))
    assert (small != large).any()


def test_probabilities_are_brought_back_to_what_is_true():
    known, _ = of_classes(0, temperature=2.5, prior=(0, 1.5, -1))
    one = classes()
    one.learn(known)
    new, true_NK = of_classes(1, temperature=2.5, prior=(0, 1.5, -1))
    told = one.tell(new.predicted, new.patterns)
    calibrated_NK = np.stack([told[f"calibrated/{name}"] for name in CLASSES], axis=1)
    assert np.abs(calibrated_NK - true_NK).mean() < 0.02
    assert np.abs(np.stack([new.predicted[c] for c in COLUMNS], axis=1) - true_NK).mean() > 0.1


def test_a_pattern_of_few_patients_is_told_as_everybody():
    known, _ = of_classes(0)
    few = np.flatnonzero(known.patterns == "mri")[3:]
    keep = np.ones(len(known.patterns), bool)
    keep[few] = False
    one = classes()
    one.learn(known.only(keep))
    probability = {column: np.array([0.1, 0.1]) for column in COLUMNS}
    told = one.tell(probability, np.array(["mri", "never seen"], dtype=object))
    assert told["set"][0] == told["set"][1]
    assert told["calibrated/a"][0] == pytest.approx(told["calibrated/a"][1], abs=0.05)


def test_sets_of_ordered_classes_have_no_gaps():
    at = {column: np.array([share]) for column, share in zip(COLUMNS, (0.5, 0.01, 0.49), strict=True)}
    for ordered, told in ((True, "a | b | c"), (False, "a | c")):
        one = classes(ordered=ordered)
        one.restore({"calibrators:": np.zeros(4), "bounds:": np.full(99, 0.55)})
        assert one.tell(at, np.array(["mri"], dtype=object))["set"][0] == told


def test_sets_of_ordered_classes_cover_no_more_for_having_no_gaps():
    """Classes at both ends are likelier than the middle, so that nearly every set would have a gap."""
    random, patterns, inner = some(0)
    ends = random.random(len(patterns))
    told = np.stack([0.85 * ends + 0.05, np.full(len(ends), 0.1), 0.85 * (1 - ends)], axis=1)
    code = (random.random(len(ends))[:, None] > (told / told.sum(axis=1, keepdims=True)).cumsum(axis=1)).sum(axis=1)
    known = Known(dict(zip(COLUMNS, told.T, strict=True)), {"y": {"code": code}}, patterns, inner)
    here = np.arange(len(patterns)) % 2 == 0
    one, new = classes(ordered=True), known.only(~here)
    one.learn(known.only(here))
    sets = one.tell(new.predicted, new.patterns)
    assert within(one, sets, new) == pytest.approx(0.9, abs=0.02)
    assert "a | c" not in set(sets["set"])


def test_where_nothing_was_learned_every_class_is_in_the_set():
    at = {column: np.array([share]) for column, share in zip(COLUMNS, (0.98, 0.01, 0.01), strict=True)}
    assert classes().tell(at, np.array(["mri"], dtype=object))["set"][0] == "a | b | c"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.sampled_from([0.5, 0.8, 0.9]))
@settings(max_examples=60, deadline=None)
def test_a_new_score_among_known_ones_is_within_the_bound_often_enough(scores, level):
    """Of n + 1 exchangeable scores each is the new one as likely: within the others' bound in that share."""
    scores = np.array(scores)
    patterns = np.full(len(scores) - 1, "x", dtype=object)
    hit = 0
    for new in range(len(scores)):
        others = np.delete(scores, new)
        found = bounds(others, patterns)
        hit += scores[new] <= bound_of(found, np.array(["x"], dtype=object), level)[0]
    assert hit >= level * len(scores) - 1e-9


def test_intervals_of_numbers_cover_what_they_promise():
    def of(seed):
        random, patterns, inner = some(seed)
        spread = np.where(patterns == "mri", 5.0, 1.0)
        value = random.standard_normal(len(patterns))
        return Known(
            {"value": value}, {"y": {"value": value + spread * random.standard_normal(len(value))}}, patterns, inner
        )

    one, new = OfNumber("y"), of(1)
    one.learn(of(0))
    for pattern in ("mri", "mri+rna"):
        here = new.only(new.patterns == pattern)
        assert within(one, one.tell(here.predicted, here.patterns), here) == pytest.approx(0.9, abs=0.02)


def of_times(seed, *, wrong=1.0, patients=3000):
    """Patients with exponential times, half of them censored, and curves whose hazards are `wrong` times the true."""
    random, patterns, inner = some(seed, patients)
    rate = np.exp(0.8 * random.standard_normal(patients)) / 700
    time, censored = random.exponential(1 / rate), random.uniform(0, 1500, patients)
    curve = {f"survival_probability/{at:g}": np.exp(-wrong * rate * at) for at in TIMES}
    truth = {"os": {"time": np.minimum(time, censored), "event": (time <= censored).astype(float)}}
    return Known(curve, truth, patterns, inner), time, rate


@pytest.mark.parametrize("wrong", [0.4, 1.0, 2.5])
def test_the_earliest_time_is_reached_as_often_as_promised_however_wrong_the_curves(wrong):
    one = OfTime("os", TIMES)
    one.learn(of_times(0, wrong=wrong)[0])
    new, time, _ = of_times(1, wrong=wrong)
    told = one.tell(new.predicted, new.patterns)
    assert (time >= told["earliest"]).mean() == pytest.approx(0.9, abs=0.02)
    assert within(one, told, new) == pytest.approx(0.9, abs=0.02)


def test_intervals_of_the_curve_hold_it_fall_and_narrow_with_patients():
    widths = []
    for patients in (150, 3000):
        one = OfTime("os", TIMES)
        one.learn(of_times(0, patients=patients)[0])
        new, _, rate = of_times(1)
        told = one.tell(new.predicted, new.patterns)
        low, high = (np.stack([told[f"survival_{end}/{at:g}"] for at in TIMES], axis=1) for end in ("low", "high"))
        predicted = np.stack([*new.predicted.values()], axis=1)
        assert (low <= predicted + 1e-8).all() and (predicted <= high + 1e-8).all()
        assert (np.diff(low, axis=1) <= 0).all() and (np.diff(high, axis=1) <= 0).all()
        widths.append((high - low).mean())
        median = np.log(2) / rate
        seen = median < TIMES[-1]
        # Between two times a curve is taken to have one hazard, as this one has.
        np.testing.assert_allclose(told["median_time"][seen], median[seen], rtol=1e-6)
        assert np.isnan(told["median_time"][~seen]).all()
    assert widths[1] < widths[0] / 3


def test_the_interval_of_the_curve_holds_the_true_one_where_few_were_learned_from():
    """Curves that are off by one factor for everybody, as a baseline hazard of few patients is."""
    hits = []
    for seed in range(30):
        one = OfTime("os", TIMES)
        known, _, _ = of_times(seed, patients=120)
        events = known.truth["os"]["event"].sum()
        time, rate = (
            known.truth["os"]["time"],
            -np.log(known.predicted[f"survival_probability/{TIMES[0]:g}"]) / TIMES[0],
        )
        factor = events / (rate * time).sum()
        off = {name: values**factor for name, values in known.predicted.items()}
        one.learn(Known(off, known.truth, known.patterns, known.inner))
        new, _, rate = of_times(100 + seed, patients=200)
        told = one.tell({name: values**factor for name, values in new.predicted.items()}, new.patterns)
        at = TIMES[5]
        true = np.exp(-rate * at)
        hits.append(((told[f"survival_low/{at:g}"] <= true) & (true <= told[f"survival_high/{at:g}"])).mean())
    assert 0.8 < np.mean(hits) <= 1.0


@pytest.mark.parametrize(
    ("make", "known"),
    [
        (classes, of_classes(0)[0]),
        (lambda: OfTime("os", TIMES), of_times(0)[0]),
    ],
)
def test_what_was_learned_is_the_same_after_it_was_stored(make, known):
    one, other = make(), make()
    one.learn(known)
    other.restore({key: np.array(value) for key, value in one.state().items()})
    first, second = (each.tell(known.predicted, known.patterns) for each in (one, other))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
