"""A GPU gives what the processor gives: contrastive losses in float32, and a whole step in bfloat16."""

from __future__ import annotations

import copy

import pytest
import torch

from foundation.data.batch import Batch
from foundation.modality import ImageModality, OmicsModality
from foundation.model.multimodal import MultimodalConfig, MultimodalModel
from foundation.objectives.contrastive.contrast import infonce, siglip
from foundation.training.parallel.replicated import Replicated
from pretrain.config import PretrainConfig
from pretrain.step import Logged, Pretraining, Step

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

GENES = [f"g{i}" for i in range(40)]
RECORDS = 24


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("name", ["infonce", "siglip"])
def test_a_contrast_and_its_gradients_are_those_of_the_processor(name, chunk):
    make = torch.Generator().manual_seed(0)
    sides = torch.nn.functional.normalize(torch.randn(2, 50, 32, generator=make), dim=-1)
    present = torch.rand(2, 50, generator=make) < 0.8
    patients = torch.randint(35, (50,), generator=make)

    def run(device):
        a, b = (side.to(device).requires_grad_() for side in sides)
        scalars = [torch.tensor(value, device=device, requires_grad=True) for value in (14.0, -10.0)]
        loss, count = (infonce, 1) if name == "infonce" else (siglip, 2)
        here = [*present.to(device), patients.to(device)]
        found = loss(a, b, *here, *scalars[:count], chunk=chunk)
        found.value.backward()
        return [found.value.detach(), *(tensor.grad for tensor in (a, b, *scalars[:count]))]

    for ours, theirs in zip(run(DEVICE), run("cpu"), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-4, atol=1e-6)


def make_module() -> Pretraining:
    vit = {"patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4}
    config = PretrainConfig.model_validate(
        {
            "cohort": "nowhere",
            "out": "nowhere",
            "towers": {
                "mri": {"tower": "vit2d", "arguments": vit, "max_slices": 4},
                "omics": {"tower": "omics_transformer", "tokenizer": {"tokenizer": "chunk", "size": 8}, "width": 64},
            },
            "fusion": {"fusion": "attention"},
            "objectives": {
                "contrast": {"loss": {"objective": "infonce"}},
                "masked": {"loss": {"objective": "masked_omics"}, "weight": 0.3},
            },
            "width": 32,
        }
    )
    modalities = {
        "mri": ImageModality(channels=["t1", "t2"], shape=[32, 32, 8]),
        "rna": OmicsModality(features=GENES, values="continuous"),
        "mutation": OmicsModality(features=GENES[:10], values="binary"),
    }
    settings = MultimodalConfig.of(modalities, config.towers, config.fusion, config.width)
    torch.manual_seed(0)
    return Pretraining.of(config, MultimodalModel(settings)).train()


def make_batch() -> Batch:
    """Records of which some lack each modality."""
    make = torch.Generator().manual_seed(1)
    names = [str(i) for i in range(RECORDS)]
    present = torch.rand(RECORDS, 3, generator=make) < 0.7
    observed = {"rna": present[:, 1:2].expand(-1, 40).clone(), "mutation": present[:, 2:].expand(-1, 10).clone()}
    return Batch(
        modalities=("mri", "rna", "mutation"),
        patients=names,
        records=names,
        rows=torch.arange(RECORDS),
        epochs=torch.zeros(RECORDS, dtype=torch.int64),
        present_BM=present,
        images={"mri": torch.randn(RECORDS, 2, 32, 32, 8, generator=make)},
        channels={"mri": present[:, :1].expand(-1, 2).clone()},
        omics={
            "rna": torch.randn(RECORDS, 40, generator=make),
            "mutation": torch.randint(2, (RECORDS, 10), generator=make).float(),
        },
        observed=observed,
        endpoints={},
        sites=[""] * RECORDS,
        groups=[""] * RECORDS,
    )


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_a_step_in_bfloat16_agrees_with_the_processor_in_float32(chunk_size):
    module, batch = make_module(), make_batch()
    here = copy.deepcopy(module).to(DEVICE)
    expected = backward(module, batch, Replicated("float32", torch.device("cpu")), None)
    found = backward(here, batch.to(DEVICE), Replicated("bfloat16", torch.device(DEVICE)), chunk_size)
    # bfloat16 keeps eight bits, so that a product is right to 0.4 %, and a loss is a mean of many.
    torch.testing.assert_close(found.cpu(), expected, rtol=0.02, atol=0)
    ours, theirs = (torch.cat([p.grad.flatten().cpu() for p in m.parameters()]) for m in (here, module))
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.99
    torch.testing.assert_close(ours.norm(), theirs.norm(), rtol=0.05, atol=0)


def backward(module: Pretraining, batch: Batch, parallel: Replicated, chunk_size: int | None) -> torch.Tensor:
    """Leave the gradients of a step in the module, and tell its loss."""
    logged = Logged()
    for loss in Step(module, parallel.forward, parallel.autocast, chunk_size).losses(batch, logged):
        parallel.backward(loss)
    return logged.values()["loss"]
