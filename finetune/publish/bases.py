"""What a model stands on, each with its licence: what it was adapted from, and what its towers began with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from finetune.predictor import MODEL
from foundation import licences
from foundation.errors import ConfigError, nearest
from foundation.licences import LICENCES, UNKNOWN, normal, of_card, refusal


class Base(NamedTuple):
    """Something that a model was made of.

    Attributes:
        part: What it is to the model, in words.
        name: As it is called where it comes from.
        licence: Identifier; empty where it was not recorded.
        derived: Whether the model differs from it.
    """

    part: str
    name: str
    licence: str
    derived: bool = True


def bases(run: Path, fine_tuned: bool) -> list[Base]:
    """What was recorded of a run's model, and what was not.

    Args:
        run: Folder of the run.
        fine_tuned: Whether the model in it was adapted by the run; else it is that model which is published.
    """
    folder = run / MODEL if (run / MODEL).is_dir() else run
    config = folder / "config.json"
    told = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    card, found = of_card(folder / "README.md"), []
    if not fine_tuned and card:
        found.append(Base("the model", run.name, card, derived=False))
    if told.get("base") is not None:
        found.append(Base("the pretrained model", told["base"]["name"], told["base"]["licence"] or card))
    elif fine_tuned and (card or told.get("origins") is None):
        found.append(Base("the pretrained model", UNKNOWN, card))
    if told.get("origins") is None:
        return [*found, Base("the initial weights of towers", UNKNOWN, "")]
    for tower, origin in told["origins"].items():
        found.append(Base(f"the weights that the {tower} tower began with", origin["name"], origin["licence"]))
    return found


def check(licence: str, stands_on: Sequence[Base]) -> None:
    """Refuse a licence that hubs do not know, or that something which the model stands on forbids.

    Raises:
        ConfigError: It is one of these.
    """
    theirs = {normal(base.licence) for base in stands_on}
    if normal(licence) not in LICENCES and normal(licence) not in {"other", *theirs}:
        raise ConfigError(
            f"'{licence}' is no identifier of a licence that is known here",
            where="--licence",
            fix=f"{nearest(normal(licence), list(LICENCES))}; or write `other`, where its terms are your own",
        )
    for base in stands_on:
        if reason := refusal(base.licence, licence, derived=base.derived):
            terms = licences.LICENCES.get(normal(base.licence))
            alike = terms is None or terms.derivatives
            raise ConfigError(
                f"the licence of {base.part} ({base.name}) is {base.licence}, {reason}",
                where="--licence",
                fix=f"write --licence {base.licence} if it allows that, or ask its authors"
                if alike
                else "ask its authors; without their leave it stays where it is",
            )


def unknown(stands_on: Sequence[Base]) -> list[str]:
    """A sentence for each licence that was not recorded."""
    return [
        f"not recorded: the licence of {base.part}{'' if base.name == UNKNOWN else f' ({base.name})'}; "
        "whoever publishes has to know it"
        for base in stands_on
        if not base.licence
    ]
