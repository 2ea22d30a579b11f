"""The table of patients: which file it is, which of its columns could be endpoints, and which covariates."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from foundation.cohort.clinical import ClinicalTable, read_clinical
from foundation.cohort.describe.findings import Findings, FoundEndpoint, FoundModality, FoundPatients
from foundation.cohort.describe.heads import is_number
from foundation.cohort.describe.listing import Listing
from foundation.cohort.endpoint_columns import parse_endpoint
from foundation.cohort.endpoints import Endpoint
from foundation.cohort.reading.cells import mark_missing
from foundation.cohort.reading.tables import Frame, column_names
from foundation.cohort.spec import Quarantine
from foundation.errors import DataError
from foundation.wording import counted, listed, shortened

UNITS = {"days": "days", "day": "days", "months": "months", "month": "months", "mo": "months", "weeks": "weeks",
         "years": "years", "year": "years", "yrs": "years"}  # fmt: skip
TIME_WORDS = {"time", "to", *UNITS}
DEATH_WORDS = {"event", "status", "dead", "death", "deadstatus", "vitalstatus"}
EVENT_WORDS = {*DEATH_WORDS, "vital", "censor", "censored", "cens", "e", "happened"}
SURVIVALS = {"os", "pfs", "pfi", "dfs", "dss", "dfi", "rfs", "efs", "ttp", "mfs", "ffs", "lrfs", "dmfs", "css", "ebrt"}
TCGA_TIME = re.compile(r"(OS|DSS|DFI|PFI)\.time")
"""Columns of TCGA's clinical data resource, which Xena serves; they are in days."""

FOLLOW_UP = {"survival", "overall", "followup", "follow", "up", "os"}
RESPONSES = (
    ("progressive", ("progressive disease", "clinical progressive disease", "radiographic progressive disease", "pd")),
    ("stable", ("stable disease", "persistent disease", "sd", "stable disease (sd)")),
    ("partial", ("partial remission/response", "partial response", "partial remission", "pr")),
    ("complete", ("complete remission/response", "complete response", "complete remission", "cr",
                  "no measureable tumor or tumor markers")),
)  # fmt: skip
"""Classes of response, the worst first, and words that mean them, in lower case."""

AGE = re.compile(r"(age|age_at_.*diagnosis|age_at_index|.*\.age_at_(index|diagnosis)|diagnosis_age)$", re.IGNORECASE)
SEX = re.compile(r"(sex|gender|is_female|.*\.gender|sex_at_birth|.*\.sex_at_birth)$", re.IGNORECASE)
STAGE = re.compile(r"(?!.*(^|[._ ])[tnm][._ ]?(stage|$)).*(stage)$|.*_stage_.*", re.IGNORECASE)
GRADE = re.compile(r"(.*[._ ])?grade$", re.IGNORECASE)
SITE = re.compile(
    r"(site|center|centre|hospital|institution|cohort_site|tissue_source_site|.*tissue_source_site)$", re.IGNORECASE
)
TABLES = {"cases", "demographic", "diagnoses", "exposures", "follow_ups", "project", "treatments", "xena_derived"}
"""What the GDC writes before a column's name, and Xena behind it: demographic.gender, gender.demographic."""

CLASSES_LIKELY = re.compile(
    r"subtype|idh|mgmt|codel|msi|molecular|cluster|pam50|her2|receptor|mutation_status|diagnosis$", re.IGNORECASE
)

NOTHING = re.compile(
    r"\[?(unknown|unspecified|undetermined|missing|n\.?[ade]\.?|[?.-]|not[ _](available|reported|evaluable|evaluated|"
    r"applicable|allowed to collect|done|determined|tested|assessed))\]?",
    re.IGNORECASE,
)
"""Words that say that nothing is known of a class or a number."""

MOST_CLASSES = 8
FEWEST_IN_CLASS = 2
MOST_PROPOSALS = 12
"""Columns of classes or numbers that are proposed in comments; the rest are counted."""


def place_patients(findings: Findings, listing: Listing, file: str, patient: str, **keys: Any) -> Frame | None:
    """Make a table that of the patients, `keys` being further keys of `clinical`.

    Returns:
        The table, or None where it cannot be read as one row per patient; it is put aside then.
    """
    recipe = {"files": file, "patient": patient, **keys}
    listing.take([file])
    try:
        table = read_clinical(ClinicalTable(**recipe), listing.path(file))
    except DataError as error:
        what = _without_names(error.what)
        findings.put_aside(file, f"looks like the table of patients, but {what} ({error.fix})")
        return None
    site = next(
        (name for name in table.columns if SITE.match(name) and 1 < table[name].nunique() < len(table) / 2), None
    )
    notes = [f"{counted(len(table), 'patient')}, one row each, {counted(len(table.columns), 'column')}."]
    if site:
        recipe["site"] = site
        notes.append(f"`site` is the hospital of a patient, for folds by site: is '{site}' that?")
    else:
        notes.append("No column looks like a hospital; name it under `site` if there is one, for folds by site.")
    repeated = [name for name, count in Counter(column_names(listing.path(file))).items() if count > 1]
    if repeated:
        notes.append(f"Columns that appear more than once are not read: {listed([repr(name) for name in repeated])}.")
    findings.patients = FoundPatients(file, patient, table[patient].tolist(), recipe, notes)
    return table


def place_endpoints(findings: Findings, table: Frame, patient: str) -> None:
    """Add every column, or pair of columns, that could be an endpoint."""
    used = {patient}
    for name, (recipe, why) in {**_vital_status(table), **_survivals(table)}.items():
        used |= {recipe["event"], *([recipe["time"]] if isinstance(recipe["time"], str) else recipe["time"])}
        values = _event_counts(table, recipe["event"])
        findings.endpoints[name] = _tried(name, FoundEndpoint(recipe, values, True, why), table, patient)
    likely, proposals, passed = [], [], []
    for column in table.columns:
        if column in used:
            continue
        text = table[column].str.strip()
        counts = text[~mark_missing(text)].value_counts()
        found = _classes(column, counts)
        if found is None:
            continue
        (likely if found.active else proposals).append((_name(column), found))
    for name, found in likely:
        free = name if name not in findings.endpoints else f"{name}_class"
        findings.endpoints[free] = _tried(free, found, table, patient)
    for name, found in proposals[:MOST_PROPOSALS]:
        findings.endpoints.setdefault(name, found)
    passed = [name for name, _ in proposals[MOST_PROPOSALS:]]
    if passed:
        findings.put_aside_many(passed, "columns of classes beyond those proposed as endpoints")


def place_covariates(findings: Findings, listing: Listing, file: str, patient: str, table: Frame, **keys: Any) -> None:
    """Add age, sex, stage and grade as a modality, where the table has them."""
    columns: dict[str, dict[str, Any]] = {}
    known: dict[str, int] = {}
    notes = ["Covariates. Add what was known at the time of the scan, and nothing that tells the outcome."]
    for column in table.columns:
        text = table[column].str.strip()
        words = text[~mark_missing(text)]
        found = _covariate(column, words)
        if found is None and AGE.match(_without_table(column)) and len(words):
            odd = sorted({word for word in words if not is_number(word)})
            notes.append(f"'{column}' is not taken, for words that are no numbers, such as '{shortened(odd[0], 40)}'.")
        # Of several columns of one meaning, the one that most patients have.
        if found and len(words) > known.get(found[0], 0):
            known[found[0]], columns[found[0]] = len(words), found[1]
    if not columns:
        return
    findings.add(
        "clinical",
        FoundModality(
            {
                "kind": "omics",
                "source": {"format": "clinical", "files": file, "patient": patient, **keys, "columns": columns},
            },
            where=file,
            holds=listed(list(columns)),
            notes=notes,
        ),
    )


def _covariate(column: str, words: pd.Series) -> tuple[str, dict[str, Any]] | None:
    """A column as a covariate: its name and what it is; None where it is none of those known."""
    different = sorted(words.unique())
    named = _without_table(column)
    numbers = [word for word in different if is_number(word)]
    nothing = [word for word in different if NOTHING.fullmatch(word)]
    if AGE.match(named) and numbers and len(numbers) + len(nothing) == len(different):
        return "age", {"kind": "number", "column": column} | ({"missing": nothing} if nothing else {})
    if SEX.match(named) and 1 < len(different) <= 4:
        return "sex", {"kind": "category", "column": column, "categories": different}
    scale = _scale(named, different)
    return (scale[0], {"kind": "scale", "column": column, "map": scale[1]}) if scale else None


def _scale(column: str, words: list[str]) -> tuple[str, dict[str, float | None]] | None:
    """A stage or grade: words to numbers, in order."""
    for name, expression, read in (("stage", STAGE, _stage), ("grade", GRADE, _grade)):
        if expression.match(column):
            numbers = {word: read(word) for word in words}
            known = [number for number in numbers.values() if number is not None]
            if len(set(known)) > 1 and len(known) > len(words) / 2:
                ordered = sorted(numbers, key=lambda word: (numbers[word] is None, numbers[word] or 0, word))
                return name, {word: numbers[word] for word in ordered}
    return None


def _stage(word: str) -> int | None:
    match = re.fullmatch(r"(?:stage\s*)?(0|I{1,3}|IV|[1-4])\s*([A-C]\d?)?", word, re.IGNORECASE)
    return (
        {"0": 0, "I": 1, "II": 2, "III": 3, "IV": 4}.get(match[1].upper())
        if match and not match[1].isdigit()
        else (int(match[1]) if match else None)
    )


def _grade(word: str) -> int | None:
    match = re.fullmatch(r"(?:grade|g|who)?\s*([1-4]|I{1,3}|IV)", word, re.IGNORECASE)
    if not match:
        return None
    return int(match[1]) if match[1].isdigit() else {"I": 1, "II": 2, "III": 3, "IV": 4}[match[1].upper()]


def _without_table(column: str) -> str:
    """The name of a column without that of the GDC's table that it is from."""
    return ".".join(part for part in column.split(".") if part not in TABLES) or column


def _tokens(column: str) -> list[str]:
    return [token for token in re.split(r"[^a-z0-9]+", column.lower()) if token]


def _survivals(table: Frame) -> dict[str, tuple[dict[str, Any], str]]:
    """Pairs of a time and an event by the name of the survival, each with what to decide."""
    numeric = {}
    for column in table.columns:
        words = table[column].str.strip()
        words = words[~mark_missing(words)].unique()
        if len(words) > 2 and all(map(is_number, words)):
            numeric[column] = np.array([float(word) for word in words])
    found: dict[str, tuple[dict[str, Any], str]] = {}
    for time, numbers in numeric.items():
        tokens = _tokens(time)
        if not set(tokens) & TIME_WORDS - {"to"}:
            continue
        stem = [token for token in tokens if token not in TIME_WORDS]
        event = _event_of(stem, time, table)
        if event is None:
            continue
        unit = next((UNITS[token] for token in tokens if token in UNITS), "")
        why = ""
        if TCGA_TIME.fullmatch(time):
            unit = "days"
        elif not unit:
            # Nobody is followed for 40 years in months.
            unit = "days" if numbers.max() > 480 else "months"
            why = f"DECIDE: `unit` is a guess; the longest time is {numbers.max():g}."
        name = "os" if set(stem) <= FOLLOW_UP else "_".join(stem)
        found.setdefault(name, ({"kind": "survival", "time": time, "event": event, "unit": unit}, why))
    return found


def _event_of(stem: list[str], time: str, table: Frame) -> str | None:
    best = None
    for column in table.columns:
        tokens = _tokens(column)
        rest = [token for token in tokens if token not in EVENT_WORDS]
        words = table[column].str.strip()
        few = 0 < words[~mark_missing(words)].nunique() <= 4
        if column == time or not few or set(tokens) & TIME_WORDS:
            continue
        if rest == stem and (set(tokens) & EVENT_WORDS or set(stem) & SURVIVALS):
            return column
        if not rest and set(tokens) & DEATH_WORDS and set(stem) <= FOLLOW_UP:
            best = column
    return best


def _vital_status(table: Frame) -> dict[str, tuple[dict[str, Any], str]]:
    """GDC's overall survival: a time for those who died, another for those who did not."""
    lower = {re.sub(r".*\.", "", _without_table(column.lower())): column for column in table.columns}
    status, death = lower.get("vital_status"), lower.get("days_to_death")
    alive = lower.get("days_to_last_follow_up") or lower.get("days_to_last_followup")
    if not (status and death and alive):
        return {}
    return {"os": ({"kind": "survival", "time": [death, alive], "event": status, "unit": "days"}, "")}


def _classes(column: str, counts: pd.Series) -> FoundEndpoint | None:
    """A column of a few words as an endpoint, or as a proposal; None where it is neither."""
    words = [str(word) for word in counts.index]
    if not 2 <= len(words) <= MOST_CLASSES or counts.iloc[1] < FEWEST_IN_CLASS:
        return None
    values = ", ".join(f"{shortened(str(word), 40)} {number}" for word, number in counts.items())
    meant = {name: [word for word in words if word.lower() in known] for name, known in RESPONSES}
    if sum(map(len, meant.values())) >= max(2, len(words) - 1):
        unknown = [word for word in words if not any(word in each for each in meant.values())]
        recipe = {"kind": "response", "column": column, "classes": {k: v for k, v in meant.items() if v}}
        why = "Worst first."
        if unknown:
            return FoundEndpoint(recipe, values, False, f"Decide what {listed(unknown)} mean.")
        return FoundEndpoint(recipe, values, len(recipe["classes"]) > 1, why)
    recipe = _subtype(column, words)
    if len(recipe["classes"]) < 2:
        return None
    if all(map(is_number, words)) and not CLASSES_LIKELY.search(column):
        return FoundEndpoint(recipe, values, False, "Numbers: classes, an event, or a count?")
    likely = bool(CLASSES_LIKELY.search(column)) and int(counts.min()) >= FEWEST_IN_CLASS
    return FoundEndpoint(recipe, values, likely, "" if likely else "Remove the # if this is what you want to predict.")


def _subtype(column: str, words: list[str]) -> dict[str, Any]:
    """Words of a column as classes: those that differ in case alone are one, and some say that nothing is known."""
    alike: dict[str, list[str]] = {}
    for word in words:
        if not NOTHING.fullmatch(word):
            alike.setdefault(word.casefold(), []).append(word)
    classes = [spellings[0] for spellings in alike.values()]
    named: Any = (
        classes if len(classes) == sum(map(len, alike.values())) else dict(zip(classes, alike.values(), strict=True))
    )
    nothing = [word for word in words if NOTHING.fullmatch(word)]
    return {"kind": "subtype", "column": column, "classes": named} | ({"missing": nothing} if nothing else {})


def _tried(name: str, found: FoundEndpoint, table: Frame, patient: str) -> FoundEndpoint:
    """An endpoint as it parses; a proposal with the reason where it does not."""
    problem = _problem(name, found.recipe, table, patient)
    return replace(found, active=False, why=problem) if problem else found


def _problem(name: str, recipe: dict[str, Any], table: Frame, patient: str) -> str:
    """What stands against an endpoint, or nothing."""
    try:
        values = parse_endpoint(name, TypeAdapter(Endpoint).validate_python(recipe), table, patient)
    except DataError as error:
        return _without_names(f"{error.what}. {error.fix}.")
    except ValidationError as error:
        return f"{error.errors()[0]['msg']}."
    half = len(values.incomplete)
    if half <= Quarantine().stop_above * len(table):
        return ""
    return (
        f"{half} of {counted(len(table), 'patient')} have a time without an event or an event without a time, more "
        "than quarantine.stop_above allows. Are these the right columns? If so, raise it."
    )


def _without_names(message: str) -> str:
    """A message without the patients that it names, whom a file that is passed on must not."""
    return re.sub(r" for [^,;]+?(?=,| and \d| is )|, first '[^']*'", "", message)


def _event_counts(table: Frame, event: str) -> str:
    text = table[event].str.strip()
    counts = Counter(text.where(~mark_missing(text), "(missing)"))
    return ", ".join(f"{word} {number}" for word, number in counts.most_common())


def _name(column: str) -> str:
    """The name of an endpoint after its column."""
    return "_".join(_tokens(column)) or "endpoint"
