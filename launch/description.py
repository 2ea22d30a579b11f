"""What `chiasma describe` found (modalities, endpoints, what has no place) on the terminal; its draft in a file."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from foundation.cohort.describe.run import Description
from foundation.errors import ConfigError, WriteError, writing
from foundation.files.whole import make_folder
from foundation.wording import counted, file_size


def print_description(description: Description, folder: Path, console: Console | None = None) -> None:
    """Print what was found: modalities, patients, endpoints, and what has no place.

    Args:
        description: What was found.
        folder: Where.
        console: Where to print; stdout by default.
    """
    found, console = description.findings, console or Console()
    size = f"{counted(description.files, 'file')}, {file_size(description.bytes)}"
    lines = [f"{folder}: {found.portal or 'source files'}; {size}"]
    if found.patients:
        lines += ["", f"{counted(len(found.patients.patients), 'patient')}: {found.patients.file}"]
    lines += ["", "modalities"]
    for name, modality in found.modalities.items():
        lines += [f"  {name} ({modality.recipe['kind']}): {modality.where}", f"    {modality.holds}"]
    for title, active in (("endpoints", True), ("could be endpoints", False)):
        chosen = {name: endpoint for name, endpoint in found.endpoints.items() if endpoint.active is active}
        lines += ["", title] * bool(chosen)
        lines += [f"  {name} ({endpoint.recipe['kind']}): {endpoint.values}" for name, endpoint in chosen.items()]
    lines += ["", "not in the cohort"] * bool(found.aside)
    lines += [f"  {where}: {why}" for where, why in found.aside]
    # A path stays on one line, to be copied.
    console.print(Text("\n".join(lines)), soft_wrap=True)


def refuse_another(path: Path) -> None:
    """Never write over a file of somebody's decisions.

    Raises:
        ConfigError: The file is there already.
    """
    if path.exists():
        raise ConfigError("is there already", where=str(path), fix="name another file with --out, or move it away")


def write_draft(description: Description, folder: Path, out: Path | None) -> None:
    """Write the draft where it was asked for, or print it where the folder itself cannot be written.

    Raises:
        ConfigError: The file is there already.
        WriteError: `out` cannot be written; nothing half written is left.
    """
    path = out or folder / "cohort.yaml"
    refuse_another(path)
    partial = path.with_name(f".{path.name}.partial")
    if out is not None:
        make_folder(path.parent, named=path.parent, fix="name another file with --out")
    try:
        with writing(path.parent, then="start it again"):
            partial.write_text(description.yaml(_root(folder, path.parent)), encoding="utf-8")
            partial.rename(path)
    except FileNotFoundError:
        raise ConfigError("no file can be made there", where=str(path), fix="name another file with --out") from None
    except WriteError as error:
        with suppress(OSError):
            partial.unlink()
        if out is not None:
            raise
        print(f"{error.where}: {error.what}, so cohort.yaml is printed here", file=sys.stderr)
        click.echo("\n" + description.yaml(str(folder.resolve())), nl=False)
        return
    click.echo(f"\nwritten: {path}")
    prepare = shlex.join(["chiasma", "prepare", str(path), "--out", str(path.parent / "cohort")])
    click.echo(f"next: read its comments, then {prepare}")


def _root(folder: Path, place: Path) -> str:
    """The folder as a YAML in `place` names it."""
    return os.path.relpath(folder.resolve(), place.resolve())
