"""Weights in the names of other libraries: a tower that took them computes what the model they come from computes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from monai.networks.nets.efficientnet import EfficientNetBN
from monai.networks.nets.masked_autoencoder_vit import MaskedAutoEncoderViT
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unetr import UNETR
from monai.networks.nets.vit import ViT
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from foundation.errors import CheckpointError
from foundation.model.towers.vit2d import ViT2D, ViT2DConfig
from foundation.model.towers.vit3d import ViT3D, ViT3DConfig

WIDTH, DEPTH, HEADS, HIDDEN = 32, 2, 2, 128
TOLERANCE: dict[str, Any] = {"rtol": 1e-3, "atol": 1e-4}
"""Hugging Face's ViT adds 1e-12 to variances, timm's 1e-6."""


def randomised(net: Any) -> Any:
    """Every number a random one, so that no branch is small and no bias zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return net.eval()


def image(*shape: int) -> Tensor:
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(2))


def tokens(tower: ViT2D | ViT3D, x: Tensor) -> Tensor:
    with torch.no_grad():
        return tower(x, torch.ones(x.shape[:2], dtype=torch.bool)).tokens_BTD


def vit2d(weights: Path, model: str, patch: int, side: int, **arguments: Any) -> ViT2D:
    size = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "patch_size": patch}
    config = ViT2DConfig(model=model, arguments={**size, **arguments}, weights=weights)
    return ViT2D(config, 3, (side, side)).eval()


def hugging_face(name: str, patch: int, **changes: Any) -> Any:
    size = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "image_size": 2 * patch}
    config = getattr(transformers, f"{name}Config")(**size, patch_size=patch, intermediate_size=HIDDEN, **changes)
    return randomised(getattr(transformers, f"{name}Model")(config))


@pytest.mark.parametrize(
    ("theirs", "model", "patch", "leading"),
    [
        ("ViT", "vit_base_patch16_224", 16, 1),
        ("ViT", "vit_small_patch14_dinov2", 14, 1),  # has a layer scale, which the file has not
        ("Dinov2", "vit_small_patch14_dinov2", 14, 1),
        ("Dinov2", "vit_base_patch16_224", 14, 1),  # has no layer scale, which the file has
        ("Dinov2WithRegisters", "vit_small_patch14_reg4_dinov2", 14, 5),
        ("CLIPVision", "vit_base_patch16_clip_quickgelu_224", 16, 1),
    ],
)
@pytest.mark.parametrize("prefix", ["", "vision."])
def test_a_model_of_hugging_face(
    tmp_path: Path, theirs: str, model: str, patch: int, leading: int, prefix: str
) -> None:
    net, x = hugging_face(theirs, patch), image(3, 2 * patch, 2 * patch)
    net.save_pretrained(tmp_path)
    if prefix:
        from safetensors.torch import load_file

        state = load_file(tmp_path / "model.safetensors")
        save_file({prefix + name: tensor for name, tensor in state.items()}, tmp_path / "model.safetensors")
    with torch.no_grad():
        expected = net(x).last_hidden_state
        if theirs == "CLIPVision":  # which puts its last norm on the pooled vector alone
            expected = net.post_layernorm(expected)
    tower = vit2d(tmp_path, model, patch, 2 * patch)
    report = tower.weights
    assert report is not None and not report.unfit and not report.reshaped
    assert not [name for name in report.missing if "gamma" not in name]
    assert {name.removeprefix(prefix) for name in report.unused} <= {
        "mask_token",
        "pooler.dense.weight",
        "pooler.dense.bias",
    }
    torch.testing.assert_close(tokens(tower, x), expected[:, leading:], **TOLERANCE)


def test_the_names_in_memory_are_read_as_those_in_a_file(tmp_path: Path) -> None:
    """Newer versions of transformers call their parameters otherwise than they save them."""
    net, x = hugging_face("ViT", 16), image(3, 32, 32)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    expected = net(x).last_hidden_state[:, 1:]
    torch.testing.assert_close(
        tokens(vit2d(tmp_path / "w.pt", "vit_base_patch16_224", 16, 32), x), expected, **TOLERANCE
    )


def test_the_encoder_of_hugging_faces_mae(tmp_path: Path) -> None:
    config = transformers.ViTMAEConfig(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=HIDDEN,
        image_size=32, patch_size=16, decoder_hidden_size=WIDTH, decoder_num_hidden_layers=3,
        decoder_num_attention_heads=2, decoder_intermediate_size=HIDDEN,
    )  # fmt: skip
    net = randomised(transformers.ViTMAEForPreTraining(config))
    net.save_pretrained(tmp_path)
    tower = vit2d(tmp_path, "vit_base_patch16_224", 16, 32)
    assert tower.weights is not None and not tower.weights.missing and not tower.weights.unfit
    assert all(name.startswith("decoder.") for name in tower.weights.unused)
    query = net.vit.layers[1].attention.q_proj.weight
    assert torch.equal(tower.net.blocks[1].attn.qkv.weight[:WIDTH], query)


def efficientnet() -> Any:
    """MONAI's, every number and every statistic a random one."""
    net = EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=2, in_channels=3, num_classes=5)
    generator = torch.Generator().manual_seed(1)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.2 * torch.rand(tensor.shape, generator=generator) * (0.2 if tensor.ndim > 1 else 1)
    return net.eval()


@pytest.mark.parametrize("numbered_through", [True, False], ids=["EfficientNet-PyTorch", "MONAI"])
@pytest.mark.parametrize("prefix", ["", "net."])
def test_an_efficientnet_in_other_names(tmp_path: Path, numbered_through: bool, prefix: str) -> None:
    net, x = efficientnet(), image(3, 64, 64)
    state = net.state_dict()
    if numbered_through:
        places = list(dict.fromkeys(".".join(name.split(".")[:3]) for name in state if name.startswith("_blocks.")))
        for number, place in enumerate(places):
            for name in [name for name in state if name.startswith(f"{place}.")]:
                state[f"_blocks.{number}!{name[len(place) :]}"] = state.pop(name)
        state = {name.replace("!", ""): tensor for name, tensor in state.items()}
    torch.save({prefix + name: tensor for name, tensor in state.items()}, tmp_path / "w.pth")
    tower = ViT2D(ViT2DConfig(model="tf_efficientnet_b0", weights=tmp_path / "w.pth"), 3, (64, 64)).eval()
    report = tower.weights
    assert report is not None and report.layouts == ["EfficientNet-PyTorch"]
    assert not report.missing and not report.unfit and not report.reshaped
    assert report.unused == ["classifier.bias", "classifier.weight"]
    seen: list[Tensor] = []
    net._avg_pooling.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net(x)
    [expected] = seen
    torch.testing.assert_close(tokens(tower, x), expected.flatten(2).transpose(1, 2), rtol=1e-3, atol=1e-4)


def test_an_efficientnet_of_another_depth_is_refused(tmp_path: Path) -> None:
    torch.save(efficientnet().state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="of the tower is in it"):
        ViT2D(ViT2DConfig(model="tf_efficientnet_b1", weights=tmp_path / "w.pth"), 3, (64, 64))


def meta_dinov2(chunked: bool) -> tuple[dict[str, Tensor], VisionTransformer]:
    """A checkpoint as Meta's repository writes it, and timm's model of what timm itself makes of it."""
    net: Any = timm.create_model(
        "vit_small_patch14_reg4_dinov2", num_classes=0, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, img_size=28
    )
    state = {name: tensor.clone() for name, tensor in randomised(net).state_dict().items()}
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.randn(1, 5, WIDTH)
    state["mask_token"] = torch.zeros(1, WIDTH)
    net.load_state_dict(checkpoint_filter_fn(dict(state), net))
    if chunked:
        state = {re.sub(r"blocks\.(\d+)\.", r"blocks.0.\1.", name): tensor for name, tensor in state.items()}
    return state, net


@pytest.mark.parametrize("chunked", [False, True])
def test_dinov2_as_meta_writes_it(tmp_path: Path, chunked: bool) -> None:
    state, net = meta_dinov2(chunked)
    torch.save({"teacher": {f"backbone.{name}": tensor for name, tensor in state.items()}}, tmp_path / "w.pth")
    tower, x = vit2d(tmp_path / "w.pth", "vit_small_patch14_reg4_dinov2", 14, 28), image(3, 28, 28)
    assert tower.weights is not None and not tower.weights.missing and tower.weights.unused == ["backbone.mask_token"]
    torch.testing.assert_close(tokens(tower, x), net.forward_features(x)[:, 5:])


def test_clip_as_openai_writes_it(tmp_path: Path) -> None:
    """With a tower of texts beside it, as in a file of CLIP."""
    import open_clip

    vision: Any = {"image_size": 32, "layers": DEPTH, "width": WIDTH, "head_width": WIDTH // HEADS, "patch_size": 16}
    text: Any = {"context_length": 8, "vocab_size": 16, "width": WIDTH, "heads": 2, "layers": DEPTH}
    clip = randomised(open_clip.CLIP(8, vision, text, quick_gelu=True))
    torch.save(
        {"state_dict": {f"module.{name}": tensor for name, tensor in clip.state_dict().items()}}, tmp_path / "w.pt"
    )
    tower, x = vit2d(tmp_path / "w.pt", "vit_base_patch16_clip_quickgelu_224", 16, 32), image(3, 32, 32)
    assert tower.weights is not None and not tower.weights.missing and not tower.weights.unfit
    net = clip.visual
    with torch.no_grad():
        hidden = net.conv1(x).flatten(2).transpose(1, 2)
        hidden = torch.cat([net.class_embedding.expand(len(x), 1, -1), hidden], dim=1) + net.positional_embedding
        expected = net.ln_post(net.transformer(net.ln_pre(hidden)))[:, 1:]
    torch.testing.assert_close(tokens(tower, x), expected, **TOLERANCE)


def test_clip_with_a_trunk_of_timm(tmp_path: Path) -> None:
    """As open_clip saves BiomedCLIP; the tower of texts has blocks too."""
    net = randomised(timm.create_model("test_vit", num_classes=0))
    state = {f"visual.trunk.{name}": tensor for name, tensor in net.state_dict().items()}
    state |= {"text.transformer.encoder.layer.0.attention.self.query.weight": torch.ones(4, 4)}
    state |= {"visual.head.proj.weight": torch.ones(4, 64), "logit_scale": torch.ones(())}
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    config = ViT2DConfig(model="test_vit", weights=tmp_path / "open_clip_pytorch_model.bin")
    tower, x = ViT2D(config, 3, (160, 160)).eval(), image(3, 160, 160)
    assert tower.weights is not None and not tower.weights.missing and len(tower.weights.unused) == 3
    torch.testing.assert_close(tokens(tower, x), net.forward_features(x)[:, 1:])


PATCH, GRID = (4, 4, 4), (2, 2, 2)


def vit3d(weights: Path, patch: tuple[int, int, int] = PATCH, **changes: Any) -> ViT3D:
    size: dict[str, Any] = {"width": 24, "depth": DEPTH, "heads": HEADS, "mlp_width": 48, "patch": patch}
    shape = [n * side for n, side in zip(GRID, patch, strict=True)]
    return ViT3D(ViT3DConfig(**(size | changes), weights=weights), 2, shape).eval()


def monai(net: type[nn.Module], channels: int = 2, **changes: Any) -> Any:
    size: dict[str, Any] = {"hidden_size": 24, "mlp_dim": 48, "num_layers": DEPTH, "num_heads": HEADS}
    return randomised(net(in_channels=channels, img_size=8, patch_size=4, **(size | changes)))


def test_a_patch_embedding_of_monai_that_is_a_matrix(tmp_path: Path) -> None:
    net, x = monai(ViT, proj_type="perceptron"), image(2, 8, 8, 8)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    tower = vit3d(tmp_path / "w.pt")
    assert tower.weights is not None and not tower.weights.missing and not tower.weights.unfit
    torch.testing.assert_close(tokens(tower, x), net(x)[0], **TOLERANCE)


def test_a_matrix_that_may_be_of_two_patches_is_refused(tmp_path: Path) -> None:
    """64 voxels are a cube of one channel, or two channels of the tower's own patch."""
    torch.save(monai(ViT, channels=1, proj_type="perceptron").state_dict(), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"1 channels of 4 x 4 x 4 voxels or 2 channels of 4 x 4 x 2 voxels"):
        vit3d(tmp_path / "w.pt", patch=(4, 4, 2))
    assert vit3d(tmp_path / "w.pt").weights.reshaped  # type: ignore[union-attr]


def test_the_encoder_of_monais_mae(tmp_path: Path) -> None:
    """Of its class token alone vit3d has no use."""
    decoder: dict[str, Any] = {"decoder_hidden_size": 12, "decoder_mlp_dim": 24, "decoder_num_heads": 2}
    learned: dict[str, Any] = {"pos_embed_type": "learnable", "decoder_pos_embed_type": "learnable"}
    net, x = monai(MaskedAutoEncoderViT, **decoder, **learned), image(2, 8, 8, 8)
    torch.save({"model": {f"module.{name}": tensor for name, tensor in net.state_dict().items()}}, tmp_path / "w.pt")
    tower = vit3d(tmp_path / "w.pt")
    assert tower.weights is not None and not tower.weights.missing and not tower.weights.unfit
    own = {name for name in tower.weights.unused if "decoder" not in name and "norm_cross" not in name}
    assert own == {"module.cls_token", "module.mask_tokens"}
    torch.testing.assert_close(tokens(tower, x), net.blocks(net.patch_embedding(x)), **TOLERANCE)


def test_the_transformer_of_a_unetr(tmp_path: Path) -> None:
    net = randomised(UNETR(2, 3, 32, feature_size=4, hidden_size=24, mlp_dim=48, num_heads=2))
    torch.save({"state_dict": net.state_dict()}, tmp_path / "w.pt")
    tower, x = vit3d(tmp_path / "w.pt", patch=(16, 16, 16), depth=12), image(2, 32, 32, 32)
    assert tower.weights is not None and not tower.weights.missing and not tower.weights.unfit
    with torch.no_grad():
        expected = net.vit(x)[0]
    # Twelve layers of large random weights round differently in torch's attention.
    torch.testing.assert_close(tokens(tower, x), expected, rtol=1e-2, atol=1e-2)


def test_a_swin_transformer_is_refused(tmp_path: Path) -> None:
    """Its blocks have the names of a ViT's, and the fourth stage may have its width."""
    net = SwinUNETR(1, 2, feature_size=12)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    for width in (12, 96):
        with pytest.raises(CheckpointError, match=r"nothing in it (belongs|fits)|only \d+% of the tower is in it"):
            vit3d(tmp_path / "w.pt", width=width, mlp_width=4 * width, depth=12)


def volume_of(blocks: VisionTransformer, embed: nn.Conv3d, positions: Tensor) -> Callable[[Tensor], Tensor]:
    """timm's blocks on the tokens of a volume."""

    def forward(x: Tensor) -> Tensor:
        hidden = embed(x).flatten(2).transpose(1, 2) + positions[:, 1:]
        return blocks.norm(blocks.blocks(hidden))

    return forward


def test_a_volume_in_the_names_of_timm_with_layer_scale(tmp_path: Path) -> None:
    """As DINOv2 in three dimensions; its class token stays out of the reference, as vit3d has none."""
    net = randomised(
        VisionTransformer(embed_dim=24, depth=DEPTH, num_heads=HEADS, mlp_ratio=2, init_values=1.0, num_classes=0)
    )
    embed, positions = randomised(nn.Conv3d(2, 24, 4, 4)), torch.randn(1, 9, 24)
    state = {f"student.backbone.{name}": tensor for name, tensor in net.state_dict().items()}
    state |= {f"student.backbone.patch_embed.proj.{name}": tensor for name, tensor in embed.state_dict().items()}
    state["student.backbone.pos_embed"] = positions
    torch.save({"model": state}, tmp_path / "w.pt")
    tower, x = vit3d(tmp_path / "w.pt", qkv_bias=True), image(2, 8, 8, 8)
    assert tower.weights is not None and tower.weights.unused == ["student.backbone.cls_token"]
    assert not tower.weights.missing and tower.weights.layouts == ["timm's ViT"]
    with torch.no_grad():
        expected = volume_of(net, embed, positions)(x)
    torch.testing.assert_close(tokens(tower, x), expected, **TOLERANCE)


def test_blocks_that_compute_something_else_are_refused(tmp_path: Path) -> None:
    """Of BEiT all names but few are those of a ViT; of another MLP only shapes differ."""
    beit = transformers.BeitModel(
        transformers.BeitConfig(
            hidden_size=WIDTH,
            num_hidden_layers=DEPTH,
            num_attention_heads=HEADS,
            intermediate_size=HIDDEN,
            image_size=32,
            patch_size=16,
            use_relative_position_bias=True,
        )
    )
    beit.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"its blocks are not the tower's, which has no place for blocks\.0\."):
        vit2d(tmp_path, "vit_base_patch16_224", 16, 32)
    hugging_face("ViT", 16).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"blocks\.0\.mlp\.fc1\.weight \(\[128, 32\] in the file, \[96, 32\]"):
        vit2d(tmp_path, "vit_base_patch16_224", 16, 32, mlp_ratio=3.0)


def test_a_bias_that_the_tower_was_not_told_of_is_refused(tmp_path: Path) -> None:
    torch.save(monai(ViT, qkv_bias=True).state_dict(), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"(?s)no place for blocks\.0\.attn\.qkv\.bias.*write `qkv_bias: true`"):
        vit3d(tmp_path / "w.pt")
    assert not vit3d(tmp_path / "w.pt", qkv_bias=True).weights.missing  # type: ignore[union-attr]


def test_a_matrix_without_a_bias_has_a_bias_of_zero(tmp_path: Path) -> None:
    net, x = monai(ViT), image(2, 8, 8, 8)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    tower = vit3d(tmp_path / "w.pt", qkv_bias=True)
    torch.testing.assert_close(tokens(tower, x), net(x)[0], **TOLERANCE)


@pytest.mark.parametrize("model", ["test_resnet", "test_convnext"])
def test_a_convolutional_network_of_timm(tmp_path: Path, model: str) -> None:
    net, x = randomised(timm.create_model(model, num_classes=5)), image(3, 64, 64)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    tower = ViT2D(ViT2DConfig(model=model, weights=tmp_path / "w.safetensors"), 3, (64, 64)).eval()
    assert tower.weights is not None and not tower.weights.missing
    expected = net.forward_features(x).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens(tower, x), expected, **TOLERANCE)
