"""Weights put into a module: what loads, what is made to fit, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from foundation.errors import CheckpointError
from foundation.files.hashing import sha256_of
from foundation.model.weights import load_weights


class Net(nn.Module):
    """A patch embedding, positions with one leading token, and a linear layer."""

    def __init__(self, channels: int = 2, patch: int = 4, positions: int = 5, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.pos = nn.Parameter(torch.randn(1, positions, width))
        self.linear = nn.Linear(width, width)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("file", ["w.safetensors", "w.pt", "w.bin"])
@pytest.mark.parametrize("prefix", ["", "vit.", "module.encoder.vit.", "towers.mri.vit."])
def test_weights_load_from_any_format_and_prefix(net: Net, tmp_path: Path, file: str, prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in net.state_dict().items()} | {"head.weight": torch.ones(3)}
    save_file(state, tmp_path / file) if file.endswith("safetensors") else torch.save(state, tmp_path / file)
    other = Net()
    report = load_weights(other, tmp_path / file)
    assert same(net, other)
    assert sorted(report.loaded) == sorted(net.state_dict())
    assert report.unused == ["head.weight"] and not report.missing and not report.reshaped and not report.unfit


def test_the_report_names_everything(net: Net, tmp_path: Path) -> None:
    state = net.state_dict()
    state["embed.weight"] = torch.randn(8, 3, 4, 4)
    state["pos"] = torch.randn(1, 17, 8)
    state["linear.weight"] = torch.randn(9, 8)
    state["decoder.bias"] = state.pop("linear.bias")
    save_file(state, tmp_path / "w.safetensors")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    report = load_weights(net, tmp_path / "w.safetensors", {"pos": (1, (2, 2))})
    assert report.loaded == ["embed.bias"]
    assert report.reshaped == {
        "pos": "positions, [1, 17, 8] to [1, 5, 8]",
        "embed.weight": "convolution, [8, 3, 4, 4] to [8, 2, 4, 4]",
    }
    assert report.unfit == {"linear.weight": "[9, 8] in the file, [8, 8] in the tower"}
    assert (report.missing, report.unused) == (["linear.bias"], ["decoder.bias"])
    for name in ("linear.weight", "linear.bias"):
        assert torch.equal(net.state_dict()[name], before[name])
    for said in ("1 tensors loaded, 2 made to fit", "linear.weight", "linear.bias", "decoder.bias", "positions"):
        assert said in report.summary()


def test_other_channels_answer_the_same_where_channels_agree(tmp_path: Path) -> None:
    """An image whose channels are all alike gives what it gave before."""
    old, new = Net(channels=3), Net(channels=5)
    save_file(old.state_dict(), tmp_path / "w.safetensors")
    load_weights(new, tmp_path / "w.safetensors")
    plane = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(new.embed(plane.expand(-1, 5, -1, -1)), old.embed(plane.expand(-1, 3, -1, -1)))


def test_a_larger_kernel_answers_the_same_to_a_constant(tmp_path: Path) -> None:
    old, new = Net(patch=4), Net(patch=8)
    nn.init.constant_(old.embed.weight, 0.3)
    save_file(old.state_dict(), tmp_path / "w.safetensors")
    load_weights(new, tmp_path / "w.safetensors")
    torch.testing.assert_close(new.embed(torch.ones(1, 2, 8, 8)), old.embed(torch.ones(1, 2, 4, 4)))


def test_positions_keep_their_place(tmp_path: Path) -> None:
    """A ramp over the grid is still a ramp, in the same direction; the leading token is as it was."""
    old, new = Net(positions=17), Net(positions=1 + 2 * 8)
    down, across = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    ramp = torch.stack([down.flatten(), across.flatten()] * 4, dim=-1)
    old.pos = nn.Parameter(torch.cat([torch.full((1, 8), 7.0), ramp])[None])
    save_file(old.state_dict(), tmp_path / "w.safetensors")
    torch.save(old.state_dict(), tmp_path / "w.pt")
    new.pos = nn.Parameter(torch.zeros(1, 1 + 2 * 6, 8))
    load_weights(new, tmp_path / "w.safetensors", {"pos": (1, (2, 6))})
    grid = new.pos[0, 1:].reshape(2, 6, 8)
    assert torch.equal(new.pos[0, 0], torch.full((8,), 7.0))
    assert (grid[1, :, 0] > grid[0, :, 0] + 1).all() and (grid[:, 1:, 1] > grid[:, :-1, 1] - 0.1).all()
    torch.testing.assert_close(grid[:, 0, 1], grid[0, 0, 1].expand(2), rtol=0, atol=1e-5)


def test_positions_of_no_square_grid_do_not_fit(net: Net, tmp_path: Path) -> None:
    save_file({**net.state_dict(), "pos": torch.randn(1, 8, 8)}, tmp_path / "w.safetensors")
    assert "pos" in load_weights(net, tmp_path / "w.safetensors", {"pos": (1, (2, 2))}).unfit


def test_only_convolutions_are_interpolated(tmp_path: Path) -> None:
    class Other(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.cls = nn.Parameter(torch.randn(1, 1, width))
            self.depthwise = nn.Conv2d(4, 4, width, groups=4)
            self.same = nn.Linear(32, 32)

    save_file(Other(3).state_dict(), tmp_path / "w.safetensors")
    report = load_weights(Other(5), tmp_path / "w.safetensors")
    assert sorted(report.unfit) == ["cls", "depthwise.weight"] and not report.reshaped


def test_weights_of_something_else_are_refused(net: Net, tmp_path: Path) -> None:
    save_file({"conv.kernel": torch.ones(3)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"(?s)conv.kernel.*embed.bias"):
        load_weights(net, tmp_path / "w.safetensors")


def test_a_file_of_which_little_fits_is_refused(net: Net, tmp_path: Path) -> None:
    """A norm of the same name would be taken, and the rest stay random."""
    state = {name: tensor for name, tensor in net.state_dict().items() if not name.startswith("embed")}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"only \d+% of the tower is in it; without, for example, embed.weight"):
        load_weights(net, tmp_path / "w.safetensors")
    save_file({name: torch.zeros(3) for name in state}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"nothing in it fits the tower: pos is \[3\] in the file"):
        load_weights(net, tmp_path / "w.safetensors")


def test_of_a_student_and_a_teacher_the_teacher_is_taken(net: Net, tmp_path: Path) -> None:
    other = Net()
    both = {f"student.net.{name}": tensor for name, tensor in other.state_dict().items()}
    both |= {f"teacher.net.{name}": tensor for name, tensor in net.state_dict().items()}
    save_file(both, tmp_path / "w.safetensors")
    loaded = Net()
    load_weights(loaded, tmp_path / "w.safetensors")
    assert same(loaded, net) and not same(loaded, other)


def test_weights_say_where_they_come_from_without_a_place(net: Net, tmp_path: Path) -> None:
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    found = load_weights(Net(), tmp_path / "w.safetensors").origin()
    assert found == {"name": "w.safetensors", "sha256": sha256_of(tmp_path / "w.safetensors"), "licence": ""}
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    assert load_weights(Net(), tmp_path / "w.safetensors").origin()["licence"] == "cc-by-nc-4.0"
