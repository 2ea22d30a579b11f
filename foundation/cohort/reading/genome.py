"""Lengths and arms of the human chromosomes in the assemblies hg19 and hg38.

Facts from the UCSC genome browser (tables chromInfo and cytoBand). The border between the arms is the point
where the two bands stained `acen` meet.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Genome = Literal["hg19", "hg38"]

CHROMOSOMES = (*(str(number) for number in range(1, 23)), "X")
"""Chromosomes that have features, in order. Y is left out: who lacks it is not known from segments alone."""

ACROCENTRIC = frozenset({"13", "14", "15", "21", "22"})
"""Chromosomes whose short arm is repeats that no assay measures."""


class Chromosome(NamedTuple):
    """One chromosome, in base pairs: its length, and where the short arm ends and the long arm begins."""

    length: int
    centromere: int


ASSEMBLIES: dict[str, dict[str, Chromosome]] = {
    "hg19": {
        "1": Chromosome(249_250_621, 125_000_000),
        "2": Chromosome(243_199_373, 93_300_000),
        "3": Chromosome(198_022_430, 91_000_000),
        "4": Chromosome(191_154_276, 50_400_000),
        "5": Chromosome(180_915_260, 48_400_000),
        "6": Chromosome(171_115_067, 61_000_000),
        "7": Chromosome(159_138_663, 59_900_000),
        "8": Chromosome(146_364_022, 45_600_000),
        "9": Chromosome(141_213_431, 49_000_000),
        "10": Chromosome(135_534_747, 40_200_000),
        "11": Chromosome(135_006_516, 53_700_000),
        "12": Chromosome(133_851_895, 35_800_000),
        "13": Chromosome(115_169_878, 17_900_000),
        "14": Chromosome(107_349_540, 17_600_000),
        "15": Chromosome(102_531_392, 19_000_000),
        "16": Chromosome(90_354_753, 36_600_000),
        "17": Chromosome(81_195_210, 24_000_000),
        "18": Chromosome(78_077_248, 17_200_000),
        "19": Chromosome(59_128_983, 26_500_000),
        "20": Chromosome(63_025_520, 27_500_000),
        "21": Chromosome(48_129_895, 13_200_000),
        "22": Chromosome(51_304_566, 14_700_000),
        "X": Chromosome(155_270_560, 60_600_000),
    },
    "hg38": {
        "1": Chromosome(248_956_422, 123_400_000),
        "2": Chromosome(242_193_529, 93_900_000),
        "3": Chromosome(198_295_559, 90_900_000),
        "4": Chromosome(190_214_555, 50_000_000),
        "5": Chromosome(181_538_259, 48_800_000),
        "6": Chromosome(170_805_979, 59_800_000),
        "7": Chromosome(159_345_973, 60_100_000),
        "8": Chromosome(145_138_636, 45_200_000),
        "9": Chromosome(138_394_717, 43_000_000),
        "10": Chromosome(133_797_422, 39_800_000),
        "11": Chromosome(135_086_622, 53_400_000),
        "12": Chromosome(133_275_309, 35_500_000),
        "13": Chromosome(114_364_328, 17_700_000),
        "14": Chromosome(107_043_718, 17_200_000),
        "15": Chromosome(101_991_189, 19_000_000),
        "16": Chromosome(90_338_345, 36_800_000),
        "17": Chromosome(83_257_441, 25_100_000),
        "18": Chromosome(80_373_285, 18_500_000),
        "19": Chromosome(58_617_616, 26_200_000),
        "20": Chromosome(64_444_167, 28_100_000),
        "21": Chromosome(46_709_983, 12_000_000),
        "22": Chromosome(50_818_468, 15_000_000),
        "X": Chromosome(156_040_895, 61_000_000),
    },
}

_NUMBERED = {"23": "X", "24": "Y", "25": "M", "26": "M"}
_NOT_PLACED = (
    *("GL", "KI", "KB", "JH", "KN", "KQ", "KV", "KZ", "ML", "MU", "UN", "HLA", "HS37D5", "HS38D1"),
    *("EBV", "CMV", "HPV", "HBV", "HCV", "HIV", "HTLV", "KSHV", "MCV", "SV40", "PHIX"),
)


def chromosome(name: str) -> str | None:
    """The chromosome that a name in a file means.

    Returns:
        One of `CHROMOSOMES`; an empty string for Y, the mitochondrion and unplaced contigs, which have no
        features; None where the name means nothing in a human genome.
    """
    plain = name.strip().upper().removeprefix("CHR")
    plain = re.sub(r"^0*([1-9]\d?)(?:\.0+)?$", r"\1", plain)
    plain = _NUMBERED.get(plain, plain)
    if plain in CHROMOSOMES:
        return plain
    if plain in ("Y", "M", "MT", "XY") or "_" in plain or plain.startswith(_NOT_PLACED):
        return ""
    return None
