"""docs/scaling.md against what its commands print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from launch.cli import main
from pretrain.planning import plan
from pretrain.planning.step_without_data import run_step

REPOSITORY = Path(__file__).parents[4]
SHOWN = re.findall(
    r"```sh\n(chiasma [^\n]*)\n```\n\n```text\n(.*?)```", (REPOSITORY / "docs" / "scaling.md").read_text(), re.DOTALL
)
DECIDES_NOTHING = {"cohort", "batch_size", "strategy"}
"""Keys by which the commands differ, and a step without data does not."""


@pytest.fixture(scope="module")
def once():
    """Each step without data is run once for all commands; it takes long, and is looked at elsewhere."""
    known = {}

    def step(config, cohort, records):
        key = config.model_dump_json(exclude=DECIDES_NOTHING), repr(cohort.modalities), records
        if key not in known:
            known[key] = run_step(config, cohort, records)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "run_step", step)
        yield


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("command", "expected"), SHOWN, ids=range(len(SHOWN)))
def test_the_page_shows_what_its_commands_print(command, expected, once, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    # As wide as its widest table.
    monkeypatch.setenv("COLUMNS", "140")
    assert main(shlex.split(command)[1:]) == 0
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert "\n".join(printed).strip("\n") == expected.strip("\n")


def test_the_page_has_8_64_and_512_gpus_twice():
    assert len(SHOWN) == 2
    for command, _ in SHOWN:
        assert re.findall(r"--gpus (\d+)", command) == ["8", "64", "512"]
