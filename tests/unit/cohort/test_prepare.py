"""Preparing a simulated cohort: the same to the byte for any number of workers, resumable, and never over another."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import yaml
from datasets import Features, load_from_disk

from foundation.cohort.manifest import Manifest
from foundation.cohort.prepare import _shard_size, prepare
from foundation.cohort.records import record_features
from foundation.cohort.store import PreparedCohort
from foundation.errors import DataError
from foundation.progress import Silent
from foundation.simulation.scans import write_scan

PATIENTS = 60


@pytest.fixture(scope="module")
def source(simulated: Path) -> Path:
    return simulated / "source"


@pytest.fixture(scope="module")
def cohort(simulated: Path) -> Path:
    """As one worker prepares it; who prepares into it again copies it first."""
    return simulated / "cohort"


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_bytes_for_one_and_four_workers(source, cohort, tmp_path):
    prepare(source / "cohort.yaml", out=tmp_path / "four", workers=4, progress=Silent())
    assert hashes(tmp_path / "four") == hashes(cohort)


def test_folder_can_be_moved_and_the_sources_elsewhere(source, cohort, tmp_path):
    shutil.copytree(source, tmp_path / "elsewhere")
    prepare(tmp_path / "elsewhere" / "cohort.yaml", out=tmp_path / "out", workers=1, progress=Silent())
    assert hashes(tmp_path / "out") == hashes(cohort)


def test_counts_are_those_of_the_records(cohort):
    manifest, records = Manifest.read(cohort), PreparedCohort(cohort)
    assert manifest.patients == PATIENTS == len(records)
    assert sum(manifest.patterns.values()) == PATIENTS
    for position, (name, entry) in enumerate(manifest.modalities.items()):
        assert entry.patients == records.present_NM[:, position].sum(), name
    channels = records.channels_NC("mri", np.arange(len(records)))
    assert list(manifest.modalities["mri"].channels.values()) == channels.sum(axis=0).tolist()


def test_nothing_names_a_place_on_this_machine(simulated, cohort):
    for path in cohort.rglob("*"):
        if path.is_file():
            assert str(simulated.parent).encode() not in path.read_bytes(), path


def test_datasets_opens_the_records(cohort):
    dataset = load_from_disk(str(cohort / "records"))
    assert len(dataset) == PATIENTS
    records = PreparedCohort(cohort)
    row = int(np.flatnonzero(records.present_NM[:, records.modalities.index("mri")])[0])
    entry = records.image("mri")
    voxels = np.frombuffer(dataset[row]["image/mri/voxels"], dtype=entry.stored_as)
    np.testing.assert_array_equal(voxels.reshape(len(entry.channels), *entry.shape), records.voxels("mri", row))


def test_voxels_are_not_copied(cohort):
    records = PreparedCohort(cohort)
    row = int(np.flatnonzero(records.present_NM[:, records.modalities.index("mri")])[0])
    first, second = records.voxels("mri", row), records.voxels("mri", row)
    assert first is not None and second is not None
    assert not first.flags.owndata and not first.flags.writeable
    assert first.__array_interface__["data"][0] == second.__array_interface__["data"][0]


def test_a_second_call_does_nothing(source, cohort, tmp_path):
    copy = Path(shutil.copytree(cohort, tmp_path / "copy"))
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    manifest = prepare(source / "cohort.yaml", out=copy, workers=1, progress=Silent())
    assert manifest == Manifest.read(cohort)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_and_started_again_it_keeps_what_is_finished(source, cohort, tmp_path):
    out = tmp_path / "killed"
    code = (
        "import sys; from pathlib import Path\n"
        "from foundation.cohort.prepare import prepare; from foundation.progress import Silent\n"
        "prepare(Path(sys.argv[1]), out=Path(sys.argv[2]), workers=1, progress=Silent())\n"
    )
    command = [sys.executable, "-c", code, str(source / "cohort.yaml"), str(out)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    reports = out / ".prepare" / "reports"
    while process.poll() is None and not list(reports.glob("*.json")):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = [out / "records" / path.with_suffix(".arrow").name for path in reports.glob("*.json")]
    assert finished, "it was to be killed after the first shard"
    assert not (out / "cohort.json").exists()
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in finished}
    prepare(source / "cohort.yaml", out=out, workers=1, progress=Silent())
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in finished} == before
    assert hashes(out) == hashes(cohort)


def test_an_unfinished_cohort_is_not_opened(cohort, tmp_path):
    shutil.copytree(cohort, tmp_path / "copy")
    (tmp_path / "copy" / "cohort.json").unlink()
    with pytest.raises(DataError, match="not a prepared cohort"):
        PreparedCohort(tmp_path / "copy")


def test_a_lost_shard_is_noticed(cohort, tmp_path):
    shutil.copytree(cohort, tmp_path / "copy")
    next((tmp_path / "copy" / "records").glob("part-*.arrow")).unlink()
    with pytest.raises(DataError, match="records"):
        PreparedCohort(tmp_path / "copy")


def test_a_damaged_or_lost_shard_is_noticed_by_a_second_call(source, cohort, tmp_path):
    copy = Path(shutil.copytree(cohort, tmp_path / "copy"))
    shard = sorted((copy / "records").glob("part-*.arrow"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-200] + bytes([whole[-200] ^ 1]) + whole[-199:])
    with pytest.raises(DataError, match="damaged"):
        prepare(source / "cohort.yaml", out=copy, workers=1, progress=Silent())
    shard.write_bytes(whole[:-8])
    with pytest.raises(DataError, match=r"bytes, cohort\.json says"):
        prepare(source / "cohort.yaml", out=copy, workers=1, progress=Silent())
    shard.unlink()
    with pytest.raises(DataError, match="is missing"):
        prepare(source / "cohort.yaml", out=copy, workers=1, progress=Silent())


def start(source: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    command = ["prepare", str(source / "cohort.yaml"), "--out", str(out), "--workers", str(workers)]
    return subprocess.Popen(
        [sys.executable, "-m", "launch.cli", *command],
        cwd=Path(__file__).parents[3],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_two_at_once_do_not_disturb_each_other(source, cohort, tmp_path):
    out = tmp_path / "shared"
    first = start(source, out, workers=1)
    wait_for((out / ".prepare" / "process").exists)
    with pytest.raises(DataError, match=f"is being prepared by process {first.pid}"):
        prepare(source / "cohort.yaml", out=out, workers=1, progress=Silent())
    _, said = first.communicate(timeout=180)
    assert first.returncode == 0, said
    assert hashes(out) == hashes(cohort)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_workers_end_with_their_parent(source, cohort, tmp_path, number, code):
    import psutil

    out = tmp_path / "ended"
    process = start(source, out, workers=2)
    wait_for(lambda: list((out / "records").glob("part-*.arrow")))
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
    prepare(source / "cohort.yaml", out=out, workers=1, progress=Silent())
    assert hashes(out) == hashes(cohort)


def test_what_has_no_time_point_belongs_to_every_record_of_the_patient(source, tmp_path):
    copy = Path(shutil.copytree(source, tmp_path / "source"))
    for scan in sorted((copy / "scans" / "nifti").glob("*/*.nii.gz")):
        for when in ("before", "after"):
            shutil.copy(scan, scan.with_name(f"{when}_{scan.name}"))
    document = yaml.safe_load((copy / "cohort.yaml").read_text())
    untimed = document["modalities"]["mri"] | {"source": document["modalities"]["mri"]["source"][0]}
    timed_files = "scans/nifti/{patient}/{time_point}_{channel}.nii.gz"
    timed = untimed | {"source": {"format": "nifti", "files": timed_files}}
    document["modalities"] = {"untimed": untimed, "timed": timed, "clinical": document["modalities"]["clinical"]}
    (copy / "cohort.yaml").write_text(yaml.safe_dump(document))
    manifest = prepare(copy / "cohort.yaml", out=tmp_path / "out", workers=1, progress=Silent())
    cohort = PreparedCohort(tmp_path / "out")
    scanned = {folder.name for folder in (copy / "scans" / "nifti").iterdir()}
    assert manifest.patients == PATIENTS and len(cohort) == PATIENTS + len(scanned)
    for row in range(len(cohort)):
        here = cohort.patients[row] in scanned
        present = dict(zip(cohort.modalities, cohort.present_NM[row].tolist(), strict=True))
        assert present == {"untimed": here, "timed": here, "clinical": True}
        assert (cohort.time_points[row] in ("after", "before")) == here
        if here:
            np.testing.assert_array_equal(cohort.voxels("timed", row), cohort.voxels("untimed", row))


def test_a_patient_handed_over_as_dicom_has_the_voxels_of_the_nifti(source, cohort, tmp_path):
    copy = Path(shutil.copytree(source, tmp_path / "source"))
    patients = sorted(path for path in (copy / "scans" / "nifti").iterdir() if len(list(path.iterdir())) == 2)
    for folder in patients[:3]:
        for scan in sorted(folder.iterdir()):
            image = nibabel.load(scan)
            out = copy / "scans" / "dicom" / folder.name / scan.name.split(".")[0]
            voxels = np.asarray(image.dataobj)
            write_scan(voxels, image.affine, out, "dicom", patient=folder.name, channel=out.name, seed=1)
        shutil.rmtree(folder)
    prepare(copy / "cohort.yaml", out=tmp_path / "out", workers=1, progress=Silent())
    as_dicom, as_nifti = PreparedCohort(tmp_path / "out"), PreparedCohort(cohort)
    rows = np.flatnonzero(np.isin(as_nifti.patients, [folder.name for folder in patients[:3]]))
    for row in rows:
        np.testing.assert_array_equal(as_dicom.voxels("mri", row), as_nifti.voxels("mri", row))
    statistics = [each.statistics_NC4("mri", rows) for each in (as_dicom, as_nifti)]
    np.testing.assert_array_equal(*statistics)
    affines = [each.affine_N44("mri", rows) for each in (as_dicom, as_nifti)]
    assert np.isfinite(affines[0]).all()
    np.testing.assert_array_equal(*affines)


def test_shards_of_an_earlier_version_are_not_mixed_with_new_ones(source, cohort, tmp_path, monkeypatch):
    from foundation.cohort import prepare as module

    out, full = tmp_path / "begun", record_features

    def without_affines(spec, features):
        return Features({name: kind for name, kind in full(spec, features).items() if not name.endswith("/affine")})

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as earlier:
        earlier.setattr(module, "record_features", without_affines)
        earlier.setattr(module, "_publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(source / "cohort.yaml", out=out, workers=1, progress=Silent())
    assert list((out / "records").glob("part-*.arrow"))
    prepare(source / "cohort.yaml", out=out, workers=1, progress=Silent())
    assert hashes(out) == hashes(cohort)


def test_a_patient_of_whom_nothing_was_measured_does_not_have_the_modality(tmp_path):
    (tmp_path / "rna.csv").write_text("patient,A,B\nP1,1,2\nP2,,\nP3,,0\n")
    (tmp_path / "protein.csv").write_text("patient,X\nP1,5\nP2,7\nP3,NA\n")
    source = {"format": "matrix", "orientation": "samples_by_features"}
    omics = {name: {"kind": "omics", "source": source | {"files": f"{name}.csv"}} for name in ("rna", "protein")}
    (tmp_path / "cohort.yaml").write_text(yaml.safe_dump({"name": "gaps", "modalities": omics}, sort_keys=False))
    manifest = prepare(tmp_path / "cohort.yaml", out=tmp_path / "out", workers=1, progress=Silent())
    cohort = PreparedCohort(tmp_path / "out")
    assert cohort.patients.tolist() == ["P1", "P2", "P3"]
    assert cohort.present_NM.tolist() == [[True, True], [False, True], [True, False]]
    assert manifest.patterns == {"protein": 1, "rna": 1, "rna+protein": 1}
    assert [entry.patients for entry in manifest.modalities.values()] == [2, 2]
    rows = load_from_disk(str(tmp_path / "out" / "records"))
    assert [row["omics/rna"] is None for row in rows] == [False, True, False]


def test_a_changed_source_is_not_mixed_in(source, cohort, tmp_path):
    shutil.copytree(source, tmp_path / "source")
    clinical = tmp_path / "source" / "clinical.tsv"
    clinical.write_text(clinical.read_text().replace("\tF\t", "\tM\t"))
    copy = Path(shutil.copytree(cohort, tmp_path / "copy"))
    with pytest.raises(DataError, match="other sources or another YAML"):
        prepare(tmp_path / "source" / "cohort.yaml", out=copy, workers=1, progress=Silent())
    assert hashes(copy) == hashes(cohort)


@pytest.mark.parametrize(
    ("records", "size", "expected"), [(60, [40, 48, 24], 8), (10**6, [40, 48, 24], 128), (10**6, [256, 256, 256], 1)]
)
def test_a_shard_holds_few_enough_records_for_its_size(records, size, expected):
    image = SimpleNamespace(size=size, channels=["t1"], stored_as="float32")
    spec = SimpleNamespace(images=lambda: {"mri": image}, annotations={})
    assert _shard_size(SimpleNamespace(spec=spec, features={}, records=range(records))) == expected
