"""A step learns from the mean gradient of its batches, in the order of patients that a run without accumulation has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from foundation.cohort.store import PreparedCohort
from foundation.training.parallel.replicated import Replicated
from pretrain.run import pretrain as run_config
from pretrain.step import Step

SHARD = "shard-00001-model-00001-of-00001.safetensors"
"""What one process writes of a checkpoint's part."""

CONFIG = """
cohort: COHORT
out: run
held_out: {patients: held_out.txt}
towers:
  mri: {tower: vit2d, arguments: {patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}, max_slices: 1, pool_heads: 2}
  omics: {tower: omics_transformer, tokenizer: {tokenizer: chunk}, width: 16, depth: 1, heads: 2}
width: 16
fusion: {fusion: gated_mean}
objectives:
  contrast: {loss: {objective: infonce}}
batch_size: 6
optimiser: {clip: 1e9, learning_rate: 1e-12}
permutations: 100
"""


@pytest.fixture(scope="module")
def workplace(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    (folder / "config.yaml").write_text(CONFIG.replace("COHORT", str(simulated / "cohort")))
    patients = PreparedCohort(simulated / "cohort").patients.astype(str)
    (folder / "held_out.txt").write_text("\n".join(sorted(set(patients))[18:]))
    return folder


def watch(monkeypatch: pytest.MonkeyPatch) -> tuple[list[list[int]], list[dict[str, torch.Tensor]]]:
    """Rows of each batch, and the gradient at each update; at this learning rate the weights hardly move."""
    batches, gradients = [], []
    losses, step = Step.losses, Replicated.step

    def seen(self, batch, *args):
        batches.append(batch.rows.tolist())
        seen.module = self.pretraining
        return losses(self, batch, *args)

    def kept(self, optimiser, loss, bound):
        gradients.append({name: p.grad.clone() for name, p in seen.module.named_parameters() if p.grad is not None})
        return step(self, optimiser, loss, bound)

    monkeypatch.setattr(Step, "losses", seen)
    monkeypatch.setattr(Replicated, "step", kept)
    return batches, gradients


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_two_batches_give_the_mean_of_their_gradients(workplace, tmp_path, monkeypatch):
    batches, gradients = watch(monkeypatch)
    epochs = 24 / 18  # of 18 training patients: four batches
    run_config(workplace / "config.yaml", [f"out={tmp_path / 'one'}", f"epochs={epochs}"])
    single, each = list(batches), list(gradients)
    batches.clear(), gradients.clear()
    run_config(workplace / "config.yaml", [f"out={tmp_path / 'two'}", f"epochs={epochs}", "accumulate=2"])
    assert batches == single and len(single) == 4 and len(gradients) == 2
    for step, found in enumerate(gradients):
        first, second = each[2 * step : 2 * step + 2]
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, (first[name] + second[name]) / 2, rtol=1e-4, atol=1e-7)
    alone, together = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [row["samples_seen"] for row in together] == [12, 24]
    assert together[0]["loss"] == pytest.approx((alone[0]["loss"] + alone[1]["loss"]) / 2, rel=1e-5)


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self):
        self.work: list[list] = []

    def start(self, label, total, unit):
        self.work.append([label, total, 0])

    def advance(self, n=1, bytes=0):
        self.work[-1][2] += n

    def finish(self):
        self.work[-1].append("finished")


def test_evaluation_tells_how_far_it_is(workplace, tmp_path):
    heard = Heard()
    changes = [f"out={tmp_path / 'run'}", "epochs=0.7", "evaluate_every=1"]
    run_config(workplace / "config.yaml", changes, heard)
    held_out, training = "embedding held-out patients", "embedding training patients"
    before_training = [training, held_out]
    assert [label for label, *_ in heard.work] == [*before_training, held_out, training, held_out]
    assert all(total == done > 0 and end == "finished" for _, total, done, end in heard.work)


def test_without_probes_held_out_patients_alone_are_embedded_and_the_rest_is_the_same(workplace, tmp_path):
    heard, found = Heard(), {}
    for name, changes, progress in (("with", [], None), ("without", ["probes=false"], heard)):
        found[name], _ = run_config(
            workplace / "config.yaml", [f"out={tmp_path / name}", "epochs=0.7", *changes], progress
        )
    assert [label for label, *_ in heard.work] == ["embedding held-out patients"] * 2
    assert found["with"]["probes"] and found["with"]["site_probe"]
    assert not found["without"]["probes"] and not found["without"]["site_probe"]
    assert found["with"]["retrieval"] == found["without"]["retrieval"]
    page = (tmp_path / "without" / "report.html").read_text()
    assert "Linear probes" not in page and "Linear probes" in (tmp_path / "with" / "report.html").read_text()


def test_what_is_evaluated_and_written_is_the_average(workplace, tmp_path):
    changes = [f"out={tmp_path / 'run'}", "optimiser.learning_rate=1e-2", "ema=0.9"]
    run_config(workplace / "config.yaml", [*changes, "epochs=2"])
    [folder] = (tmp_path / "run" / "checkpoints").glob("step-*")
    written = load_file(tmp_path / "run" / "model" / "model.safetensors")
    average, last = load_file(folder / "average" / SHARD), load_file(folder / "module" / SHARD)
    assert int(average["updates"]) == 6
    trained = {name: value for name, value in written.items() if f"model.{name}" in average}
    assert len(trained) > 10 and all(torch.equal(value, average[f"model.{name}"]) for name, value in trained.items())
    assert not all(torch.equal(value, last[f"model.{name}"]) for name, value in trained.items())


def test_steps_that_are_not_logged_change_nothing_and_their_rows_are_means(workplace, tmp_path):
    changes = ["epochs=2", "optimiser.learning_rate=1e-2", "checkpoint_every=100"]
    run_config(workplace / "config.yaml", [f"out={tmp_path / 'each'}", *changes])
    run_config(workplace / "config.yaml", [f"out={tmp_path / 'some'}", *changes, "log_every=4"])
    weights = [load_file(tmp_path / run / "model" / "model.safetensors") for run in ("each", "some")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    each, some = rows(tmp_path / "each"), rows(tmp_path / "some")
    assert [row["step"] for row in each] == [1, 2, 3, 4, 5, 6] and [row["step"] for row in some] == [4, 6]
    assert some[0]["loss"] == pytest.approx(sum(row["loss"] for row in each[:4]) / 4, rel=1e-6)
    assert some[1]["gradient_norm"] == pytest.approx(sum(row["gradient_norm"] for row in each[4:]) / 2, rel=1e-6)


def test_what_was_not_finite_between_two_rows_is_told_with_its_patients(workplace, tmp_path, monkeypatch):
    losses, calls = Step.losses, []

    def spoilt(self, batch, *args):
        calls.append(batch.rows.tolist())
        for loss in losses(self, batch, *args):
            yield loss * float("nan") if len(calls) in (2, 3) else loss

    monkeypatch.setattr(Step, "losses", spoilt)
    run_config(
        workplace / "config.yaml", [f"out={tmp_path / 'run'}", "epochs=2", "log_every=5", "checkpoint_every=100"]
    )
    bad = [row for row in rows(tmp_path / "run") if row["split"] == "non-finite"]
    assert [(row["step"], row["rows"]) for row in bad] == [(2, calls[1]), (3, calls[2])]
