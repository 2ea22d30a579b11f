"""MultimodalModel on a simulated cohort: what is absent changes no bit, a folder gives the same bits."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import Aligned, align
from foundation.data.dataset import CohortDataset
from foundation.data.preprocessing import Preprocessing
from foundation.data.sampler import BatchKey
from foundation.errors import CheckpointError, ConfigError
from foundation.hub import model_folder
from foundation.hub.seen_patients import SeenPatients
from foundation.model.fusion.base import fusions
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.towers.base import towers
from foundation.model.view import FUSED, View
from foundation.progress import Silent
from foundation.simulation.simulate import simulate


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Aligned:
    folder = tmp_path_factory.mktemp("model")
    simulate(folder / "source", patients=24, seed=2, progress=lambda done, total: None)
    prepare(folder / "source" / "cohort.yaml", out=folder / "cohort", workers=1, progress=Silent())
    cohort = PreparedCohort(folder / "cohort")
    return align(Preprocessing.fit(cohort, np.arange(len(cohort))), cohort)


def make_config(aligned: Aligned, names: tuple[str, ...] = ("mri", "omics")) -> MultimodalConfig:
    parts = {"mri": towers["vit2d"].tiny(), "omics": towers["omics_transformer"].tiny()}
    fusion = fusions["gated_mean"].tiny()
    return MultimodalConfig.of(aligned.preprocessing, {name: parts[name] for name in names}, fusion, 16)


@pytest.fixture(scope="module")
def model(aligned: Aligned) -> MultimodalModel:
    torch.manual_seed(0)
    return MultimodalModel(make_config(aligned)).eval()


@pytest.fixture
def batch(aligned: Aligned):
    rows = np.arange(12)
    return CohortDataset(aligned).__getitems__(BatchKey(rows, np.zeros(12, dtype=np.int64)))


def test_embeddings_are_of_length_one_or_zero(model, batch):
    embeddings = model.embed(batch)
    assert set(embeddings.z) == {"mri", "omics", "rna", "mutation", "cnv", "protein", "clinical", FUSED}
    for name, z_BD in embeddings.z.items():
        lengths = z_BD.norm(dim=1)
        torch.testing.assert_close(lengths, embeddings.present[name].float(), atol=1e-5, rtol=0)
    assert torch.equal(embeddings.present["mri"], batch.present_BM[:, batch.modalities.index("mri")])
    assert not embeddings.present["rna"].all()


def test_garbage_where_nothing_is_changes_no_bit(model, batch):
    spoilt = copy.deepcopy(batch)
    for name, x in spoilt.images.items():
        x[~spoilt.channels[name]] = float("nan")
    for name, x in spoilt.omics.items():
        x[~spoilt.observed[name]] = float("nan")
    clean, dirty = model.embed(batch), model.embed(spoilt)
    for name in clean.z:
        assert torch.equal(clean.z[name], dirty.z[name]), name


def test_a_tower_that_nobody_has_anything_for_still_takes_part(model, batch):
    keep_BM = torch.ones_like(batch.present_BM)
    keep_BM[:, batch.modalities.index("mri")] = False
    seen = model(batch, View("mri", keep_BM))
    assert not seen.present_B.any() and not seen.z_BD.any()
    seen.z_BD.sum().backward()
    gradients = [p.grad for p in model.towers["mri"].parameters() if p.requires_grad]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
    model.zero_grad()


def test_hidden_features_are_not_seen(model, batch):
    everything = torch.ones_like(batch.present_BM)
    hidden = {"rna": torch.zeros_like(batch.observed["rna"])}
    hidden["rna"][:, :100] = True
    spoilt = copy.deepcopy(batch)
    spoilt.omics["rna"][:, :100] = 123.0
    one, other = (model(b, View("omics", everything, hidden)).z_BD for b in (batch, spoilt))
    assert torch.equal(one, other)
    assert not torch.equal(one, model(spoilt, View("omics", everything)).z_BD)


def test_a_folder_gives_the_same_bits(aligned, model, batch, tmp_path):
    model_folder.write(tmp_path / "model", model, aligned.preprocessing, "# a model\n")
    assert {path.name for path in (tmp_path / "model").iterdir()} >= set(model_folder.FILES)
    again, preprocessing = model_folder.read(tmp_path / "model")
    assert preprocessing == aligned.preprocessing
    expected, found = model.embed(batch), again.embed(batch)
    assert list(found.z) == list(expected.z)
    for name in expected.z:
        assert torch.equal(expected.z[name], found.z[name]), name


def test_a_folder_knows_whom_its_model_has_seen(aligned, model, tmp_path):
    model_folder.write(tmp_path / "model", model, aligned.preprocessing, "# a model\n", SeenPatients.of(["P1", "P2"]))
    seen = SeenPatients.read(tmp_path / "model")
    assert seen is not None
    assert seen.among(["P2", "P3"]).tolist() == [True, False]
    model_folder.read(tmp_path / "model")
    model_folder.write(tmp_path / "model", model, aligned.preprocessing, "# a model\n")
    assert SeenPatients.read(tmp_path / "model") is None


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


def test_an_image_tower_must_bear_the_name_of_its_modality(aligned):
    config = make_config(aligned)
    config.towers[0][0] = "mry"
    with pytest.raises(ConfigError, match=r"tower 'mry'(.|\n)*'mri'"):
        MultimodalModel(config)
