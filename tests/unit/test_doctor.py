"""The doctor: right about this machine, and about one that lacks things."""

from __future__ import annotations

import builtins
import importlib.metadata
import json
import platform

import pytest
from packaging.requirements import Requirement

from launch import doctor
from launch.cli import main


def by_name(findings) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in findings}


def test_this_machine_is_found_fit(capsys):
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    found = {(each["section"], each["name"]): each for each in report["findings"]}
    assert len(found) == len(report["findings"])
    assert found["chiasma", "Python"]["found"].startswith(platform.python_version())
    assert found["chiasma", "chiasma"]["found"] == importlib.metadata.version("chiasma")
    assert found["torch", "torch"]["found"].startswith(importlib.metadata.version("torch"))
    for name in ("cores", "memory", "disk here", "disk for temporary files"):
        assert found["machine", name]["found"]
    assert found["torch", "gloo"]["state"] == "ok"
    packages = {name for section, name in found if section == "packages"}
    assert {"torch", "monai", "datasets", "transformers", "numpy"} <= packages
    assert packages.isdisjoint({"pytest", "ruff"})


def test_tables_name_everything_and_the_commands(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    findings = (
        doctor.Finding(
            "packages", "monai", "not installed", "missing", "python -m pip install 'monai>=1.6,<2'" + " " * 60
        ),
        doctor.Finding("optional", "git", "[bold]not found", "absent", "sudo apt-get install git"),
        doctor.Finding("machine", "cores", "2 usable of 2"),
    )
    doctor.print_report(doctor.Report(findings))
    out = capsys.readouterr().out
    assert "  monai: python -m pip install 'monai>=1.6,<2'" in out.splitlines() or "monai: python -m pip" in out
    assert "[bold]not found" in out
    assert out.index("Needed:") < out.index("If you want it:") < out.index("sudo apt-get install git")
    assert "Something that is needed is missing." in out


def versions(monkeypatch, changed: dict[str, str | None]) -> None:
    real = doctor.installed_version
    monkeypatch.setattr(doctor, "installed_version", lambda name: changed[name] if name in changed else real(name))


def test_a_missing_package_is_told_with_its_command_and_exits_with_1(monkeypatch, capsys):
    versions(monkeypatch, {"monai": None})
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "monai: python -m pip install 'monai>=1.6,<2'" in out
    assert "Something that is needed is missing." in out


@pytest.mark.parametrize(
    ("version", "state"),
    [("1.5.9", "missing"), ("1.6.0", "ok"), ("1.9.2", "ok"), ("2.0", "missing"), ("1.7.0.dev1+local", "ok")],
)
def test_a_version_outside_the_tested_range_will_not_do(monkeypatch, version, state):
    monkeypatch.setattr(doctor, "required", lambda: [Requirement("monai>=1.6,<2")])
    versions(monkeypatch, {"monai": version})
    (finding,) = doctor._packages()
    assert finding.state == state
    assert version in finding.found
    assert (finding.fix == "python -m pip install 'monai>=1.6,<2'") == (state == "missing")


def test_only_what_this_machine_needs_is_required(monkeypatch):
    lines = [
        "numpy>=2",
        "deepspeed>=0.19; sys_platform == 'linux'",
        "pytest>=8; extra == 'test'",
        "x; sys_platform == 'no'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    names = {requirement.name for requirement in doctor.required()}
    assert "numpy" in names
    assert names.isdisjoint({"pytest", "x"})


def test_chiasma_that_is_not_installed_is_told(monkeypatch):
    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    monkeypatch.setattr(importlib.metadata, "requires", nothing)
    assert by_name(doctor._python())["chiasma"].state == "missing"
    assert list(doctor._packages()) == []


@pytest.mark.parametrize("error", [ImportError("No module named 'torch'"), OSError("libcudart.so.13: cannot open")])
def test_torch_that_cannot_be_imported_is_told(monkeypatch, error):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "torch":
            raise error
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    (finding,) = doctor._torch()
    assert finding.state == "missing"
    assert str(error) in finding.found
    assert "pip install" in finding.fix


class Torch:
    """As much of torch as the doctor looks at, on a machine that has GPUs."""

    def __init__(self, devices: int, bf16: bool = True, cuda: str | None = "13.2") -> None:
        class Device:
            name, total_memory = "H200", 141e9

        class Cuda:
            device_count = staticmethod(lambda: devices)
            get_device_properties = staticmethod(lambda index: Device)
            is_bf16_supported = staticmethod(lambda including_emulation: bf16)

        class Mps:
            is_available = staticmethod(lambda: False)

        self.cuda = Cuda
        self.version = type("Version", (), {"cuda": cuda})
        self.backends = type("Backends", (), {"mps": Mps})


def test_gpus_are_listed(monkeypatch):
    monkeypatch.setattr(doctor, "cpu_flags", lambda: {"avx512_bf16", "avx2"})
    found = by_name(doctor._devices(Torch(2)))
    assert found["CUDA device 1"].found == "H200, 141.0 GB"
    assert found["fast bf16"].found == "CPU (avx512_bf16) and GPU"


@pytest.mark.parametrize(
    ("cuda", "driver", "fix"),
    [
        ("13.2", "/bin/nvidia-smi", "update the driver"),
        ("13.2", None, "install the NVIDIA driver"),
        (None, None, "build of torch for CUDA"),
    ],
)
def test_no_gpu_limits_but_does_not_fail(monkeypatch, cuda, driver, fix):
    monkeypatch.setattr(doctor, "cpu_flags", set)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: driver)
    found = by_name(doctor._devices(Torch(0, cuda=cuda)))
    assert found["CUDA devices"].state == "absent"
    assert fix in found["CUDA devices"].fix
    assert found["fast bf16"].state == "absent"


def test_a_small_machine_is_told(monkeypatch):
    monkeypatch.setattr(doctor, "memory_limit", lambda: 2 * 10**9)
    monkeypatch.setattr(doctor, "free_disk", lambda folder: None if "shm" in str(folder) else 10**9)
    found = by_name(doctor._machine())
    assert found["memory"].state == "low"
    assert "limited to 2.0 GB" in found["memory"].found
    assert found["disk here"].state == "low"
    assert found["disk here"].fix
    assert "shared memory" not in found
    assert doctor.Report(tuple(found.values())).ok


@pytest.mark.parametrize(
    ("platform_name", "manager", "command"),
    [
        ("linux", "apt-get", "sudo apt-get install git"),
        ("linux", "dnf", "sudo dnf install git"),
        ("linux", None, "install git with the package manager of the system"),
        ("darwin", None, "xcode-select --install"),
    ],
)
def test_a_missing_tool_is_told_with_the_command_of_this_system(monkeypatch, platform_name, manager, command):
    monkeypatch.setattr(doctor.sys, "platform", platform_name)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name if name == manager else None)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    found = by_name(doctor._tools())
    assert found["git"].fix == command
    assert found["gdcm"].fix == "python -m pip install python-gdcm"
    assert {finding.state for finding in found.values()} == {"absent"}
