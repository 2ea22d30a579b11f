"""What is stated about the distribution is true of the tree: packages, dependencies, pins and the version."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("foundation", "pretrain", "finetune", "launch")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
CORE = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
EXTRAS = [
    Requirement(line)
    for extra, lines in PROJECT["project"]["optional-dependencies"].items()
    if extra not in ("docs", "test", "lint")
    for line in lines
]
PINS = [
    line
    for line in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
COMES_WITH = {"pydantic-core": "pydantic"}
"""Libraries that are imported and that another one's own interface tells to import."""


def modules() -> list[Path]:
    return [path for room in ROOMS for path in sorted((REPOSITORY / room).rglob("*.py"))]


def test_every_package_is_found_and_no_other():
    from setuptools import find_packages

    folders = {path.parent.relative_to(REPOSITORY) for path in modules()}
    found = find_packages(str(REPOSITORY), include=PROJECT["tool"]["setuptools"]["packages"]["find"]["include"])
    assert sorted(found) == sorted(".".join(folder.parts) for folder in folders)


def test_every_room_is_type_checked():
    rooms = {path.relative_to(REPOSITORY).parts[0] for path in modules()}
    assert set(PROJECT["tool"]["basedpyright"]["include"]) == {"chiasma.py", *rooms}


def test_files_beside_the_code_are_shipped():
    """A file that code reads is lost on installation unless package-data names it."""
    shipped = PROJECT["tool"]["setuptools"].get("package-data", {})
    for room in ROOMS:
        for path in sorted((REPOSITORY / room).rglob("*")):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                package = ".".join(path.parent.relative_to(REPOSITORY).parts)
                assert any(path.match(pattern) for pattern in shipped.get(package, [])), path


def test_the_version_stands_in_one_place():
    version = PROJECT["project"]["version"]
    assert str(Version(version)) == version
    assert importlib.metadata.version("chiasma") == version
    assert [path for path in modules() if f'"{version}"' in path.read_text(encoding="utf-8")] == []
    assert f"## {version}" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_imported_library_is_declared():
    owners = importlib.metadata.packages_distributions()
    declared = {canonicalize_name(requirement.name) for requirement in CORE + EXTRAS}
    undeclared = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - set(ROOMS) - set(sys.stdlib_module_names):
                candidates = {canonicalize_name(owner) for owner in owners.get(top, [top])}
                candidates |= {COMES_WITH[name] for name in candidates if name in COMES_WITH}
                if not candidates & declared:
                    undeclared.add(f"{path.relative_to(REPOSITORY)} imports {top}")
    assert undeclared == set()


def test_pins_are_versions_and_nothing_else():
    assert [pin for pin in PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", pin)] == []
    names = [canonicalize_name(pin.split("==")[0]) for pin in PINS]
    assert len(set(names)) == len(names)
    assert "chiasma" not in names


@pytest.mark.parametrize("group", ["core", "docs", "test", "lint"])
def test_every_dependency_is_pinned_within_its_range(group):
    requirements = CORE if group == "core" else map(Requirement, PROJECT["project"]["optional-dependencies"][group])
    pinned = {canonicalize_name(name): version for name, version in (pin.split("==") for pin in PINS)}
    for requirement in requirements:
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), str(requirement)


def test_every_core_dependency_states_its_lowest_tested_version():
    assert [str(each) for each in CORE if not any(part.operator == ">=" for part in each.specifier)] == []


def test_the_licence_is_the_one_that_is_stated():
    text = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", text)
    assert "END OF TERMS AND CONDITIONS" in text


def test_ci_runs_what_the_makefile_offers():
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    (loop,) = re.findall(r"^for target in (.*); do$", script, re.MULTILINE)
    assert loop.split()[0] == "test"
    assert set(loop.split()) <= targets
    assert {"demo", "test", "lint", "bench", "clean", "help"} <= targets


@pytest.mark.parametrize("version", ["(3, 10, 0)", "(3, 11, 0)"])
def test_make_refuses_an_old_python(tmp_path, version):
    """The check of the Makefile, run by a script that answers like an interpreter of that version."""
    makefile = tmp_path / "Makefile"
    makefile.write_text((REPOSITORY / "Makefile").read_text(encoding="utf-8"), encoding="utf-8")
    stand_in = tmp_path / "python-of-test"
    pretend = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
    stand_in.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exec "{sys.executable}" -c "{pretend}" "$2"\nexit 1\n', encoding="utf-8"
    )
    stand_in.chmod(0o755)
    done = subprocess.run(
        ["make", "-C", str(tmp_path), f"PYTHON={stand_in}", ".venv/bin/python"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert ("needs Python 3.11 or newer" in done.stdout) == (version == "(3, 10, 0)")
    assert ("python3-venv" in done.stdout) == (version == "(3, 11, 0)")
    assert not (tmp_path / ".venv").exists()
