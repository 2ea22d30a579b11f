"""Regions in batches: those of their records, moved with their image, and only where somebody asks for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from foundation.cohort.manifest import AnnotationEntry, RegionEntry
from foundation.cohort.records import Annotation
from foundation.cohort.store import PreparedCohort
from foundation.cohort.united import UnitedCohort
from foundation.data.alignment import Aligned, align
from foundation.data.augment import Augmentation
from foundation.data.dataset import CohortDataset
from foundation.data.modality_dropout import ModalityDropout
from foundation.data.preprocessing import Preprocessing
from foundation.data.scaling import fit_preprocessing
from foundation.errors import ConfigError, DataError
from tests.unit.data.conftest import (
    ENDPOINTS,
    GENES,
    MRI_SHAPE,
    MUTATIONS,
    small_modalities,
    small_records,
    write_cohort,
)
from tests.unit.data.test_dataset import assert_same, key

REGIONS = ("core", "rim")
FLIPS = Augmentation(flip=0.5, rotate=0, scale=0, translate=0, gain=0, offset=0)
MOVES = Augmentation(flip=0.5, rotate=25, scale=0.2, translate=2, gain=0, offset=0)
ROWS = list(range(40))


def blobs(count: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """[count, *shape] bool, smooth enough to be followed."""
    noise = np.random.default_rng(seed).normal(size=(count, *shape))
    return np.stack([gaussian_filter(one, 1.2) for one in noise]) > 0


def drawn_cohort(
    folder, seed: int = 0, share: float = 0.6, names: tuple[str, str] = REGIONS, drawn: str = "masks"
) -> PreparedCohort:
    """The small records, with an annotation of the MRI; `seed` changes nothing but that."""
    random, records = np.random.default_rng(seed), small_records(40)
    for record in records:
        if "mri" in record.images and random.random() < share:
            regions = blobs(2, MRI_SHAPE, int(random.integers(1000)))
            annotated = np.array([True, random.random() < 0.5])
            regions[~annotated] = False
            record.annotations["tumour"] = Annotation(regions, annotated, np.where(annotated, 1, np.nan))
    entry = AnnotationEntry(image="mri", drawn=drawn, regions={region: RegionEntry(annotated=1) for region in names})
    features = {"rna": GENES, "mut": MUTATIONS}
    return write_cohort(folder, records, small_modalities(), features, ENDPOINTS, annotations={"tumour": entry})


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Aligned:
    cohort = drawn_cohort(tmp_path_factory.mktemp("drawn"))
    return align(fit_preprocessing(cohort, ROWS), cohort)


def test_a_batch_carries_the_regions_of_its_records_and_who_has_any(drawn):
    batch = CohortDataset(drawn, annotations=["tumour"]).__getitems__(key(ROWS))
    regions, annotated = batch.annotations["tumour"], batch.annotated["tumour"]
    assert regions.dtype == annotated.dtype == torch.bool and regions.shape == (40, 2, *MRI_SHAPE)
    for row in ROWS:
        stored = drawn.cohort.annotation("tumour", row)
        assert annotated[row].tolist() == ([False, False] if stored is None else stored.annotated.tolist())
        expected = np.zeros((2, *MRI_SHAPE), dtype=bool) if stored is None else stored.regions
        np.testing.assert_array_equal(regions[row].numpy(), expected)
    assert annotated.any(dim=0).all() and not annotated.all(dim=0).any()


def test_regions_come_with_parts_and_other_company_to_the_bit(drawn):
    options = {"augmentation": MOVES, "dropout": ModalityDropout(default=0.4), "annotations": ["tumour"], "seed": 2}
    everyone = CohortDataset(drawn, **options).__getitems__(key(ROWS, 3))
    some = [5, 0, 33, 17]
    assert_same(everyone, CohortDataset(drawn, **options).__getitems__(key(some, 3)), some)
    assert_same(everyone, everyone.part(10, 15), slice(10, 15))
    assert len(CohortDataset(drawn, **options).__getitems__(key([])).annotations["tumour"]) == 0


@pytest.mark.parametrize("augmentation", [None, FLIPS, MOVES])
def test_asking_for_regions_changes_nothing_else(drawn, augmentation):
    without = CohortDataset(drawn, augmentation=augmentation).__getitems__(key(ROWS, 1))
    batch = CohortDataset(drawn, augmentation=augmentation, annotations=["tumour"]).__getitems__(key(ROWS, 1))
    batch.annotations, batch.annotated = {}, {}
    assert_same(without, batch)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 2.5)])
def test_an_image_that_is_its_own_mask_moves_with_it(spacing):
    mask = torch.from_numpy(blobs(16, (14, 12, 10), 1))[:, None]
    where = {"mirror": ["x", "z"], "spacing": spacing, "name": "mri", "seed": 4}
    records, epochs = [f"p{i}" for i in range(16)], np.arange(16)
    there = torch.ones(16, 1, dtype=torch.bool)
    for augmentation in (FLIPS, MOVES):
        image = augmentation.apply(mask.float(), there, floor_C=[0.0], records=records, epochs=epochs, **where)
        moved = augmentation.apply_to_regions(mask, records=records, epochs=epochs, **where)
        assert moved[image > 0.999].all() and not moved[image < 0.001].any()
        assert (moved != mask).flatten(1).any(dim=1).sum() > 8
        if augmentation is FLIPS:
            assert torch.equal(moved, image > 0.5)
        else:
            # Between a voxel and its neighbours the nearest is not always the heavier side.
            assert (moved == (image > 0.5)).float().mean() > 0.93


def test_a_flat_image_that_is_its_own_mask_moves_with_it():
    mask = torch.from_numpy(blobs(6, (20, 16), 2))[:, None]
    where = {"mirror": ["y"], "spacing": (1.0, 2.0), "name": "x", "seed": 0, "records": [*"abcdef"], "epochs": [0] * 6}
    image = MOVES.apply(mask.float(), torch.ones(6, 1, dtype=torch.bool), floor_C=[0.0], **where)
    moved = MOVES.apply_to_regions(mask, **where)
    assert moved[image > 0.999].all() and not moved[image < 0.001].any()


def test_in_a_batch_regions_follow_their_image(tmp_path):
    """The first region is where the image is bright, in every record, epoch after epoch."""
    records = [record for record in small_records(40) if "mri" in record.images]
    for number, record in enumerate(records):
        region, other = blobs(2, MRI_SHAPE, number)
        stored = record.images["mri"]
        stored.voxels[:] = np.where(region, 200, 100)
        stored.statistics[:] = [100, 200, 150, 50]
        stored.statistics[~stored.channels] = np.nan
        record.annotations["tumour"] = Annotation(np.stack([region, other]), np.array([True, True]), np.ones(2))
    entry = AnnotationEntry(image="mri", regions={region: RegionEntry() for region in REGIONS})
    features = {"rna": GENES, "mut": MUTATIONS}
    cohort = write_cohort(tmp_path, records, small_modalities(), features, ENDPOINTS, annotations={"tumour": entry})
    aligned = align(fit_preprocessing(cohort, np.arange(len(cohort))), cohort)
    still = CohortDataset(aligned).__getitems__(key(range(len(cohort)))).images["mri"]
    dataset = CohortDataset(aligned, augmentation=MOVES, annotations=["tumour"], seed=1)
    for epoch in range(3):
        batch = dataset.__getitems__(key(range(len(cohort)), epoch))
        image, core = batch.images["mri"], batch.annotations["tumour"][:, 0]
        for b, c in batch.channels["mri"].nonzero().tolist():
            low, high = still[b, c].min(), still[b, c].max()
            bright = (image[b, c] - low) / (high - low)
            assert core[b][bright > 0.999].all() and not core[b][bright < 0.001].any()


def test_what_is_no_annotation_or_of_another_image_is_refused(drawn):
    with pytest.raises(DataError, match=r"has no annotation 'tumor'.*\n.*tumour"):
        CohortDataset(drawn, annotations=["tumor"])
    kept = {name: part for name, part in drawn.preprocessing.modalities.items() if name != "mri"}
    without = align(Preprocessing(**dict(drawn.preprocessing) | {"modalities": kept}), drawn.cohort)
    with pytest.raises(ConfigError, match="drawn on 'mri', which the model does not read"):
        CohortDataset(without, annotations=["tumour"])


def test_two_cohorts_have_their_regions_by_name(tmp_path):
    one, other = drawn_cohort(tmp_path / "1", 1), drawn_cohort(tmp_path / "2", 2, names=("necrosis", "core"))
    features = {"rna": GENES, "mut": MUTATIONS}
    plain = write_cohort(tmp_path / "3", small_records(6), small_modalities(), features, ENDPOINTS)
    united = UnitedCohort({"one": one, "other": other, "plain": plain}, None, "different_patients")
    entry = united.annotation_entry("tumour")
    assert {name: region.annotated for name, region in entry.regions.items()} == {"core": 2, "rim": 1, "necrosis": 1}
    assert united.annotated_NR("tumour", np.arange(80, 86)).sum() == 0 and united.annotation("tumour", 83) is None
    for start, cohort, places in ((0, one, [0, 1]), (40, other, [2, 0])):
        for row in range(40):
            own, joined = cohort.annotation("tumour", row), united.annotation("tumour", start + row)
            assert (own is None) == (joined is None)
            if own is not None and joined is not None:
                np.testing.assert_array_equal(joined.regions[places], own.regions)
                np.testing.assert_array_equal(joined.kept[places], own.kept)
                assert joined.regions.sum() == own.regions.sum() and joined.annotated.sum() == own.annotated.sum()
    batch = CohortDataset(align(fit_preprocessing(united, ROWS), united), annotations=["tumour"]).__getitems__(
        key([50])
    )
    assert batch.annotations["tumour"].shape == (1, 3, *MRI_SHAPE)


def test_boxes_and_masks_of_one_name_are_refused(tmp_path):
    cohorts = {"one": drawn_cohort(tmp_path / "1", 1), "other": drawn_cohort(tmp_path / "2", 2, drawn="boxes")}
    with pytest.raises(DataError, match="masks of 'mri' in the cohort 'one' and boxes of 'mri' in 'other'"):
        UnitedCohort(cohorts, None, "different_patients")
