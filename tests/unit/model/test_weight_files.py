"""Files of weights: what is read from which format, what is refused, and that nothing in them is run."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from foundation.errors import CheckpointError, ConfigError
from foundation.model.weight_files import read_weights


@pytest.fixture
def net() -> nn.Linear:
    return nn.Linear(8, 8)


def same(found: dict[str, torch.Tensor], net: nn.Module) -> bool:
    own = net.state_dict()
    return found.keys() == own.keys() and all(torch.equal(found[name], own[name]) for name in own)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module", "network_weights"])
def test_weights_are_found_within_what_a_trainer_saves(net: nn.Linear, tmp_path: Path, wrapper: str) -> None:
    torch.save({"epoch": 3, wrapper: {"state_dict": net.state_dict()}, "optimizer": {"lr": 0.1}}, tmp_path / "w.pt")
    assert same(read_weights(tmp_path / "w.pt"), net)


@pytest.mark.parametrize("file", ["models/model.pt", "model.safetensors"])
def test_a_bundle_is_a_folder(net: nn.Linear, tmp_path: Path, file: str) -> None:
    (tmp_path / "models").mkdir()
    save = save_file if file.endswith("safetensors") else torch.save
    save(net.state_dict(), tmp_path / file)
    assert same(read_weights(tmp_path), net)


class Hostile:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_hostile_pickle_is_refused_and_not_run(net: nn.Linear, tmp_path: Path, how: str) -> None:
    content = {"state_dict": net.state_dict(), "extra": Hostile(tmp_path / "ran")}
    if how == "torch":
        torch.save(content, tmp_path / "w.pt")
    else:
        (tmp_path / "w.pt").write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match="refused"):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("damage", ["empty", "half", "text"])
def test_a_damaged_file_is_one_clear_error(net: nn.Linear, tmp_path: Path, file: str, damage: str) -> None:
    path = tmp_path / file
    save_file(net.state_dict(), path) if file.endswith("safetensors") else torch.save(net.state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "text": b"<html>not found</html>"}[damage])
    with pytest.raises(CheckpointError, match=r"(?s)w\..*what to do"):
        read_weights(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.ones(2)])
def test_a_file_without_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="no tensors"):
        read_weights(tmp_path / "w.pt")


def test_a_missing_file_or_empty_folder_is_the_configs_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_weights(tmp_path / "absent.pt")
    with pytest.raises(ConfigError, match="holds none of"):
        read_weights(tmp_path)
