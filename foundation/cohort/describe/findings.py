"""What was found in a folder: modalities, the table of patients, endpoints, and what has no place, each with words."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from foundation.wording import counted


@dataclass
class FoundModality:
    """A modality to be written.

    Attributes:
        recipe: As in cohort.yaml.
        where: The file or pattern it is read from.
        holds: What it holds, in words.
        notes: Sentences for the comments above it: what a person should decide.
        samples: Names of its samples or patients, as they stand; empty where they are not known without reading all.
    """

    recipe: dict[str, Any]
    where: str
    holds: str
    notes: list[str] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)


@dataclass
class FoundEndpoint:
    """An endpoint to be written, or proposed in a comment.

    Attributes:
        values: What its column holds, in words.
        active: Whether it is written as a key.
        why: What speaks against it where it is only proposed, or what to check where it is written.
    """

    recipe: dict[str, Any]
    values: str
    active: bool = True
    why: str = ""


@dataclass
class FoundPatients:
    """The table of patients.

    Attributes:
        file: Its path below the folder.
        patient: Column of the patients.
        patients: Their names as they stand, each once.
        recipe: The key `clinical` of cohort.yaml.
        notes: Sentences for the comments above it.
    """

    file: str
    patient: str
    patients: list[str]
    recipe: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass
class Findings:
    """All that was found.

    Attributes:
        portal: Whose layout the folder has, in words; empty where it is nobody's.
        about: Sentences for the head of the YAML.
        name: Of the cohort.
        modalities, endpoints: By name, in the order in which they are written.
        rule: The key `patients` of cohort.yaml.
        rule_notes: Sentences for the comments above it.
        strangers: Modality to how many of its patients are not in the table of patients, and of how many, where these
            are more than may go to quarantine.
        pairs: Sample to its patient where a file says so.
        aside: What is no source, or has no place: path or pattern, and why.
    """

    name: str
    portal: str = ""
    about: list[str] = field(default_factory=list)
    patients: FoundPatients | None = None
    modalities: dict[str, FoundModality] = field(default_factory=dict)
    endpoints: dict[str, FoundEndpoint] = field(default_factory=dict)
    rule: dict[str, Any] = field(default_factory=dict)
    rule_notes: list[str] = field(default_factory=list)
    strangers: dict[str, tuple[int, int]] = field(default_factory=dict)
    pairs: dict[str, str] = field(default_factory=dict)
    aside: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, modality: FoundModality) -> str:
        """Add a modality under a name that is free, which is returned."""
        free, number = name, 1
        while free in self.modalities:
            number += 1
            free = f"{name}_{number}"
        self.modalities[free] = modality
        return free

    def put_aside(self, where: str, why: str) -> None:
        """Name something that has no place in cohort.yaml, and say why."""
        self.aside.append((where, why))

    def put_aside_many(self, names: list[str], why: str) -> None:
        """The same of several files, named together: names of single ones may be those of patients."""
        if len(names) == 1:
            self.put_aside(names[0], why)
        elif names:
            folder = os.path.commonpath([os.path.dirname(name) for name in names])
            endings = {PurePosixPath(name).suffix for name in names}
            pattern = f"{folder}/**/*" if folder else "**/*" if any("/" in name for name in names) else "*"
            pattern += endings.pop() if len(endings) == 1 else ""
            self.put_aside(f"{pattern} ({counted(len(names), 'file')})", why)
