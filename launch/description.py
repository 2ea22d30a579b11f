"""A description of a folder on the terminal, and its draft of a cohort.yaml in a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from foundation.cohort.describe.run import Description
from foundation.errors import ConfigError, WriteError, writing
from foundation.wording import counted, file_size


def print_description(description: Description, folder: Path) -> None:
    """Print what was found: modalities, patients, endpoints, and what has no place."""
    found = description.findings
    console = Console(highlight=False, soft_wrap=True)
    size = f"{counted(description.files, 'file')}, {file_size(description.bytes)}"
    console.print(f"{folder}: {found.portal or 'source files'}; {size}\n", markup=False)
    table = Table("modality", "kind", "from", "holds", box=None, header_style="bold", pad_edge=False)
    for name, modality in found.modalities.items():
        table.add_row(name, modality.recipe["kind"], modality.where, modality.holds)
    if found.patients:
        table.add_row("(patients)", "table", found.patients.file, counted(len(found.patients.patients), "patient"))
    console.print(table)
    for title, active in (("endpoints", True), ("could be endpoints", False)):
        chosen = {name: endpoint for name, endpoint in found.endpoints.items() if endpoint.active is active}
        if chosen:
            console.print(f"\n{title}")
            for name, endpoint in chosen.items():
                console.print(f"  {name} ({endpoint.recipe['kind']}): {endpoint.values}", markup=False)
    if found.aside:
        console.print("\nnot in the cohort")
        for where, why in found.aside:
            console.print(f"  {where}: {why}", markup=False)


def write_draft(description: Description, folder: Path, out: Path | None) -> None:
    """Write the draft where it was asked for, or print it where the folder itself cannot be written.

    Raises:
        ConfigError: The file is there already.
        WriteError: `out` cannot be written.
    """
    path = out or folder / "cohort.yaml"
    if path.exists():
        raise ConfigError(
            "is there already", where=str(path), fix="name another file with --out, or move this one away"
        )
    root = os.path.relpath(folder.resolve(), path.parent.resolve())
    try:
        with writing(path.parent, then="name another file with --out"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(description.yaml(root))
    except WriteError as error:
        if out is not None:
            raise
        print(f"{error}; printed instead:\n", file=sys.stderr)
        click.echo(description.yaml(str(folder.resolve())))
        return
    click.echo(
        f"\nwritten: {path}\nnext: read its comments, then chiasma prepare {path} --out {path.parent / 'cohort'}"
    )
