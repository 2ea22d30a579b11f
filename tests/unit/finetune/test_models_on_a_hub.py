"""hf://organisation/name where a model is named: in configs, on the command line, in Python, as weights of a tower."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file

import chiasma
from foundation.errors import CheckpointError
from foundation.hub.address import Address, pinned
from foundation.hub.published import FILE, Published
from foundation.hub.upload import upload
from foundation.model.towers.vit2d import ViT2D, ViT2DConfig
from launch.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

PLACE = "hf://group/towers"


def publish(folder, tmp_path, *, name="published"):
    """A model folder as it lies on a hub; returns its commit."""
    place = tmp_path / name
    shutil.copytree(folder, place / "model")
    (place / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    Published.seal(place, "pretrained", "mit")
    upload(place, Address.parse(PLACE))
    return pinned(PLACE).partition("@")[2]


def test_fine_tuning_begins_with_a_model_on_a_hub_and_remembers_its_commit(hub, workplace, tune, tmp_path):
    commit = publish(workplace / "model", tmp_path)
    short = ["tasks=[{task: subtype, endpoint: subtype}]", "reads=[]", "fit.epochs=0"]
    metrics, out = tune(f"pretrain={PLACE}", *short)
    assert metrics["pretrain"]["from"] == f"{PLACE}@{commit}"
    assert yaml.safe_load((out / "config.yaml").read_text())["pretrain"] == f"{PLACE}@{commit}"
    asked = len(hub.asked)
    again, _ = tune(f"out={out}", f"pretrain={PLACE}@{commit}", *short)
    assert again["folds"] == metrics["folds"] and len(hub.asked) == asked
    # It is known by its weights, wherever it lies.
    assert tune(f"out={out}", f"pretrain={workplace / 'model'}", *short)[0]["folds"] == metrics["folds"]
    publish(workplace / "model_without_clinical", tmp_path, name="next")
    with pytest.raises(CheckpointError, match="the model"):
        tune(f"out={out}", f"pretrain={PLACE}", "covariates=[clinical]", *short)


def test_what_is_not_on_the_hub_is_one_message(hub, workplace, capsys):
    assert main(["finetune", str(workplace / "config.yaml"), "pretrain=hf://group/nothing"]) == 2
    assert "hf://group/nothing" in capsys.readouterr().err
    assert main(["finetune", str(workplace / "config.yaml"), "pretrain=s3://group/model"]) == 2
    said = capsys.readouterr().err
    assert "s3://group/model" in said and "hf://organisation/name" in said and "Traceback" not in said


def test_python_and_the_command_line_take_it(hub, workplace, cohort, tmp_path):
    commit = publish(workplace / "model", tmp_path)
    expected = chiasma.load(workplace / "model").embed(cohort)
    pd.testing.assert_frame_equal(chiasma.load(f"{PLACE}@{commit}").embed(cohort), expected, check_exact=True)
    out = tmp_path / "embedded.parquet"
    assert main(["embed", PLACE, str(cohort.path), "--out", str(out)]) == 0
    found = pd.read_parquet(out)
    assert found["embedding"].map(list).tolist() == expected["embedding"].map(list).tolist()
    assert main(["describe-model", PLACE, "--out", str(tmp_path / "wanted.yaml")]) == 0
    assert (tmp_path / "wanted.yaml").read_text() == chiasma.load(workplace / "model").template()


def test_a_damaged_download_is_refused(hub, workplace, tmp_path):
    commit = publish(workplace / "model", tmp_path)
    cached = next((tmp_path / "cache").rglob(f"snapshots/{commit}/{FILE}")).parent / "model" / "preprocessing.json"
    target = cached.resolve()
    target.chmod(0o644)
    target.write_bytes(target.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match="is not what was published"):
        chiasma.load(PLACE)


def test_a_tower_begins_with_weights_on_a_hub(hub, tmp_path):
    """An image tower takes those of its own kind out of a published model, and says from where, with the commit."""
    torch.manual_seed(1)
    before = ViT2D(ViT2D.tiny(), 2, (32, 32))
    place = tmp_path / "published"
    (place / "model").mkdir(parents=True)
    state = {f"towers.mri.{name}": tensor.contiguous() for name, tensor in before.state_dict().items()}
    save_file(state, place / "model" / "model.safetensors")
    Published.seal(place, "pretrained", "mit")
    upload(place, Address.parse(PLACE))
    config = ViT2DConfig.model_validate({**before.config.model_dump(), "weights": PLACE}).pinned()
    assert config.weights == pinned(PLACE) and config.weights != PLACE
    after = ViT2D(config, 2, (32, 32))
    assert after.weights is not None and after.weights.path == config.weights
    for (name, one), other in zip(before.net.state_dict().items(), after.net.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
