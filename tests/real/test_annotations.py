"""Annotations of real images: masks voxel by voxel against an independent resampling, both against intensities."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from finetune.splits import Folds, Records, SplitConfig
from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.progress import Silent
from foundation.yaml_text import dump, parse

CONFIGS = Path(__file__).parents[2] / "configs" / "cohorts"

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def glioma(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    """The images and masks of configs/cohorts/tcga-glioma.yaml, without its omics."""
    folder = tmp_path_factory.mktemp("glioma")
    spec = parse((CONFIGS / "tcga-glioma.yaml").read_text(encoding="utf-8"))
    spec["modalities"] = {"mri": spec["modalities"]["mri"]}
    (folder / "cohort.yaml").write_text(dump(spec), encoding="utf-8")
    prepare(folder / "cohort.yaml", out=folder / "out", root=real_data / "tcga_glioma", workers=2, progress=Silent())
    return PreparedCohort(folder / "out")


def resampled(path: Path, size: tuple[int, int, int]) -> np.ndarray:
    """A mask upright, its slices brought to the size's, the rest cropped and padded about the middle."""
    volume = nibabel.as_closest_canonical(nibabel.load(path))
    mask = np.asanyarray(volume.dataobj)
    slices = mask.shape[2]
    # The middle of stored slice k, in source slices; of two equally near, the lower in the order of the file.
    middles = (np.arange(size[2]) + 0.5) * slices / size[2] - 0.5
    turned = nibabel.io_orientation(nibabel.load(path).affine)[2, 1] < 0
    nearest = np.floor(middles + 0.5) if turned else np.ceil(middles - 0.5)
    mask = mask[:, :, nearest.astype(int)]
    for axis in (0, 1):
        missing = size[axis] - mask.shape[axis]
        if missing > 0:
            pad = [(missing // 2, missing - missing // 2) if a == axis else (0, 0) for a in range(3)]
            mask = np.pad(mask, pad)
        else:
            start = mask.shape[axis] // 2 - size[axis] // 2
            mask = mask.take(range(start, start + size[axis]), axis)
    return mask > 0


def test_glioma_masks_are_those_of_an_independent_resampling(glioma, real_data):
    scanned = np.flatnonzero(glioma.present_NM[:, 0])
    assert len(scanned) == 88 == glioma.manifest.annotations["tumour"].patients
    for row in scanned.tolist():
        drawn = glioma.annotation("tumour", row)
        path = real_data / "tcga_glioma" / "mri" / glioma.patients[row] / "tumor_mask.nii.gz"
        np.testing.assert_array_equal(drawn.regions[0], resampled(path, (128, 128, 32)), err_msg=path.parent.name)
        assert drawn.annotated.all() and drawn.kept[0] == 1


def test_glioma_masks_overlap_what_is_bright_on_flair(glioma):
    channel = list(glioma.image("mri").channels).index("flair")
    brighter = []
    for row in np.flatnonzero(glioma.annotated_NR("tumour", np.arange(len(glioma)))[:, 0]).tolist():
        flair, mask = glioma.voxels("mri", row)[channel], glioma.annotation("tumour", row).regions[0]
        bright = flair > np.percentile(flair[flair > 0], 90)
        brighter.append(bright[mask].mean())
    # Of all voxels of the head a tenth is that bright.
    assert np.median(brighter) > 0.5 and np.mean(np.array(brighter) > 0.2) > 0.9
    without = np.flatnonzero(~glioma.annotated_NR("tumour", np.arange(len(glioma)))[:, 0])
    assert len(without) and all(glioma.annotation("tumour", int(row)) is None for row in without[:20])


@pytest.fixture(scope="module")
def slices(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    """configs/cohorts/brain-t1gd.yaml, with pixels as they are in the files."""
    out = tmp_path_factory.mktemp("slices") / "out"
    config, root = CONFIGS / "brain-t1gd.yaml", real_data / "brain_t1gd"
    as_they_are = [f"modalities.mri.{change}" for change in ("size=[128, 128]", "stretch=[]", "orientation=native")]
    prepare(config, out=out, root=root, workers=2, overrides=as_they_are, progress=Silent())
    return PreparedCohort(out)


def test_slices_have_their_kind_of_tumour_their_block_and_a_box(slices):
    manifest = slices.manifest
    assert manifest.patients == 2451 and manifest.quarantined == 0
    assert manifest.endpoints["kind"]["classes"] == {"meningioma": 566, "glioma": 1141, "pituitary": 744}
    assert len(manifest.sites) == 8
    [region] = manifest.annotations["tumour"].regions.values()
    assert (region.annotated, region.patients, region.lost) == (2451, 2451, 0)


def test_folds_by_site_keep_blocks_apart(slices):
    labels = slices.endpoint("kind")["code"]
    records = Records(slices.patients, slices.sites, labels)
    folds = Folds.make(SplitConfig(folds=4, by="site"), records, seed=0).folds
    for fold in folds:
        assert not set(slices.sites[fold.train]) & set(slices.sites[fold.test])
        assert np.bincount(labels[fold.test]).min() > 100
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(len(slices)))


def test_boxes_enclose_bright_tissue_and_lie_where_the_file_has_them(slices, real_data):
    table = pd.read_csv(real_data / "brain_t1gd" / "slices.tsv", sep="\t").set_index("slice")
    brighter = []
    for row in range(0, len(slices), 5):
        [box], [image] = slices.annotation("tumour", row).regions, slices.voxels("mri", row)
        brighter.append(image[box].mean() > image[image > 0].mean())
        x, y, width, height = table.loc[slices.patients[row], ["box_x", "box_y", "box_w", "box_h"]].to_numpy() * 128
        with Image.open(real_data / "brain_t1gd" / "slices" / f"{slices.patients[row]}.png") as file:
            pixels = np.asarray(file)
        rows, columns = (np.arange(128) + 0.5,) * 2
        inside = np.ix_(abs(rows - y) < height / 2, abs(columns - x) < width / 2)
        assert image[box].mean() == pytest.approx(pixels[inside].mean(), abs=1e-6)
    assert np.mean(brighter) > 0.8
