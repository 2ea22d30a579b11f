"""Lists of barcodes beside a table: one on each line, or a case list of cBioPortal."""

from __future__ import annotations

CASES = "case_list_ids:"
"""The line of a case list that names the samples, between tabs; its other lines say what the list is."""


def listed_barcodes(text: str) -> list[str]:
    """The barcodes of a list, each once, in its order."""
    lines = [line.strip() for line in text.splitlines()]
    cases = next((line for line in lines if line.startswith(CASES)), None)
    return list(dict.fromkeys(filter(None, lines if cases is None else cases.removeprefix(CASES).split())))
