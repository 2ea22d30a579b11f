"""The chunked contrastive losses are those of the papers, with whatever is missing."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foundation.collectives import name_hashes
from foundation.objectives.contrastive.contrast import infonce, siglip


def problem(seed, records=12, patients=8, present=0.7, width=5, dtype=torch.float64):
    """Embeddings of both sides, who is there, and patients of whom some have several records."""
    random = torch.Generator().manual_seed(seed)
    a, b = torch.nn.functional.normalize(torch.randn(2, records, width, generator=random, dtype=dtype), dim=-1)
    here = torch.rand(2, records, generator=random) < present
    who = torch.randint(-(2**62), 2**62, (patients,), generator=random)[
        torch.randint(0, patients, (records,), generator=random)
    ]
    return [a.requires_grad_(), b.requires_grad_()], list(here), who


def dense_infonce(a, b, here_a, here_b, who, scale):
    """Row by row, as the docstring defines it."""
    directions = []
    for one, other, here_one, here_other in ((a, b, here_a, here_b), (b, a, here_b, here_a)):
        rows = []
        for i in range(len(one)):
            positives = [j for j in range(len(other)) if here_other[j] and who[j] == who[i]]
            negatives = [j for j in range(len(other)) if here_other[j] and who[j] != who[i]]
            if not here_one[i] or not positives:
                continue
            terms = []
            for p in positives:
                logits = torch.stack([scale * one[i] @ other[j] for j in [p, *negatives]])
                terms.append(-torch.log_softmax(logits, 0)[0])
            rows.append(torch.stack(terms).mean())
        directions.append(torch.stack(rows).mean() if rows else (one.sum() * 0 + scale * 0))
    return (directions[0] + directions[1]) / 2


def dense_siglip(a, b, here_a, here_b, who, scale, bias):
    total, positives = a.sum() * 0 + b.sum() * 0 + scale * 0 + bias * 0, 0
    for i in range(len(a)):
        for j in range(len(b)):
            if here_a[i] and here_b[j]:
                sign = 1 if who[i] == who[j] else -1
                positives += sign == 1
                total = total - torch.nn.functional.logsigmoid(sign * (scale * a[i] @ b[j] + bias))
    rows = (int(here_a.sum()) + int(here_b.sum())) / 2
    return total / rows if positives else total * 0


CASES = {
    "infonce": (infonce, dense_infonce, (3.0,)),
    "siglip": (siglip, dense_siglip, (3.0, -1.5)),
}


def scalars(name, dtype=torch.float64, values=None):
    return [torch.tensor(v, dtype=dtype, requires_grad=True) for v in values or CASES[name][2]]


def gradients(value, inputs):
    return torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=60)
@given(data=st.data())
def test_chunked_equals_dense(name, data):
    chunked, dense, _ = CASES[name]
    records = data.draw(st.integers(1, 17))
    sides, here, who = problem(
        data.draw(st.integers(0, 10**6)),
        records,
        data.draw(st.integers(1, records)),
        data.draw(st.sampled_from([0.0, 0.2, 0.6, 1.0])),
    )
    numbers = scalars(name, values=[data.draw(st.floats(0.1, 100.0)), -3.0][: len(CASES[name][2])])
    found = chunked(*sides, *here, who, *numbers, chunk=data.draw(st.integers(1, 20)))
    expected = dense(*sides, *here, who, *numbers)
    torch.testing.assert_close(found.value, expected.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.loss, expected.detach(), rtol=1e-10, atol=1e-10)
    inputs = [*sides, *numbers]
    for ours, theirs in zip(gradients(found.value, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_chunked_equals_dense_in_single_precision(name):
    chunked, dense, _ = CASES[name]
    sides, here, who = problem(3, 60, 40)
    exact = [*sides, *scalars(name)]
    expected = dense(*sides, *here, who, *exact[2:])
    rough = [tensor.detach().float().requires_grad_() for tensor in exact]
    found = chunked(*rough[:2], *here, who, *rough[2:], chunk=17)
    assert found.value.dtype == torch.float32
    torch.testing.assert_close(found.value.double(), expected, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(gradients(found.value, rough), gradients(expected, exact), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)


def test_infonce_of_single_positives_is_cross_entropy():
    sides, _, _ = problem(0, 20, 20)
    here = torch.ones(20, dtype=torch.bool)
    scale = torch.tensor(20.0, dtype=torch.float64)
    scores, target = scale * sides[0] @ sides[1].T, torch.arange(20)
    expected = (
        torch.nn.functional.cross_entropy(scores, target) + torch.nn.functional.cross_entropy(scores.T, target)
    ) / 2
    found = infonce(*sides, here, here, torch.randperm(20), scale, chunk=7)
    torch.testing.assert_close(found.value, expected)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_extreme_scores_stay_finite(name, scale):
    """Opposite embeddings at the largest scale: exponentials that a float32 cannot hold."""
    a = torch.eye(4).requires_grad_()
    b = (-torch.eye(4)).requires_grad_()
    here = torch.ones(4, dtype=torch.bool)
    numbers = scalars(name, torch.float32, [scale, -10.0][: len(CASES[name][2])])
    found = CASES[name][0](a, b, here, here, torch.arange(4), *numbers, chunk=3)
    assert math.isfinite(found.value.item()) and found.value > scale
    assert all(gradient.isfinite().all() for gradient in gradients(found.value, [a, b, *numbers]))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30, -0.5])
def test_garbage_in_absent_rows_changes_no_bit(name, garbage):
    sides, here, who = problem(1, 40, 25, dtype=torch.float32)

    def evaluate(fill):
        inputs = [torch.where(h[:, None], s, fill).detach().requires_grad_() for s, h in zip(sides, here, strict=True)]
        inputs += scalars(name, torch.float32)
        value = CASES[name][0](*inputs[:2], *here, who, *inputs[2:], chunk=16).value
        return [value.detach(), *gradients(value, inputs)]

    clean, spoilt = evaluate(0.0), evaluate(garbage)
    assert all(torch.equal(one, other) for one, other in zip(clean, spoilt, strict=True))
    assert not clean[1][~here[0]].any() and clean[1][here[0]].any()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("here", ["neither", "unpaired", "nobody on b"])
def test_a_batch_without_pairs_has_no_loss_and_stays_in_the_graph(name, here):
    a, b = torch.ones(2, 6, 3, requires_grad=True).unbind()
    present = {
        "neither": torch.zeros(2, 6, dtype=torch.bool),
        "unpaired": torch.arange(12).view(2, 6) % 2 == torch.tensor([[0], [1]]),
        "nobody on b": torch.tensor([[True] * 6, [False] * 6]),
    }[here]
    numbers = scalars(name, torch.float32)
    found = CASES[name][0](a, b, *present, torch.arange(6), *numbers)
    assert found.value.requires_grad and found.value == 0 and found.rows == 0 and found.loss == 0
    assert not any(gradient.any() for gradient in gradients(found.value, [a, b, *numbers]))


def test_a_patient_who_lacks_a_side_is_a_negative_of_the_others():
    sides, _, _ = problem(2, 4, 4)
    scale = torch.tensor(5.0, dtype=torch.float64)
    here_a, here_b = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([1, 1, 1, 0]).bool()
    found = infonce(*sides, here_a, here_b, torch.arange(4), scale)
    assert found.rows == 2
    (of_lone,) = torch.autograd.grad(found.value, [sides[1]])
    assert of_lone[2].abs().sum() > 0 and not of_lone[3].any()


def test_other_scans_of_a_patient_are_drawn_near_and_never_pushed_off():
    """Every positive, also the far one, is pulled: the loss falls as its similarity rises."""
    a = torch.eye(3, dtype=torch.float64)[[0, 0, 1]].requires_grad_()
    b = torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0, 1.0, 0]], dtype=torch.float64, requires_grad=True)
    here = torch.ones(3, dtype=torch.bool)
    value = infonce(a, b, here, here, torch.tensor([7, 7, 8]), torch.tensor(10.0)).value
    (of_b,) = torch.autograd.grad(value, [b])
    assert (of_b[0] @ a[0] < 0) and (of_b[1] @ a[0] < 0) and (of_b[2] @ a[0] > 0)


def test_order_and_chunk_change_nothing():
    sides, here, who = problem(4, 30, 20)
    scale = torch.tensor(9.0, dtype=torch.float64)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    values = [infonce(*sides, *here, who, scale, chunk=chunk).value for chunk in (None, 1, 8, 30, 31)]
    values.append(infonce(sides[0][order], sides[1][order], here[0][order], here[1][order], who[order], scale).value)
    for value in values[1:]:
        torch.testing.assert_close(value, values[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_autocast_does_not_reach_the_scores(name):
    sides, here, who = problem(6, 30, 20, dtype=torch.float32)
    numbers = scalars(name, torch.float32)
    plain = CASES[name][0](*sides, *here, who, *numbers).value
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = CASES[name][0](*sides, *here, who, *numbers).value
    assert torch.equal(plain, cast)
    halves = [side.detach().bfloat16().requires_grad_() for side in sides]
    value = CASES[name][0](*halves, *here, who, *numbers).value
    assert value.dtype == torch.float32 and gradients(value, halves)[0].dtype == torch.bfloat16
    torch.testing.assert_close(value, plain, rtol=0.02, atol=0.02)


def test_evaluation_makes_no_gradients_and_the_same_loss():
    sides, here, who = problem(7, 30, 20)
    scale = torch.tensor(9.0, dtype=torch.float64)
    with torch.no_grad():
        found = infonce(*sides, *here, who, scale)
    assert not found.value.requires_grad
    assert torch.equal(found.value, infonce(*sides, *here, who, scale).value.detach())


class Largest(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return made


@pytest.mark.parametrize("name", CASES)
def test_no_tensor_is_larger_than_the_embeddings_or_two_tiles(name):
    records, width, chunk = 8192, 8, 512
    sides, here, who = problem(8, records, 7000, width=width, dtype=torch.float32)
    with Largest() as largest:
        CASES[name][0](*sides, *here, who, *scalars(name, torch.float32), chunk=chunk).value.backward()
    # 67 million scores; the largest thing made is memory for two tiles.
    assert largest.elements <= 2 * chunk**2


PEAK = """
import re, torch
from pathlib import Path
from foundation.objectives.contrastive.contrast import {name}

def resident(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
a, b = (torch.nn.functional.normalize(torch.randn(32768, 512)).requires_grad_() for _ in "ab")
here = torch.ones(32768, dtype=torch.bool)
{name}(a, b, here, here, torch.arange(32768), *map(torch.tensor, {numbers})).value.backward()
print(resident("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of a process from /proc")
@pytest.mark.parametrize("name", CASES)
def test_a_batch_of_32768_takes_less_than_a_gigabyte(name):
    """With the embeddings and their gradients, which are half of it; all scores would take 4.3 GB a copy."""
    script = PEAK.format(name=name, numbers=CASES[name][2])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1e6


def test_patient_numbers_tell_patients_apart_and_are_stable():
    numbers = name_hashes(["TCGA-02-0001", "TCGA-02-0003", "TCGA-02-0001"])
    assert numbers.dtype == torch.int64 and numbers[0] == numbers[2] != numbers[1]
    assert name_hashes(["P1"]).item() == name_hashes(["P0", "P1"])[1].item()
    assert len(set(name_hashes(str(i) for i in range(10_000)).tolist())) == 10_000
