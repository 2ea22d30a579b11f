"""`chiasma predict` and `chiasma embed`: a cohort into a table, resumed, with who took part in training named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import chiasma
from finetune.kept_predictor import KeptPredictor
from finetune.predict import Run, predict
from finetune.run import finetune
from foundation.cohort.records import Record
from foundation.cohort.spec import CohortSpec
from foundation.cohort.store import PreparedCohort
from foundation.config import load_config
from foundation.data.template import BLANK
from foundation.errors import CheckpointError, ConfigError, DataError
from foundation.files import parts
from foundation.yaml_text import dump, parse
from launch.cli import main
from pretrain.embed import embed


@pytest.fixture(scope="module")
def run(workplace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predicting") / "run"
    finetune(workplace / "config.yaml", [f"out={folder}", "final=true", "compare=[from scratch, frozen probe]"])
    return folder


def test_the_command_writes_what_the_predictor_says(run, workplace, cohort, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(parts, "PART", 64)
    out = tmp_path / "new" / "predictions.parquet"
    assert main(["predict", str(run), str(workplace / "cohort"), "--out", str(out)]) == 0
    told, table = capsys.readouterr().out, pd.read_parquet(out)
    expected = KeptPredictor.read(run, torch.device("cpu")).predict(cohort)
    pd.testing.assert_frame_equal(
        table.drop(columns=["time_point", "trained_on"]), expected.drop(columns="row"), check_dtype=False
    )
    assert list(table["time_point"]) == list(cohort.time_points.astype(str))
    assert f"written: {out}" in told and "'rna': this cohort has all 16 features that the model reads." in told


def test_who_took_part_in_training_is_named(run, workplace, seen, cohort, tmp_path):
    out = tmp_path / "predictions.parquet"
    sentences = predict(run, workplace / "cohort", out)
    told = pd.read_parquet(out).set_index("patient")["trained_on"]
    tuned = set(told.index[told.str.contains("fine-tuning")])
    assert set(told.index[told.str.contains("pretraining")]) == seen
    # Everybody with a label and something to read taught it; four patients of this cohort did not.
    assert len(set(cohort.patients) - tuned) == 4
    assert any("took part in training" in sentence for sentence in sentences)


def test_sets_of_a_higher_level_are_larger(run, workplace, tmp_path):
    for level in (0.6, 0.95):
        predict(run, workplace / "cohort", tmp_path / f"{level}.parquet", level=level)
    small, large = (pd.read_parquet(tmp_path / f"{level}.parquet")["subtype/set"] for level in (0.6, 0.95))
    sizes = [sets[sets != ""].str.split(" | ", regex=False).str.len() for sets in (small, large)]
    assert (sizes[0] <= sizes[1]).all() and sizes[0].mean() < sizes[1].mean()


def test_a_stopped_prediction_goes_on_and_is_the_same(run, workplace, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART", 16)
    predict(run, workplace / "cohort", tmp_path / "once.parquet")
    whole, asked = KeptPredictor.predict, []

    def stops(self, cohort, rows, *rest):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(len(rows))
        return whole(self, cohort, rows, *rest)

    monkeypatch.setattr(KeptPredictor, "predict", stops)
    with pytest.raises(KeyboardInterrupt):
        predict(run, workplace / "cohort", tmp_path / "twice.parquet")
    assert not (tmp_path / "twice.parquet").exists()
    monkeypatch.setattr(KeptPredictor, "predict", whole)
    predict(run, workplace / "cohort", tmp_path / "twice.parquet")
    assert (tmp_path / "once.parquet").read_bytes() == (tmp_path / "twice.parquet").read_bytes()


def test_wrong_input_is_one_message(run, workplace, tmp_path, capsys):
    out = str(tmp_path / "p.parquet")
    assert main(["predict", str(run), "--out", out]) == 2
    assert "name either a prepared COHORT, or --from a cohort.yaml" in capsys.readouterr().err
    assert main(["predict", str(run), str(workplace / "cohort"), "--root", str(tmp_path), "--out", out]) == 2
    assert "--root goes with --from" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "nothing"), str(workplace / "cohort"), "--out", out]) == 2
    assert "nothing: no such folder" in capsys.readouterr().err
    assert main(["predict", str(workplace), str(workplace / "cohort"), "--out", out]) == 2
    assert "it has no predictor.json" in capsys.readouterr().err
    assert main(["predict", str(run), str(tmp_path), "--out", out]) == 2
    assert main(["predict", str(run), str(workplace / "cohort"), "--out", str(tmp_path)]) == 2
    assert "is a folder, not a file" in capsys.readouterr().err
    assert not (tmp_path / "p.parquet").exists()


def test_a_damaged_record_is_refused_and_not_replaced_by_another(run, make_cohort, tmp_path):
    """In training the next record takes its place; a prediction must not be somebody else's."""
    values = np.ones((70, 16), dtype=np.float32)
    values[66, 3] = np.inf
    records = [
        Record(patient=f"Q{n}", time_point="", site="A", group=None, omics={"rna": values[n]}, endpoints={})
        for n in range(len(values))
    ]
    make_cohort(tmp_path / "cohort", records)
    with pytest.raises(DataError, match="Q66: 'rna' holds an infinite value"):
        predict(run, tmp_path / "cohort", tmp_path / "p.parquet")


def test_a_cohort_without_a_modality_predicts_as_patients_who_lack_it(run, cohort, records, make_cohort, tmp_path):
    """However the cohort lacks it: its records do, or it knows of no such modality."""
    for record in records:
        record.omics.pop("clinical", None)
    make_cohort(tmp_path / "records", records)
    features = {name: known for name, known in cohort.features.items() if name != "clinical"}
    make_cohort(tmp_path / "cohort", records, features=features)
    loaded = chiasma.load(run)
    tables = [loaded.predict(tmp_path / name).set_index("patient") for name in ("records", "cohort")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    rna = (tables[0]["modalities"] == "rna").to_numpy()
    whole = loaded.predict(cohort).set_index("patient")
    assert rna.any() and not tables[0]["os/risk"].equals(whole["os/risk"])
    told = Run.open(run).sentences(PreparedCohort(tmp_path / "cohort"))
    assert "'clinical': this cohort has none, so every patient is read without it." in told


def test_who_took_part_is_said_to_be_unknown_where_it_is(run, cohort, tmp_path):
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    (copied / "adapter" / "patients.json").unlink()
    told = Run.open(copied).sentences(cohort)
    assert "Who took part in fine-tuning is not recorded: column `trained_on` cannot name them." in told


def test_a_damaged_model_or_cohort_is_refused(run, workplace, tmp_path):
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    harm(copied / "model" / "preprocessing.json", b'"clip"', b'"clip" ')
    with pytest.raises(CheckpointError, match=r"preprocessing.json: is damaged"):
        predict(copied, workplace / "cohort", tmp_path / "p.parquet")
    there = Path(shutil.copytree(workplace / "cohort", tmp_path / "cohort"))
    harm(next((there / "records").glob("*.arrow")), b"\x3f", b"\x3e")
    for call in (lambda: predict(run, there, tmp_path / "p.parquet"), lambda: chiasma.load(run).predict(there)):
        with pytest.raises(DataError, match="is damaged"):
            call()
    shutil.copytree(workplace / "cohort", there, dirs_exist_ok=True)
    harm(there / "features.json", b'"G1"', b'"G9"')
    with pytest.raises(DataError, match=r"features.json: is damaged"):
        chiasma.load(run).embed(there)


def harm(path: Path, old: bytes, new: bytes) -> None:
    """Change the last place where something stands in a file."""
    before, found, after = path.read_bytes().rpartition(old)
    assert found
    path.write_bytes(before + new + after)


def test_embeddings_are_those_of_the_model_and_none_where_nothing_is_read(workplace, cohort, tmp_path):
    out = tmp_path / "e.parquet"
    assert main(["embed", str(workplace / "model"), str(workplace / "cohort"), "--out", str(out)]) == 0
    table = pd.read_parquet(out)
    assert list(table["patient"]) == list(cohort.patients)
    lengths = table["embedding"].str.len()
    assert set(lengths[table["modalities"] == ""]) <= {0} and set(lengths[table["modalities"] != ""]) == {8}
    norms = [np.linalg.norm(z) for z in table["embedding"][lengths > 0]]
    np.testing.assert_allclose(norms, 1, rtol=1e-5)
    assert embed(workplace / "model", workplace / "cohort", tmp_path / "again.parquet")
    pd.testing.assert_frame_equal(table, pd.read_parquet(tmp_path / "again.parquet"))


def test_a_folder_that_is_no_model_is_refused(workplace, tmp_path):
    with pytest.raises(CheckpointError, match="is no model folder"):
        embed(workplace, workplace / "cohort", tmp_path / "e.parquet")


def test_in_python_it_is_three_lines(run, workplace, cohort, tmp_path):
    loaded = chiasma.load(run)
    predict(run, workplace / "cohort", tmp_path / "p.parquet", level=0.8)
    pd.testing.assert_frame_equal(
        loaded.predict(cohort, level=0.8), pd.read_parquet(tmp_path / "p.parquet"), check_dtype=False
    )
    model = chiasma.load(workplace / "model").embed(workplace / "cohort")
    assert list(model["patient"]) == list(cohort.patients)
    with pytest.raises(CheckpointError, match="no such folder"):
        chiasma.load(tmp_path / "nothing")


def test_what_cannot_be_loaded_is_refused_at_once(run, workplace, cohort, tmp_path):
    for place in (workplace / "cohort", run / "kept", run / "adapter", tmp_path):
        with pytest.raises(CheckpointError, match="holds no predictor and no model"):
            chiasma.load(place)
    with pytest.raises(ConfigError, match="give a share from"):
        chiasma.load(run).predict(cohort, level=95)
    assert repr(chiasma.load(run)) == f"chiasma.load({str(run)!r})"


def test_importing_it_reads_no_heavy_library():
    told = subprocess.run(
        [sys.executable, "-c", "import sys, chiasma; print(sorted({'torch', 'pandas', 'numpy'} & sys.modules.keys()))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "[]"


def test_the_model_says_which_cohort_it_wants(run, tmp_path, capsys):
    out = tmp_path / "new.yaml"
    assert main(["describe-model", str(run), "--out", str(out)]) == 0
    text = out.read_text()
    assert "rna" in text and BLANK in text and "at least 50% of them have to be there" in text
    (tmp_path / "my.tsv").write_text("x")
    spec = load_config(CohortSpec, out)
    assert set(spec.modalities) == set(KeptPredictor.read(run).modalities)
    assert main(["describe-model", str(run), "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["describe-model", str(run)]) == 0
    assert capsys.readouterr().out == text


def test_who_lacks_features_is_read_from_the_rest_and_it_is_told(run, workplace, cohort):
    table = chiasma.load(run).predict(cohort)
    shares = table["observed/rna"]
    has = table["modalities"].str.contains("rna")
    assert set(shares[has]) == {1.0} and set(shares[~has]) == {0.0}


def test_source_files_are_prepared_on_the_way_by_the_template_of_the_model(run, cohort, tmp_path, capsys):
    """What `describe-model` writes, its blanks filled in and what is not there deleted, predicts as the records do."""
    rows = np.flatnonzero(cohort.present_NM[:, cohort.modalities.index("rna")])[:12]
    values = cohort.values_NF("rna", rows)
    table = pd.DataFrame(values.T, index=cohort.features["rna"], columns=[f"N{n}" for n in range(len(rows))])
    table.to_csv(tmp_path / "rna.tsv", sep="\t", index_label="gene")
    spec = parse(chiasma.load(run).template())
    spec["modalities"] = {"rna": {**spec["modalities"]["rna"], "unit": "", "values": "continuous"}}
    spec["modalities"]["rna"]["source"]["files"] = str(tmp_path / "rna.tsv")
    (tmp_path / "new.yaml").write_text(dump(spec))
    out = tmp_path / "there" / "p.parquet"
    assert main(["predict", str(run), "--from", str(tmp_path / "new.yaml"), "--out", str(out)]) == 0
    found = pd.read_parquet(out).set_index("patient")
    expected = chiasma.load(run).predict(cohort).iloc[rows]
    alone = (expected["modalities"] == "rna").to_numpy()
    assert set(found["modalities"]) == {"rna"} and len(found) == len(rows) and alone.any()
    risks = found.loc[[f"N{n}" for n in range(len(rows))], "os/risk"].to_numpy()
    np.testing.assert_allclose(risks[alone], expected["os/risk"].to_numpy()[alone], rtol=1e-4)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert main(["predict", str(tmp_path), "--from", str(tmp_path / "new.yaml"), "--out", str(out)]) == 2
    assert "it has no predictor.json" in capsys.readouterr().err


@pytest.fixture
def sources(run, cohort, tmp_path):
    """new.yaml and a table of twelve patients."""
    rows = np.flatnonzero(cohort.present_NM[:, cohort.modalities.index("rna")])[:12]
    table = pd.DataFrame(
        cohort.values_NF("rna", rows).T, index=cohort.features["rna"], columns=[f"N{n}" for n in range(12)]
    )
    table.to_csv(tmp_path / "rna.tsv", sep="\t", index_label="gene")
    spec = parse(chiasma.load(run).template())
    spec["modalities"] = {"rna": {**spec["modalities"]["rna"], "unit": "", "values": "continuous"}}
    spec["modalities"]["rna"]["source"]["files"] = str(tmp_path / "rna.tsv")
    spec["patients"] = {"barcode": "(?P<patient>N[0-9])$"}
    spec["quarantine"] = {"stop_above": 0.5}
    (tmp_path / "new.yaml").write_text(dump(spec))
    return tmp_path / "new.yaml"


def test_what_could_not_be_used_is_told_and_listed(run, sources, tmp_path, capsys):
    out = tmp_path / "there" / "p.parquet"
    assert main(["predict", str(run), "--from", str(sources), "--out", str(out)]) == 0
    listed = tmp_path / "there" / "p.parquet.quarantine.tsv"
    assert f"2 scans or samples could not be used: {listed} says why" in capsys.readouterr().out
    assert len(listed.read_text().splitlines()) == 3
    assert {path.name for path in out.parent.iterdir()} == {out.name, listed.name}
    sources.write_text(sources.read_text().replace("stop_above: 0.5", "stop_above: 0.0"))
    again = tmp_path / "again" / "p.parquet"
    assert main(["predict", str(run), "--from", str(sources), "--out", str(again)]) == 2
    said = capsys.readouterr().err
    assert f"{again}.quarantine.tsv" in said and ".from" not in said
    assert [path.name for path in again.parent.iterdir()] == ["p.parquet.quarantine.tsv"]


def test_after_a_refusal_nothing_is_left_and_the_yaml_is_named(run, sources, tmp_path, capsys):
    good, out = sources.read_text(), tmp_path / "there" / "p.parquet"
    sources.write_text(good.replace('unit: ""', "unit: z-score").replace("unit: ''", "unit: z-score"))
    assert main(["predict", str(run), "--from", str(sources), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"{sources}: 'rna' was prepared with unit 'z-score'" in said and ".from" not in said
    assert list(out.parent.iterdir()) == []
    sources.write_text(good)
    assert main(["predict", str(run), "--from", str(sources), "--out", str(out)]) == 0


def test_a_preparation_of_an_interrupted_command_is_not_taken_for_another(run, sources, tmp_path, monkeypatch):
    out, whole = tmp_path / "there" / "p.parquet", KeptPredictor.predict

    def stops(*rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(KeptPredictor, "predict", stops)
    assert main(["predict", str(run), "--from", str(sources), "--out", str(out)]) == 130
    assert (out.parent / ".p.parquet.from" / "cohort" / "cohort.json").is_file()
    monkeypatch.setattr(KeptPredictor, "predict", whole)
    table = pd.read_csv(tmp_path / "rna.tsv", sep="\t", index_col=0)
    table.assign(N3=table["N3"] + 1).to_csv(tmp_path / "rna.tsv", sep="\t")
    assert main(["predict", str(run), "--from", str(sources), "--out", str(out)]) == 0
    changed = pd.read_parquet(out).set_index("patient")["os/risk"]
    assert main(["predict", str(run), "--from", str(sources), "--out", str(tmp_path / "new.parquet")]) == 0
    assert changed.equals(pd.read_parquet(tmp_path / "new.parquet").set_index("patient")["os/risk"])
