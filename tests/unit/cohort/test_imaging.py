"""Volumes into the cohort's form, against references written here."""

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from scipy import ndimage

from foundation.cohort.imaging import standardise
from foundation.cohort.sources.base import Volume
from foundation.cohort.sources.dicom import DicomSource
from foundation.cohort.sources.nifti import NiftiSource
from foundation.cohort.spec import ImageRecipe
from foundation.errors import DataError


def modality(size, channels=("t1",), **more):
    source = {"format": "nifti", "files": "{patient}/{channel}.nii.gz"}
    return ImageRecipe(kind="image", channels=list(channels), source=source, size=size, **more)


def one(voxels, size, affine=None, **more):
    return standardise({"t1": Volume(voxels, np.eye(4) if affine is None else affine)}, modality(size, **more))


def turned(voxels, affine, codes):
    """The same image stored with other axes."""
    wanted = nibabel.orientations.axcodes2ornt(codes)
    change = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), wanted)
    other = nibabel.orientations.apply_orientation(voxels, change)
    return other, affine @ nibabel.orientations.inv_ornt_aff(change, voxels.shape)


def smooth(shape, seed=0):
    noise = np.random.default_rng(seed).normal(size=shape)
    return (ndimage.gaussian_filter(noise, 2) * 1000).astype(np.float32)


@pytest.fixture
def voxels():
    return np.random.default_rng(3).integers(1, 250, (6, 7, 8)).astype(np.uint8)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "SLA", "ARI"])
def test_anatomy_ends_up_where_ras_has_it(codes):
    affine = np.diag([1.0, 2, 3, 1])
    phantom = np.zeros((6, 7, 8), dtype=np.int16)
    phantom[0, 3, 4], phantom[3, 6, 4], phantom[3, 3, 7] = 10, 20, 30
    stored, stored_affine = turned(phantom, affine, codes)
    image = one(stored, [6, 7, 8], stored_affine, stored_as="int16")
    # Left is the low end of x, anterior the high end of y, superior the high end of z.
    assert image.voxels[0, 0, 3, 4] == 10
    assert image.voxels[0, 3, 6, 4] == 20
    assert image.voxels[0, 3, 3, 7] == 30
    np.testing.assert_array_equal(image.voxels[0], phantom)
    np.testing.assert_allclose(image.affine, affine)


def test_native_orientation_is_left_alone(voxels):
    stored, affine = turned(voxels, np.eye(4), "PIR")
    image = one(stored, stored.shape, affine, orientation="native", stored_as="uint8")
    np.testing.assert_array_equal(image.voxels[0], stored)
    np.testing.assert_allclose(image.affine, affine)


sizes = st.tuples(*[st.integers(1, 9)] * 3)


@settings(deadline=None, max_examples=40)
@given(shape=sizes, size=sizes, seed=st.integers(0, 9), background=st.sampled_from([None, 7]))
def test_pads_and_crops_about_the_centre_exactly(shape, size, seed, background):
    source = np.random.default_rng(seed).integers(10, 250, shape).astype(np.uint8)
    image = one(source, size, stored_as="uint8", background=background)
    got = image.voxels[0]
    kept = np.ones(size, dtype=bool)
    inside, outside = [], []
    for have, want in zip(shape, size, strict=True):
        start, length = abs(have - want) // 2, min(have, want)
        cut = -(-(have - want) // 2) if have > want else 0
        inside.append({start, cut} if have > want else {0})
        outside.append(slice(start, start + length) if want > have else slice(None))
    kept[tuple(outside)] = False
    block = got[tuple(outside)]
    # Half a voxel of choice is left where the difference is odd.
    starts = np.stack(np.meshgrid(*[sorted(s) for s in inside], indexing="ij"), -1).reshape(-1, 3)
    pieces = [source[tuple(slice(s, s + n) for s, n in zip(start, block.shape, strict=True))] for start in starts]
    assert any(np.array_equal(block, piece) for piece in pieces)
    expected = block.min() if background is None else background
    assert (got[kept] == expected).all()
    for index in ((0, 0, 0), tuple(n - 1 for n in size)):
        place = np.rint((image.affine @ [*index, 1])[:3]).astype(int)
        if all(0 <= p < n for p, n in zip(place, shape, strict=True)):
            assert got[index] == source[tuple(place)]


def test_keeps_sources_values_without_resampling():
    large = np.full((3, 3, 3), 16_777_215, dtype=np.int32)
    assert one(large, [3, 3, 3]).voxels.ravel().tolist() == large.ravel().tolist()
    for dtype in (np.uint8, np.int8, np.uint16, np.int16, np.float64):
        values = np.arange(27).reshape(3, 3, 3).astype(dtype)
        image = one(values, [3, 3, 3], spacing=(1, 1, 1))
        assert image.voxels.dtype == np.float32
        np.testing.assert_array_equal(image.voxels[0], values)
        assert image.voxels.flags.c_contiguous


@pytest.mark.parametrize("spacing", [(0.5, 0.8, 2.0), (1.3, 0.9, 2.5), (2.7, 1.9, 6.0)])
def test_resamples_like_scipy(spacing):
    source = smooth((20, 24, 10))
    affine = np.array([[0.9, 0.1, 0, 5], [-0.1, 0.9, 0, -6], [0, 0, 2.5, 7], [0, 0, 0, 1]])
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    image = one(source, [1, 1, 1], affine, spacing=spacing)
    shape = np.rint((np.array(source.shape) - 1) * zooms / spacing + 1).astype(int)
    image = one(source, shape.tolist(), affine, spacing=spacing)
    np.testing.assert_allclose(np.linalg.norm(image.affine[:3, :3], axis=0), spacing, rtol=1e-5)
    widths = np.maximum((np.array(spacing) / zooms - 1) / 2, 0)
    places = np.linalg.solve(affine, image.affine) @ np.vstack(
        [np.indices(shape).reshape(3, -1), np.ones(shape.prod())]
    )
    expected = ndimage.map_coordinates(
        ndimage.gaussian_filter(source, widths, mode="nearest"), places[:3], order=1, mode="nearest"
    )
    np.testing.assert_allclose(image.voxels[0].ravel(), expected, atol=0.05)
    assert np.ptp(expected) > 100
    # Nothing moves: the grid starts at the source's first voxel.
    np.testing.assert_allclose(image.affine[:3, 3], affine[:3, 3], atol=0.51 * max(spacing))


def test_air_stays_air_at_the_edges():
    image = one(np.full((20, 20, 20), -1000, dtype=np.int16), [10, 10, 10], spacing=(2, 2, 2), stored_as="int16")
    assert (image.voxels == -1000).all()


def test_stretch_fills_the_stated_axes_only(voxels):
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32) * 10, (6, 7, 8))
    image = one(ramp, [6, 9, 16], stretch=["z"], background=-5)
    assert (image.voxels[0, :, [0, 8]] == -5).all()
    expected = np.clip((np.arange(16) + 0.5) / 2 - 0.5, 0, 7) * 10
    np.testing.assert_allclose(image.voxels[0, :, 1:8], np.broadcast_to(expected, (6, 7, 16)), atol=1e-4)
    np.testing.assert_allclose(image.affine[2, 2:], [0.5, -0.25])
    same = one(voxels, voxels.shape, stretch=["x", "y", "z"], stored_as="uint8")
    np.testing.assert_array_equal(same.voxels[0], voxels)


@settings(deadline=None, max_examples=30)
@given(shape=sizes, more=st.tuples(*[st.integers(0, 9)] * 3), order=st.sampled_from(["C", "F"]))
def test_stretch_up_equals_torch(shape, more, order):
    size = [old + new for old, new in zip(shape, more, strict=True)]
    source = np.asarray(np.random.default_rng(0).normal(50, 30, shape).astype(np.float32), order=order)
    image = one(source, size, stretch=["x", "y", "z"])
    expected = torch.nn.functional.interpolate(torch.from_numpy(source.copy())[None, None], size, mode="trilinear")
    np.testing.assert_allclose(image.voxels[0], expected[0, 0], atol=1e-3)


def test_stretch_down_smooths_first():
    noise = np.random.default_rng(8).normal(0, 100, (4, 4, 40)).astype(np.float32)
    image = one(noise, [4, 4, 10], stretch=["z"])
    middles = ndimage.gaussian_filter(noise, (0, 0, 1.5), mode="nearest")[..., 1:-1].reshape(4, 4, -1)
    np.testing.assert_allclose(image.voxels[0], (middles[..., ::4] + middles[..., 1::4]) / 2, atol=1e-3)


def test_crops_to_the_foreground_of_all_channels():
    volumes = {"t1": np.zeros((10, 10, 10), np.int16), "t2": np.zeros((10, 10, 10), np.int16)}
    volumes["t1"][2:4, 5, 5], volumes["t2"][5, 5:9, 5:7] = 100, 50
    volumes["t2"][0, 0, 0] = 3
    box = (slice(2, 6), slice(5, 9), slice(5, 7))
    image = standardise(
        {name: Volume(v) for name, v in volumes.items()},
        modality([4, 4, 2], ["t1", "t2"], crop_foreground=True, foreground_above=10, stored_as="int16"),
    )
    for index, name in enumerate(volumes):
        np.testing.assert_array_equal(image.voxels[index], volumes[name][box])
    np.testing.assert_allclose(image.affine[:3, 3], [2, 5, 5])


def test_refuses_an_empty_image():
    with pytest.raises(DataError, match="empty image: no voxel is above 5"):
        one(np.full((3, 3, 3), 5, np.uint8), [3, 3, 3], crop_foreground=True, foreground_above=5)


def test_absent_channels_are_zero_and_unmeasured(voxels):
    image = standardise({"t2": Volume(voxels)}, modality([6, 7, 8], ["t1", "t2", "t3"], stored_as="uint8"))
    assert image.channels_present.tolist() == [False, True, False]
    assert image.channels_present.dtype == bool
    assert not image.voxels[[0, 2]].any()
    np.testing.assert_array_equal(image.voxels[1], voxels)
    assert np.isnan(image.statistics[[0, 2]]).all()
    assert np.isfinite(image.statistics[1]).all()


@pytest.mark.parametrize("stored_as", ["float32", "float16", "int16", "uint8"])
@pytest.mark.parametrize("above", [0, 40, 1000])
def test_statistics_are_those_of_the_unpadded_foreground(stored_as, above):
    source = np.random.default_rng(5).integers(0, 200, (9, 8, 7)).astype(np.int16)
    rule = {"rule": "percentile", "low": 3, "high": 91.7}
    image = one(source, [12, 12, 12], stored_as=stored_as, foreground_above=above, intensity=rule, background=0)
    inside = source[source > above] if above < 1000 else source
    low, high = np.percentile(inside, [3, 91.7])
    clipped = np.clip(inside, low, high)
    assert image.statistics.dtype == np.float32
    np.testing.assert_allclose(image.statistics[0], [low, high, clipped.mean(), clipped.std()], rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(values=st.lists(st.integers(-300, 300), min_size=1, max_size=30), low=st.floats(0, 40), high=st.floats(50, 100))
def test_statistics_of_whole_numbers_equal_numpy(values, low, high):
    source = np.array(values, dtype=np.int16)[:, None, None]
    rule = {"rule": "percentile", "low": low, "high": high}
    image = one(source, source.shape, stored_as="int16", foreground_above=-400, intensity=rule)
    bounds = np.percentile(values, [low, high])
    clipped = np.clip(values, *bounds)
    expected = np.array([*bounds, clipped.mean(), clipped.std()])
    np.testing.assert_allclose(image.statistics[0], expected, rtol=1e-5, atol=1e-4)


def test_a_window_gives_its_own_bounds(voxels):
    rule = {"rule": "window", "low": 50, "high": 100}
    for stored_as in ("uint8", "float32"):
        image = one(voxels, [6, 7, 8], stored_as=stored_as, intensity=rule)
        clipped = np.clip(voxels, 50, 100).astype(float)
        np.testing.assert_allclose(image.statistics[0], [50, 100, clipped.mean(), clipped.std()], rtol=1e-6)


@pytest.mark.parametrize(
    ("stored_as", "values", "message"),
    [
        ("uint8", [-1, 100], r"holds -1 to 100, but uint8 goes from 0 to 255"),
        ("uint8", [0, 255.6], r"holds 0 to 255.6, but uint8 goes from 0 to 255"),
        ("int16", [0, 40000], r"int16 goes from -32768 to 32767"),
        ("float16", [0, 70000], r"float16 goes from -65504 to 65504"),
        ("uint8", [0, 0.7], r"holds fractions from 0 to 0.7; uint8 would lose most of it"),
        ("float32", [0, 1e300], r"beyond the range of float32"),
    ],
)
def test_refuses_values_beyond_the_stored_type(stored_as, values, message):
    source = np.linspace(*values, 27).reshape(3, 3, 3)
    with pytest.raises(DataError, match=message) as caught:
        one(source, [3, 3, 3], stored_as=stored_as)
    assert "t1" in caught.value.what


def test_refuses_a_background_beyond_the_stored_type(voxels):
    with pytest.raises(DataError, match="'background' holds -1000"):
        one(voxels, [9, 9, 9], stored_as="uint8", background=-1000)


def test_rounds_to_whole_numbers():
    source = np.linspace(0, 200, 27).reshape(3, 3, 3).astype(np.float32)
    image = one(source, [3, 3, 3], stored_as="uint8")
    np.testing.assert_array_equal(image.voxels[0], np.rint(source))


def test_channels_on_other_grids_move_to_that_of_the_first():
    fine = smooth((30, 30, 12), seed=1)
    affine = np.diag([1.0, 1, 2, 1])
    coarse, coarse_affine = turned(fine[2:28:2, 4:26:2], affine @ np.diag([2, 2, 1, 1]), "LPS")
    coarse_affine[:2, 3] += [2, 4]
    spec = modality([30, 30, 12], ["t1", "t2"], background=-77)
    image = standardise({"t2": Volume(coarse, coarse_affine), "t1": Volume(fine, affine)}, spec)
    np.testing.assert_array_equal(image.voxels[0], fine)
    covered = image.voxels[1, 2:27:2, 4:25:2]
    np.testing.assert_allclose(covered, fine[2:27:2, 4:25:2], atol=0.05)
    middle = (fine[4:24:2, 6] + fine[6:26:2, 6]) / 2
    np.testing.assert_allclose(image.voxels[1, 5:25:2, 6], middle, atol=0.05)
    assert (image.voxels[1, :, :2] == -77).all()
    spaced = standardise({"t1": Volume(fine, affine)}, modality([15, 15, 12], ["t1", "t2"], spacing=(2, 2, 2)))
    both = standardise(
        {"t2": Volume(coarse, coarse_affine), "t1": Volume(fine, affine)},
        modality([15, 15, 12], ["t1", "t2"], spacing=(2, 2, 2)),
    )
    np.testing.assert_array_equal(both.voxels[0], spaced.voxels[0])
    np.testing.assert_array_equal(both.affine, spaced.affine)


@pytest.mark.parametrize("change", ["shape", "affine"])
def test_refuses_other_grids_where_spacing_is_untrue(voxels, change):
    other = Volume(voxels[:5]) if change == "shape" else Volume(voxels, np.diag([1, 1, 1.5, 1]))
    with pytest.raises(DataError, match="'t1' and 't2' lie on different grids: 6 x 7 x 8 voxels of 1 x 1 x 1 mm"):
        standardise({"t1": Volume(voxels), "t2": other}, modality([6, 7, 8], ["t1", "t2"], spacing="untrue"))


def test_flat_images(voxels):
    flat = voxels[..., 0]
    affine = np.diag([-0.5, -0.5, 1, 1])
    for form in (flat, flat[:, :, None]):
        image = one(form, [8, 7], affine, stored_as="uint8", background=0)
        assert image.voxels.shape == (1, 8, 7)
        np.testing.assert_array_equal(image.voxels[0, 1:7], flat[::-1, ::-1])
        np.testing.assert_allclose(np.diag(image.affine), [0.5, 0.5, 1, 1])
    smaller = one(smooth((40, 40)), [20, 20], affine, spacing=(1, 1))
    assert np.isfinite(smaller.voxels).all()
    assert one(smooth((40, 40)), [20, 30], affine, stretch=["x", "y"]).voxels.shape == (1, 20, 30)


def test_a_flat_sagittal_image_keeps_its_own_plane(voxels):
    # Columns lead to the back, rows to the feet: in RAS order, y and z, both turned round.
    affine = np.array([[0, 0, 4.0, 3], [-2, 0, 0, 4], [0, -3, 0, 5], [0, 0, 0, 1]])
    image = one(voxels[..., 0], [6, 7], affine, stored_as="uint8")
    np.testing.assert_array_equal(image.voxels[0], voxels[::-1, ::-1, 0])
    # Rows of the matrix are R, A and S; the plane's own axes are A and S, and its origin is the corner turned round.
    np.testing.assert_allclose(image.affine, [[0, 0, 4, 3], [2, 0, 0, 4 - 5 * 2], [0, 3, 0, 5 - 6 * 3], [0, 0, 0, 1]])


def test_what_has_no_place_has_no_affine(voxels):
    assert one(voxels, voxels.shape, np.diag([2.0, 2, 2, 1]), spacing="untrue").affine is None
    assert standardise({"t1": Volume(voxels, placed=False)}, modality(voxels.shape)).affine is None
    flat = Volume(voxels[..., 0], np.diag([-0.5, -0.5, 1, 1]), placed=False)
    assert standardise({"t1": flat}, modality(voxels.shape[:2])).affine is None


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True)])
def test_the_affine_is_that_of_the_first_channel_present(voxels, first, second):
    volumes = {"t2": Volume(voxels, placed=second), "t1": Volume(voxels, placed=first)}
    image = standardise(volumes, modality(voxels.shape, ["t1", "t2"]))
    assert (image.affine is not None) == first
    alone = standardise({"t2": volumes["t2"]}, modality(voxels.shape, ["t1", "t2"]))
    assert (alone.affine is not None) == second


@pytest.mark.parametrize(("shape", "size"), [((6, 7, 8), [6, 7]), ((6, 7), [6, 7, 8])])
def test_refuses_the_wrong_number_of_dimensions(shape, size):
    with pytest.raises(DataError, match="give `size` two numbers"):
        one(np.ones(shape, np.uint8), size)


def test_refuses_other_flat_grids():
    volumes = {"t1": Volume(np.ones((4, 4), np.uint8)), "t2": Volume(np.ones((4, 5), np.uint8))}
    with pytest.raises(DataError, match="different grids"):
        standardise(volumes, modality([4, 4], ["t1", "t2"]))


def test_refuses_an_unknown_channel(voxels):
    with pytest.raises(DataError, match="'T1' is no channel"):
        standardise({"T1": Volume(voxels)}, modality([6, 7, 8]))


def test_gives_the_same_bytes_with_any_number_of_threads():
    source = smooth((33, 35, 20))
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            image = one(source, [24, 24, 30], np.diag([1.1, 0.7, 2, 1]), spacing=(1, 1, 1), stretch=["z"])
            results.append((image.voxels.tobytes(), image.statistics.tobytes(), image.affine.tobytes()))
    finally:
        torch.set_num_threads(threads)
    assert results[0] == results[1] == results[2]


def write_dicom(folder, stored, affine, scale):
    """`stored` [X, Y, Z] on an LPS-stored grid, as an MR series in shuffled order."""
    folder.mkdir(parents=True)
    lps = np.diag([-1, -1, 1, 1]) @ affine
    zooms = np.linalg.norm(lps[:3, :3], axis=0)
    order = np.random.default_rng(6).permutation(stored.shape[2])
    for number in range(stored.shape[2]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.{number + 1}"
        item = pydicom.Dataset()
        item.file_meta = meta
        item.SOPClassUID, item.SOPInstanceUID, item.SeriesInstanceUID = MRImageStorage, f"1.2.{number + 1}", "1.2"
        item.Modality, item.ImageType, item.InstanceNumber = "MR", ["ORIGINAL", "PRIMARY"], int(order[-1 - number])
        item.Columns, item.Rows = stored.shape[:2]
        item.PixelSpacing = [f"{zooms[1]:.6g}", f"{zooms[0]:.6g}"]
        item.ImageOrientationPatient = [f"{v:.6f}" for v in (lps[:3, :2] / zooms[:2]).T.ravel()]
        item.ImagePositionPatient = [f"{v:.6f}" for v in (lps @ [0, 0, number, 1])[:3]]
        item.RescaleSlope, item.RescaleIntercept = scale
        item.SamplesPerPixel, item.PhotometricInterpretation, item.PixelRepresentation = 1, "MONOCHROME2", 1
        item.BitsAllocated, item.BitsStored, item.HighBit = 16, 16, 15
        item.PixelData = stored[:, :, number].T.astype("<i2").tobytes()
        item.save_as(folder / f"{order[number]:02d}.dcm", enforce_file_format=True)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR"])
@pytest.mark.parametrize("spacing", ["native", (1.0, 1.0, 2.0)])
def test_nifti_and_dicom_of_one_scan_give_the_same_bytes(tmp_path, codes, spacing):
    stored = np.random.default_rng(4).integers(0, 3000, (11, 12, 9)).astype(np.int16)
    affine = np.array([[0.7, 0, 0, -31.4], [0, 0.7, 0, 22.2], [0, 0, 1.6, -9.9], [0, 0, 0, 1]])
    write_dicom(tmp_path / "dicom/A", *turned(stored, affine, "LPS"), scale=(0.5, -1024))
    other, other_affine = turned(stored, affine, codes)
    image = nibabel.Nifti1Image(other, other_affine)
    image.header.set_slope_inter(0.5, -1024)
    # `to_bytes` leaves the stored numbers alone, where `save` would divide them by the slope.
    (tmp_path / "A.nii").write_bytes(image.to_bytes())
    spec = modality([12, 12, 12], spacing=spacing, background=-1024)
    results = []
    for source in (
        DicomSource(DicomSource.Config(format="dicom", files="dicom/{patient}"), tmp_path, ["t1"]),
        NiftiSource(NiftiSource.Config(format="nifti", files="{patient}.nii"), tmp_path, ["t1"]),
    ):
        (scan,) = source.list_scans()
        results.append(standardise({"t1": source.read(scan)}, spec))
    dicom, nifti = results
    assert dicom.voxels.tobytes() == nifti.voxels.tobytes()
    assert dicom.statistics.tobytes() == nifti.statistics.tobytes()
    assert dicom.affine.tobytes() == nifti.affine.tobytes()
    if spacing == "native":
        np.testing.assert_array_equal(nifti.voxels[0, :11, :, 1:10], stored * 0.5 - 1024)


@pytest.mark.parametrize("orientation", ["RAS", "native"])
@pytest.mark.parametrize("spacing", ["native", [1.0, 1.0, 2.0]])
@pytest.mark.parametrize("tilt", [-0.4, 0.25])
def test_a_tilted_gantry_is_turned_to_right_angles(tilt, spacing, orientation):
    shape, zooms = (24, 30, 16), np.array([0.9, 1.1, 2.5])
    affine = np.diag([-zooms[0], -zooms[1], zooms[2], 1.0])
    affine[1, 2] = np.tan(tilt) * zooms[2]
    affine[:3, 3] = [10, 20, -30]
    slope = np.array([3.0, -2.0, 5.0])
    indices = np.moveaxis(np.indices(shape), 0, -1)
    voxels = ((indices @ affine[:3, :3].T + affine[:3, 3]) @ slope + 1000).astype(np.float32)
    image = one(voxels, [64, 64, 48], affine, spacing=spacing, orientation=orientation, background=-1)
    axes = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    assert "right-angled" in image.remarks[0]
    places = np.moveaxis(np.indices(image.voxels.shape[1:]), 0, -1) @ image.affine[:3, :3].T + image.affine[:3, 3]
    before = (places - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    inside = ((before > 2) & (before < np.array(shape) - 3)).all(axis=-1)
    assert inside.sum() > 2000
    # Linear interpolation leaves a linear image as it is.
    np.testing.assert_allclose(image.voxels[0][inside], places[inside] @ slope + 1000, atol=0.05)
    corners = np.array([[i, j, k] for i in (0, 23) for j in (0, 29) for k in (0, 15)]) @ affine[:3, :3].T
    held = (corners + affine[:3, 3] - image.affine[:3, 3]) @ np.linalg.inv(image.affine[:3, :3]).T
    assert (held > -0.6).all()
    assert (held < np.array(image.voxels.shape[1:]) - 0.4).all()


def test_a_shear_of_rounding_is_none(voxels):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[1, 2] = 0.03
    image = one(voxels, voxels.shape, affine, stored_as="uint8")
    np.testing.assert_array_equal(image.voxels[0], voxels)
    assert image.remarks == ()


def test_a_wrong_unit_of_space_is_refused_before_it_fills_memory(voxels):
    with pytest.raises(DataError, match=r"would have 5001 x 6001 x 7001 voxels.*measures 1000 x 1000 x 1000 mm"):
        one(voxels, [6, 7, 8], np.diag([1000.0, 1000, 1000, 1]), spacing=[1, 1, 1])


def test_steps_of_thousands_of_voxels_take_no_more_than_the_image():
    ramp = np.arange(100_000, dtype=np.float32).reshape(-1, 1, 1)
    image = one(ramp, [10, 1, 1], np.diag([0.0001, 1, 1, 1]), spacing=[1, 1, 1])
    np.testing.assert_allclose(image.voxels[0, 3:-3, 0, 0], 10_000.0 * np.arange(3, 7), rtol=0.02)
