"""What a variant does to a protein, in the words of MAF, VEP, ANNOVAR, Funcotator and cBioPortal, as classes of MAF."""

from __future__ import annotations

import re
from collections.abc import Iterable

NON_SILENT = (
    "De_novo_Start_InFrame",
    "De_novo_Start_OutOfFrame",
    "Frame_Shift_Del",
    "Frame_Shift_Ins",
    "In_Frame_Del",
    "In_Frame_Ins",
    "Missense_Mutation",
    "Nonsense_Mutation",
    "Nonstop_Mutation",
    "Splice_Site",
    "Start_Codon_Del",
    "Start_Codon_Ins",
    "Start_Codon_SNP",
    "Stop_Codon_Del",
    "Stop_Codon_Ins",
    "Translation_Start_Site",
)
"""Variant classes that change the protein."""

SILENT = (
    "Silent",
    "Splice_Region",
    "Intron",
    "3'UTR",
    "5'UTR",
    "3'Flank",
    "5'Flank",
    "IGR",
    "RNA",
    "Targeted_Region",
)
"""Variant classes that leave the protein as it is."""

OTHER_WORDS = {
    "De_novo_Start_InFrame": ("DE_NOVO_START_IN_FRAME",),
    "De_novo_Start_OutOfFrame": ("DE_NOVO_START_OUT_FRAME", "DE_NOVO_START_OUT_OF_FRAME", "startgain"),
    "Frame_Shift_Del": (
        "frameshift",
        "frameshift_variant",
        "frameshift_truncation",
        "frameshift deletion",
        "frameshift substitution",
        "frameshift block substitution",
        "Frameshift_INDEL",
        "Frame_Shift_Indel",
        "frame_shift",
    ),
    "Frame_Shift_Ins": ("frameshift insertion", "frameshift_elongation"),
    "In_Frame_Del": (
        "inframe",
        "inframe_deletion",
        "conservative_inframe_deletion",
        "disruptive_inframe_deletion",
        "nonframeshift deletion",
        "nonframeshift substitution",
        "nonframeshift block substitution",
        "Inframe_INDEL",
        "In_Frame_Indel",
        "inframe_variant",
        "CODON_DELETION",
        "CODON_CHANGE_PLUS_CODON_DELETION",
    ),
    "In_Frame_Ins": (
        "inframe_insertion",
        "conservative_inframe_insertion",
        "disruptive_inframe_insertion",
        "nonframeshift insertion",
        "CODON_INSERTION",
        "CODON_CHANGE_PLUS_CODON_INSERTION",
    ),
    "Missense_Mutation": (
        "missense",
        "missense_variant",
        "conservative_missense_variant",
        "rare_amino_acid_variant",
        "coding_sequence_variant",
        "protein_altering_variant",
        "nonsynonymous",
        "nonsynonymous SNV",
        "nonsynonymous_mutation",
        "NON_SYNONYMOUS_CODING",
    ),
    "Nonsense_Mutation": ("nonsense", "stop_gained", "stopgain", "stopgain SNV", "nonsense_variant"),
    "Nonstop_Mutation": ("nonstop", "stop_lost", "stoploss", "stoploss SNV", "Read-through"),
    "Splice_Site": (
        "splice",
        "splicing",
        "splice_site_variant",
        "splice_acceptor_variant",
        "splice_donor_variant",
        "splice_site_acceptor",
        "splice_site_donor",
        "Splice_Site_SNP",
        "Splice_Site_DNP",
        "Splice_Site_Del",
        "Splice_Site_Ins",
        "Splice_Site_Indel",
        "exon_loss_variant",
        "transcript_ablation",
    ),
    "Translation_Start_Site": ("start_lost", "startloss", "initiator_codon_variant"),
    "Silent": (
        "synonymous",
        "synonymous_variant",
        "synonymous SNV",
        "synonymous_mutation",
        "SYNONYMOUS_CODING",
        "stop_retained_variant",
        "start_retained_variant",
        "NMD_transcript_variant",
        "incomplete_terminal_codon_variant",
    ),
    "Splice_Region": (
        "splice_region_variant",
        "splice_donor_5th_base_variant",
        "splice_donor_region_variant",
        "splice_polypyrimidine_tract_variant",
    ),
    "Intron": ("intron_variant", "intronic", "INTRAGENIC", "intragenic_variant", "ncRNA_intronic"),
    "3'UTR": ("3_prime_UTR_variant", "UTR3", "THREE_PRIME_UTR"),
    "5'UTR": (
        "5_prime_UTR_variant",
        "5_prime_UTR_premature_start_codon_gain_variant",
        "UTR5",
        "FIVE_PRIME_UTR",
    ),
    "3'Flank": ("downstream_gene_variant", "downstream", "THREE_PRIME_FLANK"),
    "5'Flank": ("upstream_gene_variant", "upstream", "FIVE_PRIME_FLANK", "5'Promoter", "promoter"),
    "IGR": (
        "intergenic",
        "intergenic_variant",
        "intergenic_region",
        "regulatory_region_variant",
        "regulatory_region",
        "regulatory_region_ablation",
        "regulatory_region_amplification",
        "TF_binding_site_variant",
        "TFBS_ablation",
        "TFBS_amplification",
    ),
    "RNA": (
        "lincRNA",
        "miRNA",
        "mature_miRNA_variant",
        "non_coding_exon_variant",
        "non_coding_transcript_exon_variant",
        "non_coding_transcript_variant",
        "nc_transcript_variant",
        "non-coding_Transcript",
        "ncRNA_exonic",
        "ncRNA_splicing",
    ),
}
"""Class of MAF to what other tools write for it; vcf2maf's table decides where a term of VEP could be several."""


def plain(word: str) -> str:
    """A word without case and separators: ``3'UTR`` and ``3_utr`` are one."""
    return re.sub(r"[\W_]+", "", word).lower()


_MEANT = {plain(name): name for name in (*NON_SILENT, *SILENT)} | {
    plain(word): name for name, words in OTHER_WORDS.items() for word in words
}


def _class_of(word: str) -> str:
    """The class of MAF that a word means, or the word itself, without case and separators."""
    return _MEANT.get(plain(word), plain(word))


class VariantClasses:
    """Which variant classes count, by the words of a file.

    Args:
        non_silent: Classes that count, in any of their words.
        silent: Further classes that are known not to count.
    """

    def __init__(self, non_silent: Iterable[str], silent: Iterable[str]) -> None:
        self.non_silent = set(map(_class_of, non_silent))
        self.known = {*self.non_silent, *map(_class_of, silent), *_MEANT.values()}

    def count(self, word: str) -> bool | None:
        """Whether a variant of this class counts; None where nobody has said what the class means.

        Several terms in one cell, as VEP and ANNOVAR join them, count if one of them does.
        """
        whole = _class_of(word)
        terms = {_class_of(term) for term in re.split(r"[&,;+|]", word) if plain(term)}
        classes = {whole} if whole in self.known else terms
        if classes & self.non_silent:
            return True
        return False if classes and classes <= self.known else None
