"""A cache of fetched files: whole or not there, within its bound, shared by processes, held by those that read."""

import contextlib
import hashlib
import multiprocessing
import os
import signal
import time

import pytest

from foundation.errors import ConfigError, WriteError
from foundation.files import cache as module
from foundation.files.cache import Cache

SIZE = 1000


def content(number):
    return bytes([number % 256]) * SIZE


def key(number):
    return hashlib.sha256(content(number)).hexdigest()


def fetch(number):
    return lambda path: path.write_bytes(content(number))


def used(cache):
    """Bytes on the disk, in a moment in which nobody removes a file or begins another."""
    sizes = {}
    with cache._locked("room"):
        for path in cache.folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # It has just come whole, and got its name.
                found = path.stat()
                # One that gets its name in this moment may be met under both.
                sizes[found.st_ino] = found.st_size if path.is_file() else 0
    return sum(sizes.values())


def test_a_file_is_fetched_once_and_least_recently_used_ones_go_first(tmp_path):
    cache, asked = Cache(tmp_path, 3 * SIZE), []

    def get(number):
        def note(path):
            asked.append(number)
            path.write_bytes(content(number))

        path = cache.ensure(key(number), SIZE, note)
        time.sleep(0.002)
        assert path.read_bytes() == content(number)
        assert used(cache) <= 3 * SIZE

    for number in (1, 2, 3, 1, 4, 1, 3, 2):
        get(number)
    assert asked == [1, 2, 3, 4, 2]


def test_what_is_held_stays(tmp_path):
    cache = Cache(tmp_path, 2 * SIZE)
    held = cache.hold(key(1), SIZE, fetch(1))
    for number in range(2, 6):
        cache.ensure(key(number), SIZE, fetch(number))
    assert held.path.read_bytes() == content(1)
    held.close()
    for number in (2, 3):
        cache.ensure(key(number), SIZE, fetch(number))
    assert not held.path.exists()


def test_a_bound_that_is_too_small_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WAIT_FOR_ROOM", 0.1)
    cache = Cache(tmp_path, 2 * SIZE)
    with pytest.raises(ConfigError, match=r"cache.gigabytes"):
        cache.ensure(key(1), 3 * SIZE, fetch(1))
    both = [cache.hold(key(number), SIZE, fetch(number)) for number in (1, 2)]
    with pytest.raises(ConfigError, match="beside those in use"):
        cache.ensure(key(3), SIZE, fetch(3))
    both[0].close()
    assert cache.ensure(key(3), SIZE, fetch(3)).exists()


def test_a_fetch_that_fails_leaves_nothing(tmp_path):
    cache = Cache(tmp_path, 2 * SIZE)

    def fail(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    with pytest.raises(WriteError, match="the disk is full"):
        cache.ensure(key(1), SIZE, fail)
    assert used(cache) == 0
    assert cache.ensure(key(1), SIZE, fetch(1)).read_bytes() == content(1)


def test_a_file_of_the_wrong_size_is_fetched_again(tmp_path):
    cache = Cache(tmp_path, 3 * SIZE)
    cache.ensure(key(1), SIZE, fetch(1)).write_bytes(b"short")
    assert cache.ensure(key(1), SIZE, fetch(1)).read_bytes() == content(1)


def read_many(folder, seed, failed):
    cache = Cache(folder, 4 * SIZE)
    for turn in range(60):
        number = (turn * 7 + seed * turn) % 12
        held = cache.hold(key(number), SIZE, fetch(number))
        if held.path.read_bytes() != content(number) or used(cache) > 4 * SIZE:
            failed.set()
        held.close()


def test_processes_share_it_within_its_bound(tmp_path):
    context = multiprocessing.get_context("fork")
    failed = context.Event()
    processes = [context.Process(target=read_many, args=(tmp_path, seed, failed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert not failed.is_set()


def fetch_for_ever(folder, begun):
    def slow(path):
        path.write_bytes(b"half")
        begun.set()
        time.sleep(60)

    Cache(folder, 2 * SIZE).ensure(key(1), SIZE, slow)


def test_a_killed_process_holds_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    process = context.Process(target=fetch_for_ever, args=(tmp_path, begun))
    process.start()
    assert begun.wait(30)
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    cache = Cache(tmp_path, 2 * SIZE)
    for number in (2, 3, 1):
        assert cache.ensure(key(number), SIZE, fetch(number)).read_bytes() == content(number)
    assert used(cache) <= 2 * SIZE
