"""Memory of a batch: zeros, writable, and gone when the batch is."""

import gc
import mmap

import pytest
import torch

from foundation.data import memory


@pytest.mark.parametrize("shape", [(2, 3), (0, 2, 4, 4, 4), (2, 1, 96, 96, 96)])
def test_zeros_like_any_other(shape):
    x = memory.zeros(*shape)
    assert x.shape == shape
    assert x.dtype == torch.float32
    assert not x.any()
    assert (x.add_(1) == 1).all()
    assert x.is_contiguous()


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system has no huge pages to ask for")
def test_the_memory_is_given_back():
    def mapped():
        with open("/proc/self/statm") as stream:
            return int(stream.read().split()[0]) * mmap.PAGESIZE

    memory.zeros(2**20)
    gc.collect()
    before = mapped()
    for _ in range(20):
        memory.zeros(2**23).add_(1)
    gc.collect()
    assert mapped() - before < 2 * 4 * 2**23


def test_a_kernel_without_huge_pages_gives_zeros_too(monkeypatch):
    class Refusing(mmap.mmap):
        def madvise(self, *_):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(memory.mmap, "mmap", Refusing)
    assert not memory.zeros(2**20).any()
