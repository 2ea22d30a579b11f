"""Whatever a user gets wrong is one message that says what, where and what to do, and no traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from launch.cli import main

HEAD = "tasks=[{task: subtype, endpoint: subtype}]"


def said_of(capsys: pytest.CaptureFixture, *args: object) -> str:
    """What a command that fails says, which is one message."""
    assert main(["finetune", *map(str, args)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("chiasma finetune: ")
    assert "Traceback" not in said.err and "unexpected" not in said.err
    what, fix = said.err.rstrip("\n").rsplit("\n  what to do: ", 1)
    assert what and fix
    return said.err


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["tasks=[{task: subtyp, endpoint: subtype}]"], ["tasks", "subtyp", "subtype"]),
        (["tasks=[{task: subtype, endpoint: subtip}]"], ["endpoint 'subtip'", "did you mean 'subtype'?"]),
        (["tasks=[{task: survival, endpoint: subtype}]"], ["endpoint 'subtype'", "of kind subtype", "survival"]),
        (["tasks=[{task: subtype, endpoint: subtype}, {task: subtype, endpoint: subtype}]"], ["tasks", "two tasks"]),
        (["pretrain=nowhere/model"], ["pretrain: ", "nowhere/model", "no such model folder"]),
        (["pretrain={workplace}/cohort"], ["cohort", "name", "model"]),
        (["cohort={workplace}/model"], ["model", "is not a prepared cohort", "chiasma prepare"]),
        (["modalities=[rna, clinica]"], ["modalities", "no modality 'clinica'", "did you mean 'clinical'?"]),
        (["covariates=[clinica]"], ["covariates", "'clinica'", "did you mean 'clinical'?"]),
        (["splits.folds=56"], ["pretrain", "not seen in pretraining: too few for 56 folds", "per_fold"]),
        (["splits.folds=500"], ["splits", "cannot be split into 500 folds", "use fewer folds"]),
        (["allow_seen=true", "splits.folds=500"], ["splits", "cannot be split into 500 folds", "use fewer folds"]),
        (["splits.published=true"], ["pretrain", "was pretrained on", "allow_seen: true"]),
        (["pretrain=none", "adapt={mode: scratch}"], ["`pretrain: none` needs the key `network`"]),
        (["pretrain=per_fold"], ["`pretrain: per_fold` needs the key `pretraining`"]),
        (["fit.epoch=3"], ["command line: fit: unknown key 'epoch'", "did you mean 'epochs'?"]),
        (["adapt.targets=[query_]"], ["adapt.towers.omics.targets", "query_"]),
        (["out={workplace}/config.yaml"], ["config.yaml", "is a file, not a folder", "correct `out`"]),
        (["oracle={workplace}/config.yaml"], ["oracle", "cannot be read as JSON"]),
        (["oracle={workplace}/cohort/cohort.json"], ["oracle", "none of the tasks' metrics"]),
        (["out={workplace}/model"], ["out: ", "is not empty", "name a new folder"]),
        (["pretrain={workplace}"], ["pretrain: ", "is no model folder", "name {workplace}/model"]),
        (["labels=[5000]"], ["labels: 5000 is not fewer than the", "training patients of the smallest fold"]),
        (["labels=[3]"], ["`labels` must be 4 or more, two patients for each of 2 inner folds"]),
        (["search.rank=[0]"], ["search.rank", "greater than or equal to 1"]),
        (["search.inner_folds=9"], ["`search.inner_folds` is larger than `splits.inner_folds`"]),
        (["adapt={mode: full}", "search.rank=[4]"], ["need `adapt: {mode: lora}`"]),
        (
            ["tasks=[{task: survival, endpoint: os, times: [1e6]}]"],
            ["'os': times", "no patient was followed for 1e+06 days"],
        ),
        (["tasks=[]"], ["tasks", "needs 1 or more"]),
        (["fit=3"], ["fit", "needs keys of its own"]),
        (["out="], ["out", "needs a path"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_it_is_one_message_and_exits_with_2(workplace, tmp_path, capsys, changes, expected):
    changes = [change.replace("{workplace}", str(workplace)) for change in changes]
    said = said_of(capsys, workplace / "config.yaml", f"out={tmp_path / 'run'}", *changes)
    assert all(part.replace("{workplace}", str(workplace)) in said for part in expected), said
    assert not list(tmp_path.rglob("done")), "it is told before anything is trained"


def test_a_config_that_is_not_there_is_named(tmp_path, capsys):
    assert "nowhere.yaml: no such file" in said_of(capsys, tmp_path / "nowhere.yaml")


DAMAGED = ["model.safetensors", "config.json", "preprocessing.json", "patients.json"]


@pytest.mark.parametrize(
    # A model need not say whom it has seen.
    ("name", "damage"),
    [*((name, "truncated") for name in DAMAGED), *((name, "gone") for name in DAMAGED[:3])],
)
def test_a_damaged_model_is_named(workplace, tmp_path, capsys, name, damage):
    model = Path(shutil.copytree(workplace / "model", tmp_path / "model"))
    content = (model / name).read_bytes()
    if damage == "gone":
        (model / name).unlink()
    else:
        (model / name).write_bytes(content[: len(content) // 2])
    said = said_of(capsys, workplace / "config.yaml", f"out={tmp_path / 'run'}", f"pretrain={model}", HEAD)
    assert str(model) in said


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["modalities=[rna, clinical]"], ["modalities: the model knows no modality 'clinical'", "among `covariates`"]),
        (["modalities=[rna]", "covariates=[clinical]"], ["covariates: 'clinical' may not be seen", "add it to"]),
        (["covariates=[clinica]"], ["covariates: no omics modality of the cohort", "did you mean 'clinical'?"]),
        (["modalities=[clinical]", "covariates=[clinical]"], ["no tower is left to adapt", "mode: frozen"]),
    ],
    ids=lambda value: value[-1],
)
def test_a_model_without_a_modality_is_told_apart_from_a_cohort_without_it(
    workplace, tmp_path, capsys, changes, expected
):
    changes = [f"pretrain={workplace / 'model_without_clinical'}", *changes]
    said = said_of(capsys, workplace / "config.yaml", f"out={tmp_path / 'run'}", *changes)
    assert all(part in said for part in expected), said
    assert not list(tmp_path.rglob("done")), "it is told before anything is trained"


def test_weights_that_are_no_numbers_are_refused(workplace, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    model = Path(shutil.copytree(workplace / "model", tmp_path / "model"))
    weights = load_file(model / "model.safetensors")
    next(weight for weight in weights.values() if weight.is_floating_point()).fill_(float("nan"))
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    (model / "hashes.json").unlink()
    said = said_of(capsys, workplace / "config.yaml", f"out={tmp_path / 'run'}", f"pretrain={model}", HEAD)
    assert "has weights that are not finite" in said and str(model) in said
