"""What strategies keep and send as GPUs and passes grow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foundation.training.parallel.strategies import STRATEGIES
from pretrain.planning.strategies import COSTS, Around, Block, Shared, contrast

BLOCK = Block(shapes=((48, 16), (48,), (16, 16), (5, 3)), parts=4, calls=2)
SHARED = Shared((BLOCK, BLOCK), Around(numbers=100, trained=100, tensors=7), with_gradient=3, without=3, averaged=True)
GPUS = range(1, 70)


def always(strategy: str, gpus: int) -> int:
    kept, _ = COSTS[strategy](SHARED, gpus)
    return kept.weights + kept.gradients + kept.optimiser + kept.average


def sent(strategy: str, shared: Shared, gpus: int, kind: str) -> float:
    return sum(each.sent(gpus) for each in COSTS[strategy](shared, gpus)[1] if each.kind == kind)


def test_every_strategy_has_its_costs():
    assert COSTS.keys() == STRATEGIES.keys()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_more_gpus_never_need_more_of_each(strategy):
    kept = [always(strategy, gpus) for gpus in GPUS]
    assert kept == sorted(kept, reverse=True)
    assert (kept[-1] == kept[0]) == (strategy == "ddp")


def test_on_one_gpu_everything_is_whole():
    for strategy in ("ddp", "fsdp"):
        assert always(strategy, 1) == 4 * 5 * SHARED.numbers
        assert sum(sent(strategy, SHARED, 1, kind) for kind in ("gradients", "parameters")) == 0


def test_rows_are_dealt_out_evenly_and_filled_up():
    assert BLOCK.rows(1) == BLOCK.numbers
    # 48 rows of 16, 48 of 1, 16 of 16, and 5 of 3, of which the first of two has 3.
    assert BLOCK.rows(2) == 24 * 16 + 24 + 8 * 16 + 3 * 3
    assert BLOCK.rows(1000) == 16 + 1 + 16 + 3


def test_ddp_sends_the_gradient_once_however_many_chunks_there_are():
    expected = pytest.approx(2 * 3 / 4 * 4 * SHARED.numbers)
    assert sent("ddp", SHARED, 4, "gradients") == expected
    assert sent("ddp", replace(SHARED, with_gradient=9), 4, "gradients") == expected


def test_fsdp_gathers_a_block_for_each_call_in_each_pass():
    even = replace(SHARED, blocks=(Block(shapes=((8, 4),), parts=1, calls=2),) * 2)
    # Nine passes, of which three have no gradient; two calls of two blocks; three quarters of them come from others.
    assert sent("fsdp", even, 4, "parameters") == 9 * 2 * 2 * 0.75 * 4 * 32
    scattered = 3 * 2 * 0.75 * 4 * 32
    assert sent("fsdp", even, 4, "gradients") == scattered + 2 * 0.75 * 4 * 100


def test_what_is_frozen_has_no_gradient():
    frozen = replace(SHARED, blocks=(replace(BLOCK, trained=False),) * 2)
    for strategy in ("ddp", "fsdp", "zero2"):
        kept, _ = COSTS[strategy](frozen, 1)
        assert kept.gradients == 400
        assert kept.weights == 4 * SHARED.numbers


def test_a_contrast_sends_one_side_there_and_its_gradient_back():
    _, traffic = contrast(2, 64, 16)
    sizes = {each.collective: each.size for each in traffic}
    assert sizes["reduce_scatter"] == 2 * 4 * 64 * 16
    assert sizes["all_gather"] == sizes["reduce_scatter"] + 2 * 3 * 8 * 64
    assert contrast(0, 64, 16)[0] == 0
