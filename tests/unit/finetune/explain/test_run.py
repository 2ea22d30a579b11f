"""`chiasma explain`: what it writes, that it names nobody, goes on where it stopped, and refuses what does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from finetune.explain import run as module
from finetune.explain.attribution import Explainer
from finetune.explain.report import page as page_module
from finetune.explain.run import explain
from foundation.cohort.store import PreparedCohort
from foundation.errors import CheckpointError, ConfigError, DataError
from launch.cli import main

SETS = "ONE\t\tG0\tG1\tG2\tG3\nTWO\t\tG4\tG5\tG6\n"


@pytest.fixture(scope="module")
def explained(stack: Path, workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explained")
    (folder / "sets.gmt").write_text(SETS, encoding="utf-8")
    told = explain(stack, workplace / "cohort", folder / "out", patients=3, gene_sets=folder / "sets.gmt")
    assert any("check" in sentence for sentence in told)
    return folder / "out"


def test_it_writes_what_it_says(explained: Path, explainer: Explainer, cohort: PreparedCohort):
    page = (explained / "explanation.html").read_text(encoding="utf-8")
    for text in ("Can it be believed?", "subtype: a", "os: risk", "What each modality contributes", "ONE", "patient 3"):
        assert text in page
    assert "patient 4" not in page and "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    table = pd.read_csv(explained / "genes" / "os-risk.features.tsv", sep="\t")
    assert len(table) == len(explainer.columns) and table["mean_absolute"].is_monotonic_decreasing
    features = pd.read_csv(explained / "features.tsv", sep="\t")
    part = pq.read_table(explained / "attributions" / "part-00000.parquet").to_pandas()
    row = part.iloc[3]
    attributed = explainer.attribute(np.array([row["row"]]), explainer.read(np.array([row["row"]])), np.ones(4))
    found = attributed.attribution_BSP[0, 3]
    for name, at in explainer.columns.slices().items():
        assert features[features["modality"] == name]["feature"].tolist() == explainer.columns.names[at]
        if row[name] is not None:
            np.testing.assert_allclose(np.nan_to_num(row[name]), found[at], atol=1e-3)
    names = {guard["name"] for guard in json.loads((explained / "guards.json").read_text())}
    assert names == {"completeness", "random weights", "deletion and insertion"}
    assert set(pd.read_csv(explained / "pathways" / "os-risk.tsv", sep="\t")["pathway"]) == {"ONE", "TWO"}


def test_it_names_nobody_unless_asked(explained: Path, cohort: PreparedCohort, stack: Path, tmp_path: Path):
    secret = [name.encode() for name in np.unique(cohort.patients.astype(str))]
    for path in explained.rglob("*"):
        if path.is_file() and path.suffix == ".parquet":
            assert pq.read_table(path)["patient"].to_pylist()[0].startswith("patient ")
        elif path.is_file():
            assert not any(name in path.read_bytes() for name in secret), path
    out = tmp_path / "named"
    explain(stack, cohort.path, out, patients="P003,P005", identifiers=True)
    page = (out / "explanation.html").read_text(encoding="utf-8")
    assert "P003, record 2" in page and "P005" in page and "P007" not in page


def test_it_goes_on_where_it_stopped(explained: Path, stack: Path, cohort: PreparedCohort, tmp_path, monkeypatch):
    out = Path(shutil.copytree(explained, tmp_path / "out"))
    whole = (out / "explanation.html").read_bytes()
    (out / "explanation.html").unlink()
    last = sorted((out / "attributions").iterdir())[-1]
    before = {path: path.stat().st_mtime_ns for path in (out / "attributions").iterdir() if path != last}
    last.unlink()
    sets = explained.parent / "sets.gmt"
    explain(stack, cohort.path, out, patients=3, gene_sets=sets)
    assert (out / "explanation.html").read_bytes() == whole
    assert all(path.stat().st_mtime_ns == at for path, at in before.items()) and last.is_file()
    with pytest.raises(CheckpointError, match="seed changed since"):
        explain(stack, cohort.path, out, patients=3, seed=1)


def test_what_fails_a_check_is_marked_wherever_it_is_shown(explained, stack, cohort, tmp_path, monkeypatch):
    out = Path(shutil.copytree(explained, tmp_path / "out"))
    monkeypatch.setattr(module, "completeness", lambda errors, scores: [_failing(scores[3])])
    told = explain(stack, cohort.path, out, patients=1)
    page = (out / "explanation.html").read_text(encoding="utf-8")
    mark = f"os: risk – {page_module.NOT_TRUSTED}"
    assert page.count(mark) >= 2 and "subtype: a – not" not in page
    assert any("os: risk" in sentence and page_module.NOT_TRUSTED in sentence for sentence in told)


def _failing(score):
    from finetune.explain.guards import Guard

    return Guard("completeness", score, 0.7, False, "attributions do not add up")


def test_input_that_does_not_fit_is_refused(stack: Path, workplace: Path, tmp_path: Path, capsys):
    cohort = str(workplace / "cohort")
    with pytest.raises(ConfigError, match="is called 'P0003'"):
        explain(stack, workplace / "cohort", tmp_path / "out", patients="P0003", device=torch.device("cpu"))
    (tmp_path / "sets.gmt").write_text("A\t\tENSG1\tENSG2\n", encoding="utf-8")
    with pytest.raises(DataError, match="none of its genes"):
        explain(stack, workplace / "cohort", tmp_path / "out", gene_sets=tmp_path / "sets.gmt")
    assert main(["explain", str(tmp_path), cohort, "--out", str(tmp_path / "out")]) == 2
    assert "is no folder of a kept predictor" in capsys.readouterr().err
    yaml = str(workplace / "config.yaml")
    assert main(["explain", str(stack), cohort, "--out", str(tmp_path / "out"), "--sources", yaml]) == 2
    assert "--identifiers" in capsys.readouterr().err
    # A run folder is not written over.
    assert main(["explain", str(stack), cohort, "--out", str(stack)]) == 2
    assert not (tmp_path / "out").exists() and not (stack / "explanation.html").exists()
