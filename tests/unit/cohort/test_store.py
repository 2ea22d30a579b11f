"""Records written and read back, as `datasets` sees them and as views of the files."""

import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Features, load_from_disk

from foundation.cohort.manifest import ImageEntry, Manifest, OmicsEntry
from foundation.cohort.records import Image, Record, record_features, write_index, write_shard
from foundation.cohort.store import PreparedCohort
from foundation.errors import DataError
from foundation.modality import Percentile

SHAPE = (4, 3, 2)
FEATURES = {"rna": ["A", "B", "C"]}
ENDPOINTS = {"subtype": "subtype", "response": "response", "os": "survival", "dose": "regression"}


def entry(stored_as="int16"):
    return ImageEntry(
        patients=0,
        shape=list(SHAPE),
        channels={"t1": 0, "t2": 0},
        orientation="RAS",
        spacing=(1.0, 1.0, 1.0),
        intensity=Percentile(rule="percentile"),
        stored_as=stored_as,
        mirror=["x"],
    )


def make_records(count, stored_as="int16", seed=0):
    """Every third record lacks the image, every second the RNA, every fifth its endpoints."""
    random = np.random.default_rng(seed)
    records = []
    for i in range(count):
        record = Record(patient=f"P{i}", time_point="a" if i == 1 else "", site="S" if i % 2 else None, group=None)
        if i % 3:
            voxels = random.integers(0, 200, (2, *SHAPE)).astype(stored_as)
            statistics = random.random((2, 4), dtype=np.float32)
            affine = None if i % 4 == 1 else random.normal(size=(4, 4))
            record.images["mri"] = Image(voxels, np.array([True, i % 2 == 0]), statistics, affine)
        if i % 2:
            record.omics["rna"] = np.array([i, np.nan, -i], dtype=np.float32)
        if i % 5:
            record.endpoints = {"subtype": i % 3, "response": 0, "os/time": i / 2, "os/event": i % 2, "dose": -i}
        records.append(record)
    return records


def write(folder, records, shards=3, stored_as="int16", count=None, without=()):
    spec = SimpleNamespace(
        images=lambda: {"mri": SimpleNamespace(channels=["t1", "t2"])},
        annotations={},
        omics=lambda: FEATURES,
        endpoints={name: SimpleNamespace(kind=kind) for name, kind in ENDPOINTS.items()},
    )
    features = Features({n: kind for n, kind in record_features(spec, FEATURES).items() if n not in without})
    (folder / "records").mkdir(parents=True)
    paths = [folder / "records" / f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    for path, piece in zip(paths, np.array_split(np.arange(len(records)), shards), strict=True):
        write_shard(path, features.arrow_schema, [records[i] for i in piece])
    write_index(folder / "records", features, paths, "a" * 64)
    manifest = Manifest(
        name="small",
        patients=len(records),
        records=len(records) if count is None else count,
        modalities={
            "mri": entry(stored_as),
            "rna": OmicsEntry(patients=0, features=3, values="continuous", unit="", transform=[]),
        },
        patterns={},
        endpoints={name: {"kind": kind} for name, kind in ENDPOINTS.items()},
        sites={},
        groups={},
        folds={},
        sources={},
        quarantined=0,
        versions={},
        fingerprint="a" * 64,
    )
    (folder / "cohort.json").write_text(manifest.to_json())
    (folder / "features.json").write_text(json.dumps(FEATURES))
    return folder


@pytest.fixture(params=[(1, None), (3, None), (2, 100)], ids=["one shard", "three shards", "small batches"])
def opened(request, tmp_path, monkeypatch):
    """Ten records in several layouts of shards and of batches within a shard."""
    shards, batch_bytes = request.param
    if batch_bytes:
        monkeypatch.setattr("foundation.cohort.records.BATCH_BYTES", batch_bytes)
    records = make_records(10)
    return records, PreparedCohort(write(tmp_path / "cohort", records, shards))


def test_everything_reads_back(opened):
    records, cohort = opened
    assert len(cohort) == 10
    assert cohort.patients.tolist() == [r.patient for r in records]
    assert cohort.time_points.tolist() == [r.time_point for r in records]
    assert cohort.sites.tolist() == [r.site or "" for r in records]
    assert cohort.groups.tolist() == [""] * 10
    assert cohort.present_NM.tolist() == [["mri" in r.images, "rna" in r.omics] for r in records]
    for row, record in enumerate(records):
        voxels = cohort.voxels("mri", row)
        if "mri" in record.images:
            image = record.images["mri"]
            assert voxels.dtype == image.voxels.dtype
            np.testing.assert_array_equal(voxels, image.voxels)
            np.testing.assert_array_equal(cohort.channels_NC("mri", [row])[0], image.channels)
            np.testing.assert_array_equal(cohort.statistics_NC4("mri", [row])[0], image.statistics)
            known = np.full((4, 4), np.nan) if image.affine is None else image.affine
            np.testing.assert_array_equal(cohort.affine_N44("mri", [row])[0], known)
        else:
            assert voxels is None
            assert not cohort.channels_NC("mri", [row]).any()
            assert np.isnan(cohort.statistics_NC4("mri", [row])).all()
            assert np.isnan(cohort.affine_N44("mri", [row])).all()
        expected = record.omics.get("rna", np.full(3, np.nan))
        np.testing.assert_array_equal(cohort.values_NF("rna", [row])[0], expected)


def test_rows_can_be_asked_for_in_any_order_and_twice(opened):
    _, cohort = opened
    everything = cohort.values_NF("rna", range(10))
    for rows in ([9, 0, 5, 5], [], [3], list(range(9, -1, -1))):
        np.testing.assert_array_equal(cohort.values_NF("rna", rows), everything[rows].reshape(-1, 3))
        np.testing.assert_array_equal(
            cohort.values_NF("rna", rows, slice(1, 3)), everything[rows].reshape(-1, 3)[:, 1:]
        )
    assert cohort.values_NF("rna", range(10)).dtype == np.float32


def test_endpoints_read_back_with_what_is_missing(opened):
    records, cohort = opened
    for name in ("subtype", "response"):
        code = cohort.endpoint(name)["code"]
        assert code.dtype == np.int64
        assert code.tolist() == [r.endpoints.get(name, -1) for r in records]
    survival = cohort.endpoint("os")
    for part in ("time", "event"):
        np.testing.assert_array_equal(survival[part], [r.endpoints.get(f"os/{part}", np.nan) for r in records])
    np.testing.assert_array_equal(cohort.endpoint("dose")["value"], [r.endpoints.get("dose", np.nan) for r in records])


def test_a_cohort_of_an_earlier_version_is_read_and_says_that_it_holds_no_affines(tmp_path):
    records = make_records(6)
    cohort = PreparedCohort(write(tmp_path / "cohort", records, without=("image/mri/affine",)))
    np.testing.assert_array_equal(cohort.voxels("mri", 4), records[4].images["mri"].voxels)
    np.testing.assert_array_equal(cohort.channels_NC("mri", [4])[0], records[4].images["mri"].channels)
    with pytest.raises(DataError, match=r"where the scans of 'mri' lie: an earlier version") as raised:
        cohort.affine_N44("mri", [4])
    assert raised.value.fix == "prepare the cohort again, into an empty folder"


def test_voxels_are_a_read_only_view_of_the_file(opened):
    _, cohort = opened
    voxels = cohort.voxels("mri", 4)
    assert not voxels.flags.owndata
    assert not voxels.flags.writeable
    again = cohort.voxels("mri", 4)
    assert again.__array_interface__["data"] == voxels.__array_interface__["data"]


def test_datasets_opens_the_records(opened):
    records, cohort = opened
    dataset = load_from_disk(str(cohort.path / "records"))
    assert len(dataset) == 10
    for row, record in zip(dataset, records, strict=True):
        assert row["patient"] == record.patient
        stored = row["image/mri/voxels"]
        assert stored == (record.images["mri"].voxels.tobytes() if "mri" in record.images else None)
        affine = record.images["mri"].affine if "mri" in record.images else None
        assert row["image/mri/affine"] == (None if affine is None else affine.ravel().tolist())
        assert (row["omics/rna"] is None) == ("rna" not in record.omics)
        assert row["endpoint/os/time"] == record.endpoints.get("os/time")


@pytest.mark.parametrize("stored_as", ["float32", "float16", "int16", "uint8"])
def test_every_stored_type_reads_back(tmp_path, stored_as):
    records = make_records(4, stored_as)
    cohort = PreparedCohort(write(tmp_path / "cohort", records, stored_as=stored_as))
    voxels = cohort.voxels("mri", 1)
    assert voxels.dtype == np.dtype(stored_as)
    np.testing.assert_array_equal(voxels, records[1].images["mri"].voxels)


def test_a_worker_process_opens_the_files_itself(opened):
    _, cohort = opened
    sent = pickle.dumps(cohort)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).voxels("mri", 4), cohort.voxels("mri", 4))


def test_the_same_records_give_the_same_bytes(tmp_path):
    first, second = (write(tmp_path / name, make_records(7)) for name in ("one", "two"))
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert len(files) == 7
    assert files == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    assert all((first / f).read_bytes() == (second / f).read_bytes() for f in files)


def test_a_shard_appears_only_when_it_is_whole(tmp_path):
    def records():
        yield from make_records(3)
        raise OSError("the disk is full")

    features = record_features(
        SimpleNamespace(
            images=lambda: {"mri": SimpleNamespace(channels=["t1", "t2"])}, omics=dict, endpoints={}, annotations={}
        ),
        {},
    )
    with pytest.raises(OSError, match="full"):
        write_shard(tmp_path / "data.arrow", features.arrow_schema, records())
    assert not (tmp_path / "data.arrow").exists()


def test_a_shard_of_no_records_reads_back(tmp_path):
    cohort = PreparedCohort(write(tmp_path / "cohort", make_records(2), shards=4))
    assert cohort.patients.tolist() == ["P0", "P1"]
    assert cohort.values_NF("rna", [1, 0])[0, 0] == 1


def test_voxels_of_the_wrong_size_are_refused(tmp_path):
    records = make_records(3)
    records[1].images["mri"].voxels = records[1].images["mri"].voxels[:, :-1]
    cohort = PreparedCohort(write(tmp_path / "cohort", records))
    with pytest.raises(DataError, match="72 bytes instead of 96"):
        cohort.voxels("mri", 1)
    assert cohort.voxels("mri", 2) is not None


def cut_shard(folder):
    shard = sorted((folder / "records").glob("*.arrow"))[1]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


def remove_shard(folder):
    sorted((folder / "records").glob("*.arrow"))[1].unlink()


@pytest.mark.parametrize("harm", [cut_shard, remove_shard])
def test_damaged_records_are_refused(tmp_path, harm):
    folder = write(tmp_path / "cohort", make_records(9))
    harm(folder)
    with pytest.raises(DataError, match="cannot be read") as raised:
        PreparedCohort(folder)
    assert "prepare the cohort again" in raised.value.fix


def test_a_count_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"3 records are there, cohort.json says 4"):
        PreparedCohort(write(tmp_path / "cohort", make_records(3), count=4))


@pytest.mark.parametrize("name", ["cohort.json", "features.json", "records/state.json", "records/dataset_info.json"])
def test_a_missing_or_damaged_file_is_refused(tmp_path, name):
    folder = write(tmp_path / "cohort", make_records(3))
    text = (folder / name).read_text()
    (folder / name).write_text(text[:20])
    with pytest.raises(DataError, match=name.split("/")[0]):
        PreparedCohort(folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match=r"cohort|records"):
        PreparedCohort(folder)


def test_a_wrong_name_is_answered_with_the_nearest(opened):
    _, cohort = opened
    with pytest.raises(DataError, match="did you mean 'mri'"):
        cohort.image("mrii")
    with pytest.raises(DataError, match="known: rna"):
        cohort.omics("mri")
    with pytest.raises(DataError, match="did you mean 'subtype'"):
        cohort.endpoint("subtypes")
    with pytest.raises(DataError, match="did you mean 'mri'"):
        cohort.affine_N44("mrii", [0])


def test_published_folds_read_back(opened):
    _, cohort = opened
    assert cohort.folds == {}
    (cohort.path / "folds.json").write_text(json.dumps({"1": {"P0": "train"}}))
    assert PreparedCohort(cohort.path).folds == {"1": {"P0": "train"}}
