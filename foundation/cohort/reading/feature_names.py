"""What the name of a feature may be: nothing, no gene, a date that a spreadsheet made of it, an id with a version."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np

from foundation.cohort.reading.cells import MISSING

UNNAMED = (*MISSING, "?", "-", "---", ".")
"""What stands where a feature has no name."""

_UNNAMED = frozenset(UNNAMED)
_UNNAMED_COLUMN = re.compile(r"Unnamed: \d+(_level_\d+)?")

_NO_GENE = re.compile(
    r"N_(unmapped|multimapping|noFeature|ambiguous)"  # STAR
    r"|(__)?(no_feature|ambiguous|too_low_aQual|not_aligned|alignment_not_unique)"  # HTSeq
    r"|Unassigned_(Unmapped|Read_Type|Singleton|MappingQuality|Chimera|FragmentLength|Duplicate|MultiMapping"
    r"|Secondary|NonSplit|NoFeatures|Overlapping_Length|Ambiguity)"  # featureCounts
    r"|\*",  # samtools idxstats
    re.IGNORECASE,
)

_MONTH = (
    r"(?:jan|january|j[aä]nner|janv|ene|gen|feb|february|febr|fev|f[eé]v|f[eé]vr|mar|march|mrz|m[aä]rz|m[aä]r|mars|mrt"
    r"|mzo|apr|april|avr|avril|abr|may|mai|mei|mag|jun|june|juni|juin|giu|jul|july|juli|juil|lug|aug|august|ao[uû]t|ago"
    r"|sep|sept|september|set|oct|october|okt|ott|out|nov|november|dec|december|d[eé]c|dez|dic)\.?"
)
_DATE = re.compile(
    rf"X?\d{{1,2}}[-/. ]{{1,2}}{_MONTH}(?:[-/. ]{{1,2}}\d{{2}}(?:\d\d)?)?(?:[._]\d)?"  # 1-Mar, 01-Mar-22, R's X1.Mar
    rf"|{_MONTH}[-/ ]\d{{2}}(?:\d\d)?"  # Mar-01
    r"|(?:mar|sep|dec)[-/ ]\d"  # Mar-1; Oct-4 is the name of a protein
    r"|(?:march|sept|september|october|december) \d"  # September 2
    rf"|(?:[a-z]+day, )?{_MONTH} \d{{1,2}}, \d{{4}}"  # Friday, September 2, 2022
    r"|\d{4}[-/]\d{1,2}[-/]\d{1,2}(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?"  # 2022-03-01 00:00:00
    r"|\d{1,2}/\d{1,2}/\d{2}(?:\d\d)?"  # 3/1/2022
    r"|\d{1,2}\.\d{1,2}\.\d{4}",  # 01.03.2022
    re.IGNORECASE,
)
_SEPARATORS = frozenset("-/. ")
_NUMBER = re.compile(r"\d+(?:\.0)?")
_DAY_ZERO = date(1899, 12, 30)
_GENE_MONTHS = (3, 9, 10, 12)
_VERSION = re.compile(r"(?<![A-Za-z0-9])(ENS[A-Z]{0,6}\d{10,11})\.\d+")
_OLD_PAR_Y = re.compile(r"(?<![A-Za-z0-9])ENSGR(\d{10})(?!\d)")


def is_unnamed(name: str) -> bool:
    """Whether a feature has no name: nothing, a sign for missing, or what pandas calls a column without a name."""
    return name.strip() in _UNNAMED or (name.startswith("Unnamed") and _UNNAMED_COLUMN.fullmatch(name) is not None)


def is_no_gene(name: str) -> bool:
    """Whether a row counts reads that belong to no gene, as STAR, HTSeq and featureCounts write below their genes."""
    return _NO_GENE.fullmatch(name.strip()) is not None


def dates_among(names: Sequence[str]) -> list[str]:
    """Names that a spreadsheet made of genes': ``1-Mar`` of MARCH1 or MARC1, ``44621`` of the first among symbols.

    A number is one only where numbers are the exception and most of them fall on days that genes are called after:
    Entrez ids lie everywhere.
    """
    # Of hundreds of thousands of names few have what every date has.
    found = [name for name in names if not _SEPARATORS.isdisjoint(name) and _DATE.fullmatch(name.strip())]
    numbers = [name for name in names if _NUMBER.fullmatch(name)]
    serials = [name for name in numbers if _is_gene_day(int(float(name)))]
    if numbers and len(numbers) < len(names) and 2 * len(serials) >= len(numbers):
        found += serials
    return found


def _is_gene_day(number: int) -> bool:
    if not 30_000 <= number <= 60_000:
        return False
    day = _DAY_ZERO + timedelta(days=number)
    return day.month in _GENE_MONTHS and day.day <= 15


def unversioned(name: str) -> str:
    """A name without the version of an Ensembl id in it; the copy of a gene on Y keeps its mark, ``_PAR_Y``."""
    if "ENS" not in name:
        return name
    return _OLD_PAR_Y.sub(r"ENSG0\1_PAR_Y", _VERSION.sub(r"\1", name))


def match_names(wanted: Sequence[str], here: Sequence[str]) -> np.ndarray:
    """Where each wanted feature is: under its name, or else under its Ensembl id in another version; -1 where nowhere.

    An id that stands in several versions on either side is matched by its whole name alone.
    """
    place = {name: position for position, name in enumerate(here)}
    found = np.array([place.get(name, -1) for name in wanted], dtype=np.int64)
    lacking: list[int] = np.flatnonzero(found < 0).tolist()
    if not any("ENS" in wanted[position] for position in lacking):
        return found
    times_there, times_here = Counter(map(unversioned, wanted)), Counter(map(unversioned, here))
    by_id = {unversioned(name): position for position, name in enumerate(here)}
    for position in lacking:
        common = unversioned(wanted[position])
        if times_there[common] == times_here[common] == 1:
            found[position] = by_id[common]
    return found


def left_out_by(patterns: Sequence[str], names: Sequence[str], remarks: Counter[str]) -> np.ndarray:
    """Which names a pattern of `leave_out_features` matches [F] bool; each pattern is remarked with its number."""
    left_out = np.zeros(len(names), dtype=bool)
    for pattern in patterns:
        matches = re.compile(fnmatch.translate(pattern)).match
        found = np.array([matches(name) is not None for name in names], dtype=bool)
        if found.any():
            remarks[f"features left out by leave_out_features: '{pattern}'"] = int(found.sum())
        else:
            remarks[f"patterns of leave_out_features that match no feature: '{pattern}'"] = 1
        left_out |= found
    return left_out


def remark_on_dates(dates: Sequence[str], what: str, remarks: Counter[str]) -> None:
    """Say that names are dates, and what to do."""
    if dates:
        text = f"named by a date that a spreadsheet made of a gene's name, such as '{dates[0]}', {what}"
        remarks[f"features {text}; restore the names in the source"] = len(dates)
