"""The prepared cohort that a command reads into a table: one that is named, or one that is prepared on the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from launch.progress import Progress


def reads_cohort(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command what `prepared` wants, `cohort`, `source` and `root`; and `out`, the table that it writes."""
    parameters = [
        click.argument("cohort", metavar="[COHORT]", required=False, type=str),
        click.option("--out", type=click.Path(path_type=Path), required=True, help="The Parquet file to write."),
        click.option(
            "--from",
            "source",
            type=click.Path(dir_okay=False, path_type=Path),
            help="A cohort.yaml, instead of a prepared cohort: it is prepared on the way.",
        ),
        click.option(
            "--root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="As of `chiasma prepare`."
        ),
    ]
    for parameter in reversed(parameters):
        command = parameter(command)
    return command


@contextmanager
def prepared(
    cohort: str | None, source: Path | None, root: Path | None, *, beside: Path, progress: Progress
) -> Iterator[Path | str]:
    """A prepared cohort.

    Args:
        cohort: Its folder or URL; None where it is to be prepared.
        source: The cohort.yaml to prepare it from; None where it is there.
        root: Folder of the source files.
        beside: File that is made from it: it is prepared beside that, so that a stopped command goes on.
        progress: Told of the preparation.

    Raises:
        click.UsageError: Neither or both are named.
    """
    if (cohort is None) == (source is None):
        raise click.UsageError("name either a prepared COHORT, or --from a cohort.yaml")
    if cohort is not None:
        yield cohort
        return
    from foundation.cohort.prepare import prepare
    from launch.machine import usable_cores

    assert source is not None
    folder = beside.with_name(f".{beside.name}.cohort")
    prepare(source, out=folder, root=root, workers=usable_cores(), progress=progress)
    yield folder
    shutil.rmtree(folder)
