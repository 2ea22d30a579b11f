"""Linear baselines find what is planted, nothing where labels are shuffled, and learn nothing of test patients."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge

from finetune.evaluation.compare import averaged
from finetune.methods.baselines import BASELINES, FOUND, IMAGE, available, fit, out_of_fold, predict
from finetune.methods.image_features import ImageFeatures
from finetune.methods.inputs import Inputs, LearnedInputs
from finetune.splits import Fold, Folds, Records, SplitConfig, within_groups
from foundation.cohort.manifest import FILE, Manifest, OmicsEntry
from foundation.cohort.records import Record, record_features, write_index, write_shard
from foundation.cohort.store import PreparedCohort
from foundation.errors import ConfigError
from foundation.linear.cox import fit_cox
from foundation.linear.learners import CoxLearner
from foundation.linear.ordinal import class_probabilities, fit_proportional_odds
from foundation.metrics import class_scores, number_scores, score, survival_scores

FEATURES = {
    "rna": [f"G{i}" for i in range(40)],
    "mutation": [f"M{i}" for i in range(12)],
    "clinical": ["age", "grade"],
}
KINDS = {"os": "survival", "subtype": "subtype", "response": "response", "dose": "regression"}
PATIENTS = 240


def write(folder: Path, records: list[Record]) -> PreparedCohort:
    spec = SimpleNamespace(
        images=dict,
        annotations={},
        omics=lambda: FEATURES,
        endpoints={n: SimpleNamespace(kind=k) for n, k in KINDS.items()},
    )
    schema = record_features(spec, FEATURES)
    (folder / "records").mkdir(parents=True)
    path = folder / "records" / "data-00000-of-00001.arrow"
    write_shard(path, schema.arrow_schema, records)
    write_index(folder / "records", schema, [path], "0" * 64)
    values = {"rna": "continuous", "mutation": "binary", "clinical": "continuous"}
    nothing = {name: {} for name in ("patterns", "sites", "groups", "folds", "sources", "versions")}
    manifest = Manifest(
        name="small",
        patients=len(records),
        records=len(records),
        modalities={
            name: OmicsEntry(patients=0, features=len(FEATURES[name]), values=kind, unit="", transform=[])
            for name, kind in values.items()
        },
        endpoints={name: {"kind": kind} for name, kind in KINDS.items()},
        quarantined=0,
        fingerprint="0" * 64,
        **nothing,
    )
    (folder / FILE).write_text(manifest.to_json(), encoding="utf-8")
    (folder / "features.json").write_text(json.dumps(FEATURES), encoding="utf-8")
    return PreparedCohort(folder)


def people(seed: int = 0, shuffled: bool = False) -> list[Record]:
    """Two groups; age and a direction in rna decide what becomes of a patient, unless the outcomes are shuffled."""
    random = np.random.default_rng(seed)
    age, factor = random.standard_normal((2, PATIENTS))
    loading = random.standard_normal(40)
    latent = age + factor
    outcome = latent[random.permutation(PATIENTS)] if shuffled else latent
    records = []
    for i in range(PATIENTS):
        time = random.exponential(np.exp(-2 * outcome[i]))
        limit = random.exponential(2.0)
        clinical = np.array([60 + 10 * age[i], random.integers(1, 4)], dtype=np.float32)
        clinical[1] = np.nan if random.random() < 0.2 else clinical[1]
        record = Record(patient=f"P{i:03d}", site="A", group="ab"[i % 2], omics={"clinical": clinical})
        if random.random() < 0.8:
            record.omics["rna"] = (5 + factor[i] * loading + random.standard_normal(40)).astype(np.float32)
        record.omics["mutation"] = (random.random(12) < 0.2).astype(np.float32)
        record.endpoints = {
            "os/time": float(min(time, limit)),
            "os/event": int(time <= limit),
            "subtype": int(np.searchsorted([-0.8, 0.8], outcome[i] + 0.3 * random.standard_normal())),
            "response": int(np.searchsorted([-1.2, 0, 1.2], outcome[i] + 0.3 * random.standard_normal())),
            "dose": float(outcome[i]),
        }
        records.append(record)
    return records


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> PreparedCohort:
    return write(tmp_path_factory.mktemp("baselines") / "cohort", people())


def strata(cohort: PreparedCohort, endpoint: str) -> np.ndarray:
    """Classes, or fourths of a number, or of the times of those with and of those without the event."""
    parts = cohort.endpoint(endpoint)
    if "code" in parts:
        return within_groups(cohort.groups, parts["code"])
    values, event = parts.get("time", parts.get("value")), parts.get("event", np.zeros(len(cohort)))
    codes = np.full(len(cohort), -1)
    for happened in (0, 1):
        here = (event == happened) & np.isfinite(values)
        if here.any():
            codes[here] = 4 * happened + np.digitize(values[here], np.quantile(values[here], (0.25, 0.5, 0.75)))
    return within_groups(cohort.groups, codes)


def folds_of(cohort: PreparedCohort, endpoint: str, count: int = 3) -> Folds:
    records = Records(cohort.patients, cohort.sites, strata(cohort, endpoint))
    return Folds.make(SplitConfig(folds=count, inner_folds=3), records, 0)


def score_of(cohort: PreparedCohort, endpoint: str, rows: np.ndarray, said: dict[str, np.ndarray]) -> score.Score:
    truth = {part: values[rows] for part, values in cohort.endpoint(endpoint).items()}
    if endpoint == "os":
        return survival_scores.concordance(said["risk"], truth["time"], truth["event"], cohort.groups[rows].astype(str))
    if endpoint == "subtype":
        return class_scores.macro_auroc(truth["code"], said["probability"])
    if endpoint == "response":
        return class_scores.auroc(truth["code"] >= 2, said["probability"][:, 2:].sum(axis=1))
    return number_scores.r_squared(truth["value"], said["value"])


def measured(cohort: PreparedCohort, endpoint: str, name: str) -> tuple[float, list[float | None]]:
    """Mean over folds, and its interval."""
    made = folds_of(cohort, endpoint)
    parts = [
        (fold.test, score_of(cohort, endpoint, fold.test, predict(name, cohort, endpoint, fold, made.inner(fold))))
        for fold in made.folds
    ]
    return score.with_interval(averaged(parts), len(cohort), np.random.default_rng(0))


@pytest.mark.parametrize(("endpoint", "enough"), [("os", 0.75), ("subtype", 0.85), ("response", 0.85), ("dose", 0.75)])
def test_both_together_find_what_each_finds_half_of(cohort, endpoint, enough):
    both, half, other = (measured(cohort, endpoint, name)[0] for name in ("clinical + omics", "clinical", "omics"))
    chance = 0.0 if endpoint == "dose" else 0.5
    assert both > enough
    assert chance + 0.1 < half < both
    assert chance + 0.05 < other < both


@pytest.mark.parametrize("endpoint", ["os", "subtype", "response"])
def test_shuffled_labels_give_chance_through_the_whole_pipeline(tmp_path, endpoint):
    values, covered, leaked = [], 0, []
    for seed in range(6):
        cohort = write(tmp_path / str(seed), people(seed, shuffled=True))
        value, (low, high) = measured(cohort, endpoint, "clinical + omics")
        values.append(value)
        covered += low <= 0.5 <= high
        made = folds_of(cohort, endpoint)
        fold, inner = made.folds[0], made.inner(made.folds[0])
        cheating = Fold("0", np.union1d(fold.train, fold.test), fold.test)
        said = predict("clinical + omics", cohort, endpoint, cheating, inner)
        leaked.append(score_of(cohort, endpoint, fold.test, said)(np.ones((1, len(fold.test))))[0])
    # A single shuffle strays by about 0.04, and an interval over test patients knows nothing of another training set.
    assert abs(np.mean(values) - 0.5) < 0.05
    assert covered >= 4
    # The same pipeline with a fold's test patients in training does not pass for chance.
    assert np.mean(leaked) > 0.6


@pytest.mark.parametrize("endpoint", ["subtype", "response"])
def test_the_last_declared_classes_are_there_though_nobody_has_them(cohort, endpoint, monkeypatch):
    declared = {"kind": endpoint, "classes": dict.fromkeys("abcdef", 0)}
    monkeypatch.setitem(cohort.manifest.endpoints, endpoint, declared)
    made = folds_of(cohort, endpoint)
    said = predict("clinical", cohort, endpoint, made.folds[0], made.inner(made.folds[0]))["probability"]
    assert said.shape == (len(made.folds[0].test), 6)
    assert not said[:, 4:].any()


def test_what_the_test_patients_have_changes_nothing_that_is_learned(cohort, tmp_path):
    fold = folds_of(cohort, "os").folds[0]
    records = people()
    for row in fold.test[1:]:
        for values in records[row].omics.values():
            values += 1000
        records[row].endpoints["os/time"] = 0.5
    changed = write(tmp_path / "cohort", records)
    inner = [Fold("0", fold.train[::2], fold.train[1::2])]
    first = fold.test[:1]
    for endpoint in KINDS:
        said = [
            predict("clinical + omics", c, endpoint, Fold("0", fold.train, first), inner) for c in (cohort, changed)
        ]
        for part in said[0]:
            np.testing.assert_array_equal(said[0][part], said[1][part])


def test_one_group_learns_nothing_of_survival_from_another(cohort, tmp_path):
    made = folds_of(cohort, "os")
    fold = made.folds[0]
    records = people()
    for record in records[1::2]:
        record.endpoints["os/time"] = 100 - record.endpoints["os/time"]
    changed = write(tmp_path / "cohort", records)
    said, again = (predict("clinical", c, "os", fold, made.inner(fold))["risk"] for c in (cohort, changed))
    of_a = cohort.groups[fold.test] == "a"
    np.testing.assert_array_equal(said[of_a], again[of_a])
    assert np.abs(said[~of_a] - again[~of_a]).max() > 0.1


def test_to_each_kind_of_event_all_others_are_censoring(tmp_path):
    records = people()
    for record in records[::3]:
        record.endpoints["os/event"] *= 2
    write(tmp_path / "several", records)
    manifest = json.loads((tmp_path / "several" / FILE).read_text())
    manifest["endpoints"]["os"]["causes"] = {"death": 0, "relapse": 0}
    (tmp_path / "several" / FILE).write_text(json.dumps(manifest))
    several = PreparedCohort(tmp_path / "several")
    fold = Fold("0", np.arange(0, PATIENTS, 2), np.arange(1, PATIENTS, 2))
    inner = [Fold("0", fold.train[::2], fold.train[1::2])]
    said = predict("clinical", several, "os", fold, inner)
    assert set(said) == {"risk/death", "risk/relapse"}
    for code, cause in enumerate(["death", "relapse"], start=1):
        alone = people()
        for one, record in zip(alone, records, strict=True):
            one.endpoints["os/event"] = int(record.endpoints["os/event"] == code)
        cohort = write(tmp_path / cause, alone)
        np.testing.assert_array_equal(said[f"risk/{cause}"], predict("clinical", cohort, "os", fold, inner)["risk"])


def test_components_are_those_of_mean_imputed_values_and_what_is_missing_is_told(cohort):
    train = np.arange(0, PATIENTS, 2)
    x = Inputs.learn(cohort, ["rna", "mutation", "clinical"], ImageFeatures(cohort), train)[1]
    rna, mutation = (cohort.values_NF(name, train).astype(float) for name in ("rna", "mutation"))
    quartiles = np.nanquantile(rna, [0.25, 0.75], axis=0)
    rna = rna / (np.diff(quartiles, axis=0) / 1.349)
    rna = np.where(np.isnan(rna), np.nanmean(rna, axis=0), rna)
    expected = PCA(20).fit_transform(np.hstack([rna, mutation]))
    expected /= expected[:, 0].std()
    np.testing.assert_allclose(np.abs(x[:, :20]), np.abs(expected), atol=1e-4)
    # An indicator for rna, two covariates, and one for the grade; nothing for what is never missing.
    assert x.shape == (120, 24)
    lacks = np.isnan(cohort.values_NF("rna", train)).all(axis=1)
    assert abs(np.corrcoef(x[:, 20], lacks)[0, 1]) == pytest.approx(1)
    np.testing.assert_allclose(x[:, 20:].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(x[:, 20:].std(axis=0), 1, atol=1e-9)


def test_a_baseline_reads_only_what_it_may(cohort):
    made = folds_of(cohort, "dose")
    fold, inner = made.folds[0], made.inner(made.folds[0])
    with_rna = predict("omics", cohort, "dose", fold, inner, ["rna"])["value"]
    with_mutation = predict("omics", cohort, "dose", fold, inner, ["mutation", "clinical"])["value"]
    truth = cohort.endpoint("dose")["value"][fold.test]
    assert np.corrcoef(with_rna, truth)[0, 1] > 0.5
    assert with_mutation.std() < 0.5 * with_rna.std()
    assert available(cohort) == [name for name, needs in BASELINES.items() if not {IMAGE, FOUND} & {*needs}]
    assert available(cohort, ["rna"]) == ["omics"]
    with pytest.raises(ConfigError, match="no data for the baseline 'clinical'"):
        predict("clinical", cohort, "dose", fold, inner, ["rna"])


def test_the_penalty_is_large_where_there_is_nothing_to_learn_and_small_where_there_is(cohort, monkeypatch):
    made = folds_of(cohort, "os")
    chosen: list[list[float]] = []
    fit = CoxLearner.fit

    def watched(self, x_ND, rows, penalty):
        chosen[-1].append(penalty)
        return fit(self, x_ND, rows, penalty)

    monkeypatch.setattr(CoxLearner, "fit", watched)
    for modalities in (["mutation"], ["rna"]):
        chosen.append([])
        predict("omics", cohort, "os", made.folds[0], made.inner(made.folds[0]), modalities)
    nothing, much = chosen
    # One of each group.
    assert len(nothing) == len(much) == 2
    assert nothing[0] > much[0]
    assert nothing[1] > 10 * much[1]


def test_a_group_without_an_event_in_training_has_equal_risks(cohort, tmp_path):
    records = people()
    for record in records[::2]:
        record.endpoints["os/event"] = 0
    quiet = write(tmp_path / "cohort", records)
    made = folds_of(quiet, "os")
    fold = made.folds[0]
    risk = predict("clinical", quiet, "os", fold, made.inner(fold))["risk"]
    of_a = quiet.groups[fold.test] == "a"
    assert np.ptp(risk[of_a]) == 0
    assert np.ptp(risk[~of_a]) > 0
    without = Fold("0", fold.train[quiet.groups[fold.train] == "b"], fold.test)
    np.testing.assert_array_equal(predict("clinical", quiet, "os", without, made.inner(fold))["risk"], risk)


NAMES = ["rna", "mutation", "clinical"]


def directly(cohort: PreparedCohort, endpoint: str, penalty: float, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """What a model that was fitted on some rows by scikit-learn, or by the formulas, predicts of others."""
    inputs, x = Inputs.learn(cohort, NAMES, ImageFeatures(cohort), train)
    of_test = inputs.read(cohort, test, ImageFeatures(cohort))
    parts = {part: values[train] for part, values in cohort.endpoint(endpoint).items()}
    if endpoint == "dose":
        return Ridge(alpha=penalty).fit(x, parts["value"]).predict(of_test)
    if endpoint == "subtype":
        model = LogisticRegression(C=1 / penalty, class_weight="balanced", max_iter=2000).fit(x, parts["code"])
        return model.predict_proba(of_test)
    if endpoint == "response":
        weights, cuts = fit_proportional_odds(x, parts["code"], penalty)
        return class_probabilities(of_test @ weights, cuts)
    return of_test @ fit_cox(x, parts["time"], parts["event"], np.full(len(train), ""), penalty)


@pytest.mark.parametrize("endpoint", KINDS)
def test_out_of_fold_each_row_is_predicted_by_a_fit_on_the_folds_without_it(cohort, endpoint):
    made = folds_of(cohort, endpoint)
    train, inner = made.folds[0].train, made.inner(made.folds[0])
    model = fit("clinical + omics", cohort, endpoint, train, inner)
    [found] = out_of_fold(model, cohort, train, inner).values()
    assert np.isfinite(found).all()
    groups = np.unique(cohort.groups) if endpoint == "os" else [""]
    for fold in inner:
        for group in groups:
            learn, held_out = (side[(cohort.groups[side] == group) | (group == "")] for side in (fold.train, fold.test))
            expected = directly(cohort, endpoint, model.parts[group].penalty[""], learn, held_out)
            np.testing.assert_allclose(found[np.isin(train, held_out)], expected, rtol=1e-9, atol=1e-9)
    [in_fold] = model.predict(cohort, train).values()
    assert np.abs(in_fold - found).max() > 0.01


@pytest.mark.parametrize("endpoint", KINDS)
def test_out_of_fold_the_outcome_of_who_is_held_out_does_not_reach_his_own_prediction(cohort, endpoint, monkeypatch):
    made = folds_of(cohort, endpoint)
    train, inner = made.folds[0].train, made.inner(made.folds[0])
    model, truth = fit("clinical + omics", cohort, endpoint, train, inner), cohort.endpoint(endpoint)
    before = out_of_fold(model, cohort, train, inner, times=[0.5])
    held_out = np.isin(train, inner[1].test)
    changed = {part: values.copy() for part, values in truth.items()}
    for values in changed.values():
        values[inner[1].test] = values[inner[1].test][::-1]
    monkeypatch.setattr(cohort, "endpoint", lambda name: changed)
    after = out_of_fold(model, cohort, train, inner, times=[0.5])
    assert list(before) == (["risk", "survival_probability/0.5"] if endpoint == "os" else list(before))
    for column, values in before.items():
        np.testing.assert_array_equal(after[column][held_out], values[held_out])
        assert np.abs(after[column] - values)[~held_out].max() > 1e-3, "the others learn from them"


@pytest.mark.parametrize("endpoint", ["os", "dose"])
def test_out_of_fold_the_values_of_who_is_held_out_teach_nothing_either(cohort, tmp_path, endpoint):
    """Scales, components and means are those of the inner fold's training rows."""
    made = folds_of(cohort, endpoint)
    train, inner = made.folds[0].train, made.inner(made.folds[0])
    model = fit("clinical + omics", cohort, endpoint, train, inner)
    records = people()
    for row in inner[1].test[1:]:
        for values in records[row].omics.values():
            values *= 3
    changed = write(tmp_path / "cohort", records)
    at = np.flatnonzero(train == inner[1].test[0])
    before, after = (out_of_fold(model, c, train, inner) for c in (cohort, changed))
    [[column, values]] = before.items()
    np.testing.assert_allclose(after[column][at], values[at], rtol=1e-12)
    others = ~np.isin(train, inner[1].test)
    assert np.abs(after[column] - values)[others].max() > 1e-3


def test_out_of_fold_of_those_whom_no_inner_fold_holds_out_nothing_is_said(cohort):
    made = folds_of(cohort, "os")
    train, inner = made.folds[0].train, made.inner(made.folds[0])
    model = fit("clinical", cohort, "os", train, inner)
    everything, part = out_of_fold(model, cohort, train, inner), out_of_fold(model, cohort, train, inner[:2])
    missing = np.isin(train, inner[2].test)
    np.testing.assert_array_equal(np.isnan(part["risk"]), missing)
    np.testing.assert_array_equal(part["risk"][~missing], everything["risk"][~missing])
    # Rows of inner folds that are no training rows, say without a label, have no part in it.
    fewer = train[::2]
    of_fewer = out_of_fold(model, cohort, fewer, inner)
    within = [Fold(f.name, *(np.intersect1d(side, fewer) for side in (f.train, f.test))) for f in inner]
    np.testing.assert_array_equal(of_fewer["risk"], out_of_fold(model, cohort, fewer, within)["risk"])
    # A fold that leaves nobody to learn from says nothing.
    alone = [*inner[1:], Fold("0", inner[0].train[:0], inner[0].test)]
    np.testing.assert_array_equal(
        np.isnan(out_of_fold(model, cohort, train, alone)["risk"]), np.isin(train, inner[0].test)
    )


def test_the_penalty_of_a_model_is_the_one_that_inner_folds_choose_and_inputs_are_learned_once(cohort, monkeypatch):
    made = folds_of(cohort, "dose")
    train, inner = made.folds[0].train, made.inner(made.folds[0])
    learned: list[np.ndarray] = []
    learn = Inputs.learn

    def watched(cohort, names, images, rows):
        learned.append(rows)
        return learn(cohort, names, images, rows)

    monkeypatch.setattr(Inputs, "learn", watched)
    known = LearnedInputs()
    model = fit("clinical + omics", cohort, "dose", train, inner, known=known)
    x = learn(cohort, NAMES, ImageFeatures(cohort), train)[1]
    value = cohort.endpoint("dose")["value"][train]
    errors = []
    for penalty in (10.0**power for power in range(6, -2, -1)):
        held = [np.isin(train, fold.test) for fold in inner]
        said = [Ridge(alpha=penalty).fit(x[~mask], value[~mask]).predict(x[mask]) for mask in held]
        errors.append((np.mean([np.mean((s - value[m]) ** 2) for s, m in zip(said, held, strict=True)]), penalty))
    assert model.parts[""].penalty == {"": min(errors)[1]}
    for endpoint in ("dose", "subtype", "response"):
        again = fit("clinical + omics", cohort, endpoint, train, inner, known=known)
        out_of_fold(again, cohort, train, inner, known=known)
    assert len(learned) == 1 + len(inner)


def test_where_no_training_row_has_what_a_baseline_reads_everybody_is_alike(tmp_path):
    records = people()
    for record in records[::2]:
        record.omics = {"clinical": record.omics["clinical"]}
    bare = write(tmp_path / "cohort", records)
    train, test = np.arange(0, PATIENTS, 2), np.arange(1, PATIENTS, 2)
    inner = [Fold("0", train[::2], train[1::2])]
    for endpoint in KINDS:
        for values in predict("omics", bare, endpoint, Fold("0", train, test), inner).values():
            assert np.isfinite(values).all()
            assert np.ptp(values, axis=0).max() == 0


@pytest.mark.parametrize("endpoint", KINDS)
def test_a_training_row_without_a_label_is_an_error(cohort, monkeypatch, endpoint):
    made = folds_of(cohort, endpoint)
    parts = {part: values.copy() for part, values in cohort.endpoint(endpoint).items()}
    for values in parts.values():
        values[made.folds[0].train[5]] = -1 if endpoint in ("subtype", "response") else np.nan
    monkeypatch.setattr(cohort, "endpoint", lambda name: parts)
    with pytest.raises(ValueError, match=f"not every training row has a label of '{endpoint}'"):
        fit("clinical", cohort, endpoint, made.folds[0].train, made.inner(made.folds[0]))
