"""Files of no portal's layout: tables of patients and of omics, gene sets, and what lies beside data."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from foundation.cohort.describe.findings import Findings, FoundModality
from foundation.cohort.describe.heads import Head, read_head
from foundation.cohort.describe.listing import Listing
from foundation.cohort.describe.people import place_covariates, place_endpoints, place_patients
from foundation.cohort.describe.recognise import patient_column, recognise
from foundation.cohort.describe.tables import ENDINGS, assay_of, place_table
from foundation.cohort.sources.h5ad import H5adSource
from foundation.errors import ChiasmaError
from foundation.progress import Progress
from foundation.wording import counted, file_size

BESIDE = {
    r"readme|license|licence|citation|changelog|annotations\.txt$|manifest|\.md$|\.pdf$|\.html?$": "words on the data",
    r"\.gmt$": "gene sets, no measurements: name it under `tower.tokenizer` of a pretraining config",
    r"\.ya?ml$|\.json$|\.xml$|\.log$|\.md5$|\.sha256$|\.py$|\.r$|\.sh$": "no table and no scan",
}
"""Expressions for names, in lower case, to why such a file has no place."""

MOST_ALIKE = 20
"""Tables in one folder of one kind of name beyond which they are files of single samples."""


def place_rest(listing: Listing, findings: Findings, progress: Progress) -> None:
    """Place tables that no portal has taken: first that of the patients, then the omics."""
    for expression, why in BESIDE.items():
        names = [n for n in listing.left() if re.search(expression, PurePosixPath(n).name.lower())]
        findings.put_aside_many(names, why)
        listing.take(names)
    names = _without_files_of_samples(listing, findings)
    progress.start("looking at tables", len(names), "files")
    heads: dict[str, Head] = {}
    for name in names:
        try:
            heads[name] = read_head(listing.path(name))
        except ChiasmaError as error:
            findings.put_aside(name, f"{error.what}. {error.fix}.")
            listing.take([name])
        if name in heads and heads[name].title:
            del heads[name]
            findings.put_aside(name, "begins with a title, not with the names of columns: delete the lines above these")
            listing.take([name])
        progress.advance(bytes=listing.sizes[name])
    progress.finish()
    if findings.patients is None:
        _choose_patients(listing, findings, heads)
    for name in heads:
        if name not in listing.taken:
            place_table(findings, listing, name)
    _name_the_sequenced(listing, findings)
    for name in listing.left(".h5ad"):
        _place_h5ad(listing, findings, name)


def _name_the_sequenced(listing: Listing, findings: Findings) -> None:
    """A list of who was sequenced, in the folder of a MAF."""
    for place, (name, _) in enumerate(findings.aside):
        for modality in findings.modalities.values():
            source = modality.recipe["source"]
            beside = PurePosixPath(name).parent == PurePosixPath(modality.where).parent
            if beside and "sequenced" in name and isinstance(source, dict) and source["format"] == "maf":
                source["sequenced"] = PurePosixPath(name).name
                modality.notes = [note for note in modality.notes if "sequenced" not in note]
                modality.notes.append("The list beside it says who was sequenced; those without a variant have zeros.")
                del findings.aside[place]
                return


def _choose_patients(listing: Listing, findings: Findings, heads: dict[str, Head]) -> None:
    """Of all tables of people, the one that says most of patients."""
    people = [name for name, head in heads.items() if recognise(head).kind == "people"]
    for name in sorted(people, key=lambda name: (-_says(heads[name]), name)):
        patient = patient_column(heads[name])
        table = place_patients(findings, listing, name, patient)
        if table is not None:
            place_endpoints(findings, table, patient)
            place_covariates(findings, listing, name, patient, table)
            return


def _says(head: Head) -> int:
    words = (
        "age",
        "sex",
        "gender",
        "os",
        "survival",
        "status",
        "stage",
        "grade",
        "vital",
        "time",
        "response",
        "site",
        "patient",
    )
    return sum(any(word in name.lower() for word in words) for name in head.names)


def _without_files_of_samples(listing: Listing, findings: Findings) -> list[str]:
    """Tables that are left, without those of which there are so many alike that each must be one sample."""
    alike: dict[tuple[str, str], list[str]] = {}
    for name in listing.left(*ENDINGS):
        path = PurePosixPath(name)
        parent = path.parent.parent if len(path.parts) > 1 else path.parent
        alike.setdefault((str(parent), re.sub(r".*?(?=\.)", "", path.name, count=1)), []).append(name)
    single = []
    for (_, _), names in alike.items():
        if len(names) <= MOST_ALIKE:
            single += names
            continue
        findings.put_aside_many(
            names,
            "one file per sample, it seems. With a table that has a row for each of these files, `format: per_sample` "
            "joins them",
        )
        listing.take(names)
    return sorted(single)


def _place_h5ad(listing: Listing, findings: Findings, name: str) -> None:
    listing.take([name])
    source = {"format": "h5ad", "files": name}
    try:
        part = H5adSource(H5adSource.Config.model_validate(source), listing.path(name))
        samples = part.list_samples()
        features = part.read(samples[:1]).features
    except ChiasmaError as error:
        findings.put_aside(name, f"{error.what}. {error.fix}.")
        return
    holds = (
        f"{counted(len(samples), 'sample')} x {counted(len(features), 'feature')} (such as {', '.join(features[:3])})"
    )
    notes = ["X is read; `layer` names another. Say what the values are in `unit`, and whether a transform helps."]
    size = file_size(listing.sizes[name])
    findings.add(
        assay_of(name), FoundModality({"kind": "omics", "source": source}, name, f"{holds}, {size}", notes, samples)
    )
