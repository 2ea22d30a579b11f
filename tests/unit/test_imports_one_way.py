"""Imports flow one way: launch to pretrain and finetune, and those to foundation."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

ALLOWED = {
    "foundation": set(),
    "pretrain": {"foundation"},
    "finetune": {"foundation"},
    "launch": {"foundation", "pretrain", "finetune"},
}
OUTSIDE = {"tests", "benchmarks"}


def imported(path: Path) -> list[tuple[int, str]]:
    """Line and top-level name of every absolute import in a file, also of those in a function or by name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        found += [(node.lineno, name.split(".")[0]) for name in names]
    return found


def violations(root: Path) -> list[str]:
    """Every import against the flow below `root`."""
    found = []
    for room, allowed in ALLOWED.items():
        forbidden = (set(ALLOWED) | OUTSIDE) - allowed - {room}
        for path in sorted((root / room).rglob("*.py")):
            found += [
                f"{path.relative_to(root)}:{line} imports {name}" for line, name in imported(path) if name in forbidden
            ]
    return found


def test_no_import_goes_against_the_flow():
    assert list((REPOSITORY / "foundation").rglob("*.py"))
    assert violations(REPOSITORY) == []


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("foundation", "import launch.cli"),
        ("foundation", "from pretrain import run"),
        ("foundation/cohort", "def f():\n    from finetune.tasks import survival"),
        ("pretrain", "import finetune"),
        ("finetune/tasks", "from pretrain.config import X"),
        ("pretrain", "from launch import distributed"),
        ("foundation", "import importlib\nimportlib.import_module('launch.cli')"),
        ("launch", "from tests import conftest"),
    ],
)
def test_an_import_against_the_flow_is_found(tmp_path, room, line):
    (tmp_path / room).mkdir(parents=True)
    (tmp_path / room / "part.py").write_text(line, encoding="utf-8")
    assert len(violations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("launch", "import pretrain, finetune, foundation"),
        ("pretrain", "from foundation.config import Config"),
        ("foundation", "from foundation import errors\nimport launchpad"),
        ("foundation", "from . import launch"),
    ],
)
def test_an_import_with_the_flow_is_let_through(tmp_path, room, line):
    (tmp_path / room).mkdir(parents=True)
    (tmp_path / room / "part.py").write_text(line, encoding="utf-8")
    assert violations(tmp_path) == []
