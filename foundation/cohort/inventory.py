"""The inventory of a preparation: patients and endpoints read, omics tables staged, scans listed, strangers aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from foundation.cohort.annotations.base import AnnotationSource, annotation_sources
from foundation.cohort.clinical import read_clinical
from foundation.cohort.endpoint_columns import parse_endpoints
from foundation.cohort.endpoints import EndpointValues
from foundation.cohort.fingerprint import below_root, describe_file, fingerprint_of
from foundation.cohort.folds import find_folds, read_folds
from foundation.cohort.record_plans import GROUP, Listed, RecordPlan, ScanChoice, lay_out
from foundation.cohort.sources.base import ImageSource, image_sources, table_sources
from foundation.cohort.spec import AnnotationRecipe, CohortSpec, ImageRecipe, OmicsRecipe
from foundation.cohort.staging import StagedTable, join_versions, stage
from foundation.errors import ConfigError, DataError
from foundation.progress import Progress
from foundation.wording import counted

if TYPE_CHECKING:
    import pandas as pd


class Fault(NamedTuple):
    """One row of quarantine.tsv: what was set aside, why, and what to do about it."""

    patient: str
    modality: str
    item: str
    reason: str
    remedy: str


@dataclass
class Inventory:
    """Everything that preparation will do.

    Attributes:
        records: Sorted by patient and time point.
        tables: Omics modality to its staged tables.
        features: Omics modality to the union of its tables' features, in order of first appearance.
        endpoints: Parsed endpoints.
        folds: Published folds: name to patient to split.
        faults: What is set aside already.
        counted: What the fraction of faults is taken of: scans, samples or patients per modality or endpoint.
        table_files: Path below the root, bytes and SHA-256 of every table.
        samples: Path of a table to how many of its samples are used, left out, and otherwise passed over.
        other_channels: Image modality to the channels found beside its own, with their numbers of files.
        remarks: Modality or endpoint to what was done to it that a user should know, to how often.
        fingerprint: SHA-256 of the resolved YAML, the tables and the list of scans.
    """

    spec: CohortSpec
    records: list[RecordPlan]
    tables: dict[str, list[StagedTable]]
    features: dict[str, list[str]]
    endpoints: dict[str, EndpointValues]
    folds: dict[str, dict[str, str]]
    faults: list[Fault]
    counted: Counter[str]
    table_files: list[tuple[str, int, str]]
    samples: dict[str, dict[str, int]]
    other_channels: dict[str, dict[str, int]]
    remarks: dict[str, Counter[str]]
    fingerprint: str


@dataclass
class _Findings:
    """Faults and counts while an inventory is taken."""

    faults: list[Fault] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    table_files: list[tuple[str, int, str]] = field(default_factory=list)
    samples: dict[str, dict[str, int]] = field(default_factory=dict)
    other_channels: dict[str, dict[str, int]] = field(default_factory=dict)
    remarks: dict[str, Counter[str]] = field(default_factory=dict)


VERSIONS = "features that tables name in several Ensembl versions, joined under the id without a version"

NOT_IN_ALL = "features that not every table of the modality has, not measured for the patients of the others"

NO_BARCODE = "the barcode does not match patients.barcode", "correct patients.barcode, or the name"


def take_inventory(spec: CohortSpec, staging: Path, progress: Progress) -> Inventory:
    """Read the clinical table, stage the omics tables, list the scans, and lay out the records.

    Raises:
        DataError: A table cannot be used, an endpoint has impossible values, or a modality is empty.
    """
    if not spec.root.is_dir():
        raise DataError("no such folder", where=str(spec.root), fix="correct `root` in the YAML, or give --root")
    found = _Findings()
    clinical = _read_clinical_tables(spec, found)
    endpoints = {} if clinical is None else _parse_endpoints(spec, clinical, found)
    tables = {name: _stage_tables(name, m, spec, staging, found, progress) for name, m in spec.omics().items()}
    sources = {name: build_sources(m, spec) for name, m in spec.images().items()}
    scans = {name: _list_scans(name, spec, sources[name], found) for name in sources}
    _forget_masks_among_channels(spec, found)
    drawn = {name: _list_annotations(name, recipe, spec, found) for name, recipe in spec.annotations.items()}
    known = None if clinical is None else set(clinical.index)
    _set_strangers_aside(known, tables, scans | {label_of(name): listed for name, listed in drawn.items()}, found)
    for name, recipe in spec.annotations.items():
        drawn[name] = _with_its_image(label_of(name), drawn[name], scans[recipe.image], found)
    records = lay_out(spec, clinical, endpoints, tables, scans, drawn)
    _refuse_empty_modalities(records, tables, scans)
    _refuse_empty_annotations(drawn)
    folds = _read_folds(spec, {record.patient for record in records}, found)
    return Inventory(
        spec=spec,
        records=records,
        tables=tables,
        features={name: _union(table.features for table in tables[name]) for name in tables},
        endpoints=endpoints,
        folds=folds,
        faults=sorted(found.faults),
        counted=found.counted,
        table_files=sorted(set(found.table_files)),
        samples=found.samples,
        other_channels=found.other_channels,
        remarks=found.remarks,
        fingerprint=fingerprint_of(
            spec, found.table_files, scans | {label_of(name): listed for name, listed in drawn.items()}
        ),
    )


def build_sources(modality: ImageRecipe, spec: CohortSpec) -> list[ImageSource]:
    """The sources of an image modality, ready to list and read."""
    return [image_sources.build(config, spec.root, modality.channels, spec.groups) for config in modality.source]


def build_annotations(recipe: AnnotationRecipe, spec: CohortSpec) -> list[AnnotationSource]:
    """The sources of an annotation, ready to list and read."""
    more = (spec.root, spec.groups, recipe.regions, recipe.leave_out)
    return [annotation_sources.build(config, *more) for config in recipe.source]


def label_of(annotation: str) -> str:
    """What an annotation is called where modalities are, in quarantine.tsv for one."""
    return f"annotation {annotation}"


def _paths(spec: CohortSpec, files: str, skip: Iterable[str] = ()) -> Iterator[tuple[str | None, Path]]:
    """Fill ``{group}`` into the name of a table: once per group that is not skipped, or once.

    Raises:
        ConfigError: The name has ``{group}`` and the cohort has no groups.
    """
    if "{group}" not in files:
        yield None, spec.root / files
        return
    if not spec.groups:
        raise ConfigError(
            "names {group}, but the cohort has no groups", where=f"files: {files}", fix="add the key `groups`"
        )
    skip = set(skip)
    for group in spec.groups:
        if group not in skip:
            yield group, spec.root / files.replace("{group}", group)


def _read_clinical_tables(spec: CohortSpec, found: _Findings) -> pd.DataFrame | None:
    """The clinical tables of all groups as one, indexed by patient, with a column of groups."""
    import pandas as pd

    if spec.clinical is None:
        return None
    frames = []
    wanted = [column for endpoint in spec.endpoints.values() for column in endpoint.columns()]
    for group, path in _paths(spec, spec.clinical.files):
        if not path.is_file():
            what = f"no such file (the clinical table{f' of group {group}' if group else ''})"
            raise DataError(what, where=str(path), fix="correct `clinical.files` or `root`")
        frame = read_clinical(spec.clinical, path, wanted)
        found.table_files.append(describe_file(path, spec.root))
        barcodes = frame[spec.clinical.patient].tolist()
        spec.patients.refuse_merged(barcodes, where=str(path))
        patients = [spec.patients.patient(barcode) for barcode in barcodes]
        strange = [barcode for barcode, patient in zip(barcodes, patients, strict=True) if patient is None]
        if strange:
            raise DataError(
                f"{len(strange)} of {len(barcodes)} patients do not match the patient rule, first '{strange[0]}'",
                where=str(path),
                fix=f"correct patients.barcode, now {spec.patients.barcode!r}, or the column `clinical.patient`",
            )
        frames.append(frame.assign(**{GROUP: group}).set_axis(pd.Index(patients, name="patient"), axis=0))
    clinical = pd.concat(frames)
    twice = clinical.index[clinical.index.duplicated()].unique()
    if len(twice):
        raise DataError(
            f"{counted(len(twice), 'patient')} with several rows, first '{twice[0]}'",
            where=spec.clinical.files,
            fix="keep one row per patient; time points belong to the scans",
        )
    return clinical.sort_index()


def _parse_endpoints(spec: CohortSpec, clinical: pd.DataFrame, found: _Findings) -> dict[str, EndpointValues]:
    own = [GROUP] if spec.clinical is None else [GROUP, spec.clinical.patient]
    frame = clinical.drop(columns=own, errors="ignore").reset_index()
    endpoints = parse_endpoints(spec.endpoints, frame, "patient")
    for name, values in endpoints.items():
        found.counted[f"endpoint {name}"] = len(values.patients)
        found.faults += [
            Fault(patient, f"endpoint {name}", "", reason, "complete the row of the clinical table")
            for patient, reason in values.incomplete
        ]
    return endpoints


def _stage_tables(
    name: str, modality: OmicsRecipe, spec: CohortSpec, staging: Path, found: _Findings, progress: Progress
) -> list[StagedTable]:
    tables: list[StagedTable] = []
    for position, config in enumerate(modality.source):
        for group, path in _paths(spec, config.files, skip=modality.absent_for):
            if not path.is_file():
                fix = f"correct `files`, or list '{group}' in absent_for" if group else "correct `files` or `root`"
                raise DataError(f"no such file (a table of modality '{name}')", where=str(path), fix=fix)
            progress.start(f"reading {path.name}", None, "")
            source = table_sources.build(spec.completed(config), path)
            label = "-".join(filter(None, (name, str(position), group)))
            table = stage(source, spec.patients, staging, label, modality.transform)
            progress.finish()
            found.remarks.setdefault(name, Counter()).update(table.remarks)
            found.table_files.append((below_root(path, spec.root), path.stat().st_size, table.sha256))
            found.table_files += [describe_file(companion, spec.root) for companion in source.companions]
            found.counted[name] += len(table.samples) + len(table.unmatched)
            found.samples[below_root(path, spec.root)] = {
                "samples_used": len(table.samples),
                "samples_left_out": len(table.left_out),
                "samples_of_nobody": len(table.unmatched),
            }
            found.faults += [
                Fault("", name, f"{below_root(path, spec.root)}: {sample}", *NO_BARCODE) for sample in table.unmatched
            ]
            found.faults += _seen_before(name, table, tables)
            tables.append(table)
    joined = join_versions(tables)
    if joined:
        found.remarks[name][VERSIONS] = joined
    features = [set(table.features) for table in tables]
    apart = len(set.union(*features)) - len(set.intersection(*features))
    if apart:
        found.remarks[name][NOT_IN_ALL] = apart
    return tables


def _seen_before(name: str, table: StagedTable, earlier: list[StagedTable]) -> list[Fault]:
    reason = "the patient is also in an earlier table of this modality, which is used instead"
    return [
        Fault(patient, name, "", reason, "take the patient out of one of the tables")
        for patient in sorted(table.by_patient)
        if any(patient in other.by_patient for other in earlier)
    ]


def _forget_masks_among_channels(spec: CohortSpec, found: _Findings) -> None:
    """Masks that lie beside the scans, named as a channel would be, are not left out."""
    masks = {source.files for recipe in spec.annotations.values() for source in recipe.source}
    for name, modality in spec.images().items():
        for channel in list(found.other_channels[name]):
            if any(source.files.replace("{channel}", channel) in masks for source in modality.source):
                del found.other_channels[name][channel]


def _list_annotations(name: str, recipe: AnnotationRecipe, spec: CohortSpec, found: _Findings) -> Listed:
    """What is drawn, as scans whose channels are regions."""
    sources = build_annotations(recipe, spec)
    listed = _list_scans(label_of(name), spec, sources, found)
    found.table_files += [describe_file(path, spec.root) for source in sources for path in source.companions]
    return listed


def _with_its_image(label: str, listed: Listed, scans: Listed, found: _Findings) -> Listed:
    """Annotations under the patient and time point of their image; without one, or where it is not clear, set aside."""
    time_points: dict[str, list[str]] = {}
    for patient, time_point in scans:
        time_points.setdefault(patient, []).append(time_point)
    placed: Listed = {}
    for (patient, time_point), drawings in listed.items():
        known = time_points.get(patient, [])
        # One that says no time point belongs to the only image there is.
        key = (patient, known[0]) if not time_point and len(known) == 1 else (patient, time_point)
        if key in scans:
            placed[key] = drawings
            continue
        reason, remedy = "the patient has no such image", "add the image, or leave the annotation: it is not used"
        if known:
            at = f"at '{time_point}'" if time_point else "without a time point"
            reason = f"the patient has {counted(len(known), 'image')}, but none {at}"
            remedy = "name the time point of the annotation as that of its image"
        found.faults += [Fault(patient, label, choice.scan.channel, reason, remedy) for choice in drawings.values()]
    return placed


def _refuse_empty_annotations(drawn: dict[str, Listed]) -> None:
    for name, listed in drawn.items():
        if not listed:
            raise DataError(
                f"nobody with an image has annotation '{name}'",
                where=f"annotations.{name}",
                fix="check its files, patients.barcode, and time points",
            )


def _list_scans(
    name: str, spec: CohortSpec, sources: Sequence[ImageSource | AnnotationSource], found: _Findings
) -> Listed:
    """(patient, time point) to channel to scan."""
    listed: Listed = {}
    for position, source in enumerate(sources):
        scans = source.list_scans()
        spec.patients.refuse_merged((scan.patient for scan in scans), where=source.config.files)
        for scan in scans:
            found.counted[name] += 1
            item = below_root(scan.paths[0], spec.root)
            patient = spec.patients.patient(scan.patient)
            if patient is None:
                found.faults.append(Fault("", name, item, *NO_BARCODE))
                continue
            channels = listed.setdefault((patient, scan.time_point), {})
            if scan.channel in channels:
                other = below_root(channels[scan.channel].scan.paths[0], spec.root)
                reason = f"channel '{scan.channel}' is in {other} too"
                found.faults.append(Fault(patient, name, item, reason, "keep one of the two"))
                continue
            channels[scan.channel] = ScanChoice(position, scan)
    others = sum((source.other_channels for source in sources), Counter())
    if others or name in spec.modalities:
        found.other_channels[name] = dict(sorted(others.items()))
    return listed


def _set_strangers_aside(
    known: set[str] | None,
    tables: dict[str, list[StagedTable]],
    scans: dict[str, Listed],
    found: _Findings,
) -> None:
    """Where there is a clinical table it says who the patients are; everyone else goes to quarantine."""
    if known is None:
        return
    why = "the patient is not in the clinical table", "add the patient there, or leave it: it is not used"
    for name, staged in tables.items():
        for patient in sorted({p for table in staged for p in table.by_patient} - known):
            found.faults.append(Fault(patient, name, "", *why))
            for table in staged:
                table.by_patient.pop(patient, None)
    for name, listed in scans.items():
        for patient, time_point in sorted(key for key in listed if key[0] not in known):
            for choice in listed.pop((patient, time_point)).values():
                found.faults.append(Fault(patient, name, choice.scan.channel, *why))


def _refuse_empty_modalities(records: list[RecordPlan], tables: dict[str, list[StagedTable]], scans: dict) -> None:
    empty = [name for name, staged in tables.items() if not any(table.by_patient for table in staged)]
    empty += [name for name, listed in scans.items() if not listed]
    if empty:
        raise DataError(
            f"no patient has modality '{empty[0]}'",
            where=f"modalities.{empty[0]}",
            fix="check its files, patients.barcode, and that the clinical table names the same patients",
        )
    if not records:
        raise DataError("the cohort has no patient", where="clinical", fix="check the clinical table")


def _read_folds(spec: CohortSpec, patients: set[str], found: _Findings) -> dict[str, dict[str, str]]:
    if spec.folds is None:
        return {}
    paths = list(find_folds(path for _, path in _paths(spec, spec.folds.files)))
    found.table_files += [describe_file(path, spec.root) for _, path in paths]
    return read_folds(spec.folds, paths, patients, spec.patients)


def _union(lists: Iterable[list[str]]) -> list[str]:
    return list(dict.fromkeys(name for names in lists for name in names))
