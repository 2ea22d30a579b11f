"""Slices in picture files: order, convention, colours, damage."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from foundation.cohort.sources.image_stack import ImageStackSource
from foundation.errors import ConfigError, DataError

GENERATOR = np.random.default_rng(0)
EIGHT = GENERATOR.integers(0, 256, (11, 4, 5)).astype(np.uint8)


def source(root, channels=("xray",), files="{patient}/*.png", **more):
    return ImageStackSource(ImageStackSource.Config(format="image_stack", files=files, **more), root, channels)


def read_all(root, **more):
    one = source(root, **more)
    return {scan.channel: one.read(scan) for scan in one.list_scans()}


def read_one(root, **more):
    (volume,) = read_all(root, **more).values()
    return volume


def save(path, array, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, array, **more)
    else:
        Image.fromarray(array).save(path, **more)
    return path


def test_orders_slices_by_number_and_lays_them_out_in_lps(tmp_path):
    for number in range(11):
        save(tmp_path / f"A/slice{number + 1}.png", EIGHT[number])
    volume = read_one(tmp_path, spacing=(0.5, 0.6, 3))
    assert volume.voxels.dtype == np.uint8
    np.testing.assert_array_equal(volume.voxels, EIGHT.transpose(2, 1, 0))
    np.testing.assert_array_equal(volume.affine, np.diag([-0.5, -0.6, 3, 1]))
    assert not volume.placed


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_single_file_is_two_dimensional(tmp_path, dtype, suffix):
    image = (EIGHT[0].astype(dtype)) * (257 if dtype is np.uint16 else 1)
    save(tmp_path / f"A.{suffix}", image)
    volume = read_one(tmp_path, files="{patient}." + suffix)
    assert volume.voxels.dtype == dtype
    np.testing.assert_array_equal(volume.voxels, image.T)
    np.testing.assert_array_equal(volume.affine, np.diag([-1, -1, 1, 1]))
    assert not volume.placed


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_pages_of_a_tiff_are_slices(tmp_path, byteorder):
    pages = EIGHT.astype(np.float32) / 7
    save(tmp_path / "A.tiff", pages, byteorder=byteorder, photometric="minisblack")
    volume = read_one(tmp_path, files="{patient}.tiff")
    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels, pages.transpose(2, 1, 0))


def test_jpeg_and_bilevel_and_grey_saved_as_colour(tmp_path):
    smooth = np.tile(np.arange(0, 240, 15, dtype=np.uint8), (16, 1))
    save(tmp_path / "A.jpg", smooth, quality=95)
    assert np.abs(read_one(tmp_path, files="{patient}.jpg").voxels.astype(int) - smooth.T).max() <= 4
    save(tmp_path / "B.png", np.stack([smooth] * 3, axis=-1))
    np.testing.assert_array_equal(read_one(tmp_path, files="{patient}.png").voxels, smooth.T)
    save(tmp_path / "C.bmp", smooth > 100)
    np.testing.assert_array_equal(read_one(tmp_path, files="{patient}.bmp").voxels, (smooth > 100).T)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_colours_are_channels_on_request_and_refused_otherwise(tmp_path, suffix):
    colour = EIGHT[:3].transpose(1, 2, 0).copy()
    more = {"photometric": "rgb"} if suffix == "tif" else {}
    for number in (1, 2):
        save(tmp_path / f"A/{number}.{suffix}", colour // number, **more)
    files = "{patient}/*." + suffix
    volumes = read_all(tmp_path, files=files, rgb=True, channels=["red", "green", "blue"])
    for index, name in enumerate(("red", "green", "blue")):
        expected = np.stack([colour[..., index].T, colour[..., index].T // 2], axis=-1)
        np.testing.assert_array_equal(volumes[name].voxels, expected)
    with pytest.raises(DataError, match="is in colour") as caught:
        read_one(tmp_path, files=files)
    assert "rgb: true" in caught.value.fix


def test_two_scans_read_in_turn_differ(tmp_path):
    for number, patient in enumerate("AB"):
        save(tmp_path / f"{patient}/1.png", EIGHT[number])
    one = source(tmp_path)
    for number, scan in enumerate(one.list_scans()):
        np.testing.assert_array_equal(one.read(scan).voxels, EIGHT[number].T)


def test_refuses_grey_where_colour_is_stated(tmp_path):
    save(tmp_path / "A/1.png", EIGHT[0])
    with pytest.raises(DataError, match="is grey, but rgb is set"):
        read_all(tmp_path, rgb=True, channels=["r", "g", "b"])


@pytest.mark.parametrize(
    ("channels", "files"), [(["a"], "{patient}.png"), (["r", "g", "b"], "{patient}/{channel}.png")]
)
def test_refuses_rgb_without_three_channels(tmp_path, channels, files):
    with pytest.raises(ConfigError, match="rgb needs three channels"):
        source(tmp_path, channels=channels, files=files, rgb=True)


@pytest.mark.parametrize("spacing", [(1,), (1, 0, 1)])
def test_refuses_impossible_spacing(spacing):
    with pytest.raises(ValueError, match="two or three positive"):
        ImageStackSource.Config(format="image_stack", files="{patient}", spacing=spacing)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["slice_001", "slice_003"], r"missing slice between slice_001.png and slice_003.png"),
        (["s8", "s9", "s10", "s12"], r"missing slice between s10.png and s12.png"),
        (["s1", "s01", "s2"], r"same number is in"),
        (["front", "back"], r"not told apart by one running number"),
        (["a1_1", "a2_2"], r"not told apart by one running number"),
    ],
)
def test_refuses_gaps_and_names_without_order(tmp_path, names, message):
    for name in names:
        save(tmp_path / f"A/{name}.png", EIGHT[0])
    with pytest.raises(DataError, match=message):
        read_one(tmp_path)


def test_refuses_slices_in_two_folders(tmp_path):
    for folder in ("x", "y"):
        save(tmp_path / f"A/{folder}/1.png", EIGHT[0])
    with pytest.raises(DataError, match="two folders"):
        source(tmp_path, files="{patient}/*/*.png").list_scans()


@pytest.mark.parametrize("other", [EIGHT[0, :3], EIGHT[0].astype(np.uint16)])
def test_refuses_slices_that_differ(tmp_path, other):
    save(tmp_path / "A/1.png", EIGHT[0])
    save(tmp_path / "A/2.png", other)
    with pytest.raises(DataError, match="the first slice is 5 x 4 uint8"):
        read_one(tmp_path)


def test_refuses_pages_among_files(tmp_path):
    for number in (1, 2):
        save(tmp_path / f"A/{number}.tif", EIGHT, photometric="minisblack")
    with pytest.raises(DataError, match="has 11 pages and is one of 2 files"):
        read_one(tmp_path, files="{patient}/*.tif")


def test_refuses_nan_and_inverted_tiff(tmp_path):
    broken = EIGHT[0].astype(np.float32)
    broken[0, 0] = np.nan
    save(tmp_path / "A.tif", broken)
    with pytest.raises(DataError, match="1 of 20 voxels are NaN"):
        read_one(tmp_path, files="{patient}.tif")
    save(tmp_path / "A.tif", EIGHT[0], photometric="miniswhite")
    with pytest.raises(DataError, match="MINISWHITE"):
        read_one(tmp_path, files="{patient}.tif")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_refuses_a_file_cut_anywhere(tmp_path, suffix):
    file = save(tmp_path / f"A.{suffix}", np.tile(EIGHT[0], (9, 9)))
    data = file.read_bytes()
    # The last bytes of a PNG or JPEG close it and hold no pixel.
    for length in [*range(0, len(data) - 20, 1 + len(data) // 40), len(data) // 2]:
        file.write_bytes(data[:length])
        with pytest.raises(DataError, match="the image cannot be read"):
            read_one(tmp_path, files=f"{{patient}}.{suffix}")


def test_refuses_what_is_no_image(tmp_path):
    for suffix in ("png", "tif"):
        (tmp_path / f"A.{suffix}").write_bytes(b"patient,age\n" * 50)
        with pytest.raises(DataError, match="the image cannot be read") as caught:
            read_one(tmp_path, files=f"{{patient}}.{suffix}")
        assert caught.value.fix


def test_refuses_an_image_larger_than_pillow_allows(tmp_path, monkeypatch):
    save(tmp_path / "A.png", EIGHT[0])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15)
    with pytest.raises(DataError, match="exceeds limit"):
        read_one(tmp_path, files="{patient}.png")


def write_png(path, rows, kind):
    """A PNG of 16 bits a value, `rows` [rows, columns, values]; Pillow writes none in colour."""
    height, width = rows.shape[:2]
    pixels = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    data = b"\x89PNG\r\n\x1a\n"
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    for name, content in ((b"IHDR", head), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")):
        data += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    path.write_bytes(data)


@pytest.mark.parametrize(("kind", "count"), [(2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("rgb", [True, False])
def test_refuses_sixteen_bits_of_which_pillow_reads_eight(tmp_path, kind, count, rgb):
    write_png(tmp_path / "A.png", np.repeat(EIGHT[0][:, :, None] * np.uint16(257), count, axis=2), kind)
    channels = ("r", "g", "b") if rgb else ("xray",)
    with pytest.raises(DataError, match="16 bits a value and colours or transparency") as refused:
        read_all(tmp_path, files="{patient}.png", rgb=rgb, channels=channels)
    assert "TIFF" in refused.value.fix


@pytest.mark.parametrize("name", ["A.gif", "A.png"])
def test_refuses_images_in_one_file_of_which_one_would_be_read(tmp_path, name):
    more = [Image.fromarray(EIGHT[1])]
    save(tmp_path / name, EIGHT[0], save_all=True, append_images=more)
    with pytest.raises(DataError, match="holds 2 images"):
        read_one(tmp_path, files="{patient}" + name[1:])


@pytest.mark.parametrize(
    ("orientation", "shown"),
    [
        (1, EIGHT[0]),
        (2, EIGHT[0][:, ::-1]),
        (3, np.rot90(EIGHT[0], 2)),
        (4, EIGHT[0][::-1]),
        (5, EIGHT[0].T),
        (6, np.rot90(EIGHT[0], -1)),
        (7, np.rot90(EIGHT[0], 2).T),
        (8, np.rot90(EIGHT[0])),
    ],
)
def test_an_image_is_turned_as_its_file_says(tmp_path, orientation, shown):
    exif = Image.Exif()
    exif[274] = orientation
    save(tmp_path / "A.png", EIGHT[0], exif=exif)
    np.testing.assert_array_equal(read_one(tmp_path, files="{patient}.png").voxels, shown.T)
    save(tmp_path / "A.tif", EIGHT[0], extratags=[(274, 3, 1, orientation, True)])
    np.testing.assert_array_equal(read_one(tmp_path, files="{patient}.tif").voxels, shown.T)


@pytest.mark.parametrize("axes", ["CYX", "TYX"])
@pytest.mark.parametrize("dialect", ["ome", "imagej"])
def test_channels_and_time_points_are_no_slices(tmp_path, axes, dialect):
    more = {dialect: True, "photometric": "minisblack"}
    save(tmp_path / "A.tif", EIGHT[:3], metadata={"axes": axes}, **more)
    with pytest.raises(DataError, match="pages are no slices"):
        read_one(tmp_path, files="{patient}.tif")
    save(tmp_path / "A.tif", EIGHT[:3], metadata={"axes": "ZYX"}, **more)
    np.testing.assert_array_equal(read_one(tmp_path, files="{patient}.tif").voxels, EIGHT[:3].transpose(2, 1, 0))
