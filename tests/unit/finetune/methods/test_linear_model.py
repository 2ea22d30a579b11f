"""A linear model is a folder that predicts any cohort the same to the last bit, says what it cannot, and is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.methods.baselines import fit
from finetune.methods.linear_model import DOCUMENT, TENSORS, LinearModel
from finetune.methods.linear_parts import BaselineHazard
from finetune.splits import Fold
from finetune.tasks.survival import Survival, SurvivalConfig
from foundation.cohort.records import Record
from foundation.cohort.store import PreparedCohort
from foundation.errors import CheckpointError
from foundation.linear.cox import fit_cox

REPOSITORY = Path(__file__).parents[4]
FEATURES = {"rna": [f"G{i}" for i in range(30)], "mutation": [f"M{i}" for i in range(8)], "clinical": ["age", "grade"]}
ENDPOINTS: dict[str, dict[str, Any]] = {
    "os": {"kind": "survival", "unit": "days"},
    "which": {"kind": "survival", "unit": "days", "causes": {"death": 0, "relapse": 0}},
    "three": {"kind": "subtype", "classes": {"a": 0, "b": 0, "c": 0, "rare": 0}},
    "two": {"kind": "subtype", "classes": {"no": 0, "yes": 0}},
    "response": {"kind": "response", "classes": {"PD": 0, "SD": 0, "PR": 0, "CR": 0}},
    "dose": {"kind": "regression", "unit": "uM"},
}
PATIENTS = 150
TRAIN, TEST = np.arange(PATIENTS)[np.arange(PATIENTS) % 3 > 0], np.arange(0, PATIENTS, 3)
INNER = [Fold(str(k), TRAIN[np.arange(len(TRAIN)) % 3 != k], TRAIN[k::3]) for k in range(3)]
TIMES = (0.1, 0.5, 2.0, 1000.0)
BASELINE = "clinical + omics"


def people(groups: str = "ab") -> list[Record]:
    """Group ``z`` has a single event in training; nobody in training has the class ``rare``."""
    random = np.random.default_rng(0)
    loading = random.standard_normal(30)
    records = []
    for number in range(PATIENTS):
        age, factor = random.standard_normal(2)
        latent = age + factor
        time, limit = random.exponential(np.exp(-latent)), random.exponential(2.0)
        omics = {
            "rna": 5 + factor * loading + random.standard_normal(30),
            "mutation": (random.random(8) < 0.3).astype(float),
            "clinical": np.array([60 + 10 * age, random.integers(1, 4)]),
        }
        if random.random() < 0.2:
            del omics["rna"]
        group = groups[number % len(groups)] if groups else None
        event = int(time <= limit) if group != "z" else int(number == 7)
        cause = event * (1 + int(random.random() < 0.5))
        classes = np.searchsorted([-0.8, 0.8], latent + 0.3 * random.standard_normal(3))
        records.append(
            Record(
                patient=f"SECRET{number:03d}",
                site="A",
                group=group,
                omics={name: values.astype(np.float32) for name, values in omics.items()},
                endpoints={
                    "os/time": float(min(time, limit)),
                    "os/event": event,
                    "which/time": float(min(time, limit)),
                    "which/event": cause,
                    "three": int(classes[0]) if number != TEST[0] else 3,
                    "two": int(latent > 0),
                    "response": int(classes[1]),
                    "dose": float(latent),
                },
            )
        )
    return records


Write = Callable[..., PreparedCohort]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory, make_cohort: Callable[..., PreparedCohort]) -> Write:
    def written(records: list[Record], features: dict[str, list[str]] = FEATURES) -> PreparedCohort:
        return make_cohort(tmp_path_factory.mktemp("cohorts") / "cohort", records, features, ENDPOINTS)

    return written


@pytest.fixture(scope="module")
def cohort(write: Write) -> PreparedCohort:
    return write(people())


@pytest.fixture(scope="module")
def models(cohort: PreparedCohort) -> dict[str, LinearModel]:
    return {endpoint: fit(BASELINE, cohort, endpoint, TRAIN, INNER) for endpoint in ENDPOINTS}


@pytest.fixture(scope="module")
def folders(models: dict[str, LinearModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models")
    for endpoint, model in models.items():
        model.write(out / endpoint)
    return out


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for column, values in expected.items():
        np.testing.assert_array_equal(found[column], values)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_read_back_it_predicts_the_same_to_the_last_bit(cohort, models, folders, endpoint):
    before, after = models[endpoint], LinearModel.read(folders / endpoint)
    said = before.predict(cohort, TEST, times=TIMES)
    same(after.predict(cohort, TEST, times=TIMES), said)
    assert all(values.std(axis=0).max() > 0.01 for column, values in said.items() if "1000" not in column)
    assert (after.baseline, after.endpoint, after.modalities) == (BASELINE, endpoint, tuple(FEATURES))
    assert after.declared == before.declared
    told = {key: list(value) if isinstance(value, dict) else value for key, value in ENDPOINTS[endpoint].items()}
    assert after.declared == told, "names, and no numbers of patients"
    assert {g: part.penalty for g, part in after.parts.items()} == {g: part.penalty for g, part in before.parts.items()}


def test_in_a_new_process_too_where_the_cohort_it_was_trained_on_is_gone(cohort, models, folders, tmp_path):
    script = """
import sys
from pathlib import Path
import numpy as np
from finetune.methods.linear_model import LinearModel
from foundation.cohort.store import PreparedCohort
cohort, rows = PreparedCohort(Path(sys.argv[1])), np.load(sys.argv[3])
for folder in Path(sys.argv[2]).iterdir():
    np.savez(Path(sys.argv[4]) / folder.name, **{
        column.replace("/", ":"): values
        for column, values in LinearModel.read(folder).predict(cohort, rows, times=(0.1, 0.5, 2.0, 1000.0)).items()
    })
assert "sklearn" not in sys.modules, "what is kept needs none of it"
"""
    np.save(tmp_path / "rows.npy", TEST)
    arguments = [str(cohort.path), str(folders), str(tmp_path / "rows.npy"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, cwd=tmp_path, env=environment)
    for endpoint, model in models.items():
        with np.load(tmp_path / f"{endpoint}.npz") as found:
            same({name.replace(":", "/"): found[name] for name in found}, model.predict(cohort, TEST, times=TIMES))


def test_columns_are_those_of_the_endpoint(cohort, models):
    task = Survival(SurvivalConfig(endpoint="os", times=TIMES), ENDPOINTS)
    curves = [task._column(at) for at in TIMES]
    columns = {endpoint: list(model.predict(cohort, TEST, times=TIMES)) for endpoint, model in models.items()}
    assert columns["os"] == ["risk", *curves]
    assert columns["which"] == ["risk/death", "risk/relapse", *curves]
    assert columns["dose"] == ["value"]
    shapes = {name: models[name].predict(cohort, TEST)["probability"].shape for name in ("two", "three", "response")}
    assert shapes == {"two": (50, 2), "three": (50, 4), "response": (50, 4)}


def test_a_class_that_training_lacks_has_no_probability(cohort, models):
    assert cohort.endpoint("three")["code"][TEST].max() == 3
    probability = models["three"].predict(cohort, TEST)["probability"]
    assert not probability[:, 3].any()
    np.testing.assert_allclose(probability.sum(axis=1), 1)


def nelson_aalen(time: np.ndarray, event: np.ndarray, at: float, weight: np.ndarray | None = None) -> float:
    """Sum over events up to a time of one over the (weighted) number at risk."""
    weight = np.ones(len(time)) if weight is None else weight
    return sum(1 / weight[time >= t].sum() for t in time[(event == 1) & (time <= at)])


def test_survival_is_that_of_cox_and_breslow_in_each_group_by_itself(cohort, models):
    os, model = cohort.endpoint("os"), models["os"]
    said = model.predict(cohort, TEST, times=TIMES)
    for group in "ab":
        rows, test = (side[cohort.groups[side] == group] for side in (TRAIN, TEST))
        part = model.parts[group]
        x, of_test = (part.inputs.read(cohort, side, None) for side in (rows, test))
        time, event = os["time"][rows], os["event"][rows]
        weights = fit_cox(x, time, event, np.full(len(rows), ""), part.penalty[""])
        here = np.isin(TEST, test)
        np.testing.assert_allclose(said["risk"][here], of_test @ weights, atol=1e-9)
        for at in TIMES:
            hazard = nelson_aalen(time, event, at, np.exp(x @ weights))
            expected = np.exp(-hazard * np.exp(of_test @ weights))
            np.testing.assert_allclose(said[f"survival_probability/{at:g}"][here], expected, atol=1e-9)
    assert said["survival_probability/0.5"].mean() > said["survival_probability/2"].mean()


def test_of_several_kinds_of_event_the_hazards_add_up(cohort, models):
    said, model = models["which"].predict(cohort, TEST, times=TIMES), models["which"]
    for at in TIMES:
        hazard = np.zeros(len(TEST))
        for group in "ab":
            here = cohort.groups[TEST] == group
            for cause in ("death", "relapse"):
                baseline = model.parts[group].hazards[f"/{cause}"].at(np.array([at]))
                hazard[here] += baseline * np.exp(said[f"risk/{cause}"][here])
        np.testing.assert_allclose(said[f"survival_probability/{at:g}"], np.exp(-hazard))


def test_groups_that_training_did_not_have_are_alike_and_survive_as_all_together(cohort, models, write):
    other, os, model = write(people("bc")), cohort.endpoint("os"), models["os"]
    said = model.predict(other, TEST, times=TIMES)
    unknown = other.groups[TEST] == "c"
    assert not said["risk"][unknown].any()
    for at in TIMES:
        expected = np.exp(-nelson_aalen(os["time"][TRAIN], os["event"][TRAIN], at))
        np.testing.assert_allclose(said[f"survival_probability/{at:g}"][unknown], expected)
    known = TEST[~unknown]
    alone = model.predict(other, known, times=TIMES)
    for column, values in alone.items():
        np.testing.assert_allclose(said[column][~unknown], values, rtol=1e-12)
    [told] = [sentence for sentence in model.sentences(other, TEST) if "equal risks" in sentence]
    assert told.startswith(f"'os': {unknown.sum()} records of 'c' have equal risks: the model was trained on too few")
    assert not [sentence for sentence in model.sentences(other, known) if "equal risks" in sentence]


def test_a_group_with_fewer_than_two_events_is_alike_and_survives_as_it_did(write, tmp_path):
    cohort = write(people("abzab"))
    os = cohort.endpoint("os")
    rows = TRAIN[cohort.groups[TRAIN] == "z"]
    assert os["event"][rows].sum() == 1
    fit(BASELINE, cohort, "os", TRAIN, INNER).write(tmp_path / "model")
    model = LinearModel.read(tmp_path / "model")
    everybody = np.arange(PATIENTS)
    said = model.predict(cohort, everybody, times=TIMES)
    of_z = cohort.groups == "z"
    assert not said["risk"][of_z].any()
    assert said["risk"][~of_z].all()
    expected = np.exp(-nelson_aalen(os["time"][rows], os["event"][rows], 1000.0))
    np.testing.assert_allclose(said["survival_probability/1000"][of_z], expected)


def test_a_model_of_a_cohort_without_groups_speaks_for_any(write):
    without, model_of = write(people("")), "os"
    model = fit(BASELINE, without, model_of, TRAIN, INNER)
    before, after = (model.predict(cohort, TEST, times=TIMES) for cohort in (without, write(people("xy"))))
    same(after, before)
    assert before["risk"].std() > 0.1


def test_another_cohort_with_features_in_another_order_is_predicted_the_same(cohort, models, write):
    records = people()
    for record in records:
        record.omics = {name: values[::-1].copy() for name, values in record.omics.items()}
    turned = write(records, {name: FEATURES[name][::-1] for name in reversed(FEATURES)})
    for model in models.values():
        same(model.predict(turned, TEST, times=TIMES), model.predict(cohort, TEST, times=TIMES))


def test_what_a_cohort_lacks_is_told(models, write):
    records = people()
    for record in records:
        if "rna" in record.omics:
            record.omics["rna"] = record.omics["rna"][:20]
        del record.omics["mutation"]
    fewer = write(records, {"rna": FEATURES["rna"][:20], "clinical": FEATURES["clinical"]})
    told = models["dose"].sentences(fewer, TEST)
    assert "'mutation': this cohort has none, so every patient is read without it." in told
    assert any("20 of the 30 features" in sentence for sentence in told)
    assert np.isfinite(models["dose"].predict(fewer, TEST)["value"]).all()


def test_a_baseline_hazard_steps_at_each_event_and_is_0_without_one():
    hazard = BaselineHazard.of(np.zeros(4), np.array([3.0, 1, 2, 2]), np.array([1, 1, 0, 1]))
    np.testing.assert_array_equal(hazard.times, [1, 2, 3])
    np.testing.assert_allclose(hazard.at(np.array([0, 0.9, 1, 2, 2.5, 3, 9])), np.cumsum([0, 0, 1 / 4, 1 / 3, 0, 1, 0]))
    nothing = BaselineHazard.of(np.zeros(2), np.array([1.0, 2]), np.zeros(2))
    np.testing.assert_array_equal(nothing.at(np.array([0.0, 5])), 0)


def copied(folders: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    LinearModel.read(folders / "os").write(folder)
    return folder


def flip(path: Path, place: float) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("place", [0.01, 0.3, 0.6, 0.99])
def test_a_flipped_bit_of_the_arrays_is_refused(folders, tmp_path, place):
    folder = copied(folders, tmp_path)
    flip(folder / TENSORS, place)
    with pytest.raises(CheckpointError, match=rf"{TENSORS} is damaged\n  what to do: copy the folder again"):
        LinearModel.read(folder)


def test_a_number_of_the_document_that_was_changed_is_refused(folders, tmp_path):
    folder = copied(folders, tmp_path)
    document = json.loads((folder / DOCUMENT).read_text())
    document["parts"][0]["preprocessing"]["modalities"]["rna"]["center"][3] += 1e-12
    (folder / DOCUMENT).write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=rf"{DOCUMENT} is damaged"):
        LinearModel.read(folder)


@pytest.mark.parametrize("name", [DOCUMENT, TENSORS])
def test_a_folder_that_lacks_a_file_or_part_of_one_is_refused(folders, tmp_path, name):
    folder = copied(folders, tmp_path)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=rf"{name} is damaged"):
        LinearModel.read(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"it has no {name}\n  what to do: name the folder of a linear model"):
        LinearModel.read(folder)


@pytest.mark.parametrize("change", [{"format_version": 2}, {"heads": 3}, {"parts": None}])
def test_another_version_or_another_document_is_refused(folders, tmp_path, change):
    folder = copied(folders, tmp_path)
    document = json.loads((folder / DOCUMENT).read_text())
    (folder / DOCUMENT).write_text(json.dumps(document | change))
    with pytest.raises(CheckpointError, match="of another version"):
        LinearModel.read(folder)


def test_the_arrays_of_another_model_are_refused(folders, tmp_path):
    folder = copied(folders, tmp_path)
    (folder / TENSORS).write_bytes((folders / "dose" / TENSORS).read_bytes())
    with pytest.raises(CheckpointError, match=f"{TENSORS} is damaged"):
        LinearModel.read(folder)


def test_a_folder_is_replaced_whole_and_names_no_patient(folders, models, cohort, tmp_path):
    folder = copied(folders, tmp_path)
    models["dose"].write(folder)
    same(LinearModel.read(folder).predict(cohort, TEST), models["dose"].predict(cohort, TEST))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    for path in folders.rglob("*.*"):
        assert b"SECRET" not in path.read_bytes()
        assert path.name in (DOCUMENT, TENSORS)


def test_a_baseline_of_images_is_kept_too(simulated, tmp_path):
    cohort = PreparedCohort(simulated / "cohort")
    rows = np.flatnonzero(cohort.endpoint("subtype")["code"] >= 0)
    train, test = rows[::2], rows[1::2]
    before = fit("image", cohort, "subtype", train, [Fold("0", train[::2], train[1::2])])
    before.write(tmp_path / "model")
    said = before.predict(cohort, test)
    same(LinearModel.read(tmp_path / "model").predict(PreparedCohort(simulated / "cohort"), test), said)
    assert said["probability"].std(axis=0).max() > 0.01
