"""Adaptation: what is attached and trained, what stays, and what comes back from a folder or out of a merge."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from finetune.methods import adapter
from finetune.methods.adapt import adapt
from finetune.methods.adapted import EVERYTHING, Adapted
from finetune.methods.heads import Head
from finetune.methods.modes import Frozen, Full, Lora, Scratch, TowerLora, leaving_blind
from finetune.methods.reading import Block, Reading, ReadingConfig
from finetune.tasks.base import Task, tasks
from foundation.data.batch import Batch
from foundation.data.preprocessing import FILE as PREPROCESSING
from foundation.data.preprocessing import ImageScaling, OmicsScaling, Preprocessing
from foundation.errors import CheckpointError, ConfigError
from foundation.modality import Percentile
from foundation.model import model_folder
from foundation.model.fusion.base import fusions
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.model.seen_patients import SeenPatients
from foundation.model.towers.base import towers
from foundation.model.view import FUSED, View

SHAPE, CHANNELS, WIDTH, ROWS = (16, 16, 8), 2, 16, 8
FEATURES = {"rna": 10, "mutation": 6}
MODALITIES = ("mri", "ct", *FEATURES)
TOWERS = {"mri": "vit2d", "ct": "vit3d", "omics": "omics_transformer"}
LORAS = {
    "lora": Lora(rank=2, dropout=0.2),
    "dora": Lora(rank=2, dora=True),
    "rslora": Lora(rank=4, rslora=True, train=["projections", "fusion", "norms"]),
    "per tower": Lora(
        rank=2,
        dropout=0.1,
        towers={
            "mri": TowerLora(targets=["qkv"], rank=3),
            "ct": None,
            "omics": TowerLora(targets=["attention.query", "value", "up"], dora=True),
        },
    ),
}
MODES = {**LORAS, "frozen": Frozen(), "probe": Frozen(train=["projections"]), "full": Full(), "scratch": Scratch()}
DECLARED = {
    "subtype": {"kind": "subtype", "classes": {"a": 5, "b": 3, "c": 1}},
    "os": {"kind": "survival", "unit": "days", "events": 4},
}
TASKS = [tasks["subtype"].Config(endpoint="subtype"), tasks["survival"].Config(endpoint="os", memory=7)]
every_lora = pytest.mark.parametrize("config", LORAS.values(), ids=LORAS.keys())
every_mode = pytest.mark.parametrize("config", MODES.values(), ids=MODES.keys())


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Tensors this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_scaling(name: str, count: int) -> OmicsScaling:
    return OmicsScaling(
        features=[f"gene{number}" for number in range(count)],
        values="binary" if name == "mutation" else "continuous",
        unit="",
        transform=[],
        center=[0.0] * count,
        scale=[1.0] * count,
        clip=10.0,
        minimum_overlap=0.5,
        patients=9,
    )


def make_preprocessing() -> Preprocessing:
    image = ImageScaling(
        channels=["t1", "t2"],
        shape=list(SHAPE),
        orientation="RAS",
        spacing=(1.0, 1.0, 2.0),
        intensity=Percentile(rule="percentile"),
        mean=[0.0] * CHANNELS,
        std=[1.0] * CHANNELS,
        patients=[9] * CHANNELS,
    )
    omics = {name: make_scaling(name, count) for name, count in FEATURES.items()}
    return Preprocessing(cohort="small", patients=9, records=9, modalities={"mri": image, "ct": image, **omics})


def make_model(seed: int = 0, **changes: Any) -> MultimodalModel:
    parts = {name: towers[tower].tiny() for name, tower in TOWERS.items()}
    parts = {name: part.model_copy(update=changes.get(name, {})) for name, part in parts.items()}
    torch.manual_seed(seed)
    fusion = fusions["gated_mean"].tiny()
    return MultimodalModel(MultimodalConfig.of(make_preprocessing().described(), parts, fusion, WIDTH)).eval()


def make_tasks() -> dict[str, Task]:
    built = [tasks.build(config, DECLARED) for config in TASKS]
    return {task.name: task for task in built}


def make_heads(seed: int = 0) -> nn.ModuleDict:
    torch.manual_seed(seed)
    heads = nn.ModuleDict({name: Head(task, [Block("fused", WIDTH)]) for name, task in make_tasks().items()})
    for name, parameter in heads.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(parameter, std=0.1)
    return heads


def write(folder: Path, adapted: Adapted) -> None:
    adapter.write(
        folder,
        adapted,
        make_tasks(),
        modalities=MODALITIES,
        declared=DECLARED,
        groups=["glioma", ""],
        seen=SeenPatients.of(["P0"]),
    )


def read(folder: Path, model: MultimodalModel) -> Adapted:
    return adapter.read(folder, model)[0]


def make_batch(present_BM: Tensor | None = None, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    if present_BM is None:
        present_BM = torch.rand(ROWS, len(MODALITIES), generator=draw) > 0.4
        present_BM[0] = True
    rows = len(present_BM)
    has = dict(zip(MODALITIES, present_BM.T, strict=True))
    observed = {
        name: has[name][:, None] & (torch.rand(rows, count, generator=draw) > 0.3) for name, count in FEATURES.items()
    }
    return Batch(
        modalities=MODALITIES,
        patients=[f"P{row}" for row in range(rows)],
        records=[f"P{row}" for row in range(rows)],
        rows=torch.arange(rows),
        epochs=torch.zeros(rows, dtype=torch.int64),
        present_BM=present_BM,
        images={name: torch.randn(rows, CHANNELS, *SHAPE, generator=draw) for name in ("mri", "ct")},
        channels={name: has[name][:, None].expand(-1, CHANNELS) for name in ("mri", "ct")},
        omics={name: torch.randn(rows, count, generator=draw) for name, count in FEATURES.items()},
        observed=observed,
        endpoints={},
        sites=[""] * rows,
        groups=[""] * rows,
    )


@pytest.fixture(scope="module")
def base() -> MultimodalModel:
    return make_model()


@pytest.fixture
def batch() -> Batch:
    return make_batch()


def loss_of(adapted: Adapted, batch: Batch) -> Tensor:
    return torch.stack([outputs.square().sum() for outputs in adapted(batch)[EVERYTHING].values()]).sum()


def train(adapted: Adapted, batch: Batch, steps: int = 3, rate: float = 0.02, seed: int = 0) -> Adapted:
    """A few steps, large enough to move everything."""
    torch.manual_seed(seed)
    adapted.train()
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        loss_of(adapted, batch).backward()
        optimiser.step()
    return adapted.eval()


def predict(adapted: Adapted, batch: Batch) -> dict[str, Tensor]:
    with torch.no_grad():
        return adapted(batch)[EVERYTHING]


def embed(model: MultimodalModel, batch: Batch) -> Tensor:
    """[B, D] of all that each record has."""
    with torch.no_grad():
        return model(batch, {FUSED: View(FUSED)})[FUSED].z_BD


def every_embedding(model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
    with torch.no_grad():
        return {name: output.z_BD for name, output in model(batch, model.every_view()).items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@every_mode
def test_the_base_is_never_touched(base, batch, config):
    weights, flags = tensors_of(base), [parameter.requires_grad for parameter in base.parameters()]
    embedded = every_embedding(base, batch)
    adapted = train(adapt(base, config, make_heads()), batch)
    adapted.merged()
    assert same(tensors_of(base), weights) and same(every_embedding(base, batch), embedded)
    assert [parameter.requires_grad for parameter in base.parameters()] == flags
    assert all(parameter.grad is None for parameter in base.parameters())
    assert not base.training


@every_lora
def test_an_adapter_starts_as_the_base(base, batch, config):
    adapted, heads = adapt(base, config, make_heads()).eval(), make_heads()
    z_BD = embed(base, batch)
    for task, outputs in predict(adapted, batch).items():
        torch.testing.assert_close(outputs, heads[task](z_BD), atol=1e-6, rtol=1e-5)


@every_mode
def test_gradients_reach_what_is_trained_and_nothing_else(base, batch, config):
    adapted = adapt(base, config, make_heads())
    before = tensors_of(adapted)
    # One step first, as the second matrix of an adapter starts at zero and lets nothing through to the first.
    train(adapted, make_batch(torch.ones(ROWS, len(MODALITIES), dtype=torch.bool)), steps=1)
    adapted.train().zero_grad()
    loss_of(adapted, batch).backward()
    for name, parameter in adapted.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
            assert torch.equal(parameter, before[name]), name
            continue
        assert parameter.grad is not None, name
        idle = "mask_tokens" in name or ".slopes." in name
        assert idle or parameter.grad.abs().sum() > 0, name


@every_mode
def test_what_is_trained_is_what_was_asked_for(base, config):
    adapted = adapt(base, config, make_heads())
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert {name for name in trained if name.startswith("heads.")} == {
        "heads.subtype.inner.weight",
        "heads.subtype.inner.bias",
        "heads.os.inner.weight",
    }
    of_model = {name.removeprefix("model.") for name in trained if name.startswith("model.")}
    if isinstance(config, Full | Scratch):
        assert of_model == {name for name, _ in base.named_parameters()}
        return
    bare = {name for name in of_model if ".lora_" not in name}
    expected = {name for name, _ in base.named_parameters() if name.split(".")[0] in config.train}
    if "norms" in config.train:
        norms = {n for n, _ in base.named_parameters() if "norm" in n and n.startswith("towers.")}
        assert norms
        expected |= norms
    assert bare == expected
    assert bool(of_model - bare) == isinstance(config, Lora)


@every_lora
def test_adapters_are_on_every_layer_that_is_meant_and_on_no_other(base, config):
    adapted = adapt(base, config, make_heads())
    found = {
        tower: {name.split(".lora_A")[0] for name, _ in module.named_parameters() if ".lora_A" in name}
        for tower, module in adapted.model.towers.named_children()
    }
    for tower, module in base.towers.named_children():
        linear = {name for name, part in module.named_modules() if isinstance(part, nn.Linear)}
        if not config.towers:
            assert found[tower] == linear
        elif config.towers[tower] is None:
            assert not found[tower]
        else:
            ends = tuple(f".{target}" for target in config.towers[tower].targets)
            assert found[tower] == {name for name in linear if name.endswith(ends)}


@every_lora
def test_what_an_adapter_adds_is_the_formula_of_the_paper(base, batch, config):
    """One layer, trained, against W + scale B A (x), and for DoRA its rows brought to the learned lengths."""
    adapted = train(adapt(base, config, make_heads()), batch)
    rank = 3 if config.towers else config.rank
    layer = adapted.model.towers["mri"].get_submodule("net.blocks.1.attn.qkv")
    A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    scale = config.alpha / (rank**0.5 if config.rslora else rank)
    assert A.shape[0] == rank
    weight = base.towers["mri"].get_submodule("net.blocks.1.attn.qkv").weight + scale * B @ A
    if config.dora:
        lengths = layer.lora_magnitude_vector["default"].weight
        weight = weight * (lengths / weight.norm(dim=1))[:, None]
    x = torch.randn(5, weight.shape[1], generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(layer(x), functional.linear(x, weight, layer.bias), atol=1e-5, rtol=1e-4)


@every_mode
def test_a_folder_gives_the_same_bits_on_a_fresh_base(base, batch, config, tmp_path):
    adapted = train(adapt(base, config, make_heads(), seed=5), batch)
    write(tmp_path / "adapter", adapted)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter"}
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        adapter.DOCUMENT,
        adapter.TENSORS,
        "patients.json",
    }
    again = read(tmp_path / "adapter", make_model())
    assert again.config.model_dump() == config.model_dump() and not again.training
    assert same(predict(again, batch), predict(adapted, batch))
    assert same(tensors_of(again), tensors_of(adapted))


@every_mode
def test_a_merged_model_is_plain_and_embeds_alike(base, batch, config, tmp_path):
    adapted = train(adapt(base, config, make_heads()), batch)
    before = predict(adapted, batch)
    merged = adapted.merged()
    assert tensors_of(merged).keys() == tensors_of(base).keys()
    assert not any(hasattr(module, "peft_config") for module in merged.modules())
    assert same(predict(adapted, batch), before)
    model_folder.write(tmp_path / "model", merged, make_preprocessing(), "# adapted\n")
    again, _ = model_folder.read(tmp_path / "model")
    assert {type(module) for module in again.modules()} == {type(module) for module in merged.modules()}
    z_BD, expected_BD = embed(again, batch), embed(adapted.model, batch)
    torch.testing.assert_close(z_BD, expected_BD, atol=1e-5, rtol=0)
    assert torch.equal(z_BD, embed(merged, batch))
    if not isinstance(config, Frozen) or config.train:
        assert not torch.allclose(z_BD, embed(base, batch), atol=1e-3)


def test_two_adapters_stand_on_one_base(base, batch, tmp_path):
    expected = {}
    for name, config, seed in (("one", LORAS["lora"], 1), ("other", LORAS["per tower"], 2)):
        adapted = train(adapt(base, config, make_heads(seed), seed=seed), batch, seed=seed)
        write(tmp_path / name, adapted)
        expected[name] = predict(adapted, batch)
    assert not same(expected["one"], expected["other"])
    loaded = {name: read(tmp_path / name, base) for name in expected}
    for name in ("one", "other", "one"):
        assert same(predict(loaded[name], batch), expected[name])
    shared = [adapted.model.towers["ct"].vit.patch_embedding.position_embeddings for adapted in loaded.values()]
    assert (
        len({tensor.data_ptr() for tensor in (*shared, base.towers["ct"].vit.patch_embedding.position_embeddings)}) == 1
    )


def test_an_adapter_is_small(base, tmp_path):
    write(tmp_path / "adapter", adapt(base, Lora(rank=1), make_heads()))
    size = (tmp_path / "adapter" / adapter.TENSORS).stat().st_size
    assert size < 0.2 * 4 * sum(parameter.numel() for parameter in base.parameters())


def test_writing_again_replaces_the_folder_and_failing_leaves_it(base, batch, tmp_path, monkeypatch):
    adapted = adapt(base, LORAS["lora"], make_heads())
    write(tmp_path / "adapter", adapted)
    train(adapted, batch)
    write(tmp_path / "adapter", adapted)
    good = (tmp_path / "adapter" / adapter.TENSORS).read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    train(adapted, batch)
    monkeypatch.setattr(adapter, "sha256_of", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "adapter", adapted)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter"}
    assert (tmp_path / "adapter" / adapter.TENSORS).read_bytes() == good


def test_another_base_is_refused(base, tmp_path):
    write(tmp_path / "adapter", adapt(base, LORAS["lora"], make_heads()))
    with pytest.raises(CheckpointError, match="belongs to another model"):
        read(tmp_path / "adapter", make_model(seed=1))
    almost = copy.deepcopy(base)
    with torch.no_grad():
        almost.towers["omics"].summary[3] += 1e-6
    with pytest.raises(CheckpointError, match="belongs to another model"):
        read(tmp_path / "adapter", almost)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tasks", [TASKS[0].model_dump()]),
        ("endpoints", {**DECLARED, "subtype": {"kind": "subtype", "classes": ["a", "b", "c", "d"]}}),
    ],
)
def test_other_heads_are_refused(base, tmp_path, key, value):
    write(tmp_path / "adapter", adapt(base, LORAS["lora"], make_heads()))
    _rewrite(key, value)(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=r"does not fit: .*heads\."):
        read(tmp_path / "adapter", base)


def _cut(folder: Path) -> None:
    content = (folder / adapter.TENSORS).read_bytes()
    (folder / adapter.TENSORS).write_bytes(content[:-10])


def _rewrite(key: str, value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        document = json.loads((folder / adapter.DOCUMENT).read_text())
        (folder / adapter.DOCUMENT).write_text(json.dumps({**document, key: value}))

    return change


DAMAGE = {
    "no tensors": (lambda folder: (folder / adapter.TENSORS).unlink(), "has no adapter.safetensors"),
    "no document": (lambda folder: (folder / adapter.DOCUMENT).unlink(), "has no adapter.json"),
    "tensors cut": (_cut, "safetensors is damaged"),
    "document cut": (lambda folder: (folder / adapter.DOCUMENT).write_text("{"), "damaged, or of another version"),
    "later version": (_rewrite("format_version", 3), "damaged, or of another version"),
    "unknown mode": (_rewrite("adapt", {"mode": "prompt"}), "damaged, or of another version"),
}


def with_clinical(base: MultimodalModel) -> Adapted:
    """Heads that read a covariate which the base does not know."""
    scaling = make_scaling("clinical", 3).model_copy(update={"center": [1 / 3, 60.1, 7e-30]})
    heads_only = Preprocessing(cohort="small", patients=9, records=9, modalities={"clinical": scaling})
    reading = Reading(ReadingConfig(covariates=("clinical", "mutation")), base, heads_only)
    torch.manual_seed(0)
    heads = nn.ModuleDict({name: Head(task, reading.blocks()) for name, task in make_tasks().items()})
    return adapt(base, LORAS["lora"], heads, seed=5, reading=reading)


def test_a_covariate_that_the_base_does_not_know_comes_back_with_its_scaling(base, tmp_path):
    batch = make_batch()
    observed = torch.rand(ROWS, 3) > 0.3
    batch.omics["clinical"], batch.observed["clinical"] = torch.randn(ROWS, 3) * observed, observed
    adapted = train(with_clinical(base), batch)
    write(tmp_path / "adapter", adapted)
    again = read(tmp_path / "adapter", make_model())
    assert same(predict(again, batch), predict(adapted, batch))
    assert again.reading.heads_only == adapted.reading.heads_only
    assert Preprocessing.read(tmp_path / "adapter") == adapted.reading.heads_only, "the scaling of nothing else"


def test_an_adapter_of_an_earlier_version_says_nothing_of_a_scaling_and_is_read(base, batch, tmp_path):
    adapted = adapt(base, LORAS["lora"], make_heads())
    write(tmp_path / "adapter", adapted)
    path = tmp_path / "adapter" / adapter.DOCUMENT
    document = json.loads(path.read_text())
    assert document.pop("preprocessing") == ""
    path.write_text(json.dumps(document))
    assert same(predict(read(tmp_path / "adapter", base), batch), predict(adapted, batch))


def _change_scaling(folder: Path) -> None:
    path = folder / PREPROCESSING
    path.write_text(path.read_text().replace("60.1", "60.2"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_change_scaling, "preprocessing.json is damaged"),
        (lambda folder: (folder / PREPROCESSING).unlink(), "preprocessing.json is missing"),
        (_rewrite("preprocessing", ""), "heads read 'clinical', whose scaling neither it nor its base has"),
    ],
)
def test_a_scaling_that_was_changed_or_lost_is_refused(base, tmp_path, spoil, message):
    write(tmp_path / "adapter", with_clinical(base))
    spoil(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "adapter", base)


@pytest.mark.parametrize(("spoil", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_folder_is_refused(base, tmp_path, spoil, message):
    write(tmp_path / "adapter", adapt(base, LORAS["lora"], make_heads()))
    spoil(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "adapter", base)


@every_mode
def test_starting_numbers_follow_from_the_seed_alone(base, batch, config):
    def start(seed: int, noise: int) -> dict[str, Tensor]:
        heads = make_heads()
        torch.manual_seed(noise)
        state = torch.get_rng_state()
        adapted = adapt(base, config, heads, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        return tensors_of(adapted)

    first = start(1, noise=10)
    assert same(first, start(1, noise=11))
    assert same(first, start(2, noise=10)) == isinstance(config, Frozen | Full)


def test_from_scratch_nothing_learned_is_left(base):
    scratch = adapt(base, Scratch(), make_heads(), seed=3).model
    with torch.no_grad():
        for (name, fresh), (_, learned) in zip(scratch.named_parameters(), base.named_parameters(), strict=True):
            constant = learned.numel() == 1 or learned.std() == 0
            assert constant or not torch.equal(fresh, learned), name
    torch.random.manual_seed(3)
    assert same(tensors_of(MultimodalModel(base.config)), tensors_of(scratch))


@pytest.mark.parametrize("absent", [*TOWERS, None])
def test_a_tower_that_nobody_has_anything_for_does_no_harm(base, absent):
    present_BM = torch.ones(4, len(MODALITIES), dtype=torch.bool)
    gone = {"omics": list(FEATURES)}.get(absent, [absent])
    for position, name in enumerate(MODALITIES):
        present_BM[:, position] &= absent is not None and name not in gone
    batch = make_batch(present_BM)
    adapted = adapt(base, LORAS["lora"], make_heads()).train()
    loss_of(adapted, batch).backward()
    gradients = [parameter.grad for parameter in adapted.parameters() if parameter.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    if absent is not None:
        tower = adapted.model.towers[absent]
        assert not any(parameter.grad.any() for parameter in tower.parameters() if parameter.requires_grad)


@settings(max_examples=15)
@given(
    present=st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=4),
    name=st.sampled_from(["lora", "dora"]),
)
def test_any_pattern_of_presence_can_be_trained_on(present, name):
    batch = make_batch(torch.tensor(present))
    adapted = adapt(shared_base(), LORAS[name], make_heads()).train()
    loss_of(adapted, batch).backward()
    gradients = [parameter.grad for parameter in adapted.parameters() if parameter.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def shared_base(made: list[MultimodalModel] = []) -> MultimodalModel:  # noqa: B006  Made once for all examples.
    if not made:
        made.append(make_model())
    return made[0]


def test_a_modality_that_may_not_be_seen_is_as_if_absent(base, batch):
    adapted = train(adapt(base, LORAS["lora"], make_heads()), batch)
    keep_BM = torch.ones_like(batch.present_BM)
    keep_BM[:, MODALITIES.index("mri")] = False
    without = copy.deepcopy(batch)
    without.present_BM &= keep_BM
    rest = tuple(name for name in MODALITIES if name != "mri")
    kept = {"mri": torch.zeros(len(batch), dtype=torch.bool)}
    views = {"kept": View(FUSED, keep=kept), "named": View(FUSED, rest), EVERYTHING: View(FUSED)}
    with torch.no_grad():
        outputs = adapted(batch, views)
        assert same(outputs["kept"], predict(adapted, without))
        assert same(outputs["named"], predict(adapted, without))
        assert same(outputs[EVERYTHING], predict(adapted, batch))
        assert not same(outputs[EVERYTHING], outputs["named"])


def test_dropout_acts_in_training_alone(base, batch):
    adapted = train(adapt(base, LORAS["lora"], make_heads()), batch)
    assert same(predict(adapted, batch), predict(adapted, batch))
    adapted.train()
    assert not same(predict(adapted, batch), predict(adapted, batch))


def test_activation_checkpointing_gives_adapters_the_same_gradients(base, batch):
    """Where the input of a checkpointed block needs no gradient, adapters inside it must still get theirs."""
    gradients = []
    for model in (base, make_model(mri={"activation_checkpointing": True}, ct={"activation_checkpointing": True})):
        adapted = adapt(model, Lora(rank=2), make_heads()).train()
        loss_of(adapted, batch).backward()
        gradients.append([parameter.grad for parameter in adapted.parameters() if parameter.requires_grad])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@every_lora
def test_bf16_stays_near_fp32(base, batch, config):
    adapted = train(adapt(base, config, make_heads()), batch)
    exact = predict(adapted, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss_of(adapted, batch).backward()
        rough = predict(adapted, batch)
    assert all(p.grad.isfinite().all() for p in adapted.parameters() if p.requires_grad)
    for task in exact:
        assert (exact[task] - rough[task].float()).norm() < 0.05 * exact[task].norm()


def test_a_frozen_part_stays_in_evaluation(batch):
    base = make_model(omics={"dropout": 0.5}, ct={"dropout": 0.5})
    probe = adapt(base, Frozen(), make_heads()).train()
    assert same(predict(probe, batch), predict(probe, batch))
    assert probe.training and probe.heads.training and not probe.model.towers["omics"].training
    lora = adapt(base, Lora(towers={"ct": None}), make_heads()).train()
    assert lora.model.towers["omics"].training and not lora.model.towers["ct"].training


def test_a_tower_that_may_see_nothing_gets_no_adapter(base):
    assert leaving_blind(Lora(), base, MODALITIES) == Lora()
    assert leaving_blind(Full(), base, ["rna"]) == Full()
    adapted = adapt(base, leaving_blind(Lora(rank=2), base, ["rna", "mri"]), make_heads())
    assert {part.name: bool(part.layers) for part in adapted.parts() if part.name in TOWERS} == {
        "mri": True,
        "ct": False,
        "omics": True,
    }


@pytest.mark.parametrize(("config", "moves"), [(Frozen(), False), (Lora(), False), (Full(), True)])
def test_statistics_of_batches_move_only_where_their_norm_is_trained(batch, config, moves, tmp_path):
    convolutional = {"model": "resnet18", "arguments": {"output_stride": 8}, "max_slices": 2}
    base = make_model(mri=convolutional)
    if isinstance(config, Lora):
        config = Lora(towers={"mri": TowerLora(targets=["position"])})
    adapted = train(adapt(base, config, make_heads()), make_batch(torch.ones(4, 4, dtype=torch.bool)), steps=1)
    mean = "towers.mri.net.bn1.running_mean"
    assert torch.equal(adapted.model.state_dict()[mean], base.state_dict()[mean]) != moves
    write(tmp_path / "adapter", adapted)
    again = read(tmp_path / "adapter", make_model(mri=convolutional))
    assert same(predict(again, batch), predict(adapted, batch))


def test_the_summary_says_what_is_trained(base):
    adapted = adapt(base, LORAS["per tower"], make_heads())
    lines = adapted.summary().splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == [
        "mri", "ct", "omics", "projections", "fusion", "heads", "together",
    ]  # fmt: skip
    assert "  LoRA on net.blocks.*.attn.qkv (2)" in lines
    assert "  LoRA on blocks.*.attention.query (2)" in lines
    parts = {part.name: part for part in adapted.parts()}
    assert parts["mri"].trained == 2 * 3 * (64 + 192)
    assert parts["mri"].total == parts["mri"].trained + sum(p.numel() for p in base.towers["mri"].parameters())
    assert parts["ct"].trained == 0 and parts["ct"].layers == {}
    assert parts["heads"].trained == parts["heads"].total == 3 * (WIDTH + 1) + WIDTH
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert lines[-1].split()[1:] == [f"{trained:,}", f"{sum(p.numel() for p in adapted.parameters()):,}"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            Lora(targets=["up"]),
            r"no layer of tower 'mri' that takes an adapter is called 'up'(.|\n)*net\.blocks\.\*\.attn\.qkv",
        ),
        (Lora(towers={"mri": TowerLora(targets=["qkw"])}), r"called 'qkw'(.|\n)*did you mean 'qkv'"),
        (Lora(towers={"ct": TowerLora(targets=["qkv", "linear3"])}), r"adapter is called 'linear3'(.|\n)*'linear[12]'"),
        (Lora(towers={"mri": TowerLora(targets=["kv"])}), "is called 'kv'"),
        (Lora(towers={"mri": TowerLora(targets=["net"])}), "is called 'net'"),
        (Lora(towers={"mry": None}), r"no tower is called 'mry'(.|\n)*did you mean 'mri'"),
        (Lora(towers=dict.fromkeys(TOWERS)), r"no tower is left to adapt(.|\n)*mode: frozen"),
    ],
)
def test_attaching_to_nothing_is_an_error(base, config, message):
    with pytest.raises(ConfigError, match=message):
        adapt(base, config, make_heads())


def test_a_tower_takes_from_the_common_settings_what_it_does_not_set(base):
    config = Lora(rank=5, alpha=3, towers={"mri": TowerLora(dropout=0.5)})
    adapted = adapt(base, Lora.model_validate_json(config.model_dump_json()), make_heads())
    peft = {name: tower.peft_config["default"] for name, tower in adapted.model.towers.named_children()}
    assert [(each.r, each.lora_alpha, each.lora_dropout) for each in peft.values()] == [
        (5, 3, 0.5), (5, 3, 0.0), (5, 3, 0.0),
    ]  # fmt: skip
