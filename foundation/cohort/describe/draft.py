"""Findings as the text of a cohort.yaml, with what a person should decide in its comments."""

from __future__ import annotations

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
                "It prepares as it stands; what it guessed is said in comments, for a person to decide.",
                *findings.about,
            ]
        ),
        f"name: {dump(findings.name).splitlines()[0]}",
        f"root: {dump(root).splitlines()[0]}",
    ]
    if findings.rule:
        lines += ["", *_comments(findings.rule_notes), *_block("patients", findings.rule)]
    elif findings.rule_notes:
        lines += ["", *_comments(findings.rule_notes)]
    if findings.patients:
        lines += ["", *_comments(findings.patients.notes), *_block("clinical", findings.patients.recipe)]
    lines += ["", "modalities:"]
    for number, (name, modality) in enumerate(findings.modalities.items()):
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


def _block(name: str, value: Any) -> list[str]:
    return dump({name: value}).splitlines()


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
