"""Every command, YAML and Python line of README.md and docs/: run, or checked against the thing it names."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "benchmarks" / "README.md"]


def blocks(language: str) -> list[str]:
    return [text for page in PAGES for text in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)]


def commands() -> list[list[str]]:
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which demo/cohort exists, as `make demo` leaves it, with fewer patients."""
    folder = tmp_path_factory.mktemp("readme")
    for arguments in (["simulate", "demo/source", "--patients", "60"], prepare_of_make()):
        run(["-m", "launch.cli", *arguments], folder)
    return folder


def prepare_of_make() -> list[str]:
    line = next(line for line in (REPOSITORY / "Makefile").read_text().splitlines() if "chiasma prepare" in line)
    return line.split("chiasma ")[1].split()


def run(arguments: list[str], folder: Path) -> str:
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_targets_exist():
    targets = {command[1] for command in commands() if command[0] == "make"}
    listed = set(re.findall(r"^([a-z]+):.*## ", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= targets <= listed


def test_every_chiasma_command_is_one_that_exists():
    from launch.cli import cli

    used = [command for command in commands() if command[0] == "chiasma"]
    assert {command[1] for command in used} >= {"doctor", "prepare"}
    for command in used:
        options = {name for parameter in cli.commands[command[1]].params for name in parameter.opts}
        assert {word for word in command if word.startswith("--")} <= options, command


def test_the_minimal_cohort_is_valid(tmp_path):
    from foundation.cohort.spec import CohortSpec
    from foundation.config import load_config

    documents = blocks("yaml")
    assert documents
    for position, document in enumerate(documents):
        path = tmp_path / f"{position}.yaml"
        path.write_text(document)
        assert load_config(CohortSpec, path).name == yaml.safe_load(document)["name"]


def test_python_lines_run_on_the_demo(demo):
    scripts = blocks("python")
    assert scripts
    for script in scripts:
        assert "torch.Size([16, 2, 40, 48, 24])" in run(["-c", script], demo)


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
