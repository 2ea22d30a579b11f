"""Findings as the text of a cohort.yaml, with what a person should decide in its comments."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from typing import Any

from foundation.cohort.describe.findings import Findings
from foundation.yaml_text import dump

WIDTH = 116


def to_yaml(findings: Findings, root: str) -> str:
    """The text of a cohort.yaml.

    Args:
        findings: What was found.
        root: The folder of the source files, as it is to stand in the file.
    """
    lines = [
        *_comments(
            [
                f"Drafted by `chiasma describe` from {findings.portal or 'a folder of files'}.",
                "What it guessed is said in comments, for a person to decide."
                if findings.strangers
                else "It prepares as it stands; what it guessed is said in comments, for a person to decide.",
                *findings.about,
            ]
        ),
        f"name: {_scalar(findings.name)}",
        f"root: {_scalar(root)}",
    ]
    if findings.rule:
        lines += ["", *_comments(findings.rule_notes), *_block("patients", findings.rule)]
    elif findings.rule_notes:
        lines += ["", *_comments(findings.rule_notes)]
    if findings.patients:
        lines += ["", *_comments(findings.patients.notes), *_block("clinical", findings.patients.recipe)]
    if findings.strangers:
        lines += ["", *_comments(_of_strangers(findings.strangers))]
    lines += ["", "modalities:"]
    ordered = sorted(findings.modalities.items(), key=lambda item: _order(item[0], item[1].recipe["kind"]))
    for number, (name, modality) in enumerate(ordered):
        lines += [""] * bool(number)
        lines += _indented(
            [*_comments([f"{modality.where}: {modality.holds}.", *modality.notes]), *_block(name, modality.recipe)]
        )
    if findings.endpoints:
        lines += ["", *_comments(["What can be predicted. Those behind a # need a decision first."])]
        active = any(endpoint.active for endpoint in findings.endpoints.values())
        lines.append("endpoints:" if active else "# endpoints:")
        for name, endpoint in sorted(findings.endpoints.items(), key=lambda item: not item[1].active):
            body = _block(name, endpoint.recipe)
            said = _comments([f"{endpoint.values}.", *([endpoint.why] if endpoint.why else [])])
            lines += _indented([*said, *(body if endpoint.active else [f"# {line}" for line in body])])
    if findings.aside:
        lines += ["", *_comments(["Not in the cohort:"])]
        for where, why in findings.aside:
            lines += textwrap.wrap(
                f"{where}: {why}", WIDTH, initial_indent="#   ", subsequent_indent="#     ", break_on_hyphens=False
            )
    return "\n".join(lines) + "\n"


def _of_strangers(strangers: dict[str, tuple[int, int]]) -> list[str]:
    """What to do about patients that the table of patients does not have."""
    worst = max(number / of for number, of in strangers.values())
    said = "; ".join(f"{name}, {number} of {of}" for name, (number, of) in strangers.items())
    why = (
        f"DECIDE: these have more patients that are not in the table of patients than may go to quarantine: {said}. "
        "`chiasma prepare` stops. Complete the table, correct `patients.barcode`, or allow it by"
    )
    return [
        why,
        f"quarantine: {{stop_above: {math.ceil(100 * worst) / 100:g}}}",
    ]


def _order(name: str, kind: str) -> int:
    """Images first, covariates last; what lies between keeps its order."""
    return 0 if kind == "image" else 2 if name == "clinical" else 1


def _block(name: str, value: Any) -> list[str]:
    """A key and its value: on one line where it fits, else a line for each key within."""
    flat = f"{_scalar(name)}: {_flow(value)}"
    if not isinstance(value, dict | list) or (len(flat) <= WIDTH - 20 and not _nested(value)):
        return [flat]
    if isinstance(value, list):
        return [f"{_scalar(name)}:", *(f"- {_flow(item)}" for item in value)]
    return [f"{_scalar(name)}:", *_indented(line for key, item in value.items() for line in _block(key, item))]


def _nested(value: Any) -> bool:
    """Whether a value is a mapping that holds more than plain values and short lists of them, or has many keys."""
    return isinstance(value, dict) and (len(value) > 5 or any(isinstance(item, dict) for item in value.values()))


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """A plain value as it stands within brackets, where commas and brackets need quotes."""
    return dump([value], flow=True).strip()[1:-1]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _comments(sentences: Iterable[str]) -> list[str]:
    return [
        line
        for sentence in sentences
        for line in textwrap.wrap(
            sentence, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False, break_long_words=False
        )
    ]
