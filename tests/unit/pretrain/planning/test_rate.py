"""Where the time of a record comes from."""

from __future__ import annotations

import json

import pytest

from foundation.errors import ConfigError
from pretrain.planning.hardware import Hardware
from pretrain.planning.rate import assumed, measured
from tests.unit.pretrain.planning.test_plan import small_config


def run_folder(folder, config, speeds=(1.0, 40.0, 50.0, 80.0), **told):
    folder.mkdir()
    (folder / "config.yaml").write_text(config.to_yaml())
    row = {"split": "train", "processes": 2, "device": "x86_64", **told}
    rows = [{**row, "samples_per_second": speed} for speed in speeds]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"split": "held out"}]))
    return folder


def test_operations_at_an_assumed_speed():
    machines = Hardware(bfloat16=100, float32=10, utilisation=0.5)
    assert assumed(1e12, small_config(precision="bfloat16"), machines).seconds == pytest.approx(1 / 50)
    found = assumed(1e12, small_config(), machines)
    assert found.seconds == pytest.approx(1 / 5)
    assert found.source == "assumed: 5 TFLOP/s, not yet measured on a GPU"


def test_a_run_says_how_long_a_record_takes_one_process(tmp_path):
    # The first step is left out; of the others the one in the middle counts.
    found = measured(run_folder(tmp_path / "first", small_config()), small_config(batch_size=16, epochs=3))
    assert found.seconds == 2 / 50
    assert found.source == "measured in first, 2 processes on x86_64"


def test_another_model_has_another_speed(tmp_path):
    run = run_folder(tmp_path / "first", small_config())
    with pytest.raises(ConfigError, match="`width` of this run is another one"):
        measured(run, small_config(width=8))


def test_a_run_without_steps_says_nothing(tmp_path):
    with pytest.raises(ConfigError, match="has logged no step"):
        measured(run_folder(tmp_path / "first", small_config(), speeds=(1.0,)), small_config())
    with pytest.raises(ConfigError, match="is not the folder of a run"):
        measured(tmp_path, small_config())
