"""`chiasma publish`: a run as a folder that others may use, here or on a model hub."""

from __future__ import annotations

from pathlib import Path

import click

from launch.command import Command


@click.command(
    cls=Command,
    example="chiasma publish runs/glioma-outcomes --to published/glioma-outcomes --licence apache-2.0\n"
    "chiasma publish runs/glioma-outcomes --to hf://my-group/glioma-outcomes --licence cc-by-4.0",
)
@click.argument("run", metavar="RUN", type=click.Path(file_okay=False, path_type=Path))
@click.option("--to", "place", required=True, help="A folder, or hf://organisation/name.")
@click.option("--licence", required=True, help="Its SPDX identifier, such as apache-2.0 or cc-by-4.0.")
@click.option(
    "--cohort",
    "cohorts",
    multiple=True,
    help="Prepared cohort whose patients must not be named; may be given several times.  [default: those of the run]",
)
@click.option("--tag", help="Of the revision on the hub.  [default: from the hash of the content]")
@click.option("--private/--public", default=True, show_default=True, help="Whether a new repository is private.")
def publish(run: Path, place: str, licence: str, cohorts: tuple[str, ...], tag: str | None, private: bool) -> None:
    """Publish a run, to a folder or to a model hub.

    The folder has what predicts and a model card of what was recorded, and nothing of any patient. It appears only
    after a fresh process has predicted from it as the run does, and no identifier, secret or path was found in it.
    """
    import tempfile

    from finetune.publish.run import publish as run_it
    from foundation.hub.address import Address, is_address
    from foundation.hub.upload import upload

    if not is_address(place):
        for sentence in run_it(run, Path(place), licence, cohorts):
            click.echo(sentence)
        return
    address = Address.parse(place)
    with tempfile.TemporaryDirectory() as built:
        folder = Path(built) / address.repository.rpartition("/")[2]
        for sentence in run_it(run, folder, licence, cohorts)[:-1]:
            click.echo(sentence)
        found = upload(folder, address, tag=tag or "", private=private)
    click.echo(f"uploaded, fetched again and compared: hf://{address.repository}@{found}")
