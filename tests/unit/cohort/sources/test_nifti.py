"""NIfTI files: listing, scale, damage."""

import gzip

import nibabel
import numpy as np
import pytest

from foundation.cohort.sources.base import image_sources
from foundation.cohort.sources.nifti import NiftiSource
from foundation.errors import ConfigError, DataError


def source(root, channels=("t1", "flair"), files="{patient}/{channel}.nii.gz", **more):
    return NiftiSource(NiftiSource.Config(format="nifti", files=files), root, channels, **more)


def write(path, voxels, affine=None, scale=None, kind=nibabel.Nifti1Image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = kind(voxels, np.eye(4) if affine is None else affine)
    if scale:
        image.header.set_slope_inter(*scale)
    nibabel.save(image, path)
    return path


@pytest.fixture
def voxels():
    return np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(np.uint8)


def read_one(root, **more):
    one = source(root, channels=["t1"], **more)
    return one.read(one.list_scans()[0])


def test_is_registered():
    assert image_sources["nifti"] is NiftiSource


def test_lists_listed_channels_only(tmp_path, voxels):
    for name in ("B/t1", "A/t1", "A/flair", "A/tumor_mask"):
        write(tmp_path / f"{name}.nii.gz", voxels)
    listed = [(s.patient, s.time_point, s.channel, s.paths) for s in source(tmp_path).list_scans()]
    assert listed == [
        ("A", "", "flair", (tmp_path / "A/flair.nii.gz",)),
        ("A", "", "t1", (tmp_path / "A/t1.nii.gz",)),
        ("B", "", "t1", (tmp_path / "B/t1.nii.gz",)),
    ]


def test_lists_time_points_and_a_single_channel_without_placeholder(tmp_path, voxels):
    for name in ("A_m0", "A_m6"):
        write(tmp_path / f"{name}.nii", voxels)
    scans = source(tmp_path, channels=["ct"], files="{patient}_{time_point}.nii").list_scans()
    assert [(s.patient, s.time_point, s.channel) for s in scans] == [("A", "m0", "ct"), ("A", "m6", "ct")]


def test_names_the_nearest_channel_when_none_is_listed(tmp_path, voxels):
    write(tmp_path / "A/T1gd.nii.gz", voxels)
    with pytest.raises(DataError, match="did you mean 'T1gd'"):
        source(tmp_path, channels=["t1gad"]).list_scans()


def test_refuses_the_same_scan_twice(tmp_path, voxels):
    for folder in ("x", "y"):
        write(tmp_path / folder / "A/t1.nii.gz", voxels)
    with pytest.raises(DataError, match=r"channel 't1' of patient 'A' has 2 files.*y/A/t1"):
        source(tmp_path, files="*/{patient}/{channel}.nii.gz").list_scans()


@pytest.mark.parametrize(
    ("files", "channels", "message"),
    [("{channel}.nii", ["t1"], "no {patient}"), ("{patient}.nii", ["t1", "t2"], "no {channel}")],
)
def test_refuses_a_pattern_without_placeholder(tmp_path, files, channels, message):
    with pytest.raises(ConfigError, match=message):
        source(tmp_path, channels=channels, files=files).list_scans()


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_reads_what_was_written(tmp_path, voxels, kind, suffix):
    affine = np.array([[0, -2, 0, 7], [3, 0, 0, -8], [0, 0, 4, 9], [0, 0, 0, 1.0]])
    write(tmp_path / f"A/t1.{suffix}", voxels, affine, kind=kind)
    volume = read_one(tmp_path, files=f"{{patient}}/{{channel}}.{suffix}")
    assert volume.voxels.dtype == np.uint8
    np.testing.assert_array_equal(volume.voxels, voxels)
    np.testing.assert_array_equal(volume.affine, affine)


@pytest.mark.parametrize(("sform", "qform", "placed"), [(0, 0, False), (1, 0, True), (0, 1, True), (4, 2, True)])
def test_a_header_without_a_transform_says_no_place(tmp_path, voxels, sform, qform, placed):
    image = nibabel.Nifti1Image(voxels, np.diag([2.0, 3, 4, 1]))
    image.set_sform(image.affine, sform)
    image.set_qform(image.affine, qform)
    (tmp_path / "A").mkdir()
    nibabel.save(image, tmp_path / "A/t1.nii.gz")
    assert read_one(tmp_path).placed == placed


def test_applies_the_scale_of_the_header(tmp_path, voxels):
    # Set in the file's bytes: nibabel, when it writes, would divide the values by a scale first.
    header = nibabel.Nifti1Image(voxels.astype(np.int16), np.eye(4))
    data = bytearray(header.to_bytes())
    data[112:120] = np.array([0.1, -1024], dtype="<f4").tobytes()
    (tmp_path / "A").mkdir()
    (tmp_path / "A/t1.nii.gz").write_bytes(gzip.compress(bytes(data)))
    got = read_one(tmp_path).voxels
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, (voxels * np.float64(np.float32(0.1)) - 1024).astype(np.float32))


def test_reads_big_endian(tmp_path, voxels):
    image = nibabel.Nifti1Image(voxels.astype(">i2"), np.eye(4), nibabel.Nifti1Header(endianness=">"))
    write_path = tmp_path / "A/t1.nii.gz"
    write_path.parent.mkdir()
    write_path.write_bytes(gzip.compress(image.to_bytes()))
    got = read_one(tmp_path).voxels
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, voxels)


def test_drops_a_last_axis_of_one_and_refuses_a_longer_one(tmp_path, voxels):
    write(tmp_path / "A/t1.nii.gz", voxels[..., None])
    assert read_one(tmp_path).voxels.shape == voxels.shape
    write(tmp_path / "A/t1.nii.gz", np.stack([voxels, voxels], axis=-1))
    with pytest.raises(DataError, match="4 dimensions: 4 x 5 x 6 x 2"):
        read_one(tmp_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_counts_voxels_that_are_no_numbers(tmp_path, voxels, bad):
    broken = voxels.astype(np.float32)
    broken[0, 0, :3] = bad
    write(tmp_path / "A/t1.nii.gz", broken)
    with pytest.raises(DataError, match="3 of 120 voxels are NaN or infinite"):
        read_one(tmp_path)


def whole(tmp_path, voxels):
    return gzip.decompress(write(tmp_path / "good.nii.gz", voxels).read_bytes())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "is empty"),
        (lambda data: gzip.compress(b""), "is empty"),
        (lambda data: gzip.compress(data)[:-20], "gzip stream is truncated or damaged"),
        (lambda data: gzip.compress(data)[:-4], "gzip stream is truncated or damaged"),
        (lambda data: gzip.compress(data)[:-8] + bytes(8), "gzip stream is truncated or damaged"),
        (lambda data: gzip.compress(data)[:10], "gzip stream is truncated or damaged"),
        (lambda data: data[:-1], "is truncated: 471 of 472 bytes"),
        (lambda data: data[:200], "no NIfTI in one file"),
        (lambda data: b"patient\tage\n" * 100, "no NIfTI in one file"),
        (lambda data: data[:344] + b"ni1\0" + data[348:], "no NIfTI in one file"),
        (lambda data: data[:70] + b"\xff\x7f" + data[72:], "header is damaged"),
        # nibabel would hand over the header's own bytes as voxels.
        (lambda data: data[:108] + bytes(4) + data[112:], "voxels are said to begin at byte 0, within it"),
        (lambda data: data[:42] + b"\xff\x7f" * 3 + data[48:], "is truncated"),
        (lambda data: data[:42] + b"\0\0" + data[44:], "no grey values"),
        (lambda data: data[:280] + bytes(48) + data[328:], "affine has no inverse"),
    ],
)
def test_refuses_damage(tmp_path, voxels, damage, message):
    data = whole(tmp_path, voxels)
    (tmp_path / "A").mkdir()
    (tmp_path / "A/t1.nii.gz").write_bytes(damage(data))
    with pytest.raises(DataError, match=message) as caught:
        read_one(tmp_path)
    assert "A/t1.nii.gz" in caught.value.where
    assert caught.value.fix


def test_refuses_colour(tmp_path):
    colour = np.zeros((3, 3, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    write(tmp_path / "A/t1.nii.gz", colour)
    with pytest.raises(DataError, match="no grey values"):
        read_one(tmp_path)


def test_refuses_a_file_that_is_gone(tmp_path, voxels):
    write(tmp_path / "A/t1.nii.gz", voxels)
    one = source(tmp_path)
    scan = one.list_scans()[0]
    scan.paths[0].unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        one.read(scan)


@pytest.mark.parametrize(("unit", "millimetres"), [("mm", 1.0), ("meter", 1000.0), ("micron", 0.001), (0, 1.0)])
def test_the_unit_of_space_is_honoured(tmp_path, voxels, unit, millimetres):
    image = nibabel.Nifti1Image(
        voxels, np.diag([2.0, 3.0, 4.0, 1.0]) / [[millimetres], [millimetres], [millimetres], [1]]
    )
    image.header.set_xyzt_units(unit)
    (tmp_path / "A").mkdir()
    nibabel.save(image, tmp_path / "A/t1.nii.gz")
    np.testing.assert_allclose(read_one(tmp_path).affine, np.diag([2.0, 3.0, 4.0, 1.0]), rtol=1e-6)


def test_refuses_a_unit_that_is_none(tmp_path, voxels):
    image = nibabel.Nifti1Image(voxels, np.eye(4))
    image.header["xyzt_units"] = 5
    (tmp_path / "A").mkdir()
    nibabel.save(image, tmp_path / "A/t1.nii.gz")
    with pytest.raises(DataError, match="unit of space has the unknown code 5"):
        read_one(tmp_path)


def test_drops_every_last_axis_of_one(tmp_path, voxels):
    write(tmp_path / "A/t1.nii.gz", voxels[..., None, None])
    np.testing.assert_array_equal(read_one(tmp_path).voxels, voxels)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.AnalyzeImage])
def test_a_pair_is_refused_with_advice_that_works(tmp_path, voxels, kind, monkeypatch):
    (tmp_path / "A").mkdir()
    nibabel.save(kind(voxels.astype(np.int16), np.eye(4)), tmp_path / "A/t1.img")
    with pytest.raises(DataError, match="half of") as refused:
        read_one(tmp_path, files="{patient}/{channel}.img")
    code = refused.value.fix.partition('-c "')[2].partition('"')[0].replace("SCAN", "t1")
    monkeypatch.chdir(tmp_path / "A")
    exec(code)
    np.testing.assert_array_equal(read_one(tmp_path).voxels, voxels.astype(np.int16))


def patched(path, voxels, code, **fields):
    """A file with a qform or neither form, some of whose header's fields are overwritten."""
    image = nibabel.Nifti1Image(voxels, np.diag([2.0, 3.0, 4.0, 1.0]))
    image.set_sform(None, 0)
    image.set_qform(np.diag([2.0, 3.0, 4.0, 1.0]), code)
    data = bytearray(image.to_bytes())
    header = np.frombuffer(data, dtype=image.header.template_dtype, count=1)
    for name, value in fields.items():
        header[name][0] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.mark.parametrize("code", [0, 1])
def test_refuses_voxels_of_no_size(tmp_path, voxels, code):
    patched(tmp_path / "A/t1.nii.gz", voxels, code, pixdim=[1, 2, 0, 4, 0, 0, 0, 0])
    with pytest.raises(DataError, match="voxels measure 2 x 0 x 4"):
        read_one(tmp_path)


def test_refuses_an_impossible_qform(tmp_path, voxels):
    patched(tmp_path / "A/t1.nii.gz", voxels, 1, quatern_b=2)
    with pytest.raises(DataError, match="qform is damaged"):
        read_one(tmp_path)


def test_a_length_of_zero_after_the_third_axis_is_one(tmp_path, voxels):
    patched(tmp_path / "A/t1.nii.gz", voxels, 1, dim=[4, *voxels.shape, 0, 0, 0, 0])
    np.testing.assert_array_equal(read_one(tmp_path).voxels, voxels)


def test_a_pointer_of_git_lfs_is_called_so(tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "A/t1.nii.gz").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    with pytest.raises(DataError, match="not fetched") as refused:
        read_one(tmp_path)
    assert refused.value.fix == "git lfs pull"


@pytest.mark.parametrize(("qform", "code", "told"), [([2, 3, 4], 1, 0), ([-2, 3, 4], 1, 1), ([-2, 3, 4], 2, 0)])
def test_forms_that_disagree_are_told(tmp_path, voxels, qform, code, told):
    image = nibabel.Nifti1Image(voxels, np.eye(4))
    image.set_sform(np.diag([2.0, 3.0, 4.0, 1.0]), 1)
    image.set_qform(np.diag([*qform, 1.0]), code)
    (tmp_path / "A").mkdir()
    nibabel.save(image, tmp_path / "A/t1.nii.gz")
    one = source(tmp_path, channels=["t1"])
    np.testing.assert_allclose(one.read(one.list_scans()[0]).affine, np.diag([2.0, 3.0, 4.0, 1.0]))
    assert sum(one.remarks.values()) == told
