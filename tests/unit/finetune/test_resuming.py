"""When a run goes on in its folder, when it begins anew, and what it refuses to go on with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from foundation.errors import CheckpointError, ChiasmaError, ConfigError

ONE_TASK = ["tasks=[{task: subtype, endpoint: subtype}]", "fit.epochs=0"]


@pytest.fixture(scope="module")
def finished(workplace, tmp_path_factory) -> Path:
    from finetune.run import finetune

    out = tmp_path_factory.mktemp("finished") / "run"
    finetune(workplace / "config.yaml", [f"out={out}", *ONE_TASK])
    return out


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copied"))


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_a_prediction_that_is_not_as_it_was_made_is_refused(tune, finished, copied, damage):
    lost = copied / "folds" / "1" / "ours" / "predictions.parquet"
    content = lost.read_bytes()
    lost.unlink()
    if damage != "gone":
        lost.write_bytes(content[:-9] if damage == "cut" else content[:-9] + b"something")
    with pytest.raises(CheckpointError, match=r"was lost or changed since(.|\n)*remove the folder") as error:
        tune(f"out={copied}", *ONE_TASK)
    assert str(lost) in str(error.value)
    shutil.rmtree(lost.parent)
    metrics, _ = tune(f"out={copied}", *ONE_TASK)
    first, _ = tune(f"out={finished}", *ONE_TASK)
    assert metrics["mean"] == first["mean"] and metrics["n"] == first["n"]


def test_results_of_other_settings_are_refused_with_and_without_the_hidden_folder(tune, copied):
    with pytest.raises(CheckpointError, match="belongs to another run: the folds and seed changed"):
        tune(f"out={copied}", *ONE_TASK, "seed=9")
    shutil.rmtree(copied / ".run")
    before = sorted(copied.rglob("*"))
    with pytest.raises(ConfigError, match=r"is not empty(.|\n)*copy its .run/identity"):
        tune(f"out={copied}", *ONE_TASK, "seed=9")
    assert sorted(copied.rglob("*")) == before


def test_a_damaged_note_of_what_run_it_is_is_named(tune, copied):
    (copied / ".run" / "identity.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"identity\.json: is damaged"):
        tune(f"out={copied}", *ONE_TASK)


def test_a_mistake_that_ended_a_run_can_be_corrected_in_the_same_folder(tune, tmp_path):
    with pytest.raises(ChiasmaError):
        tune(f"out={tmp_path / 'run'}", *ONE_TASK, "adapt.targets=[nothing]")
    assert (tmp_path / "run" / ".run" / "identity.json").is_file()
    metrics, _ = tune(f"out={tmp_path / 'run'}", *ONE_TASK)
    assert metrics["n"] > 0
