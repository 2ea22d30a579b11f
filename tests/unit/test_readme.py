"""Every command, YAML and Python line of README.md and docs/: run, or checked against the thing it names."""

from __future__ import annotations

import re
import shlex
import shutil
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
    """A folder with configs/ and demo/, as `make demo` leaves it, of fewer patients and one epoch."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    simulate, prepare, pretrain, _, simulate_new, prepare_new, *_ = steps_of_make()
    few = [[*simulate, "--patients", "60"], prepare, [*pretrain, "epochs=1"], simulate_new, prepare_new]
    for arguments in few:
        run(["-m", "launch.cli", *arguments], folder)
    return folder


def steps_of_make() -> list[list[str]]:
    """What `make demo` calls."""
    lines = (REPOSITORY / "Makefile").read_text().splitlines()
    return [line.split("/chiasma ")[1].split() for line in lines if line.startswith("\t$(BIN)/chiasma ")]


def run(arguments: list[str], folder: Path) -> str:
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_targets_exist():
    targets = {command[1] for command in commands() if command[0] == "make"}
    listed = set(re.findall(r"^([a-z-]+):.*## ", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= targets <= listed


def test_the_demo_takes_every_step_and_names_pages_that_they_write():
    steps, text = steps_of_make(), (REPOSITORY / "Makefile").read_text()
    learning, using = (
        ["simulate", "prepare", "pretrain", "finetune"],
        ["simulate", "prepare", "predict", "explain", "publish"],
    )
    assert [step[0] for step in steps] == [*learning, *using]
    configs = [yaml.safe_load((REPOSITORY / step[1]).read_text()) for step in steps[2:4]]
    folders = [(REPOSITORY / "configs" / "any" / config["out"]).resolve() for config in configs]
    reports = [f"{folder.relative_to(REPOSITORY)}/report.html" for folder in folders]
    outputs = {step[0]: step[-1] for step in steps[6:]}
    pages = [
        f"{steps[1][-1]}/summary.html",
        *reports,
        f"{outputs['explain']}/explanation.html",
        "demo/published/README.md",
    ]
    assert re.findall(r'echo "  (\S+)', text) == pages and "demo/published" in steps[-1]


def test_every_chiasma_command_is_one_that_exists():
    from launch.cli import cli

    used = [command for command in commands() if command[0] == "chiasma"]
    assert {command[1] for command in used} >= {"doctor", "prepare", "pretrain", "finetune"}
    for command in used:
        options = {name for parameter in cli.commands[command[1]].params for name in parameter.opts}
        assert {word for word in command if word.startswith("--")} <= options, command


def test_every_yaml_is_valid(tmp_path):
    from finetune.config import FinetuneConfig
    from foundation.cohort.spec import CohortSpec
    from foundation.config import load_config

    documents = [yaml.safe_load(document) for document in blocks("yaml")]
    assert {"patients" in document for document in documents} == {True, False}
    for position, document in enumerate(documents):
        path = tmp_path / f"{position}.yaml"
        path.write_text(blocks("yaml")[position])
        read = load_config(CohortSpec if "patients" in document else FinetuneConfig, path)
        assert set(document) <= read.model_fields_set


def test_tasks_of_the_readme_fit_the_cohort_of_the_readme():
    cohort, run = (yaml.safe_load(document) for document in blocks("yaml"))
    assert {task["endpoint"]: task["task"] for task in run["tasks"]} == {
        name: endpoint["kind"] for name, endpoint in cohort["endpoints"].items()
    }
    assert {*run["modalities"], *run["covariates"]} <= set(cohort["modalities"])


def test_python_lines_run_on_the_demo(demo):
    expected = ["subtype/probability/S1", "subtype/set", "torch.Size([16, 2, 40, 48, 24])"]
    for script, output in zip(blocks("python"), expected, strict=True):
        assert output in run(["-c", script], demo)
    # What `make demo` does with its run holds of the quick one of the lines above, which takes its place.
    for step in [step for step in steps_of_make() if step[0] in ("predict", "explain", "publish")]:
        run(["-m", "launch.cli", *("demo/quick" if word == "demo/finetuned" else word for word in step)], demo)
    assert (demo / "demo" / "new" / "explained" / "explanation.html").is_file()
    assert (demo / "demo" / "published" / "chiasma.json").is_file()


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
