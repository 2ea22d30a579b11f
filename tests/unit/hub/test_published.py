"""What a published folder must hold, and what must not be in it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from foundation.errors import CheckpointError
from foundation.hub.leaks import leaks
from foundation.hub.published import FILE, Published

PLACE = "/".join(["", "home", "somebody", "cohorts", "ours"])
NAMES = ["TCGA-06-0138", "17", "0", "P1", "4711222", "P001", "MÜ-0001", "A/0001", "ZZ9"]


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "published"
    (place / "model").mkdir(parents=True)
    save_file({"w": np.arange(9, dtype=np.float32)}, place / "model" / "w.safetensors", {"made by": "nobody"})
    (place / "README.md").write_text(
        "# A model of 17 patients, in fold 12, with 4711222.5 and 34711222 features, at a rate of 1e-3\n"
    )
    (place / "metrics.json").write_text(json.dumps({"n": 17, "fold": "0"}))
    return place


def test_it_is_verified_file_by_file(folder):
    told = Published.seal(folder, "pretrained", "mit")
    assert Published.verify(folder) == told and set(told.files) == {"README.md", "metrics.json", "model/w.safetensors"}
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")  # a hub adds it
    assert Published.verify(folder) == told


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda f: (f / "README.md").unlink(), r"has no README\.md"),
        (lambda f: (f / "README.md").write_text("# Another model"), r"README\.md is not what was published"),
        (lambda f: (f / "more.bin").write_text("x"), r"more\.bin was not published with it"),
        (lambda f: (f / FILE).unlink(), r"has no chiasma\.json"),
        (lambda f: (f / FILE).write_text("{}"), r"has no chiasma\.json, or one that is damaged"),
    ],
)
def test_what_was_changed_is_refused(folder, harm, said):
    Published.seal(folder, "pretrained", "mit")
    harm(folder)
    with pytest.raises(CheckpointError, match=said):
        Published.verify(folder)


def test_nothing_is_found_where_nothing_is(folder):
    assert leaks(folder, NAMES) == []


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("README.md", "seen: TCGA-06-0138.", "the identifier of a patient"),
        ("README.md", "seen: tcga_06_0138.", "the identifier of a patient"),
        ("tcga.06.0138.json", "{}", "the identifier of a patient"),
        ("metrics.json", '{"by": {"TCGA-06-0138": 1}}', "the identifier of a patient"),
        ("metrics.json", '{"worst": "4711222"}', "the identifier of a patient"),
        ("metrics.json", '{"worst": "M\\u00dc-0001"}', "the identifier of a patient"),
        ("metrics.json", '{"worst": "A\\/0001"}', "the identifier of a patient"),
        ("metrics.json", '{"worst": ["ZZ9"]}', "the identifier of a patient"),
        ("lines.jsonl", '{"a": 1}\n{"a": "patient 4711222"}', "the identifier of a patient"),
        ("config.yaml", 'worst: "4711222"', "the identifier of a patient"),
        ("README.md", "worst was 4711222, by far", "the identifier of a patient"),
        ("4711222.json", "{}", "the identifier of a patient"),
        ("table.tsv", "name\tvalue\n4711222\t3", "the identifier of a patient"),
        ("config.yaml", "wandb: " + "0a" * 20, "a key of a tracker"),
        ("config.yaml", "out: /opt/group/ours", "a place of this machine, /opt/group/ours"),
        ("README.md", "worst was P001", "the identifier of a patient"),
        ("TCGA-06-0138.json", "{}", "the identifier of a patient"),
        ("config.yaml", "token: hf_" + "x" * 34, "a token of a model hub"),
        ("config.yaml", "url: https://me:secret99@store.org/x", "a password in a URL"),
        ("key.txt", "AKIA" + "A" * 16, "a key of a store"),
        ("config.yaml", f"cohort: {PLACE}", f"a place of this machine, {PLACE}"),
        ("config.yaml", "the value-of-my-token", "the value of MY_API_TOKEN"),
    ],
)
def test_what_must_not_leave_is_found(folder, name, content, what, monkeypatch):
    monkeypatch.setenv("MY_API_TOKEN", "value-of-my-token")
    (folder / name).write_text(content)
    [leak] = leaks(folder, NAMES)
    assert (leak.file, leak.what) == (name, what)


@pytest.mark.parametrize("name", ["TCGA-06-0138", "4711222", "MÜ-0001", "P001"])
def test_a_patient_in_the_header_of_tensors_is_found(folder, name):
    save_file({"w": np.zeros(2, np.float32)}, folder / "w.safetensors", {"first": name})
    assert [(leak.file, leak.what) for leak in leaks(folder, [name])] == [
        ("w.safetensors", "the identifier of a patient")
    ]


def test_a_part_of_a_longer_word_is_nobody(folder):
    (folder / "README.md").write_text("TCGA-06-01389 and XTCGA-06-0138")
    assert leaks(folder, ["TCGA-06-0138"]) == []
