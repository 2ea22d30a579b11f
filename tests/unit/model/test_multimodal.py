"""MultimodalModel on a simulated cohort: what is absent changes no bit, a folder gives the same bits."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import Aligned, align
from foundation.data.dataset import CohortDataset
from foundation.data.sampler import BatchKey
from foundation.data.scaling import fit_preprocessing
from foundation.errors import CheckpointError, ConfigError
from foundation.model import model_folder
from foundation.model.fusion.base import fusions
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.seen_patients import SeenPatients
from foundation.model.towers.base import towers
from foundation.model.view import FUSED, View


@pytest.fixture(scope="module")
def aligned(simulated: Path) -> Aligned:
    cohort = PreparedCohort(simulated / "cohort")
    return align(fit_preprocessing(cohort, np.arange(len(cohort))), cohort)


def make_config(aligned: Aligned, names: tuple[str, ...] = ("mri", "omics")) -> MultimodalConfig:
    parts = {"mri": towers["vit2d"].tiny(), "omics": towers["omics_transformer"].tiny()}
    fusion = fusions["gated_mean"].tiny()
    return MultimodalConfig.of(aligned.preprocessing.described(), {name: parts[name] for name in names}, fusion, 16)


@pytest.fixture(scope="module")
def model(aligned: Aligned) -> MultimodalModel:
    torch.manual_seed(0)
    return MultimodalModel(make_config(aligned)).eval()


@pytest.fixture
def batch(aligned: Aligned):
    rows = np.arange(12)
    return CohortDataset(aligned).__getitems__(BatchKey(rows, np.zeros(12, dtype=np.int64)))


def test_embeddings_are_of_length_one_or_zero(model, batch):
    outputs = model(batch, model.every_view())
    assert set(outputs) == {"mri", "omics", "rna", "mutation", "cnv", "protein", "clinical", FUSED}
    for output in outputs.values():
        torch.testing.assert_close(output.z_BD.norm(dim=1), output.present_B.float(), atol=1e-5, rtol=0)
    assert torch.equal(outputs["mri"].present_B, batch.present_BM[:, batch.modalities.index("mri")])
    assert not outputs["rna"].present_B.all()


def test_garbage_where_nothing_is_changes_no_bit(model, batch):
    spoilt = copy.deepcopy(batch)
    for name, x in spoilt.images.items():
        x[~spoilt.channels[name]] = float("nan")
    for name, x in spoilt.omics.items():
        x[~spoilt.observed[name]] = float("nan")
    clean, dirty = model(batch, model.every_view()), model(spoilt, model.every_view())
    for name in clean:
        assert torch.equal(clean[name].z_BD, dirty[name].z_BD), name


def test_a_tower_that_nobody_has_anything_for_still_takes_part(model, batch):
    output = model(batch, {"mri": View("mri", keep={"mri": torch.zeros(len(batch), dtype=torch.bool)})})["mri"]
    assert not output.present_B.any() and not output.z_BD.any() and not len(output.rows)
    output.z_BD.sum().backward()
    gradients = [p.grad for p in model.towers["mri"].parameters() if p.requires_grad]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
    model.zero_grad()


def test_hidden_features_are_not_seen(model, batch):
    hidden = {"rna": torch.zeros_like(batch.observed["rna"])}
    hidden["rna"][:, :100] = True
    spoilt = copy.deepcopy(batch)
    spoilt.omics["rna"][:, :100] = 123.0
    views = {"hidden": View("omics", hidden=hidden), "shown": View("omics")}
    one, other = (model(b, views) for b in (batch, spoilt))
    assert torch.equal(one["hidden"].z_BD, other["hidden"].z_BD)
    assert not torch.equal(one["hidden"].z_BD, other["shown"].z_BD)


def test_a_subset_alone_is_seen_as_if_the_rest_were_absent(model, batch):
    lacking = copy.deepcopy(batch)
    for name in ("mutation", "protein", "clinical", "mri"):
        lacking.present_BM[:, lacking.modalities.index(name)] = False
        if name != "mri":
            lacking.observed[name][:] = False
    lacking.channels["mri"][:] = False
    alone = model(batch, {"subset": View(FUSED, ("rna", "cnv"))})["subset"]
    expected = model(lacking, {"all": View(FUSED)})["all"]
    assert torch.equal(alone.z_BD, expected.z_BD) and torch.equal(alone.present_B, expected.present_B)


def test_a_tower_runs_once_for_views_that_show_it_the_same(model, batch):
    runs = []
    hook = model.towers["omics"].register_forward_hook(lambda *_: runs.append(1))
    subsets = [("mri",), ("rna",), ("mri", "rna"), ("mri", "cnv"), ("cnv",)]
    outputs = model(batch, {"+".join(subset): View(FUSED, subset) for subset in subsets})
    hook.remove()
    # Of omics: nothing, RNA, and copy number.
    assert len(runs) == 3
    for name, output in outputs.items():
        assert torch.equal(output.z_BD, model(batch, {name: View(FUSED, tuple(name.split("+")))})[name].z_BD)


def test_a_batch_of_no_records_runs_every_tower(model, batch):
    outputs = model(batch.part(0, 0), model.every_view())
    assert all(output.z_BD.shape == (0, 16) for output in outputs.values())
    torch.stack([output.z_BD.sum() for output in outputs.values()]).sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.towers.parameters() if p.requires_grad)
    model.zero_grad()


def test_a_folder_gives_the_same_bits(aligned, model, batch, tmp_path):
    model_folder.write(tmp_path / "model", model, aligned.preprocessing, "# a model\n")
    assert {path.name for path in (tmp_path / "model").iterdir()} >= set(model_folder.FILES)
    again, preprocessing = model_folder.read(tmp_path / "model")
    assert preprocessing == aligned.preprocessing
    expected, found = model(batch, model.every_view()), again(batch, again.every_view())
    assert list(found) == list(expected)
    for name in expected:
        assert torch.equal(expected[name].z_BD, found[name].z_BD), name


def test_a_folder_knows_whom_its_model_has_seen(aligned, model, tmp_path):
    model_folder.write(tmp_path / "model", model, aligned.preprocessing, "# a model\n", SeenPatients.of(["P1", "P2"]))
    seen = SeenPatients.read(tmp_path / "model")
    assert seen is not None
    assert seen.among(["P2", "P3"]).tolist() == [True, False]
    model_folder.read(tmp_path / "model")
    model_folder.write(tmp_path / "model", model, aligned.preprocessing, "# a model\n")
    assert SeenPatients.read(tmp_path / "model") is None


def test_a_tower_begins_with_the_weights_of_a_folder_and_the_next_folder_says_so(aligned, model, tmp_path):
    model_folder.write(tmp_path / "first", model, aligned.preprocessing, "---\nlicense: cc-by-4.0\n---\nA card.\n")
    config = make_config(aligned)
    config.towers[0][1]["weights"] = str(tmp_path / "first")
    second = MultimodalModel(config)
    first = model.towers["mri"].net.state_dict()
    assert all(torch.equal(tensor, first[name]) for name, tensor in second.towers["mri"].net.state_dict().items())
    model_folder.write(tmp_path / "second", second, aligned.preprocessing, "A card.\n")
    origins = json.loads((tmp_path / "second" / "config.json").read_text())["origins"]
    assert origins == second.config.origins and list(origins) == ["mri"]
    assert (origins["mri"]["name"], origins["mri"]["licence"]) == ("first", "cc-by-4.0")
    assert str(tmp_path) not in (tmp_path / "second" / "config.json").read_text()
    assert model_folder.read(tmp_path / "second")[0].config.origins == origins
    assert model.config.origins == {}


def test_transformers_finds_the_model_by_its_config(aligned, model, tmp_path):
    from transformers import AutoModel

    model_folder.write(tmp_path / "model", model, aligned.preprocessing, "# a model\n")
    assert isinstance(AutoModel.from_pretrained(tmp_path / "model"), MultimodalModel)


@pytest.mark.parametrize("name", ["model.safetensors", "preprocessing.json", "config.json"])
def test_an_incomplete_folder_is_refused(aligned, model, tmp_path, name):
    folder: Path = tmp_path / "model"
    model_folder.write(folder, model, aligned.preprocessing, "# a model\n")
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        model_folder.read(folder)


def test_a_truncated_weight_file_is_refused(aligned, model, tmp_path):
    model_folder.write(tmp_path / "model", model, aligned.preprocessing, "# a model\n")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        model_folder.read(tmp_path / "model")


def test_a_modality_without_a_tower(aligned):
    with pytest.raises(ConfigError, match="modality 'mri' has no tower"):
        MultimodalModel(make_config(aligned, names=("omics",)))


def test_a_folder_of_an_earlier_version_is_refused(aligned, model, tmp_path):
    model_folder.write(tmp_path / "model", model, aligned.preprocessing, "# a model\n")
    config = tmp_path / "model" / "config.json"
    document = json.loads(config.read_text())
    config.write_text(json.dumps({key: value for key, value in document.items() if key != "format_version"}))
    with pytest.raises(CheckpointError, match="a model of format 1, and this version of chiasma reads format 2"):
        model_folder.read(tmp_path / "model")


@pytest.mark.parametrize(("name", "words"), [("rna", "is called like a modality"), ("fused", "called like all towers")])
def test_a_tower_has_no_name_that_something_else_has(aligned, name, words):
    parts = {"mri": TOWERS["scan"], name: TOWERS["tissue"]}
    with pytest.raises(ConfigError, match=words):
        MultimodalModel(MultimodalConfig.of(aligned.preprocessing.described(), parts, fusions["gated_mean"].tiny(), 16))


def test_weights_that_are_not_those_of_the_config_are_refused(aligned, model, tmp_path):
    """transformers would leave what is missing random, with a warning."""
    model_folder.write(tmp_path / "model", model, aligned.preprocessing, "# a model\n")
    path = tmp_path / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["projections.mri.wait"] = tensors.pop("projections.mri.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model.safetensors: is damaged: it is not what was written"):
        model_folder.read(tmp_path / "model")
    # Of an earlier version, or written by somebody else.
    (tmp_path / "model" / model_folder.HASHES).unlink()
    with pytest.raises(CheckpointError, match=r"2 tensors differ, first 'projections.mri.wait'"):
        model_folder.read(tmp_path / "model")


TOWERS = {
    "scan": towers["vit2d"].tiny().model_copy(update={"modalities": ["mri"]}),
    "genome": towers["omics_transformer"].tiny().model_copy(update={"modalities": ["mutation", "cnv"]}),
    "tissue": towers["omics_transformer"].tiny(),
}


def test_towers_say_which_modalities_they_read(aligned, batch):
    """A tower need not be called like a modality, and several may be for omics; one without a list takes the rest."""
    described = aligned.preprocessing.described()
    model = MultimodalModel(MultimodalConfig.of(described, TOWERS, fusions["gated_mean"].tiny(), 16)).eval()
    assert {spec.name: set(spec.modalities) for spec in model.specs} == {
        "scan": {"mri"}, "genome": {"mutation", "cnv"}, "tissue": {"rna", "protein", "clinical"},
    }  # fmt: skip
    outputs = model(batch, model.every_view())
    assert set(outputs) == {*TOWERS, "mutation", "cnv", "rna", "protein", "clinical", FUSED}
    spoilt = copy.deepcopy(batch)
    for name in ("rna", "protein", "clinical"):
        spoilt.omics[name] += 1
    again = model(spoilt, model.every_view())
    assert torch.equal(outputs["genome"].z_BD, again["genome"].z_BD)
    assert not torch.equal(outputs["tissue"].z_BD, again["tissue"].z_BD)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scan": {"modalities": ["mry"]}}, r"none is called 'mry'(.|\n)*did you mean 'mri'"),
        ({"scan": {"modalities": None}}, r"none is called 'scan'(.|\n)*say with `modalities`"),
        ({"genome": {"modalities": ["mri"]}}, "tower 'genome' reads omics modalities, and none is called 'mri'"),
        ({"tissue": {"modalities": ["rna"]}}, "modality '(protein|clinical)' has no tower"),
        ({"tissue": {"modalities": ["rna", "protein", "clinical", "cnv"]}}, "two towers, 'genome' and 'tissue'"),
    ],
)  # fmt: skip
def test_towers_that_do_not_fit_the_modalities(aligned, changes, words):
    parts = {name: part.model_copy(update=changes.get(name, {})) for name, part in TOWERS.items()}
    with pytest.raises(ConfigError, match=words):
        MultimodalModel(MultimodalConfig.of(aligned.preprocessing.described(), parts, fusions["gated_mean"].tiny(), 16))
