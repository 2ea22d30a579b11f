"""The prepared cohort that a command reads into a table: one that is named, or one that is prepared on the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from foundation.wording import counted

if TYPE_CHECKING:
    from launch.progress import Progress

COHORT, QUARANTINE = "cohort", "quarantine.tsv"


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
        beside: Table that is made from it: it is prepared beside that, so that a stopped command goes on.
        progress: Told of the preparation.

    Raises:
        click.UsageError: Neither or both are named, or source files of a cohort that is prepared.
        ConfigError: No table can be written to `beside`.
        DataError: The sources cannot be used; nothing of the preparation is left then but the list of what is wrong.
    """
    from foundation.files.parts import refuse_foreign

    if (cohort is None) == (source is None):
        raise click.UsageError("name either a prepared COHORT, or --from a cohort.yaml")
    refuse_foreign(beside)
    if cohort is not None:
        if root is not None:
            raise click.UsageError("--root goes with --from: a prepared cohort needs no source files")
        yield cohort
        return
    from foundation.errors import writing
    from foundation.files.lock import held
    from foundation.files.whole import make_folder

    assert source is not None
    place, listed = beside.with_name(f".{beside.name}.from"), beside.with_name(f"{beside.name}.quarantine.tsv")
    with writing(place):
        make_folder(place, named=beside.parent, fix="write to another folder")
    alone = held(beside, working=place, doing="is being made", fix="wait for it, or write to another file")
    with alone, _left_clean(place, listed, source):
        quarantined = _prepare(source, place / COHORT, root, progress)
        yield place / COHORT
        if quarantined:
            shutil.copy(place / COHORT / QUARANTINE, listed)
        shutil.rmtree(place)
    if quarantined:
        click.echo(f"{counted(quarantined, 'scan or sample', 'scans or samples')} could not be used: {listed} says why")


def _prepare(source: Path, folder: Path, root: Path | None, progress: Progress) -> int:
    """Prepare, or go on with it; returns how many scans and samples were set aside."""
    from foundation.cohort.manifest import FILE
    from foundation.cohort.prepare import prepare
    from foundation.errors import DataError
    from launch.machine import usable_cores

    finished = (folder / FILE).is_file()
    try:
        return prepare(source, out=folder, root=root, workers=usable_cores(), progress=progress).quarantined
    except DataError:
        if not finished:
            raise
    # Of a command that was stopped later on, and whose sources or YAML have changed since.
    shutil.rmtree(folder)
    return prepare(source, out=folder, root=root, workers=usable_cores(), progress=progress).quarantined


@contextmanager
def _left_clean(place: Path, listed: Path, source: Path) -> Iterator[None]:
    """After a refusal keep nothing but the list of what was set aside, and name what the user knows."""
    from foundation.cohort.claim import WORKING
    from foundation.errors import ConfigError, DataError

    folder = place / COHORT
    listed.unlink(missing_ok=True)
    try:
        yield
    except (ConfigError, DataError) as error:
        inside = folder / WORKING / QUARANTINE
        if inside.is_file():
            shutil.copy(inside, listed)
        where = error.where.replace(str(inside), str(listed)).replace(str(folder), str(source))
        shutil.rmtree(place)
        raise type(error)(error.what, where=where, fix=error.fix) from None
