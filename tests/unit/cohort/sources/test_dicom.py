"""DICOM series: choice, order, geometry, scale, damage."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from foundation.cohort.reading.dicom_frames import Frame
from foundation.cohort.reading.stacks import stack
from foundation.cohort.sources.dicom import DicomSource
from foundation.errors import ConfigError, DataError

PLAN = np.array([0.7, 0.5, 2.0])
"""Millimetres between columns, rows and slices of the test series."""


def write_slice(
    path,
    stored,
    position,
    *,
    series="1.2.3.1",
    spacing=PLAN,
    orientation=(1, 0, 0, 0, 1, 0),
    scale=(1, -1024),
    image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    instance=None,
    **tags,
):
    """One slice `stored` [rows, columns] as a CT file; keyword `tags` are set on top, None deletes one."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = instance or f"{series}.{zlib.crc32(str(path).encode())}"
    item = pydicom.Dataset()
    item.file_meta = meta
    item.SOPClassUID, item.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    item.SeriesInstanceUID, item.Modality, item.ImageType = series, "CT", list(image_type)
    item.PatientName, item.PatientID = "SENTINEL^NAME", "SENTINEL-ID"
    item.Rows, item.Columns = stored.shape[-2:]
    item.PixelSpacing = [spacing[1], spacing[0]]
    item.SliceThickness = spacing[2]
    item.ImagePositionPatient, item.ImageOrientationPatient = [float(p) for p in position], list(orientation)
    item.RescaleSlope, item.RescaleIntercept = scale
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 12, 11, 0
    item.PixelData = stored.astype("<u2").tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(item, name)
        else:
            setattr(item, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    item.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, stored, *, origin=(-10, -20, 30), names=None, **more):
    """`stored` [slices, rows, columns], bottom first; returns the files."""
    names = names or [f"{number:03d}.dcm" for number in range(len(stored))]
    return [
        write_slice(folder / name, plane, (*origin[:2], origin[2] + PLAN[2] * number), **more)
        for number, (plane, name) in enumerate(zip(stored, names, strict=True))
    ]


def source(root, channels=("ct",), files="{patient}", **more):
    return DicomSource(DicomSource.Config(format="dicom", files=files, **more), root, channels)


def read_all(root, **more):
    one = source(root, **more)
    return {scan.channel: one.read(scan) for scan in one.list_scans()}


def read_one(root, **more):
    (volume,) = read_all(root, **more).values()
    return volume


@pytest.fixture
def stored():
    return np.random.default_rng(1).integers(0, 4000, (5, 6, 7))


def test_reads_geometry_scale_and_order(tmp_path, stored):
    order = np.random.default_rng(2).permutation(len(stored))
    for number, rank in enumerate(order):
        write_slice(
            tmp_path / f"A/{rank}.dcm",
            stored[number],
            (-10, -20, 30 + 2.0 * number),
            scale=(2 + number, -1024),
            InstanceNumber=int(order[-1 - number]),
        )
    volume = read_one(tmp_path)
    scaled = stored * (2 + np.arange(5))[:, None, None] - 1024
    np.testing.assert_array_equal(volume.voxels, scaled.transpose(2, 1, 0).astype(np.float32))
    assert volume.voxels.dtype == np.float32
    expected = [[-0.7, 0, 0, 10], [0, -0.5, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-9)


def test_reads_a_sagittal_and_a_tilted_series(tmp_path, stored):
    for number, plane in enumerate(stored):
        # Columns lead to the back, rows to the feet: the normal leads to the right.
        write_slice(tmp_path / f"A/{number}", plane, (-3 * number, 0, 0), orientation=(0, 1, 0, 0, 0, -1))
        write_slice(tmp_path / f"B/{number}", plane, (0, 0.5 * number, 2 * number))
    one = source(tmp_path)
    sagittal, tilted = (one.read(scan) for scan in one.list_scans())
    np.testing.assert_allclose(sagittal.affine[:3, :3], [[0, 0, 3], [-0.7, 0, 0], [0, -0.5, 0]], atol=1e-9)
    np.testing.assert_allclose(tilted.affine[:3, 2], [0, -0.5, 2], atol=1e-9)
    np.testing.assert_array_equal(sagittal.voxels, stored.transpose(2, 1, 0) - 1024)


def test_leaves_out_localizers_derived_images_and_junk(tmp_path, stored):
    write_series(tmp_path / "A/deep/down", stored)
    many = np.zeros((20, 6, 7), dtype=int)
    write_series(tmp_path / "A/scout", many, series="1.2.3.2", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    write_series(tmp_path / "A/mpr", many, series="1.2.3.3", image_type=("DERIVED", "SECONDARY", "MPR"))
    write_series(tmp_path / "A/seg", many, series="1.2.3.4", Modality="SEG")
    report = write_slice(tmp_path / "A/report.dcm", many[0], (0, 0, 0), Rows=None, Columns=None, Modality="SR")
    item = pydicom.dcmread(report)
    item.SOPClassUID = item.file_meta.MediaStorageSOPClassUID = EnhancedSRStorage
    item.save_as(report)
    (tmp_path / "A/readme.txt").write_text("notes")
    (tmp_path / "A/junk.bin").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "A/._000.dcm").write_bytes(b"resource fork")
    np.testing.assert_array_equal(read_one(tmp_path).voxels, stored.transpose(2, 1, 0) - 1024)
    assert read_one(tmp_path, leave_out=["LOCALIZER"]).voxels.shape[2] == 20


def test_a_copied_file_counts_once(tmp_path, stored):
    files = write_series(tmp_path / "A/x", stored)
    (tmp_path / "A/y").mkdir()
    (tmp_path / "A/y/copy.dcm").write_bytes(files[2].read_bytes())
    assert read_one(tmp_path).voxels.shape == (7, 6, 5)


@pytest.mark.parametrize(("prefer", "slices"), [("most_slices", 9), ("thinnest", 5), ("first", 4)])
def test_prefers_a_series(tmp_path, prefer, slices):
    for series, count, distance, number in (("1.3", 9, 4, 3), ("1.2", 5, 1, 2), ("1.1", 4, 2, 1)):
        for index in range(count):
            path = tmp_path / f"A/{series}-{index}"
            write_slice(path, np.zeros((3, 3)), (0, 0, index * distance), series=series, SeriesNumber=number)
    assert read_one(tmp_path, series={"ct": {"prefer": prefer}}).voxels.shape[2] == slices


def test_breaks_a_tie_by_uid(tmp_path, stored):
    write_series(tmp_path / "A/a", stored, series="1.2.9")
    write_series(tmp_path / "A/b", stored * 0, series="1.2.10")
    assert (read_one(tmp_path).voxels == -1024).all()


RULES = {"t1": {"modality": "mr", "description": "^T1 AX$"}, "flair": {"description": "flair"}}


def test_chooses_series_by_modality_and_description(tmp_path, stored):
    write_series(tmp_path / "A", stored, series="1.1", Modality="MR", SeriesDescription="t1 ax")
    write_series(tmp_path / "A/f", stored + 1, series="1.2", Modality="MR", SeriesDescription="AX FLAIR fs")
    write_series(tmp_path / "A/c", stored * 0, series="1.3", SeriesDescription="T1 AX")
    volumes = read_all(tmp_path, channels=["t1", "flair"], series=RULES)
    np.testing.assert_array_equal(volumes["t1"].voxels, stored.transpose(2, 1, 0) - 1024)
    np.testing.assert_array_equal(volumes["flair"].voxels, stored.transpose(2, 1, 0) - 1023)


def test_a_channel_without_a_series_is_absent_but_none_at_all_is_refused(tmp_path, stored):
    write_series(tmp_path / "A", stored, SeriesDescription="AX FLAIR")
    volumes = read_all(tmp_path, channels=["t1", "flair"], series=RULES)
    assert volumes["t1"] is None
    assert volumes["flair"] is not None
    write_series(tmp_path / "B", stored, SeriesDescription="SENTINEL")
    one = source(tmp_path, channels=["t1", "flair"], series=RULES)
    with pytest.raises(DataError, match="no series fits a rule; acquired series: 1 CT") as caught:
        one.read(one.list_scans()[-1])
    assert "SENTINEL" not in str(caught.value)


def test_refuses_one_series_for_two_channels(tmp_path, stored):
    write_series(tmp_path / "A", stored, SeriesDescription="T1 Gd")
    with pytest.raises(DataError, match="'t1' and 't1gd' pick the same series"):
        read_all(tmp_path, channels=["t1gd", "t1"], series={"t1": {"description": "t1"}, "t1gd": {"description": "gd"}})


def test_channels_in_folders_of_their_own(tmp_path, stored):
    write_series(tmp_path / "A/t1", stored)
    write_series(tmp_path / "A/other", stored)
    volumes = read_all(tmp_path, channels=["t1", "t2"], files="{patient}/{channel}")
    assert list(volumes) == ["t1"]


def test_lists_every_file_below_the_folder(tmp_path, stored):
    files = write_series(tmp_path / "A/x", stored)
    (tmp_path / "A/readme.txt").write_text("notes")
    one = source(tmp_path)
    assert one.files(one.list_scans()[0]) == [tmp_path / "A/readme.txt", *files]


@pytest.mark.parametrize(
    ("channels", "more", "message"),
    [
        (["a", "b"], {}, "nothing tells them apart"),
        (["t1"], {"series": {"T1": {}}}, "rule for 'T1'"),
    ],
)
def test_refuses_a_config_that_cannot_work(tmp_path, channels, more, message):
    with pytest.raises(ConfigError, match=message):
        source(tmp_path, channels=channels, **more)


def test_refuses_a_pattern_of_files(tmp_path, stored):
    write_series(tmp_path, stored)
    with pytest.raises(DataError, match="files but no folder"):
        source(tmp_path, files="{patient}.dcm").list_scans()


def test_refuses_a_missing_slice(tmp_path, stored):
    write_series(tmp_path / "A", stored)[3].unlink()
    with pytest.raises(DataError, match=r"missing slice between 34.00 mm and 38.00 mm: 4.00 mm apart, others 2.00 mm"):
        read_one(tmp_path)


def test_tolerates_tenths_of_a_millimetre_and_refuses_more(tmp_path, stored):
    for folder, shift in (("A", 0.1), ("B", 0.3)):
        for number, plane in enumerate(stored):
            write_slice(tmp_path / f"{folder}/{number}", plane, (0, 0, 2 * number + shift * (number == 2)))
    one = source(tmp_path)
    first, second = one.list_scans()
    assert one.read(first) is not None
    with pytest.raises(DataError, match="apart, others"):
        one.read(second)


def test_refuses_slices_out_of_line(tmp_path, stored):
    for number, plane in enumerate(stored):
        write_slice(tmp_path / f"A/{number}", plane, (5 * (number == 2), 0, 2 * number))
    with pytest.raises(DataError, match="out of line"):
        read_one(tmp_path)


def test_refuses_two_slices_at_one_place(tmp_path, stored):
    write_series(tmp_path / "A", stored)
    write_slice(tmp_path / "A/again.dcm", stored[0], (-10, -20, 32))
    with pytest.raises(DataError, match=r"two slices lie at 32\.00 mm"):
        read_one(tmp_path)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"orientation": (0, 1, 0, 1, 0, 0)}, "differ in orientation"),
        ({"spacing": (0.8, 0.5, 2)}, "differ in pixel spacing"),
        ({"ImagePositionPatient": None}, "1 of 6 slices without position"),
        ({"PixelSpacing": None}, "1 of 6 slices without pixel spacing"),
        ({"SamplesPerPixel": 3}, "in colour"),
        ({"scale": (float("nan"), 0)}, "42 of 252 voxels are NaN"),
    ],
)
def test_refuses_a_slice_that_does_not_belong(tmp_path, stored, tags, message):
    write_series(tmp_path / "A", stored)
    write_slice(tmp_path / "A/z.dcm", stored[0], (-10, -20, 40), **tags)
    with pytest.raises(DataError, match=message):
        read_one(tmp_path)


def test_refuses_slices_of_two_sizes(tmp_path, stored):
    write_series(tmp_path / "A", stored)
    write_slice(tmp_path / "A/z.dcm", stored[0, :4], (-10, -20, 40))
    with pytest.raises(DataError, match="slices of 4 x 7 and 6 x 7"):
        read_one(tmp_path)


@pytest.mark.parametrize("content", [{}, {"readme.txt": b"notes"}])
def test_refuses_a_folder_without_dicom(tmp_path, content):
    (tmp_path / "A").mkdir()
    for name, data in content.items():
        (tmp_path / "A" / name).write_bytes(data)
    with pytest.raises(DataError, match="holds no acquired DICOM image"):
        read_one(tmp_path)


def test_refuses_a_file_cut_anywhere(tmp_path, stored):
    file = write_series(tmp_path / "A", stored)[-1]
    data = file.read_bytes()
    for length in [*range(0, len(data), 7), len(data) - 1]:
        file.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"cut short|truncated or damaged|slices without|no pixels") as caught:
            read_one(tmp_path)
        assert "SENTINEL" not in str(caught.value)


def test_refuses_a_scrambled_header(tmp_path, stored):
    file = write_series(tmp_path / "A", stored)[-1]
    data = file.read_bytes()
    file.write_bytes(data[:150] + b"\xff" * 200 + data[350:])
    with pytest.raises(DataError, match="header is truncated or damaged"):
        read_one(tmp_path)


def test_inverts_monochrome1(tmp_path, stored):
    write_series(tmp_path / "A", stored, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_one(tmp_path).voxels, (4095 - stored).transpose(2, 1, 0) - 1024)


def test_an_image_without_a_place_is_two_dimensional(tmp_path, stored):
    gone = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    write_slice(tmp_path / "A/x.dcm", stored[0], (0, 0, 0), Modality="DX", **gone)
    volume = read_one(tmp_path)
    np.testing.assert_array_equal(volume.voxels, stored[0].T - 1024)
    np.testing.assert_allclose(volume.affine, np.diag([-0.7, -0.5, 1, 1]))
    assert not volume.placed


def group(**values):
    item = pydicom.Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def write_enhanced(path, stored, heights):
    frames = [
        group(
            PlanePositionSequence=Sequence([group(ImagePositionPatient=[0, 0, float(height)])]),
            PixelValueTransformationSequence=Sequence([group(RescaleSlope=1, RescaleIntercept=-float(number))]),
        )
        for number, height in enumerate(heights)
    ]
    shared = group(
        PlaneOrientationSequence=Sequence([group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]),
        PixelMeasuresSequence=Sequence([group(PixelSpacing=[0.5, 0.7], SliceThickness=2)]),
    )
    gone = "ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness RescaleSlope RescaleIntercept"
    write_slice(
        path,
        stored,
        (0, 0, 0),
        SOPClassUID=EnhancedCTImageStorage,
        NumberOfFrames=len(stored),
        PerFrameFunctionalGroupsSequence=Sequence(frames),
        SharedFunctionalGroupsSequence=Sequence([shared]),
        **dict.fromkeys(gone.split()),
    )


def test_reads_an_enhanced_file(tmp_path, stored):
    heights = [4, 0, 2, 8, 6]
    write_enhanced(tmp_path / "A/x.dcm", stored, heights)
    volume = read_one(tmp_path)
    expected = (stored - np.arange(5)[:, None, None])[np.argsort(heights)]
    np.testing.assert_array_equal(volume.voxels, expected.transpose(2, 1, 0))
    np.testing.assert_allclose(np.diag(volume.affine), [-0.7, -0.5, 2, 1])
    assert volume.placed


def test_refuses_frames_without_a_place(tmp_path, stored):
    gone = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    write_slice(tmp_path / "A/x.dcm", stored, (0, 0, 0), NumberOfFrames=5, **gone)
    with pytest.raises(DataError, match="5 frames that does not say where each of them lies"):
        read_one(tmp_path)


def test_reads_run_lengths_and_names_the_plugin_for_what_it_cannot_unpack(tmp_path, stored):
    files = write_series(tmp_path / "A", stored)
    for file in files:
        item = pydicom.dcmread(file)
        item.compress(RLELossless, generate_instance_uid=False)
        item.save_as(file)
    np.testing.assert_array_equal(read_one(tmp_path).voxels, stored.transpose(2, 1, 0) - 1024)
    for file in files:
        item = pydicom.dcmread(file)
        item.file_meta.TransferSyntaxUID = JPEGLSLossless
        item.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        item.save_as(file)
    with pytest.raises(DataError, match="JPEG-LS") as caught:
        read_one(tmp_path)
    decoder = pydicom.pixels.get_decoder(JPEGLSLossless)
    if not decoder.is_available:
        assert "pylibjpeg-libjpeg" in caught.value.fix
        assert "python-gdcm" in caught.value.fix


# Files that do not begin as DICOM should


def bare(path, *, implicit=True):
    """The data set alone, as some consoles write it: no preamble, no meta header."""
    item = pydicom.dcmread(path)
    data = pydicom.Dataset()
    data.update({element.tag: element for element in item})
    data.save_as(path, implicit_vr=implicit, little_endian=True)


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("which", [[0], [4], [0, 1, 2, 3, 4]])
def test_a_file_without_preamble_is_a_slice_like_any_other(tmp_path, stored, which, implicit):
    files = write_series(tmp_path / "A", stored)
    for number in which:
        bare(files[number], implicit=implicit)
    np.testing.assert_array_equal(read_one(tmp_path).voxels, stored.transpose(2, 1, 0) - 1024)


@pytest.mark.parametrize("content", [b"", b"\x08\x00", bytes(range(256)) * 8, b"\0" * 4000])
@pytest.mark.parametrize("name", ["IM0009", "009.dcm", "1.2.840.9"])
def test_a_file_that_may_be_a_lost_slice_is_refused_by_name(tmp_path, stored, content, name):
    write_series(tmp_path / "A", stored)
    (tmp_path / "A" / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        read_one(tmp_path)


def test_what_is_left_aside_is_counted_by_reason(tmp_path, stored):
    write_series(tmp_path / "A", stored)
    write_series(tmp_path / "A/scout", stored[:2], series="1.2.3.2", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))
    write_series(tmp_path / "A/short", stored[:3], series="1.2.3.3")
    copied = tmp_path / "A/copy.dcm"
    copied.write_bytes((tmp_path / "A/000.dcm").read_bytes())
    (tmp_path / "A/readme").write_text("Grüße")
    (tmp_path / "A/viewer.exe").write_bytes(b"MZ\0\0")
    (tmp_path / "A/table.bin").write_bytes(bytes(range(256)))
    (tmp_path / "A/._000.dcm").write_bytes(b"\0\5\x16\7")
    one = source(tmp_path)
    assert one.read(one.list_scans()[0]).voxels.shape[2] == 5
    told = {what.partition(": ")[2]: count for what, count in one.remarks.items()}
    assert told == {
        "images marked LOCALIZER": 2,
        "images of series that no rule picks": 3,
        "second copies of an image": 1,
        "files that are no DICOM (text)": 1,
        "files that are no DICOM (program)": 1,
        "files that are no DICOM (.bin)": 1,
        "files of an operating system, such as ._ or Thumbs.db": 1,
    }


def test_slices_that_share_an_instance_number_are_all_kept(tmp_path, stored):
    write_series(tmp_path / "A", stored, instance="1.2.3.1.9")
    assert read_one(tmp_path).voxels.shape[2] == 5


# Frames, colours, values


@pytest.mark.parametrize(("says", "holds"), [(None, 5), (4, 5), (6, 5)])
def test_refuses_another_number_of_frames_than_the_header_says(tmp_path, stored, says, holds):
    write_slice(tmp_path / "A/x.dcm", stored[:holds], (0, 0, 0), NumberOfFrames=1 if says is None else says)
    with pytest.raises(DataError, match=r"x\.dcm"):
        read_one(tmp_path)


def test_a_palette_is_colour(tmp_path, stored):
    write_series(tmp_path / "A", stored, PhotometricInterpretation="PALETTE COLOR")
    with pytest.raises(DataError, match="in colour"):
        read_one(tmp_path)


def test_a_table_of_values_in_the_header_is_applied(tmp_path, stored):
    item = pydicom.Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [4096, 0, 16], "US"
    item.add_new("LUTData", "OW", (np.arange(4096)[::-1] * 3).astype("<u2").tobytes())
    write_series(tmp_path / "A", stored, ModalityLUTSequence=[item], RescaleSlope=None, RescaleIntercept=None)
    np.testing.assert_array_equal(read_one(tmp_path).voxels, (4095 - stored.transpose(2, 1, 0)) * 3)


# Geometry


@given(
    count=st.integers(4, 40),
    distance=st.floats(0.5, 8),
    start=st.floats(-500, 500),
    tilt=st.floats(-0.6, 0.6),
    missing=st.floats(0, 1),
)
def test_rounded_positions_are_read_and_a_missing_slice_is_refused(count, distance, start, tilt, missing):
    normal = np.array([0, np.sin(tilt), np.cos(tilt)])
    across = (1.0, 0, 0, 0, np.cos(tilt), -np.sin(tilt))
    exact = np.array([3.0, 4.0, start]) + np.arange(count)[:, None] * distance * normal
    frames = [frame(place, across, number) for number, place in enumerate(exact.round(1))]
    ordered, affine, placed = stack(frames, 0.15, Path("A"))
    assert placed
    assert [item.frame for item in ordered] == list(range(count))
    np.testing.assert_allclose(np.abs(affine[:3, :3] @ [0, 0, count - 1]), np.abs(exact[-1] - exact[0]), atol=0.1)
    gone = 1 + round(missing * (count - 2))
    if gone < count - 1:
        with pytest.raises(DataError, match=r"missing slice|out of line"):
            stack([item for item in frames if item.frame != gone], 0.15, Path("A"))


def frame(position, orientation, number):
    return Frame(
        path=Path(f"{number}"),
        frame=number,
        frames=1,
        wrong="",
        instance=str(number),
        series="1",
        series_number=1,
        modality="CT",
        description="",
        grey=True,
        shape=(4, 4),
        pixel_spacing=(1.0, 1.0),
        thickness=1.0,
        position=tuple(position),
        orientation=tuple(orientation),
        slope=1.0,
        intercept=0.0,
    )


# What lies in a folder


def test_a_table_of_contents_as_discs_have_it_is_left_aside(tmp_path, stored):
    write_series(tmp_path / "A", stored)
    contents = pydicom.Dataset()
    contents.file_meta = FileMetaDataset()
    contents.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    contents.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    contents.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    contents.DirectoryRecordSequence = Sequence([group(DirectoryRecordType="IMAGE")])
    contents.save_as(tmp_path / "A/DICOMDIR", enforce_file_format=True)
    one = source(tmp_path)
    assert one.read(one.list_scans()[0]).voxels.shape[2] == 5
    assert one.remarks["left aside beside DICOM scans: DICOMDIR"] == 1


def test_linked_files_and_folders_are_read_and_links_to_nothing_refused(tmp_path, stored):
    files = write_series(tmp_path / "store", stored)
    (tmp_path / "A").mkdir()
    (tmp_path / "A/series").symlink_to(tmp_path / "store")
    (tmp_path / "A/round").symlink_to(tmp_path / "A")
    np.testing.assert_array_equal(read_one(tmp_path, files="{patient}/series").voxels, read_one(tmp_path).voxels)
    files[-1].unlink()
    files[-1].symlink_to(tmp_path / "annex/not-fetched")
    with pytest.raises(DataError, match=r"004\.dcm.*cannot be opened, and may be a slice"):
        read_one(tmp_path)


def test_a_slice_packed_by_itself_is_not_passed_over(tmp_path, stored):
    files = write_series(tmp_path / "A", stored)
    (tmp_path / "A/004.dcm.gz").write_bytes(gzip.compress(files[-1].read_bytes()))
    files[-1].unlink()
    with pytest.raises(DataError, match=r"004\.dcm\.gz.*may be a slice"):
        read_one(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("film.mp4", b"\0\0\0\x18ftyp" + bytes(500)), ("a.h5", b"\x89HDF" + bytes(500)), ("README", b"\xff\xfeH\0i\0")],
)
def test_other_files_of_every_day_do_not_cost_a_scan(tmp_path, stored, name, content):
    write_series(tmp_path / "A", stored)
    (tmp_path / "A" / name).write_bytes(content)
    assert read_one(tmp_path).voxels.shape[2] == 5


def test_two_images_of_one_number_are_no_copies(tmp_path, stored):
    write_series(tmp_path / "A", stored)
    item = pydicom.dcmread(tmp_path / "A/002.dcm")
    item.PixelData = (stored[2] + 1).astype("<u2").tobytes()
    item.save_as(tmp_path / "A/echo.dcm")
    with pytest.raises(DataError, match=r"echo\.dcm: bears the instance number, series and place of 002\.dcm"):
        read_one(tmp_path)


def test_numbers_that_two_series_share_cost_neither_a_slice(tmp_path, stored):
    for file in write_series(tmp_path / "A", stored)[:3]:
        item = pydicom.dcmread(file)
        item.SeriesInstanceUID, item.PixelData = "1.2.3.0", bytes(2 * 6 * 7)
        item.save_as(file.with_name("0" + file.name))
    np.testing.assert_array_equal(read_one(tmp_path).voxels, stored.transpose(2, 1, 0) - 1024)


def test_a_scan_that_must_be_refused_does_not_give_way_to_a_lesser_series(tmp_path, stored):
    write_slice(tmp_path / "A/all.dcm", stored, (0, 0, 0), NumberOfFrames=5)
    write_series(tmp_path / "A/two", stored[:2], series="1.2.3.2")
    with pytest.raises(DataError, match="does not say where each of them lies"):
        read_one(tmp_path)


def test_an_object_in_several_files_is_read_whole_or_refused(tmp_path, stored):
    for part, frames in enumerate((slice(0, 2), slice(2, 5))):
        name = tmp_path / f"A/{part}.dcm"
        write_enhanced(name, stored[frames], [2.0 * height for height in range(5)][frames])
        item = pydicom.dcmread(name)
        item.ConcatenationUID, item.InConcatenationNumber, item.InConcatenationTotalNumber = "1.2.9", part + 1, 2
        item.save_as(name)
    assert read_one(tmp_path).voxels.shape[2] == 5
    (tmp_path / "A/1.dcm").unlink()
    with pytest.raises(DataError, match="holds 1 of the 2 files that make up one object"):
        read_one(tmp_path)


@pytest.mark.parametrize(("height", "refused"), [(40, True), (28, False), (37, False), (60, False)])
def test_a_series_does_not_lose_its_ends_to_words_of_image_type(tmp_path, stored, height, refused):
    write_series(tmp_path / "A", stored)
    across = (0, 1, 0, 0, 0, -1) if height == 28 else (1, 0, 0, 0, 1, 0)
    marked = ("DERIVED", "PRIMARY", "AXIAL")
    write_slice(tmp_path / "A/more.dcm", stored[0], (-10, -20, height), orientation=across, image_type=marked)
    if refused:
        with pytest.raises(DataError, match=r"goes on in more\.dcm, which `leave_out` leaves out as DERIVED"):
            read_one(tmp_path, leave_out=["DERIVED", "SCOUT"])
        assert read_one(tmp_path, leave_out=["SCOUT"]).voxels.shape[2] == 6
    else:
        assert read_one(tmp_path).voxels.shape[2] == 5


# How pixels are stored


@pytest.mark.parametrize("flat", [True, False])
def test_compressed_pixels_without_a_syntax_are_refused(tmp_path, stored, flat):
    noise = np.random.default_rng(2).integers(0, 4000, (64, 64))
    path = write_slice(tmp_path / "A/x.dcm", np.full((64, 64), 7) if flat else noise, (0, 0, 0))
    item = pydicom.dcmread(path)
    item.compress(RLELossless)
    item.save_as(path)
    # The two names are of one length.
    path.write_bytes(path.read_bytes().replace(RLELossless.encode(), ExplicitVRLittleEndian.encode()))
    with pytest.raises(DataError, match="does not say how they are compressed"):
        read_one(tmp_path)


def test_run_lengths_without_a_table_of_offsets_are_read(tmp_path, stored):
    path = write_slice(tmp_path / "A/x.dcm", stored[0], (0, 0, 0))
    item = pydicom.dcmread(path)
    item.compress(RLELossless)
    item.PixelData = encapsulate(list(generate_frames(item.PixelData, number_of_frames=1)), has_bot=False)
    item.save_as(path)
    np.testing.assert_array_equal(read_one(tmp_path).voxels[:, :, 0], stored[0].T - 1024)


@pytest.mark.parametrize("table", [True, False])
def test_frames_beyond_those_said_are_found_without_a_table_of_offsets(tmp_path, stored, table):
    path = write_slice(tmp_path / "A/x.dcm", stored, (0, 0, 0), NumberOfFrames=5)
    item = pydicom.dcmread(path)
    item.compress(RLELossless)
    item.PixelData = encapsulate(list(generate_frames(item.PixelData, number_of_frames=5)), has_bot=table)
    item.NumberOfFrames = 1
    item.save_as(path)
    with pytest.raises(DataError, match="says that it has 1 frame and holds 5"):
        read_one(tmp_path)


def stored_as(path, plane, **tags):
    return write_slice(path, plane.astype("<i8").astype("<u2"), (0, 0, 0), scale=(1, 0), **tags)


def test_numbers_lie_where_the_header_says(tmp_path, stored):
    plane, signed = stored[0], stored[0] - 2000
    cases = {
        "left": (plane << 4, {"HighBit": 15}, plane),
        "signed": (signed & 0xFFFF, {"PixelRepresentation": 1}, signed),
        "short": (signed & 0x0FFF, {"PixelRepresentation": 1}, signed),
        "signed_left": ((signed << 4) & 0xFFFF, {"PixelRepresentation": 1, "HighBit": 15}, signed),
    }
    for name, (bits, tags, _) in cases.items():
        stored_as(tmp_path / name / "x.dcm", bits, **tags)
    one = source(tmp_path)
    for scan in one.list_scans():
        np.testing.assert_array_equal(one.read(scan).voxels[:, :, 0], cases[scan.patient][2].T, err_msg=scan.patient)


def test_an_old_overlay_in_the_upper_bits_is_no_part_of_the_numbers(tmp_path, stored):
    path = stored_as(tmp_path / "A/x.dcm", stored[0] | 0x8000)
    with pytest.raises(DataError, match="have 12 bits"):
        read_one(tmp_path)
    item = pydicom.dcmread(path)
    item.add_new(0x60000102, "US", 15)
    item.save_as(path)
    np.testing.assert_array_equal(read_one(tmp_path).voxels[:, :, 0], stored[0].T)


@pytest.mark.parametrize(("plane", "high"), [(0x1000, 11), (0x0001, 15)])
def test_numbers_beyond_the_stored_bits_are_refused(tmp_path, stored, plane, high):
    stored_as(tmp_path / "A/x.dcm", stored[0] * 0 + plane, HighBit=high)
    with pytest.raises(DataError, match="says that its values have 12 bits"):
        read_one(tmp_path)


def test_a_slope_of_zero_and_a_file_without_pixels_are_refused(tmp_path, stored):
    write_series(tmp_path / "A", stored, scale=(0, -1024))
    with pytest.raises(DataError, match="slope of 0"):
        read_one(tmp_path)
    write_series(tmp_path / "A", stored, PixelData=None)
    with pytest.raises(DataError, match="a header and no pixels"):
        read_one(tmp_path)


def test_an_image_of_no_rows_is_refused_by_name(tmp_path, stored):
    write_slice(tmp_path / "A/x.dcm", stored[0], (0, 0, 0), Rows=0)
    with pytest.raises(DataError, match=r"x\.dcm.*0 rows and 7 columns"):
        read_one(tmp_path)


def test_pixels_may_be_floats(tmp_path, stored):
    floats = (stored[0] / 3).astype("<f4")
    more = {"PixelData": None, "FloatPixelData": floats.tobytes(), "BitsAllocated": 32}
    write_slice(tmp_path / "A/x.dcm", stored[0], (0, 0, 0), scale=(1, 0), **more)
    np.testing.assert_array_equal(read_one(tmp_path).voxels[:, :, 0], floats.T)


def test_a_table_of_values_leaves_nothing_to_scale(tmp_path, stored):
    item = pydicom.Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [4096, 0, 16], "US"
    item.add_new("LUTData", "OW", (np.arange(4096) * 3).astype("<u2").tobytes())
    write_series(tmp_path / "A", stored, ModalityLUTSequence=[item], scale=(2, -1024))
    np.testing.assert_array_equal(read_one(tmp_path).voxels, stored.transpose(2, 1, 0) * 3)


@pytest.mark.parametrize("spacing", [None, [0, 0]])
def test_an_image_that_does_not_say_its_spacing_is_told(tmp_path, stored, spacing):
    gone = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": spacing}
    write_slice(tmp_path / "A/x.dcm", stored[0], (0, 0, 0), Modality="DX", **gone)
    one = source(tmp_path)
    np.testing.assert_array_equal(one.read(one.list_scans()[0]).affine, np.diag([-1, -1, 1, 1]))
    assert one.remarks["DICOM images that do not say how far apart pixels are: taken to be 1 mm"] == 1


def test_images_of_somebody_else_are_refused(tmp_path, stored):
    write_series(tmp_path / "A", stored, PatientID="A")
    write_series(tmp_path / "B", stored, PatientID="A", series="1.2.3.2")
    write_series(tmp_path / "C", stored, PatientID="anonymous", series="1.2.3.3")
    write_series(tmp_path / "D", stored, PatientID="D", series="1.2.3.4")
    more = stored[:, :3, :3].repeat(2, axis=0)
    names = [f"more{number}.dcm" for number in range(len(more))]
    write_series(tmp_path / "D", more, PatientID="C", series="1.2.3.5", names=names)
    one = source(tmp_path)
    scans = {scan.patient: scan for scan in one.list_scans()}
    assert one.read(scans["A"]) is not None and one.read(scans["C"]) is not None
    with pytest.raises(DataError, match="PatientID is the name of another patient's folder"):
        one.read(scans["B"])
    with pytest.raises(DataError, match="holds images of 2 patients") as caught:
        one.read(scans["D"])
    assert "more" not in caught.value.what and caught.value.fix
