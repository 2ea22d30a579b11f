"""What a plan says of a number of GPUs, and what breaks first there."""

from __future__ import annotations

import pytest

from pretrain.planning.cohort import Cohort
from pretrain.planning.hardware import Hardware
from pretrain.planning.plan import Plan, plan_of
from pretrain.planning.scale import WORTH
from tests.unit.pretrain.planning.test_plan import SMALL, small_config

COHORT = Cohort(SMALL.records, SMALL.modalities, stored=SMALL.records * SMALL.in_batch)
FAST = {"inside_node": 1e6, "between_nodes": 1e6, "storage": 1e9, "storage_per_node": 1e9, "gpu_memory": 1e3}
SLOW = {"float32": 1e-5}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of(small_config(chunk_size=2), COHORT, [1, 2, 4, 8], Hardware(**FAST, **SLOW))


def test_the_batch_is_split_and_not_the_chunk(plan):
    assert [scale.share for scale in plan.scales] == [8, 4, 2, 1]
    assert [scale.activations.records_at_once for scale in plan.scales] == [2, 2, 2, 1]


def test_a_step_is_its_computation_and_what_is_not_hidden(plan):
    for scale in plan.scales:
        for name, strategy in scale.strategies.items():
            timing = strategy.timing
            assert timing.longest == timing.compute + sum(timing.seconds.values())
            assert timing.compute <= timing.shortest <= timing.longest
            low, high = timing.efficiency
            assert 0 < low <= high <= 1
            assert (timing.shortest == timing.longest) == (name == "ddp" or scale.gpus == 1)


def test_a_run_reads_what_its_samples_are_stored_in(plan):
    for scale in plan.scales:
        storage = scale.storage
        assert storage.bytes_per_second == pytest.approx(storage.samples_per_second * COHORT.in_batch)
        hours = scale.hours[0]
        assert storage.samples_per_second * 3600 * hours == pytest.approx(plan.samples)
    assert plan.scales[0].storage.checkpoint == 12 * plan.parameters["total"]


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({}, "batch too small"),
        ({"gpu_memory": 1e-6}, "memory"),
        ({"storage_per_node": 1e-12}, "storage"),
        ({"inside_node": 1e-9}, "network"),
    ],
)
def test_what_is_scarcest_breaks_first(changes, first):
    machines = Hardware(**{**FAST, **SLOW, **changes})
    scale = plan_of(small_config(chunk_size=2), COHORT, [8], machines).scales[0]
    assert scale.first == first
    assert scale.loads[first] > 1


def test_the_network_breaks_where_too_little_of_a_step_is_computation(plan):
    scale = plan.scales[1]
    timing = scale.strategies["ddp"].timing
    communication = timing.seconds["gradients"] + timing.seconds["contrast"]
    loads = scale.loads["network"] + scale.loads["contrastive gather"]
    assert loads == pytest.approx(communication / timing.compute * WORTH / (1 - WORTH))


def test_a_strategy_that_cannot_says_what(plan):
    averaged = plan_of(small_config(ema=0.9), COHORT, [2]).scales[0].strategies
    assert averaged["zero3"].cannot == "ema"
    assert averaged["zero3"].memory is None
    assert all(averaged[name].memory is not None for name in ("ddp", "fsdp", "zero2"))
