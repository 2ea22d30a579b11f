"""What every registered tower must do, image or omics; found through the registry, built with `tiny()`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import foundation.model.towers  # noqa: F401  registers them
from foundation.config import load_config
from foundation.errors import ConfigError
from foundation.modality import OmicsModality
from foundation.model.layers.running import compiled, recomputed
from foundation.model.towers.base import ImageTower, OmicsTower, Tokens, count_parameters, towers

ROWS, CHANNELS = 6, 3
SHAPES = {"volume": (20, 24, 12), "image": (20, 24)}
GENES = tuple(f"gene{number}" for number in range(16))
OMICS = {
    "rna": OmicsModality(features=GENES[:12], values="continuous"),
    "cnv": OmicsModality(features=GENES[4:], values="ordinal"),
    "mutation": OmicsModality(features=GENES[2:9], values="binary"),
    "mirna": OmicsModality(features=("mir1", "mir2", "mir3"), values="count"),
}
BF16_TOLERANCE = 0.05
"""Largest relative distance of outputs under bf16 autocast; bf16 keeps 8 bits, so one rounding is up to 0.004."""
COMPILED_TOLERANCE = 1e-5
"""Largest relative distance of gradients; fused sums are added up in another order, with 24 bits each."""

Inputs = dict[str, Any]
IMAGE_CASES = [
    (name, looks_at)
    for name in towers.names()
    for looks_at, shape in SHAPES.items()
    if issubclass(towers[name], ImageTower) and len(shape) in towers[name].dimensions
]
OMICS_CASES = [(name, "omics") for name in towers.names() if issubclass(towers[name], OmicsTower)]


def over(cases: list[tuple[str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("name", "looks_at"), cases, ids=["-".join(case) for case in cases])


every_tower = over(IMAGE_CASES + OMICS_CASES)
every_image_tower = over(IMAGE_CASES)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tensors this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name: str, looks_at: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    config = towers[name].tiny()
    if looks_at == "omics":
        return towers.build(config, OMICS)
    return towers.build(config, CHANNELS, SHAPES[looks_at])


def inputs_for(tower: nn.Module, looks_at: str, seed: int = 1, rows: int = ROWS) -> Inputs:
    draw = torch.Generator().manual_seed(seed)
    if looks_at == "omics":
        return _omics(rows, draw)
    x = torch.randn(rows, CHANNELS, *SHAPES[looks_at], generator=draw)
    channels = torch.rand(rows, CHANNELS, generator=draw) > 0.4
    channels[:, 1] |= ~channels.any(dim=1)
    channels[0], channels[1] = True, torch.tensor([False, True, False])
    tokens = tower.patches(x).shape[1]
    hidden = torch.rand(rows, tokens, generator=draw) > 0.5
    hidden[2] = False
    return {"x": x, "channels": channels, "hidden": hidden}


def _omics(rows: int, draw: torch.Generator) -> Inputs:
    omics, observed = {}, {}
    for modality, features in OMICS.items():
        values = torch.randn(rows, len(features.features), generator=draw)
        if features.values == "binary":
            values = (values > 0).float()
        omics[modality] = values
        observed[modality] = torch.rand(values.shape, generator=draw) > 0.3
    observed["cnv"][1] = False
    observed["rna"][:, 0] = True
    for modality in ("cnv", "mutation", "mirna"):
        observed[modality][2] = False
    return {"omics": omics, "observed": observed}


def look(tower: nn.Module, inputs: Inputs, hide: bool = False) -> Tokens:
    if "omics" in inputs:
        return tower(inputs["omics"], inputs["observed"])
    return tower(inputs["x"], inputs["channels"], inputs["hidden"] if hide else None)


def changed(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    return {k: changed(v, change) if isinstance(v, dict) else change(v) for k, v in inputs.items()}


def garbled(inputs: Inputs, hide: bool, garbage: float) -> Inputs:
    """The same inputs with garbage wherever the tower may not look."""
    if "omics" in inputs:
        observed = inputs["observed"]
        omics = {m: torch.where(observed[m], values, garbage) for m, values in inputs["omics"].items()}
        return {**inputs, "omics": omics}
    seen = inputs["channels"].reshape(*inputs["channels"].shape, *[1] * (inputs["x"].ndim - 2))
    return {**inputs, "x": torch.where(seen, inputs["x"], garbage)}


def loss_of(tower: nn.Module, tokens: Tokens) -> Tensor:
    seen = torch.where(tokens.real_BT[..., None], tokens.tokens_BTD, 0.0)
    loss = tokens.pooled_BD.sin().sum() + seen.sin().sum()
    return loss


def gradients(tower: nn.Module, inputs: Inputs, hide: bool) -> tuple[Tokens, dict[str, Tensor | None]]:
    tower.zero_grad(set_to_none=True)
    torch.manual_seed(5)
    tokens = look(tower, inputs, hide)
    loss_of(tower, tokens).backward()
    return tokens, {n: p.grad for n, p in tower.named_parameters() if p.requires_grad}


def count_saved(tower: nn.Module, inputs: Inputs) -> int:
    """Numbers that a forward pass keeps for the backward pass."""
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        look(tower, inputs)
    return sum(sizes)


def flat(found: dict[str, Tensor | None]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in found.values() if gradient is not None])


def outputs(tokens: Tokens) -> list[Tensor]:
    return [tokens.pooled_BD, torch.where(tokens.real_BT[..., None], tokens.tokens_BTD, 0.0), tokens.real_BT]


@every_tower
@pytest.mark.parametrize("rows", [1, ROWS])
def test_shapes_are_those_of_the_contract(name: str, looks_at: str, rows: int) -> None:
    tower = build(name, looks_at)
    inputs = inputs_for(tower, looks_at, rows=ROWS)
    tokens = look(tower, changed(inputs, lambda tensor: tensor[:rows]))
    count = tokens.tokens_BTD.shape[1]
    assert tokens.pooled_BD.shape == (rows, tower.width)
    assert tokens.tokens_BTD.shape == (rows, count, tower.width)
    assert tokens.real_BT.shape == (rows, count) and tokens.real_BT.dtype == torch.bool
    assert tokens.modality_T.dtype == torch.int64 and tokens.modality_T.shape in {(count,), (rows, count)}
    assert all(torch.isfinite(output.float()).all() for output in outputs(tokens))
    kinds = torch.as_tensor(tokens.modality_T).unique()
    assert set(kinds.tolist()) <= set(range(len(OMICS) if looks_at == "omics" else 1))


@every_tower
def test_gradients_reach_every_parameter(name: str, looks_at: str) -> None:
    tower = build(name, looks_at).train()
    _, found = gradients(tower, inputs_for(tower, looks_at), hide=True)
    assert found
    idle = [parameter for parameter, gradient in found.items() if gradient is None or not gradient.abs().sum() > 0]
    assert idle == []


@every_tower
def test_parameters_have_a_gradient_even_when_nothing_is_absent_or_hidden(name: str, looks_at: str) -> None:
    """A parameter without one would stop a step on many processes."""
    tower = build(name, looks_at).train()
    inputs = changed(inputs_for(tower, looks_at), lambda t: torch.ones_like(t) if t.dtype == torch.bool else t)
    _, found = gradients(tower, inputs, hide=False)
    assert [parameter for parameter, gradient in found.items() if gradient is None] == []


@every_tower
def test_every_parameter_is_in_one_layer_and_every_block_in_its_own(name: str, looks_at: str) -> None:
    tower = build(name, looks_at)
    layers, blocks = tower.layers(), tower.stack()
    names = [parameter for layer in layers for parameter in layer]
    assert sorted(names) == sorted(parameter for parameter, _ in tower.named_parameters())
    layer_of = {parameter: depth for depth, layer in enumerate(layers) for parameter in layer}
    name_of = {id(parameter): parameter_name for parameter_name, parameter in tower.named_parameters()}
    depths = [{layer_of[name_of[id(parameter)]] for parameter in block.parameters()} for block in blocks]
    assert depths == [{1 + number} for number in range(len(blocks))]
    assert all(layers) and len(layers) == len(blocks) + 2


@every_tower
def test_blocks_run_in_the_order_in_which_they_are_named(name: str, looks_at: str) -> None:
    tower, ran = build(name, looks_at), []
    for number, block in enumerate(tower.stack()):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    look(tower, inputs_for(tower, looks_at))
    assert list(dict.fromkeys(ran)) == list(range(len(tower.stack())))


@every_tower
def test_recomputed_blocks_give_the_same_bits(name: str, looks_at: str) -> None:
    """Dropout included, and without a change in the names of the parameters."""
    kept, again = build(name, looks_at).train(), build(name, looks_at).train()
    inputs = inputs_for(kept, looks_at)
    for tower in (kept, again):
        drops = [part for block in tower.stack() for part in block.modules() if isinstance(part, nn.Dropout)]
        assert drops
        for part in drops:
            part.p = 0.3
    for block in again.stack():
        recomputed(block)
    assert count_saved(again, inputs) < count_saved(kept, inputs)
    (one, gradients_one), (two, gradients_two) = (gradients(tower, inputs, hide=True) for tower in (kept, again))
    assert all(torch.equal(*pair) for pair in zip(outputs(one), outputs(two), strict=True))
    assert gradients_one.keys() == gradients_two.keys()
    assert all(torch.equal(gradient, gradients_two[parameter]) for parameter, gradient in gradients_one.items())


@pytest.mark.slow
@every_tower
@pytest.mark.filterwarnings("ignore")  # of the compiler, which meets its own deprecations
def test_compiled_blocks_differ_by_rounding(name: str, looks_at: str) -> None:
    """Recomputed or not, for any number of records, under the same names."""
    plain, fast, both = (build(name, looks_at).train() for _ in range(3))
    for block in [*fast.stack(), *both.stack()]:
        compiled(block)
    for block in both.stack():
        recomputed(block)
    for rows in (ROWS, 3, 1):
        inputs = changed(inputs_for(plain, looks_at), lambda tensor, rows=rows: tensor[:rows])
        expected = flat(gradients(plain, inputs, hide=True)[1])
        for tower in (fast, both):
            found = flat(gradients(tower, inputs, hide=True)[1])
            assert (found - expected).norm() <= COMPILED_TOLERANCE * expected.norm()
            assert not torch.equal(found, expected), "it was not compiled"
    assert list(fast.state_dict()) == list(both.state_dict()) == list(plain.state_dict())
    assert count_saved(both, inputs) < count_saved(fast, inputs)


@every_tower
@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
def test_garbage_where_nothing_was_seen_changes_no_bit(name: str, looks_at: str, hide: bool, garbage: float) -> None:
    tower = build(name, looks_at).train()
    inputs = inputs_for(tower, looks_at)
    clean, clean_gradients = gradients(tower, garbled(inputs, hide, 0.0), hide)
    dirty, dirty_gradients = gradients(tower, garbled(inputs, hide, garbage), hide)
    for one, other in zip(outputs(clean), outputs(dirty), strict=True):
        assert torch.equal(one, other)
    for parameter, gradient in clean_gradients.items():
        other = dirty_gradients[parameter]
        assert (gradient is None and other is None) or torch.equal(gradient, other), parameter


@every_tower
def test_what_was_seen_matters(name: str, looks_at: str) -> None:
    tower = build(name, looks_at).eval()
    inputs = inputs_for(tower, looks_at)
    other = changed(inputs, lambda tensor: tensor + 0.5 if tensor.is_floating_point() else tensor)
    assert not torch.allclose(look(tower, inputs).pooled_BD, look(tower, other).pooled_BD, atol=1e-4)


@every_tower
def test_permuting_the_batch_permutes_the_output(name: str, looks_at: str) -> None:
    tower = build(name, looks_at).eval()
    inputs = inputs_for(tower, looks_at)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    plain, permuted = (look(tower, i, hide=True) for i in (inputs, changed(inputs, lambda tensor: tensor[order])))
    torch.testing.assert_close(permuted.pooled_BD, plain.pooled_BD[order], rtol=1e-4, atol=1e-5)
    if looks_at != "omics":  # the number of omics tokens, and their places, may depend on who is in the batch
        torch.testing.assert_close(permuted.tokens_BTD, plain.tokens_BTD[order], rtol=1e-4, atol=1e-5)
        assert torch.equal(permuted.real_BT, plain.real_BT[order])


@every_tower
def test_a_record_does_not_depend_on_its_batch(name: str, looks_at: str) -> None:
    tower = build(name, looks_at).eval()
    inputs = inputs_for(tower, looks_at)
    alone = look(tower, changed(inputs, lambda tensor: tensor[2:3]))
    torch.testing.assert_close(alone.pooled_BD, look(tower, inputs).pooled_BD[2:3], rtol=1e-4, atol=1e-5)


@every_tower
def test_saved_and_loaded_weights_give_the_same_bits(name: str, looks_at: str, tmp_path) -> None:
    tower, other = build(name, looks_at).eval(), build(name, looks_at, seed=9).eval()
    inputs = inputs_for(tower, looks_at)
    assert not torch.equal(look(tower, inputs).pooled_BD, look(other, inputs).pooled_BD)
    save_file({key: value.contiguous() for key, value in tower.state_dict().items()}, tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    for one, two in zip(outputs(look(tower, inputs)), outputs(look(other, inputs)), strict=True):
        assert torch.equal(one, two)


@every_tower
def test_evaluation_is_deterministic_and_draws_no_random_number(name: str, looks_at: str) -> None:
    tower = build(name, looks_at).eval()
    inputs = inputs_for(tower, looks_at)
    state = torch.get_rng_state()
    first, second = (outputs(look(tower, inputs)) for _ in range(2))
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@every_tower
def test_the_seed_decides_the_first_weights(name: str, looks_at: str) -> None:
    one, two = build(name, looks_at).state_dict(), build(name, looks_at).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


@every_tower
def test_bf16_stays_near_fp32(name: str, looks_at: str) -> None:
    tower = build(name, looks_at).train()
    inputs = inputs_for(tower, looks_at)
    exact, exact_gradients = gradients(tower, inputs, hide=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = look(tower, inputs)
    for one, two in zip(outputs(exact)[:2], outputs(rough)[:2], strict=True):
        assert (one - two.float()).norm() <= BF16_TOLERANCE * one.norm()
    tower.zero_grad()
    loss_of(tower, rough).backward()
    whole = torch.cat([gradient.flatten() for gradient in exact_gradients.values() if gradient is not None])
    found = torch.cat([p.grad.flatten() for p in tower.parameters() if p.grad is not None])
    assert torch.isfinite(found).all() and (found - whole).norm() <= 4 * BF16_TOLERANCE * whole.norm()


@every_tower
def test_sizes_are_counted_without_memory(name: str, looks_at: str) -> None:
    counts = count_parameters(build(name, looks_at))
    assert counts["total"] >= counts["trainable"] > 0
    with torch.device("meta"):
        assert count_parameters(build(name, looks_at)) == counts


@pytest.mark.parametrize("name", towers.names())
def test_configs_survive_yaml(name: str, tmp_path) -> None:
    config = towers[name].tiny()
    (tmp_path / "tower.yaml").write_text(config.to_yaml())
    assert load_config(type(config), tmp_path / "tower.yaml") == config


@every_image_tower
def test_patches_are_what_tokens_see(name: str, looks_at: str) -> None:
    """Changing the voxels of one patch changes that patch of `patches` alone; hiding it hides exactly those voxels."""
    tower = build(name, looks_at).eval()
    inputs = inputs_for(tower, looks_at)
    inputs["channels"][:] = True
    patches = tower.patches(inputs["x"])
    grid = torch.arange(patches.shape[1]).reshape(tower.grid)
    assert look(tower, inputs).tokens_BTD.shape[1] == patches.shape[1] == grid.numel()
    assert patches.shape[2] == CHANNELS * torch.Size(tower.patch).numel()
    token = grid.numel() // 2 + 1
    hidden = torch.zeros_like(inputs["hidden"])
    hidden[:, token] = True
    probe = inputs["x"].clone().requires_grad_()
    tower.patches(probe)[:, token].sum().backward()
    noisy = torch.where(probe.grad != 0, inputs["x"] + 100, inputs["x"])
    assert (tower.patches(noisy) != patches).any(dim=(0, 2)).nonzero().flatten().tolist() == [token]
    with torch.no_grad():
        before, after = (look(tower, {**inputs, "x": x, "hidden": hidden}, hide=True) for x in (inputs["x"], noisy))
        assert torch.equal(before.tokens_BTD, after.tokens_BTD) and torch.equal(before.pooled_BD, after.pooled_BD)
        assert not torch.equal(look(tower, {**inputs, "x": noisy}).pooled_BD, look(tower, inputs).pooled_BD)
    assert not before.real_BT[:, token].any() and before.real_BT.sum() == ROWS * (grid.numel() - 1)


@every_image_tower
def test_patches_keep_channels_apart(name: str, looks_at: str) -> None:
    tower = build(name, looks_at)
    x = inputs_for(tower, looks_at)["x"]
    for channel in range(CHANNELS):
        x[:, channel] = channel
    patches_BTCV = tower.patches(x).unflatten(-1, (CHANNELS, -1))
    assert torch.equal(patches_BTCV, torch.arange(CHANNELS).view(1, 1, -1, 1).expand_as(patches_BTCV).float())


@every_image_tower
def test_a_row_of_absent_channels_is_harmless(name: str, looks_at: str) -> None:
    """The model runs one such row where nobody in the batch has the image."""
    tower = build(name, looks_at).train()
    inputs = changed(inputs_for(tower, looks_at), lambda tensor: tensor[:1])
    inputs["channels"][:] = False
    tokens = look(tower, inputs)
    (0 * loss_of(tower, tokens)).backward()
    assert all(torch.isfinite(p.grad).all() for p in tower.parameters() if p.grad is not None)


@every_image_tower
def test_a_patch_larger_than_the_image_is_refused(name: str, looks_at: str) -> None:
    build(name, looks_at)
    with pytest.raises(ConfigError, match=r"(?s)patches of .* larger than the 3 x 3.*what to do"):
        towers.build(towers[name].tiny(), CHANNELS, (3,) * len(SHAPES[looks_at]))
