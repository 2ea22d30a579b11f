"""What heads read in blocks: values where they are seen, zeros elsewhere, which is which, and what is learned of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from finetune.methods import reading
from finetune.methods.reading import ALL, Reading, ReadingConfig
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import Aligned, align
from foundation.data.batch import Batch
from foundation.data.dataset import CohortDataset
from foundation.data.modality_dropout import ModalityDropout
from foundation.data.preprocessing import Preprocessing
from foundation.data.scaling import PreprocessingConfig, fit_preprocessing
from foundation.model.embedding import batches
from foundation.model.fusion.base import fusions
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.towers.base import towers
from foundation.model.view import FUSED, View

MODALITIES = ["mri", "rna", "mutation", "clinical"]
EVERYTHING = View(FUSED)


@pytest.fixture(scope="module")
def aligned(simulated: Path) -> Aligned:
    cohort = PreparedCohort(simulated / "cohort")
    config = PreprocessingConfig(modalities=MODALITIES)
    return align(fit_preprocessing(cohort, np.arange(len(cohort)), config), cohort)


@pytest.fixture(scope="module")
def model(aligned: Aligned) -> MultimodalModel:
    torch.manual_seed(0)
    omics = towers["omics_transformer"].Config(tokenizer={"tokenizer": "chunk"}, width=8, depth=1, heads=2)
    parts = {"mri": towers["vit2d"].tiny(), "omics": omics}
    described = aligned.preprocessing.described()
    return MultimodalModel(MultimodalConfig.of(described, parts, fusions["gated_mean"].tiny(), 4)).eval()


@pytest.fixture(scope="module")
def batch(aligned: Aligned, model: MultimodalModel) -> Batch:
    return next(batches(model, CohortDataset(aligned), np.arange(24)))


def read(model: MultimodalModel, of: Reading, batch: Batch, view: View = EVERYTHING) -> dict[str, torch.Tensor]:
    """Block to its columns."""
    shown = of.view(view)
    with torch.no_grad():
        x_BE = of(batch, shown, model(batch, {"it": shown})["it"])
    blocks = of.blocks()
    assert len({block.name for block in blocks}) == len(blocks)
    return dict(zip([b.name for b in blocks], x_BE.split([b.width for b in blocks], dim=1), strict=True))


@pytest.fixture(scope="module")
def everything(model: MultimodalModel, aligned: Aligned) -> Reading:
    return Reading.of(model, aligned, np.arange(40), ALL, [])


@pytest.mark.parametrize("kinds", [kinds for n in range(5) for kinds in combinations(ALL, n)])
def test_the_blocks_are_those_asked_for_and_as_wide_as_they_say(model, aligned, batch, kinds):
    found = read(model, Reading.of(model, aligned, np.arange(40), kinds, []), batch)
    expected = {FUSED}
    expected |= {"mri tower", "omics tower"} if "towers" in kinds else set()
    expected |= {f"{name} embedding" for name in ("rna", "mutation", "clinical")} if "modalities" in kinds else set()
    expected |= {"rna values", "mutation values", "clinical values"} if "values" in kinds else set()
    expected |= {"mri intensities"} if "images" in kinds else set()
    assert set(found) == expected
    assert all(torch.isfinite(part).all() for part in found.values())


def test_the_fused_embedding_comes_first_and_towers_are_read_before_their_projection(model, batch, everything):
    found = read(model, everything, batch)
    with torch.no_grad():
        outputs = model(batch, {"fused": View(FUSED), "mri": View("mri"), "omics": View("omics")})
    torch.testing.assert_close(found[FUSED], outputs["fused"].z_BD)
    for name in ("mri", "omics"):
        output = outputs[name]
        torch.testing.assert_close(found[f"{name} tower"][output.rows], output.tokens.pooled_BD)
        assert not found[f"{name} tower"][~output.present_B].any()
    assert not batch.present_BM[:, 0].all(), "somebody has no scan"


def test_the_embedding_of_a_modality_is_the_mean_of_its_tokens_where_it_has_any(model, batch, everything):
    found = read(model, everything, batch)
    with torch.no_grad():
        output = model(batch, {"omics": View("omics")})["omics"]
    tokens = output.tokens
    for number, name in enumerate(("rna", "mutation", "clinical")):
        wanted = torch.zeros_like(found[f"{name} embedding"])
        for place, row in enumerate(output.rows.tolist()):
            own = tokens.real_BT[place] & (tokens.modality_T.expand(tokens.real_BT.shape)[place] == number)
            if own.any():
                wanted[row] = tokens.tokens_BTD[place, own].mean(dim=0)
        torch.testing.assert_close(found[f"{name} embedding"], wanted)
        lacks = ~batch.present_BM[:, batch.modalities.index(name)]
        assert not found[f"{name} embedding"][lacks].any()
    assert not batch.present_BM[:, 1:].all(), "somebody lacks some omics"


def test_few_features_are_read_one_by_one_and_of_many_their_components(model, aligned, batch, everything):
    found = read(model, everything, batch)
    seen = batch.observed["clinical"]
    torch.testing.assert_close(found["clinical values"], torch.cat([batch.omics["clinical"], seen.float()], dim=1))
    values, observed, _ = aligned.read_omics("rna", np.arange(40))
    values = values[observed.any(axis=1)]
    components = found["rna values"]
    here = batch.observed["rna"].any(dim=1)
    assert observed[observed.any(axis=1)].all(), "whoever has rna has all of it, so that PCA can be asked"
    count = components.shape[1] - 1
    assert count == min(reading.MOST_COMPONENTS, len(values) - 1, values.shape[1])
    of_pca = PCA(count, svd_solver="full").fit(values).transform(batch.omics["rna"][here].numpy())
    # A component has no sign; those that share their spread have no direction either, so what all say is compared.
    told = components[here, :count].double().numpy()
    np.testing.assert_allclose(told @ told.T, of_pca @ of_pca.T, rtol=1e-3, atol=1e-3 * np.abs(of_pca @ of_pca.T).max())
    assert components[here, -1].tolist() == [0.0] * int(here.sum())
    assert (components[~here] == torch.tensor([0.0] * count + [1.0])).all() and (~here).any()


def test_covariates_are_read_one_by_one_however_many_they_are(model, aligned, batch):
    found = read(model, Reading.of(model, aligned, np.arange(40), (), ["rna"]), batch)
    assert found["rna values"].shape[1] == 2 * len(aligned.preprocessing.omics()["rna"].features)


@pytest.fixture(scope="module")
def unknown(aligned: Aligned) -> Preprocessing:
    """Of two modalities that the model does not know."""
    return fit_preprocessing(aligned.cohort, np.arange(40), PreprocessingConfig(modalities=["protein", "cnv"]))


@pytest.fixture(scope="module")
def beside(aligned: Aligned, unknown: Preprocessing) -> Aligned:
    return align(aligned.preprocessing.joined(unknown), aligned.cohort)


def test_a_covariate_that_the_model_does_not_know_is_read_as_one_that_it_knows(model, beside, unknown):
    batch = next(batches(model, CohortDataset(beside), np.arange(24)))
    of = Reading.of(model, beside, np.arange(40), ALL, ["cnv", "clinical", "protein"], unknown)
    found = read(model, of, batch)
    assert list(found)[-3:] == ["clinical values", "protein values", "cnv values"]
    for name in ("clinical", "protein", "cnv"):
        expected = torch.cat([batch.omics[name], batch.observed[name].float()], dim=1)
        torch.testing.assert_close(found[f"{name} values"], expected, rtol=0, atol=0)
    absent = ~batch.present_BM[:, batch.modalities.index("protein")]
    assert absent.any() and not found["protein values"][absent].any() and found["protein values"][~absent].any()
    again = Reading(ReadingConfig.model_validate_json(of.config.model_dump_json()), model, of.heads_only)
    again.load_state_dict(of.state_dict())
    torch.testing.assert_close(read(model, again, batch), found, rtol=0, atol=0)


def test_seen_alone_it_leaves_the_embedding_empty_and_hidden_it_is_absent(model, beside, unknown):
    batch = next(batches(model, CohortDataset(beside), np.arange(24)))
    of = Reading.of(model, beside, np.arange(40), ALL, ["protein"], unknown)
    whole, alone = read(model, of, batch), read(model, of, batch, View(FUSED, ("protein",)))
    torch.testing.assert_close(alone["protein values"], whole["protein values"], rtol=0, atol=0)
    assert not any(alone[name].any() for name in (FUSED, "mri tower", "omics tower", "clinical values"))
    hidden = read(model, of, batch, View(FUSED, ("mri", "rna", "mutation", "clinical", "cnv")))
    assert not hidden["protein values"].any()
    for name in set(whole) - {"protein values"}:
        torch.testing.assert_close(hidden[name], whole[name], rtol=0, atol=0)


def test_modality_dropout_hides_it_from_whoever_has_something_else(model, beside, unknown):
    dropout = ModalityDropout(modalities={"protein": 1.0})
    plain, dropped = (next(batches(model, CohortDataset(beside, dropout=of), np.arange(40))) for of in (None, dropout))
    of = Reading.of(model, beside, np.arange(40), ALL, ["protein"], unknown)
    assert read(model, of, plain)["protein values"].any(dim=1).sum() > 5
    alone = plain.present_BM.sum(dim=1) == 1
    assert not read(model, of, dropped)["protein values"][~alone].any()


def test_intensities_are_means_of_cells_of_what_was_acquired(model, batch, everything):
    found = read(model, everything, batch)["mri intensities"].unflatten(1, (batch.channels["mri"].shape[1], -1))
    here = batch.channels["mri"]
    torch.testing.assert_close(found[..., -1].bool(), ~here)
    image = batch.images["mri"]
    axes = tuple(range(2, image.ndim))
    torch.testing.assert_close(found[..., -3], torch.where(here, image.mean(dim=axes), 0.0))
    torch.testing.assert_close(found[..., -2], torch.where(here, image.std(dim=axes, correction=0), 0.0))
    # Cells are of one size, so that their mean is that of the whole.
    torch.testing.assert_close(found[..., :-3].mean(dim=2), found[..., -3], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", MODALITIES)
def test_what_may_not_be_seen_reads_as_absent_and_no_other_modality_changes(model, batch, everything, name):
    rest = tuple(other for other in MODALITIES if other != name)
    hidden, whole = read(model, everything, batch, View(FUSED, rest)), read(model, everything, batch)
    for block, part in hidden.items():
        if block.endswith(("values", "intensities")) and not block.startswith(name):
            torch.testing.assert_close(part, whole[block], rtol=0, atol=0)
    own = hidden["mri intensities" if name == "mri" else f"{name} values"]
    assert (own == own[0]).all(), "of everybody the same"
    if name == "mri":
        assert not hidden["mri tower"].any()


def test_a_feature_that_a_view_hides_reads_as_absent(model, batch, everything):
    age = torch.zeros_like(batch.observed["clinical"])
    age[:, 0] = True
    hidden = read(model, everything, batch, View(FUSED, hidden={"clinical": age}))["clinical values"]
    whole = read(model, everything, batch)["clinical values"]
    features = age.shape[1]
    assert not hidden[:, [0, features]].any() and whole[:, features].any()
    rest = [column for column in range(2 * features) if column not in (0, features)]
    torch.testing.assert_close(hidden[:, rest], whole[:, rest], rtol=0, atol=0)


def test_values_that_were_not_measured_never_come_through(model, batch, everything):
    spoilt = {n: torch.where(batch.observed[n], values, 1e6) for n, values in batch.omics.items()}
    shown = batch.channels["mri"][(..., *[None] * (batch.images["mri"].ndim - 2))]
    changed = replace(batch, omics=spoilt, images={"mri": torch.where(shown, batch.images["mri"], 1e6)})
    for block, part in read(model, everything, changed).items():
        if not block.endswith("tower") and block != FUSED:
            torch.testing.assert_close(part, read(model, everything, batch)[block], rtol=0, atol=0)


def test_nobody_but_training_records_decides_the_components(model, aligned, monkeypatch):
    train = np.arange(0, 60, 2)
    before = Reading.of(model, aligned, train, ["values"], []).state_dict()
    values_NF = PreparedCohort.values_NF

    def spoilt(self, name, rows):
        values = values_NF(self, name, rows)
        values[~np.isin(rows, train)] *= 100
        return values

    monkeypatch.setattr(PreparedCohort, "values_NF", spoilt)
    after = Reading.of(model, aligned, train, ["values"], []).state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_it_is_rebuilt_from_its_config_and_its_tensors(model, batch, everything):
    again = Reading(ReadingConfig.model_validate_json(everything.config.model_dump_json()), model)
    again.load_state_dict(everything.state_dict())
    torch.testing.assert_close(read(model, again, batch), read(model, everything, batch), rtol=0, atol=0)
