"""summary.html of made-up cohorts: its numbers, its pictures, and that nobody is named."""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import PIL.Image
import pytest

from foundation.cohort.manifest import ImageEntry, Manifest, OmicsEntry
from foundation.cohort.records import Image, Record, record_features, write_index, write_shard
from foundation.cohort.summary.page import write_summary
from foundation.modality import Percentile, Window

SHAPE = (24, 28, 20)
CHANNELS = ["t1", "flair", "t1gd"]
ENDPOINTS = {"kind": "subtype", "os": "survival", "dose": "regression"}


def brain(generator, scale=100.0):
    """[X, Y, Z] an egg with a grain of noise and a bright block at its right, anterior, superior side."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    voxels = np.where((grid**2).sum(axis=0) < 0.8, scale * (1 + 0.1 * generator.standard_normal(SHAPE)), 0)
    voxels[12:18, 14:21, 10:14] = 230
    return voxels.clip(0, 255)


def make_records(count, *, sites=4, groups=(), seed=0):
    generator = np.random.default_rng(seed)
    records = []
    for number in range(count):
        record = Record(f"SECRET-{number:04d}", site=f"Hospital {number % sites}" if number % 7 else None)
        record.group = groups[number % len(groups)] if groups else None
        if number % 3 == 0:
            channels = np.array([True, number % 2 == 0, number % 5 != 0])
            voxels = np.stack([brain(generator) * here for here in channels]).astype(np.uint8)
            statistics = np.full((3, 4), np.nan, dtype=np.float32)
            statistics[channels] = [0, 140 + number % 10, 60, 20]
            record.images["mri"] = Image(voxels, channels, statistics)
        if number % 4:
            values = generator.standard_normal(50).astype(np.float32)
            values[generator.random(50) < 0.1] = np.nan
            record.omics["rna"] = values
        if number % 5:
            record.omics["mutation"] = (generator.random(40) < 0.1).astype(np.float32)
        record.omics["clinical"] = np.array([60 + 9 * generator.standard_normal(), number % 2], dtype=np.float32)
        if number % 6:
            record.endpoints["kind"] = number % 3
            record.endpoints["os/time"] = float(generator.exponential(800))
            record.endpoints["os/event"] = int(generator.random() < 0.6)
            record.endpoints["dose"] = float(generator.standard_normal())
        records.append(record)
    return records


def entries(**image):
    given = {
        "patients": 0,
        "shape": list(SHAPE),
        "channels": dict.fromkeys(CHANNELS, 0),
        "orientation": "RAS",
        "spacing": (2.0, 2.0, 3.0),
        "intensity": Percentile(rule="percentile"),
        "stored_as": "uint8",
        "mirror": ["x"],
        **image,
    }
    return {
        "mri": ImageEntry(**given),
        "rna": OmicsEntry(patients=0, features=50, values="continuous", unit="z-score", transform=["clip(-10,10)"]),
        "mutation": OmicsEntry(patients=0, features=40, values="binary", unit="", transform=[]),
        "clinical": OmicsEntry(patients=0, features=2, values="continuous", unit="", transform=[]),
    }


def only(name, **image):
    return {name: entries(**image)[name]}


def write_cohort(out, records, modalities, *, endpoints=ENDPOINTS, quarantine=(), folds=None, name="egg"):
    """Write records as `prepare` would and count them anew, simply."""
    features = {n: [f"{n}{i}" for i in range(e.features)] for n, e in modalities.items() if e.kind == "omics"}
    spec = SimpleNamespace(
        images=lambda: {n: e for n, e in modalities.items() if e.kind == "image"},
        omics=lambda: features,
        annotations={},
        endpoints={n: SimpleNamespace(kind=kind) for n, kind in endpoints.items()},
    )
    columns = record_features(spec, features)
    (out / "records").mkdir(parents=True)
    shards = [out / "records" / f"part-{number}.arrow" for number in range(2)]
    for number, shard in enumerate(shards):
        write_shard(shard, columns.arrow_schema, records[number::2])
    write_index(out / "records", columns, shards, "0" * 64)
    (out / "features.json").write_text(json.dumps(features))
    rows = ["patient\tmodality\titem\treason\tremedy", *("\t".join(row) for row in quarantine)]
    (out / "quarantine.tsv").write_text("\n".join(rows) + "\n")
    return Manifest(
        name=name,
        patients=len({r.patient for r in records}),
        records=len(records),
        modalities={n: counted(n, e, records) for n, e in modalities.items()},
        patterns=dict(Counter("+".join(n for n in modalities if n in held(r)) or "none" for r in records)),
        endpoints={n: describe(n, kind, records) for n, kind in endpoints.items()},
        sites=dict(Counter(r.site for r in records if r.site)),
        groups=dict(Counter(r.group for r in records if r.group)),
        folds=folds or {},
        sources={
            "tables": {"rna.tsv.gz": {"bytes": 12_345_678, "sha256": "ab" * 32}},
            "images": {"files": 3, "bytes": 5, "sha256": "cd" * 32},
        },
        quarantined=len(quarantine),
        versions={"chiasma": "0.1.0", "numpy": "2.0"},
        fingerprint="f" * 64,
    )


def held(record):
    return {**record.images, **record.omics}


def counted(name, entry, records):
    having = [r for r in records if name in held(r)]
    changes = {"patients": len({r.patient for r in having})}
    if entry.kind == "image":
        changes["channels"] = {
            c: sum(bool(r.images[name].channels[i]) for r in having) for i, c in enumerate(entry.channels)
        }
    return entry.model_copy(update=changes)


def describe(name, kind, records):
    if kind == "survival":
        events = [r.endpoints[f"{name}/event"] for r in records if f"{name}/event" in r.endpoints]
        return {"kind": kind, "patients": len(events), "events": sum(events), "median_follow_up": 1.0, "unit": "days"}
    codes = [r.endpoints[name] for r in records if name in r.endpoints]
    if kind == "regression":
        return {"kind": kind, "patients": len(codes), "unit": "mg"}
    return {"kind": kind, "patients": len(codes), "classes": {f"class {c}": codes.count(c) for c in range(3)}}


class Reader(HTMLParser):
    """Texts of tables and captions, and the decoded images with what they say they show."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.images, self.words = [], [], []
        self._in = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self._in.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "img":
            given = dict(attrs)
            self.images.append((given["alt"], base64.b64decode(given["src"].partition(",")[2])))

    def handle_endtag(self, tag):
        while self._in.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" in self._in:
            return
        self.words.append(data)
        if self._in and self._in[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data.replace("\u00a0", " ")

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def table(self, first):
        return next(table for table in self.tables if table[0][0] == first)


def summary(out, *args, **kwargs):
    manifest = write_cohort(out, *args, **kwargs)
    write_summary(out, manifest)
    return Reader((out / "summary.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def egg(tmp_path_factory):
    """A cohort of 90 patients, its records and its page."""
    records = make_records(90)
    out = tmp_path_factory.mktemp("egg")
    return records, summary(out, records, entries()), out


def decode(data):
    return np.asarray(PIL.Image.open(io.BytesIO(data)), dtype=float)


def test_headline_and_table_of_modalities_count_patients(egg):
    records, page, _ = egg
    counts = {name: sum(name in held(r) for r in records) for name in entries()}
    assert f"egg holds 90 patients: {counts['mri']} with mri" in page.text
    assert {row[0]: int(row[1]) for row in page.table("modality")[1:]} == counts
    complete = sum(len(held(r)) == 4 for r in records)
    assert f"patients with every modality {complete} (" in page.text


def test_the_same_bytes_come_each_time_whatever_the_users_own_plot_settings(egg, tmp_path):
    import matplotlib

    _, _, out = egg
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        summary(tmp_path, make_records(90), entries())
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "summary.html").read_bytes() == (out / "summary.html").read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_modality_by_site_agrees_with_pandas(egg):
    records, page, _ = egg
    frame = pd.DataFrame(
        [{"site": r.site or "site not known", **{n: n in held(r) for n in entries()}} for r in records]
    )
    expected = frame.groupby("site").mean()
    sizes = frame["site"].value_counts()
    table = page.table("site")
    shown = {row[0]: row[1:] for row in table[1:]}
    assert set(shown) == {*expected.index, "all"}
    for site, row in expected.iterrows():
        assert shown[site] == [str(sizes[site]), *(f"{100 * value:.0f} %" for value in row)]
    named = [row[0] for row in table[1:-2]]
    assert named == sorted(named, key=lambda site: (-sizes[site], site))


def test_many_sites_are_summed_and_their_patients_still_add_up(tmp_path):
    records = make_records(100, sites=50)
    page = summary(tmp_path, records, only("rna"), endpoints={})
    rows = page.table("site")[1:]
    assert len(rows) == 30 + 3
    assert re.fullmatch(r"\d+ other sites", rows[30][0])
    assert sum(int(row[1]) for row in rows[:-1]) == 100
    named = {row[0] for row in rows[:30]}
    others = ["rna" in r.omics for r in records if r.site and r.site not in named]
    assert rows[30][1:] == [str(len(others)), f"{100 * np.mean(others):.0f} %"]


def test_missing_channels_are_counted(egg):
    records, page, _ = egg
    images = [r.images["mri"] for r in records if r.images]
    lacking = [sum(not image.channels[c] for image in images) for c in range(3)]
    assert f"Of {len(images)} patients with mri, {lacking[1]} lack flair and {lacking[2]} lack t1gd." in page.text


def test_no_missing_channel_is_said(tmp_path):
    records = make_records(4)[:1]
    records[0].images["mri"].channels[:] = True
    assert "every channel: t1, flair, t1gd" in summary(tmp_path, records, only("mri"), endpoints={}).text


def test_more_than_twenty_patterns_are_summed(tmp_path):
    generator = np.random.default_rng(3)
    names = [f"m{i}" for i in range(6)]
    modalities = {n: OmicsEntry(patients=0, features=2, values="continuous", unit="", transform=[]) for n in names}
    records = [
        Record(f"p{i:03d}", omics={n: np.ones(2, np.float32) for n in names if generator.random() < 0.5})
        for i in range(200)
    ]
    page = summary(tmp_path, records, modalities, endpoints={})
    counts = sorted(Counter(frozenset(r.omics) for r in records).values(), reverse=True)
    assert len(counts) > 20
    rest = f"the other {len(counts) - 20} hold {sum(counts[20:])} patients"
    assert f"The 20 most frequent of {len(counts)} patterns are drawn; {rest}" in page.text


def test_a_patient_with_two_time_points_counts_once(tmp_path):
    records = make_records(3)
    records.append(Record(records[0].patient, time_point="b", site=records[0].site, images=records[0].images))
    records[0].images = {}
    page = summary(tmp_path, records, only("mri"), endpoints={})
    assert "egg holds 3 patients: 1 with mri" in page.text
    assert "records (patient and time point) 4" in page.text
    assert page.table("site")[-1][:3] == ["all", "3", "33 %"]


def wall(page):
    return {alt: decode(data) for alt, data in page.images if re.match(r"patient \d+,", alt)}


def brightest_half(picture):
    """Where the block is: left or right, top or bottom."""
    rows, columns = np.nonzero(picture > 230)
    middle = (picture.shape[0] - 1) / 2
    return ("left" if columns.mean() < middle else "right", "top" if rows.mean() < middle else "bottom")


def test_planes_lie_in_radiological_display(egg):
    # The block is on the right, anterior and superior side.
    _, page, _ = egg
    pictures = wall(page)
    assert len(pictures) > 100
    for alt, picture in pictures.items():
        assert brightest_half(picture) == ("left", "top"), alt


def test_planes_have_the_proportions_of_the_spacing(egg):
    _, page, _ = egg
    picture = wall(page)["patient 1, t1, axial"]
    inside = np.abs(picture - 0x26) > 20
    across, up = inside.any(axis=0).sum(), inside.any(axis=1).sum()
    # 24 x 2 mm by 28 x 2 mm, in tiles as wide as the largest extent, 20 x 3 mm.
    assert (across / 192, up / 192) == pytest.approx((48 / 60, 56 / 60), abs=0.02)


def test_edges_are_named_and_missing_channels_marked(egg):
    records, page, out = egg
    text = (out / "summary.html").read_text(encoding="utf-8")
    drawn = len(wall(page))
    assert drawn + text.count("<span>not acquired</span>") == 24 * 3 * 3
    assert text.count('<span class="left">R</span>') == text.count('<span class="right">L</span>') == 2 * drawn // 3
    assert text.count('<span class="left">A</span>') == drawn // 3
    sampled = len([r for r in records if r.images])
    assert f"24 of {sampled} patients" in page.text
    assert "right (R) is on the left" in page.text


def test_untrue_spacing_and_native_orientation_are_said(tmp_path):
    page = summary(tmp_path / "a", make_records(6), only("mri", spacing="untrue"), endpoints={})
    assert "drawn as a square" in page.text
    assert (np.abs(wall(page)["patient 1, t1, axial"] - 0x26) > 20).any(axis=0).sum() > 180
    page = summary(tmp_path / "b", make_records(6), only("mri", orientation="native", spacing="native"), endpoints={})
    assert "patient 1, t1, xy" in wall(page)
    assert "right (R)" not in page.text
    assert brightest_half(wall(page)["patient 1, t1, xy"]) == ("right", "bottom")


def test_flat_images_are_one_picture_each_as_in_their_file(tmp_path):
    ramp = np.linspace(0, 200, 30 * 40).reshape(30, 40).astype(np.float32)
    # Stored right and anterior last; a file begins at its upper left corner.
    stored = np.stack([ramp, ramp])[:, ::-1, ::-1]
    statistics = np.array([[0, 200, 100, 9]] * 2, dtype=np.float32)
    record = Record("p", images={"mri": Image(stored, np.ones(2, bool), statistics)})
    shape = {"shape": [30, 40], "channels": {"left": 0, "right": 0}, "spacing": "native", "stored_as": "float32"}
    image = only("mri", **shape, intensity=Window(rule="window", unit="HU", low=0, high=200))
    page = summary(tmp_path, [record], image, endpoints={})
    pictures = wall(page)
    assert set(pictures) == {"patient 1, left", "patient 1, right"}
    inside = pictures["patient 1, left"][:, 30:160]
    assert np.all(np.diff(inside[5:-5].mean(axis=0)) > 0)
    assert "as it lies in its file" in page.text
    assert "window 0 to 200 HU" in page.text


def reasons(page):
    return next(table for table in page.tables if table[0] == ["modality", "reason", "what to do", "number"])


def test_no_patient_is_named_anywhere(tmp_path):
    quarantine = [
        ("SECRET-0003", "mri", "t1", "mri/SECRET-0003/t1.nii.gz: the file is truncated", "copy it"),
        ("SECRET-0006", "mri", "t1", "mri/SECRET-0006/t1.nii.gz: the file is truncated", "copy it"),
        ("", "mri", "x/SECRET 9/t1.nii", "'SECRET 9' does not match patients.barcode", "see x/SECRET 9/t1.nii"),
        ("Anna SECRET", "rna", "", "Anna SECRET is also in an earlier table", "drop Anna SECRET (>=2.1)"),
        (
            "SECRET-0009",
            "mri",
            "b.nii",
            "channel 't1' is in mri/SECRET-0009/b.nii too, not of SECRET-0012",
            "not 'SECRET-0012'",
        ),
    ]
    page = summary(tmp_path, make_records(12), entries(), quarantine=quarantine)
    assert "SECRET" not in (tmp_path / "summary.html").read_text(encoding="utf-8")
    assert not any(b"SECRET" in data for _, data in page.images)
    rows = {tuple(row) for row in reasons(page)[1:]}
    assert ("mri", "the file is truncated", "copy it", "2") in rows
    assert ("rna", "… is also in an earlier table", "drop … (>=2.1)", "1") in rows
    assert "5 scans or samples could not be used" in page.text


def test_many_reasons_are_cut_and_summed(tmp_path):
    words = [f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"][:60]
    quarantine = [("", "rna", "", f"reason {word}", "") for word in words]
    page = summary(tmp_path, make_records(3), only("clinical"), endpoints={}, quarantine=quarantine)
    rows = reasons(page)
    assert len(rows) == 52
    assert rows[-1] == ["", "10 other reasons", "", "10"]


def test_endpoints_are_drawn_with_their_numbers(egg):
    records, page, _ = egg
    known = [r for r in records if "kind" in r.endpoints]
    with_mri = sum("mri" in held(r) for r in known)
    table = {row[0]: row[1:] for row in page.table("endpoint")[1:]}
    assert table["kind"][:3] == ["subtype", str(len(known)), str(with_mri)]
    alts = [alt for alt, _ in page.images]
    count = sum(r.endpoints["kind"] == 0 for r in known)
    assert any(f"class 0 {count}, class 1" in alt for alt in alts)
    events = sum(r.endpoints["os/event"] for r in known)
    assert any(f"{len(known)} patients, {events} events" in alt for alt in alts)
    assert any(alt == "Histogram of dose" for alt in alts)


def test_half_survivals_are_said(tmp_path):
    manifest = write_cohort(tmp_path, make_records(9), only("clinical"), endpoints={"os": "survival"})
    manifest.endpoints["os"]["incomplete"] = 2
    write_summary(tmp_path, manifest)
    page = Reader((tmp_path / "summary.html").read_text(encoding="utf-8"))
    assert "os: 2 patients have only a time or only an event" in page.text


def test_survival_of_groups_is_never_pooled(tmp_path):
    page = summary(tmp_path, make_records(40, groups=("one", "two")), only("clinical"), endpoints={"os": "survival"})
    curves = [alt for alt, _ in page.images if alt.startswith("Kaplan-Meier")]
    assert {alt.partition(".")[0][-3:] for alt in curves} == {"one", "two"}
    assert len(curves) == 2
    assert "never pooled" in page.text
    assert [row[:2] for row in page.table("group")[1:]] == [["one", "20"], ["two", "20"], ["all", "40"]]


def test_binary_values_are_told_as_ones_per_patient(tmp_path):
    records = [Record(f"p{i}", omics={"m": np.eye(20, dtype=np.float32)[0] * (i > 0)}) for i in range(3)]
    entry = OmicsEntry(patients=0, features=20, values="binary", unit="", transform=[])
    page = summary(tmp_path, records, {"m": entry}, endpoints={})
    assert "Median patient: 5 % of the features are 1." in page.text


def test_what_is_not_measured_is_said(tmp_path):
    values = np.arange(40, dtype=np.float32) + 0.5
    rows = [values.copy(), values.copy()]
    rows[0][:10] = np.nan
    rows[1][:5] = np.nan
    records = [Record(f"p{i}", omics={"m": row}) for i, row in enumerate(rows)]
    entry = OmicsEntry(patients=0, features=40, values="count", unit="reads", transform=[])
    page = summary(tmp_path, records, {"m": entry}, endpoints={})
    assert "Not measured: 19 % of values, 25 % in the patient who lacks most." in page.text
    assert "5 features measured in none of them." in page.text
    assert "Values from 5.5 to 39.5, median 23.5." in page.text


def test_folds_and_sources_are_listed(tmp_path):
    folds = {"0": {"train": 4, "val": 2}, "1": {"train": 5}}
    page = summary(tmp_path, make_records(6), only("clinical"), endpoints={}, folds=folds)
    assert page.table("fold") == [["fold", "train", "val"], ["0", "4", "2"], ["1", "5", "0"]]
    assert page.table("source")[1:] == [
        ["rna.tsv.gz", "12.3 MB", "ab" * 6],
        ["3 image files", "5 bytes", "cd" * 6],
    ]
    assert page.table("library")[1:] == [["chiasma", "0.1.0"], ["numpy", "2.0"]]


def test_a_cohort_of_one_patient_with_next_to_nothing(tmp_path):
    entry = OmicsEntry(patients=0, features=1, values="continuous", unit="", transform=[])
    record = Record("only", omics={"m": np.array([np.nan], dtype=np.float32)})
    page = summary(tmp_path, [record], {"m": entry}, endpoints={})
    assert "egg holds 1 patient: 1 with m." in page.text
    for absent in ("Endpoints", "Modality by", "Image intensities", "Central slices", "Published folds"):
        assert absent not in page.text
    assert "Nothing was set aside" in page.text


def test_endpoints_that_nobody_has_and_patients_without_anything(tmp_path):
    records = [Record(f"p{i}", omics={"rna": np.ones(50, np.float32)} if i else {}) for i in range(3)]
    page = summary(tmp_path, records, only("rna"))
    assert [row[2] for row in page.table("endpoint")[1:]] == ["0", "0", "0"]
    assert any("the most frequent, 2 patients: rna" in alt for alt, _ in page.images)


@pytest.mark.parametrize("level", [0.0, 7.0])
def test_constant_images_without_statistics(tmp_path, level):
    voxels = np.full((3, *SHAPE), level, dtype=np.uint8)
    image = Image(voxels, np.array([True, True, False]), np.full((3, 4), np.nan, dtype=np.float32))
    page = summary(tmp_path, [Record("p", images={"mri": image})], only("mri"), endpoints={})
    assert "Of 1 patient with mri, 1 lack t1gd." in page.text


def test_every_figure_says_what_it_shows_and_the_page_stays_small(egg):
    _, page, out = egg
    assert all(alt for alt, _ in page.images)
    assert (out / "summary.html").stat().st_size < 4e6
