"""Preparing a simulated cohort: the same to the byte for any number of workers, resumable, and never over another."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from foundation.cohort.manifest import Manifest
from foundation.cohort.prepare import prepare
from foundation.cohort.simulate import simulate
from foundation.cohort.store import PreparedCohort
from foundation.errors import DataError
from foundation.progress import Silent

PATIENTS = 24


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "simulated"
    simulate(folder, patients=PATIENTS, seed=3, progress=lambda done, total: None)
    return folder


@pytest.fixture(scope="module")
def cohort(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cohort") / "one-worker"
    prepare(source / "cohort.yaml", out=out, workers=1, progress=Silent())
    return out


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


def test_nothing_names_a_place_on_this_machine(source, cohort):
    for path in cohort.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(source).encode() not in content, path
            assert str(cohort).encode() not in content, path


def test_datasets_opens_the_records(cohort):
    from datasets import load_from_disk

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


def test_a_second_call_does_nothing(source, cohort):
    before = {path: path.stat().st_mtime_ns for path in cohort.rglob("*") if path.is_file()}
    manifest = prepare(source / "cohort.yaml", out=cohort, workers=1, progress=Silent())
    assert manifest == Manifest.read(cohort)
    assert {path: path.stat().st_mtime_ns for path in cohort.rglob("*") if path.is_file()} == before


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


def test_a_changed_source_is_not_mixed_in(source, cohort, tmp_path):
    shutil.copytree(source, tmp_path / "source")
    clinical = tmp_path / "source" / "clinical.tsv"
    clinical.write_text(clinical.read_text().replace("\tF\t", "\tM\t"))
    with pytest.raises(DataError, match="other sources or another YAML"):
        prepare(tmp_path / "source" / "cohort.yaml", out=cohort, workers=1, progress=Silent())
