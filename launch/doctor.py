"""`chiasma doctor`: what this machine can do, what is missing, and the command that adds it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from launch.machine import cpu_flags, free_disk, memory_limit, usable_cores

if TYPE_CHECKING:
    from packaging.requirements import Requirement

State = Literal["ok", "absent", "low", "missing"]
"""`absent` and `low` limit what can be done; `missing` means that chiasma does not work."""

GIGABYTE = 1e9
LEAST_MEMORY = 8 * GIGABYTE
LEAST_DISK = 10 * GIGABYTE
LEAST_SHARED_MEMORY = 1 * GIGABYTE
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}

OPTIONAL = {
    "pylibjpeg": ("compressed DICOM: JPEG, JPEG 2000", "pylibjpeg pylibjpeg-openjpeg"),
    "gdcm": ("compressed DICOM: JPEG, JPEG-LS, JPEG 2000", "python-gdcm"),
    "highdicom": ("explanations of scans as DICOM parametric maps", "highdicom"),
    "s3fs": ("cohorts at s3://", "s3fs"),
    "gcsfs": ("cohorts at gs://", "gcsfs"),
    "aiohttp": ("cohorts at https://", "aiohttp"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        section: The heading it stands under.
        name: What was checked.
        found: What is there.
        state: Whether that will do.
        fix: The command that adds it, or what to do; empty where it is there.
    """

    section: str
    name: str
    found: str
    state: State = "ok"
    fix: str = ""


@dataclass(frozen=True)
class Report:
    """All findings."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is there without which chiasma does not work."""
        return all(finding.state != "missing" for finding in self.findings)


def examine() -> Report:
    """Check everything."""
    return Report((*_python(), *_machine(), *_torch(), *_packages(), *_tools()))


def to_json(report: Report) -> str:
    """A report as one JSON object: `ok`, and `findings` with the attributes of `Finding`."""
    return json.dumps({"ok": report.ok, "findings": [asdict(finding) for finding in report.findings]}, indent=2)


def print_report(report: Report) -> None:
    """Print a report as tables, and what to do about what is missing below them."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    colours = {"ok": "green", "absent": "yellow", "low": "yellow", "missing": "red"}
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("", "what", "found", "state"):
        table.add_column(column)
    section = ""
    for finding in report.findings:
        heading = "" if finding.section == section else finding.section
        section = finding.section
        table.add_row(heading, Text(finding.name), Text(finding.found), Text(finding.state, colours[finding.state]))
    console.print(table)
    for heading, states in (("Needed:", ("missing",)), ("If you want it:", ("absent", "low"))):
        todo = [finding for finding in report.findings if finding.state in states and finding.fix]
        if todo:
            console.print(Text(heading, "bold"))
        for finding in todo:
            # A command stays on one line, to be copied.
            console.print(Text(f"  {finding.name}: {finding.fix}"), soft_wrap=True)
    console.print("All that is needed is here." if report.ok else "Something that is needed is missing.")


def _python() -> Iterable[Finding]:
    old = sys.version_info < (3, 11)
    yield Finding(
        "chiasma",
        "Python",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "missing" if old else "ok",
        "install Python 3.11 or newer" if old else "",
    )
    version = installed_version("chiasma")
    yield Finding(
        "chiasma",
        "chiasma",
        version or "not installed",
        "ok" if version else "missing",
        "" if version else "python -m pip install --editable .",
    )


def _machine() -> Iterable[Finding]:
    cores = usable_cores()
    yield Finding("machine", "cores", f"{cores} usable of {os.cpu_count() or cores}")
    yield from _memory()
    for name, folder, least, fix in (
        ("disk here", Path.cwd(), LEAST_DISK, "work where there is more room"),
        ("disk for temporary files", Path(tempfile.gettempdir()), LEAST_DISK, "export TMPDIR=a folder with more room"),
        ("shared memory", Path("/dev/shm"), LEAST_SHARED_MEMORY, "in a container: docker run --shm-size=8g …"),
    ):
        free = free_disk(folder)
        if free is not None:
            yield _at_least(name, f"{_gigabytes(free)} free in {folder}", free, least, fix)


def _memory() -> Iterable[Finding]:
    if importlib.util.find_spec("psutil") is None:
        return  # Told among the packages.
    import psutil

    memory = psutil.virtual_memory()
    limit = memory_limit()
    usable = min(memory.total, limit or memory.total)
    found = f"{_gigabytes(memory.available)} free of {_gigabytes(memory.total)}"
    found += f", limited to {_gigabytes(limit)}" if limit and limit < memory.total else ""
    yield _at_least("memory", found, usable, LEAST_MEMORY, "use few workers and small batches")


def _at_least(name: str, found: str, amount: float, least: float, fix: str) -> Finding:
    enough = amount >= least
    return Finding("machine", name, found, "ok" if enough else "low", "" if enough else fix)


def _torch() -> Iterable[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("torch", "torch", _one_line(error), "missing", "python -m pip install --force-reinstall torch")
        return
    build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    yield Finding("torch", "torch", f"{torch.__version__}, built {build}")
    yield from _devices(torch)
    yield from _communication(torch.distributed)


def _devices(torch: Any) -> Iterable[Finding]:
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    for index, device in enumerate(devices):
        yield Finding("torch", f"CUDA device {index}", f"{device.name}, {_gigabytes(device.total_memory)}")
    if not devices:
        yield Finding("torch", "CUDA devices", "none", "absent", _no_devices(torch.version.cuda))
    if torch.backends.mps.is_available():
        yield Finding("torch", "MPS", "Apple GPU")
    on = sorted(BF16_FLAGS & cpu_flags())
    fast = [f"CPU ({', '.join(on)})"] if on else []
    fast += ["GPU"] if devices and torch.cuda.is_bf16_supported(including_emulation=False) else []
    yield Finding(
        "torch", "fast bf16", " and ".join(fast) or "none; float32 is faster here", "ok" if fast else "absent"
    )


def _no_devices(cuda: str | None) -> str:
    if cuda is None:
        return "install the build of torch for CUDA, if there is an NVIDIA GPU"
    if shutil.which("nvidia-smi"):
        return f"there is an NVIDIA driver: run nvidia-smi, and update the driver if it is older than CUDA {cuda}"
    return "install the NVIDIA driver, if there is an NVIDIA GPU"


def _communication(distributed: Any) -> Iterable[Finding]:
    if not distributed.is_available():
        yield Finding("torch", "several processes", "this torch was built without", "absent", "install another torch")
        return
    for name, there, used_for in (
        ("NCCL", distributed.is_nccl_available(), "several GPUs"),
        ("gloo", distributed.is_gloo_available(), "several processes on CPU"),
    ):
        yield Finding("torch", name, f"for {used_for}" if there else "not in this torch", "ok" if there else "absent")


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def required() -> list[Requirement]:
    """The core dependencies of chiasma that apply to this machine, each with its tested range."""
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires("chiasma") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    requirements = map(Requirement, lines)
    return [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]


def _packages() -> Iterable[Finding]:
    for requirement in required():
        name, tested = requirement.name, ",".join(sorted(map(str, requirement.specifier), reverse=True))
        version = installed_version(name)
        command = f"python -m pip install '{name}{tested}'"
        if version is None:
            yield Finding("packages", name, f"not installed (tested: {tested})", "missing", command)
        elif not requirement.specifier.contains(version, prereleases=True):
            yield Finding("packages", name, f"{version} is not in the tested range {tested}", "missing", command)
        else:
            yield Finding("packages", name, f"{version} (tested: {tested})")


def _tools() -> Iterable[Finding]:
    compiler = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    yield _tool("C compiler", compiler, "compiled kernels of DeepSpeed and torch", _system_package("gcc"))
    yield _tool("git", shutil.which("git"), "which version of the code a run used", _system_package("git"))
    yield _tool("nvidia-smi", shutil.which("nvidia-smi"), "the state of NVIDIA GPUs", "comes with the NVIDIA driver")
    yield _tool("SLURM", shutil.which("srun"), "jobs on a cluster", "start chiasma on a login node of the cluster")
    for module, (purpose, packages) in OPTIONAL.items():
        there = module if importlib.util.find_spec(module) else None
        yield _tool(module, there, purpose, f"python -m pip install {packages}")


def _tool(name: str, found: str | None, purpose: str, fix: str) -> Finding:
    if found:
        return Finding("optional", name, f"{Path(found).name}: {purpose}")
    return Finding("optional", name, f"not found: {purpose}", "absent", fix)


def _system_package(name: str) -> str:
    """The command that adds a package of the operating system."""
    if sys.platform == "darwin":
        return "xcode-select --install"
    for manager, command in (("apt-get", "apt-get install"), ("dnf", "dnf install"), ("zypper", "zypper install")):
        if shutil.which(manager):
            return f"sudo {command} {name}"
    return f"install {name} with the package manager of the system"


def _gigabytes(amount: float) -> str:
    return f"{amount / GIGABYTE:.1f} GB"


def _one_line(error: BaseException) -> str:
    return f"cannot be imported: {' '.join(str(error).split())}"
