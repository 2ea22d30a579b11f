"""A cohort at a URL reads like the same cohort in a folder, bit for bit, whatever the store does in between."""

import json
import pickle
import re

import numpy as np
import pytest
import torch

from foundation.cohort.prepare import prepare
from foundation.cohort.store import PreparedCohort
from foundation.data.alignment import align
from foundation.data.dataset import CohortDataset, load
from foundation.data.modality_dropout import ModalityDropout
from foundation.data.order import Blocks
from foundation.data.sampler import PatientOrder
from foundation.data.scaling import fit_preprocessing
from foundation.errors import ConfigError, DataError, StoreError
from foundation.files.cache import CacheConfig
from foundation.progress import Silent
from foundation.simulation.simulate import simulate


@pytest.fixture(scope="module")
def local(simulated):
    return PreparedCohort(simulated / "cohort")


def batches_of(cohort, **order):
    """Batches of two epochs of a quarter of the patients; the shuffle is in blocks."""
    rows = np.arange(0, len(cohort), 2)
    aligned = align(fit_preprocessing(cohort, rows), cohort)
    data = CohortDataset(aligned, rows, seed=1, dropout=ModalityDropout(default=0.3))
    workers = order.pop("workers", 0)
    shuffle = Blocks(cohort.shards_of(rows), 3)
    return load(data, PatientOrder(rows, 8, seed=1, shuffle=shuffle, **{"batches": 7, **order}), workers=workers)


def assert_same(ours, theirs):
    ours, theirs = list(ours), list(theirs)
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.records == other.records
        assert one.epochs.tolist() == other.epochs.tolist()
        for kind in ("images", "channels", "omics", "observed"):
            here, there = getattr(one, kind), getattr(other, kind)
            assert here.keys() == there.keys()
            assert all(torch.equal(here[name], there[name]) for name in here)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_s3_are_those_of_the_folder(local, simulated, upload, cache, workers):
    remote = PreparedCohort(upload(simulated / "cohort"), cache=cache)
    assert remote.hash == local.hash
    assert_same(batches_of(remote, workers=workers), batches_of(local))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_batches_of_one_process(local, simulated, serve, cache, world_size):
    server = serve(simulated / "cohort")
    whole = [batch.records for batch in batches_of(local)]
    pieces = [
        batches_of(PreparedCohort(server.url, cache=cache), rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for records, parts in zip(whole, zip(*pieces, strict=True), strict=True):
        assert [record for part in parts for record in part.records] == records
    fetched = {path: count for path, count in server.asked.items() if path.startswith("records/")}
    assert set(fetched.values()) == {1}, "ranks of one machine fetch a shard once"


def test_a_run_goes_on_in_the_middle_of_an_epoch_without_reading_what_came_before(local, simulated, serve, cache):
    server = serve(simulated / "cohort")
    rows = np.arange(0, len(local), 2)
    order = rows[Blocks(local.shards_of(rows), 3)(1, 0)]
    later = {f"records/part-{shard:05d}.arrow" for shard in local.shards_of(order[16:24])}
    remote = PreparedCohort(server.url, cache=cache)
    aligned = align(fit_preprocessing(local, rows), remote)
    data = CohortDataset(aligned, rows, seed=1, dropout=ModalityDropout(default=0.3))
    resumed = PatientOrder(rows, 8, seed=1, samples_seen=16, batches=1, shuffle=Blocks(local.shards_of(rows), 3))
    (batch,) = load(data, resumed)
    assert_same([batch], list(batches_of(local))[2:3])
    assert {path for path in server.asked if path.startswith("records/")} == later


def test_opening_reads_no_shard(simulated, serve, cache):
    server = serve(simulated / "cohort")
    remote = PreparedCohort(server.url, cache=cache)
    assert remote.patients.tolist() == PreparedCohort(simulated / "cohort").patients.tolist()
    assert remote.present_NM.any()
    for name in remote.manifest.endpoints:
        remote.endpoint(name)
    assert sorted(server.asked) == ["cohort.json", "features.json", "index.arrow"]


def test_what_is_in_the_cache_is_not_fetched_again(simulated, serve, cache):
    server = serve(simulated / "cohort")
    for _ in range(2):
        list(batches_of(PreparedCohort(server.url, cache=cache)))
    again = {path: count for path, count in server.asked.items() if count > 1}
    assert again == {"cohort.json": 2}


def test_a_store_that_fails_twice_is_waited_for(local, simulated, serve, cache, capsys):
    server = serve(simulated / "cohort")
    server.fails.update({"cohort.json": 2, "records/part-00001.arrow": 2})
    server.cuts.update({"records/part-00002.arrow": 2})
    server.stalls.update({"records/part-00003.arrow": 1})
    assert_same(batches_of(PreparedCohort(server.url, cache=cache)), batches_of(local))
    told = capsys.readouterr().err
    assert f"{server.url}/cohort.json: " in told
    assert re.search(r"503.*; trying again in 0\.\d s", told)


def test_a_store_that_stays_down_is_one_clear_error(simulated, serve, cache):
    server = serve(simulated / "cohort")
    remote = PreparedCohort(server.url, cache=cache)
    server.fails["records/part-00001.arrow"] = -1
    with pytest.raises(StoreError, match=r"part-00001.arrow: could not be read in 4 attempts .*503") as raised:
        list(batches_of(remote))
    assert raised.value.exit_code == 1
    assert "start the same command again" in raised.value.fix
    assert server.asked["records/part-00001.arrow"] == 4


@pytest.mark.parametrize(("status", "kind"), [(404, DataError), (403, ConfigError), (401, ConfigError)])
def test_what_will_not_change_is_refused_at_once(simulated, serve, cache, status, kind):
    server = serve(simulated / "cohort")
    server.status, server.fails["cohort.json"] = status, -1
    with pytest.raises(kind, match=r"cohort\.json: ") as raised:
        PreparedCohort(server.url, cache=cache)
    assert raised.value.exit_code == 2
    assert server.asked["cohort.json"] == 1


def test_a_damaged_shard_at_the_store_is_refused(simulated, serve, cache, tmp_path):
    import shutil

    shutil.copytree(simulated / "cohort", tmp_path / "cohort")
    path = tmp_path / "cohort" / "records" / "part-00002.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    remote = PreparedCohort(serve(tmp_path / "cohort").url, cache=cache)
    with pytest.raises(DataError, match=r"part-00002.arrow: is damaged, in 4 attempts .* its hash"):
        list(batches_of(remote))
    assert not list(cache.folder.glob("*.partial")), "nothing half written stays"


def test_buckets_and_credentials(upload, simulated, cache, monkeypatch):
    import s3fs

    url = upload(simulated / "cohort")
    for missing in ("s3://no-such-bucket/cohort", f"{url}/nothing"):
        with pytest.raises(DataError, match=f"{missing}/cohort.json: is not there") as raised:
            PreparedCohort(missing, cache=cache)
        assert raised.value.exit_code == 2
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ConfigError, match="may not be read") as raised:
        PreparedCohort(url, cache=cache)
    assert "AWS_PROFILE" in raised.value.fix


def test_a_url_with_a_secret_is_refused_without_showing_it(cache):
    for url in ("https://me:hunter2@host/cohort", "https://host/cohort?X-Amz-Signature=hunter2"):
        with pytest.raises(ConfigError, match=r"https://host/cohort: a URL may hold no") as raised:
            PreparedCohort(url, cache=cache)
        assert "hunter2" not in str(raised.value)


def test_an_unknown_scheme_or_a_missing_package_says_what_to_do(cache, monkeypatch):
    with pytest.raises(ConfigError, match="nothing reads nonsense://"):
        PreparedCohort("nonsense://bucket/cohort", cache=cache)

    def absent(*arguments, **keywords):
        raise ImportError("no gcsfs")

    monkeypatch.setattr("fsspec.filesystem", absent)
    with pytest.raises(ConfigError) as raised:
        PreparedCohort("gs://bucket/cohort", cache=cache)
    assert raised.value.fix == "python -m pip install gcsfs"


def test_a_cohort_of_an_earlier_version_is_refused(simulated, serve, cache, tmp_path):
    import shutil

    shutil.copytree(simulated / "cohort", tmp_path / "cohort")
    document = json.loads((tmp_path / "cohort" / "cohort.json").read_text())
    document.pop("files")
    (tmp_path / "cohort" / "cohort.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="an earlier version of chiasma prepared this cohort"):
        PreparedCohort(serve(tmp_path / "cohort").url, cache=cache)
    assert len(PreparedCohort(tmp_path / "cohort")) == 60, "in a folder it is read as before"


def test_a_worker_process_opens_it_itself(simulated, serve, cache):
    remote = PreparedCohort(serve(simulated / "cohort").url, cache=cache)
    sent = pickle.dumps(remote)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).values_NF("rna", [3]), remote.values_NF("rna", [3]))


def test_the_cache_stays_within_its_bound_while_a_run_reads(local, simulated, serve, tmp_path):
    """Six shards' room for eight: two workers read three epochs."""
    server = serve(simulated / "cohort")
    largest = max(shard.bytes for shard in local.manifest.shards.values())
    small = sum(entry.bytes for entry in local.manifest.files.values())
    cache = CacheConfig(folder=tmp_path / "cache", gigabytes=(6 * largest + small) / 1e9)
    most = 0
    remote = batches_of(PreparedCohort(server.url, cache=cache), workers=2, batches=12)
    ours = []
    for batch in remote:
        ours.append(batch)
        with cache.open()._locked("room"):  # A moment in which nobody removes a file or begins another.
            files = [path for path in cache.folder.iterdir() if path.is_file() and path.suffix != ".partial"]
            most = max(most, sum(path.stat().st_size for path in files))
    assert_same(ours, batches_of(local, batches=12))
    assert 4 * largest < most <= 6 * largest + small


def test_annotations_at_a_url_are_those_of_the_folder(tmp_path, serve, cache):
    simulate(tmp_path / "source", 10, 3, lambda done, total: None, annotations=True)
    prepare(tmp_path / "source" / "cohort.yaml", out=tmp_path / "cohort", workers=1, progress=Silent())
    here = PreparedCohort(tmp_path / "cohort")
    there = PreparedCohort(serve(tmp_path / "cohort").url, cache=cache)
    drawn = [row for row in range(len(here)) if here.annotation("tumour", row) is not None]
    assert drawn
    for row in range(len(here)):
        one, other = here.annotation("tumour", row), there.annotation("tumour", row)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(other.regions, one.regions)
            np.testing.assert_array_equal(other.kept, one.kept)
