"""Imports flow one way: launch to pretrain and finetune, those to foundation, there room to room, and in no circle."""

from __future__ import annotations

import ast
import graphlib
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

ROOMS = [
    "files",
    "hub",
    "report",
    "metrics",
    "linear",
    "cohort",
    "simulation",
    "data",
    "finding",
    "model",
    "objectives",
    "training",
]
"""Of foundation, each of which may import those before it, and the files that lie in foundation itself."""


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


def modules(root: Path) -> dict[str, Path]:
    """Every module of the project below `root`, by its dotted name."""
    paths = [path for room in ALLOWED for path in sorted((root / room).rglob("*.py"))]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports_of(name: str, known: dict[str, Path], *, everywhere: bool) -> set[str]:
    """Modules of the project that a module imports: everywhere in it, or where it is itself imported."""
    tree = ast.parse(known[name].read_text(encoding="utf-8"))
    inner = () if everywhere else (ast.FunctionDef, ast.AsyncFunctionDef)
    found, waiting = set(), list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, inner):
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {each if each in known else node.module for each in below}
    return {each for each in found if each in known and each != name}


def room_of(module: str) -> str | None:
    """Room of foundation that a module is in; None for one that lies in foundation itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "foundation" and len(parts) > 1 and parts[1] in ROOMS else None


def upwards(root: Path) -> list[str]:
    """Imports from a room of foundation, or from foundation itself, into a room that comes later."""
    known, found = modules(root), []
    for name in known:
        if not name.startswith("foundation."):
            continue
        own = room_of(name)
        for other in sorted(imports_of(name, known, everywhere=True)):
            theirs = room_of(other)
            if theirs is not None and (own is None or ROOMS.index(theirs) > ROOMS.index(own)):
                found.append(f"{name} imports {other}")
    return found


def circles(root: Path) -> list[list[str]]:
    """Modules that import each other, directly or by way of others, when they are imported."""
    known = modules(root)
    arrows = {name: imports_of(name, known, everywhere=False) for name in known}
    sorter = graphlib.TopologicalSorter(arrows)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        return [error.args[1]]
    return []


def test_every_room_of_foundation_has_its_place_in_the_order():
    folders = {path.name for path in (REPOSITORY / "foundation").iterdir() if (path / "__init__.py").is_file()}
    assert folders == set(ROOMS)


def test_inside_foundation_imports_go_down():
    assert upwards(REPOSITORY) == []


def test_no_modules_import_each_other():
    assert circles(REPOSITORY) == []


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    "files",
    [
        {"foundation/data/a.py": "from foundation.model.b import x", "foundation/model/b.py": ""},
        {"foundation/data/a.py": "def f():\n    from foundation.model import b", "foundation/model/b.py": ""},
        {"foundation/a.py": "import foundation.files.b", "foundation/files/b.py": ""},
    ],
)
def test_an_import_into_a_later_room_is_found(tmp_path, files):
    write(tmp_path, files)
    assert len(upwards(tmp_path)) == 1


def test_a_circle_is_found_but_for_one_that_is_closed_in_a_function(tmp_path):
    write(tmp_path, {"pretrain/a.py": "from pretrain.b import x", "pretrain/b.py": "def f():\n    import pretrain.a"})
    assert circles(tmp_path) == []
    write(tmp_path, {"pretrain/b.py": "from pretrain import c", "pretrain/c.py": "import pretrain.a"})
    [circle] = circles(tmp_path)
    assert set(circle) == {"pretrain.a", "pretrain.b", "pretrain.c"}
