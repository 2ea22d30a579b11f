"""Every command, YAML, Python line and link of README.md and docs/: run, or checked against the thing it names."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
README, DOCS = REPOSITORY / "README.md", REPOSITORY / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md")), REPOSITORY / "benchmarks" / "README.md"]
PART = DOCS / "adding-a-part.md"

QUICK = {"describe-model", "predict", "embed", "explain", "publish"}
"""Commands that are run where all that they name lies in the folder of the demo; of others the options are checked."""

USING = ["predict", "explain", "publish"]
"""What `make demo` does with its run, in this order."""

COMMANDS = """
import json, sys
from click.testing import CliRunner
from launch.cli import cli
for arguments in json.loads(sys.argv[1]):
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    print(*arguments, done.output, sep="\\n")
    assert done.exit_code == 0
"""


def blocks(language: str, *pages: Path) -> list[str]:
    found = [re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL) for page in pages or PAGES]
    return [text for of_page in found for text in of_page]


def commands() -> list[list[str]]:
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line]


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and mkdocs make it."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())


def anchors(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return [slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with configs/ and demo/, as `make demo` leaves it, of fewer patients, one epoch and two tasks.

    What stands in place of demo/finetuned is what the first lines of docs/python.md make.
    """
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    simulate, prepare, pretrain, _, simulate_new, prepare_new, *_ = steps_of_make()
    few = [[*simulate, "--patients", "60"], prepare, [*pretrain, "epochs=1"], simulate_new, prepare_new]
    run(["-c", COMMANDS, json.dumps(few)], folder)
    finetuned = run(["-c", blocks("python", DOCS / "python.md")[0]], folder)
    assert "subtype/probability/S1" in finetuned
    (folder / "demo" / "finetuned").symlink_to("quick")
    return folder


def steps_of_make() -> list[list[str]]:
    """What `make demo` calls."""
    lines = (REPOSITORY / "Makefile").read_text().splitlines()
    return [line.split("/chiasma ")[1].split() for line in lines if line.startswith("\t$(BIN)/chiasma ")]


def run(arguments: list[str], folder: Path, code: Path = REPOSITORY) -> str:
    environment = {"PYTHONPATH": str(code), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    environment |= {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return done.stdout


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) < 250


def test_make_targets_exist():
    targets = {command[1] for command in commands() if command[0] == "make"}
    listed = set(re.findall(r"^([a-z-]+):.*## ", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= targets <= listed


def test_the_demo_takes_every_step_and_names_pages_that_they_write():
    steps, text = steps_of_make(), (REPOSITORY / "Makefile").read_text()
    learning, using = ["simulate", "prepare", "pretrain", "finetune"], ["simulate", "prepare", *USING]
    assert [step[0] for step in steps] == [*learning, *using]
    configs = [yaml.safe_load((REPOSITORY / step[1]).read_text()) for step in steps[2:4]]
    folders = [(REPOSITORY / "configs" / "any" / config["out"]).resolve() for config in configs]
    reports = [f"{folder.relative_to(REPOSITORY)}/report.html" for folder in folders]
    outputs = {step[0]: step[-1] for step in steps[6:]}
    pages = [f"{steps[1][-1]}/summary.html", *reports, f"{outputs['explain']}/explanation.html"]
    pages.append("demo/published/README.md")
    assert re.findall(r'echo "  (\S+)', text) == pages and "demo/published" in steps[-1]


def test_every_chiasma_command_is_one_that_exists():
    from launch.cli import cli

    used = [command for command in commands() if command[0] == "chiasma"]
    assert {command[1] for command in used} >= {"doctor", "prepare", "pretrain", "finetune", "predict", "embed"}
    for command in used:
        options = {
            name
            for parameter in cli.commands[command[1]].params
            for each in (parameter.opts, parameter.secondary_opts)
            for name in each
        }
        assert {word for word in command if word.startswith("--")} <= options, command


def test_quick_commands_run_on_the_demo(demo):
    used = [command[1:] for command in commands() if command[0] == "chiasma" and command[1] in QUICK]
    chosen = [command for command in used if not any(re.match(r"(hf:|runs/|cohorts/)", word) for word in command)]
    chosen = [command for position, command in enumerate(chosen) if command not in chosen[:position]]
    assert {command[0] for command in chosen} == QUICK
    assert all(step in chosen for step in steps_of_make() if step[0] in USING)
    # Who reads a published folder needs it: what is made comes first.
    said = run(["-c", COMMANDS, json.dumps(sorted(chosen, key=lambda command: command[0] != "publish"))], demo)
    assert "name: new-patients" in said and "written: demo/new/predictions.parquet" in said
    assert (demo / "demo" / "new" / "explained" / "explanation.html").is_file()
    assert (demo / "demo" / "published" / "chiasma.json").is_file()


def test_every_yaml_is_valid(tmp_path):
    from finetune.config import FinetuneConfig, Network
    from finetune.publish.checklist import FILE as ABOUT
    from finetune.publish.checklist import read_about
    from foundation.cohort.spec import CohortSpec
    from foundation.config import load_config

    # What tells a document of each kind from others, and the class of it.
    kinds = {"design": None, "patients": CohortSpec, "towers": Network, "tasks": FinetuneConfig, "annotations": None}
    kinds["network"] = FinetuneConfig
    # What a page leaves out that shows a part.
    rest = {
        "towers": ["fusion={fusion: gated_mean}"],
        "network": ["cohort=cohort", "out=run", "tasks=[{task: subtype, endpoint: subtype}]"],
    }
    seen = set()
    for position, text in enumerate(blocks("yaml", *(page for page in PAGES if page != PART))):
        document = yaml.safe_load(text)
        key = next(key for key in kinds if key in document)
        seen.add(key)
        if key == "annotations":  # A part of a cohort: that of its page.
            [cohort, _] = blocks("yaml", DOCS / "cohorts.md")
            assert {*CohortSpec.model_validate(yaml.safe_load(cohort) | document).annotations} == {*document[key]}
            continue
        path = tmp_path / (ABOUT if key == "design" else f"{position}.yaml")
        path.write_text(text)
        if kind := kinds[key]:
            read = load_config(kind, path, rest.get(key, []))
            assert set(document) <= read.model_fields_set
        else:
            assert read_about(tmp_path).keys() == document.keys()
    assert seen == set(kinds)


@pytest.mark.parametrize("page", [README, DOCS / "finetuning.md"], ids=lambda page: page.name)
def test_tasks_fit_the_cohort_of_the_pages(page):
    (cohort, *_), (run, *_) = (
        [yaml.safe_load(text) for text in blocks("yaml", of)] for of in (DOCS / "cohorts.md", page)
    )
    assert {task["endpoint"]: task["task"] for task in run["tasks"]} == {
        name: endpoint["kind"] for name, endpoint in cohort["endpoints"].items()
    }
    assert {*run["modalities"], *run["covariates"]} <= set(cohort["modalities"])


def test_python_lines_run_on_the_demo(demo):
    expected = {README: ["os/median_time"], DOCS / "python.md": ["mri+rna", "torch.Size([16, 2, 40, 48, 24])"]}
    assert {page for page in PAGES if blocks("python", page)} == {*expected, PART}
    for page, outputs in expected.items():
        for script, output in zip(blocks("python", page)[-len(outputs) :], outputs, strict=True):
            assert output in run(["-c", script], demo)


def test_the_part_of_the_page_is_one_file_and_one_yaml(demo, tmp_path):
    """In a copy of the code it is found by name, passes the conformance tests of its kind, and trains."""
    (source,), (config,) = blocks("python", PART), blocks("yaml", PART)
    python, named_yaml = re.findall(
        r"`((?:foundation|configs)/[\w/.-]+(?<!base)\.(?:py|yaml))`[:;]?\n?\n?```", PART.read_text()
    )
    shutil.copytree(REPOSITORY / "foundation", tmp_path / "foundation", ignore=shutil.ignore_patterns("__pycache__"))
    for room in ("pretrain", "finetune", "launch", "tests", "pyproject.toml"):
        (tmp_path / room).symlink_to(REPOSITORY / room)
    (tmp_path / python).write_text(source)
    (demo / named_yaml).write_text(config)
    tests = ["-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", "tests/conformance/test_fusions.py"]
    assert " passed" in run([*tests, "-k", "scaled_mean"], tmp_path, tmp_path)
    run(["-m", "launch.cli", "pretrain", named_yaml], demo, tmp_path)
    assert "scaled_mean" in (demo / "demo" / "scaled-mean" / "model" / "config.json").read_text()


def test_the_reference_is_that_of_the_code():
    written = (DOCS / "configuration.md").read_text()
    found = run(
        ["-c", "from runpy import run_path; print(run_path('docs/make_reference.py')['page'](), end='')"], REPOSITORY
    )
    assert found == written, "run `python docs/make_reference.py`"


def test_links_lead_somewhere():
    for page in PAGES:
        assert len(set(anchors(page))) == len(anchors(page)) or page.name == "README.md", page
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
            there = page.parent / target if target else page
            assert there.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(there), f"{page.name}: {target}#{anchor}"


def test_every_page_is_in_the_site():
    site = yaml.safe_load((DOCS / "site" / "mkdocs.yml").read_text())
    assert {*re.findall(r"[\w-]+\.md", json.dumps(site["nav"]))} == {page.name for page in DOCS.glob("*.md")}
