"""What a portal is: a layout of folders and files that is known, and who places its files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from foundation.cohort.describe.findings import Findings
from foundation.cohort.describe.listing import Listing
from foundation.progress import Progress

PORTALS: list[type[Portal]] = []
"""All known portals, in the order in which they are asked."""


class Portal(ABC):
    """A portal's layout. A subclass is known as soon as its file is imported, which the folder does by itself."""

    title: ClassVar[str]

    def __init_subclass__(cls) -> None:
        PORTALS.append(cls)

    @abstractmethod
    def recognises(self, listing: Listing) -> bool:
        """Whether a folder is laid out as this portal does, by the names of its files."""

    @abstractmethod
    def place(self, listing: Listing, findings: Findings, progress: Progress) -> None:
        """Take the portal's files from the list and say what they are; what is left is looked at as any file is."""
