"""Batch scripts of `chiasma launch` on a real SLURM of two nodes: the runs that they start survive what they should."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from finetune.run import finetune
from launch.cli import main
from pretrain.run import pretrain

REPOSITORY = Path(__file__).parents[2]
STEPS = 120
PRETRAIN = """
seed: 3
held_out: {fraction: 0.4}
preprocessing: {modalities: [rna, cnv]}
towers:
  rna: {tower: omics_transformer, tokenizer: {tokenizer: chunk}, width: 16, depth: 1, heads: 2, modalities: [rna]}
  cnv: {tower: omics_transformer, tokenizer: {tokenizer: chunk}, width: 16, depth: 1, heads: 2, modalities: [cnv]}
width: 16
fusion: {fusion: gated_mean}
objectives:
  masked: {loss: {objective: masked_omics, width: 8}}
dropout: {default: 0.3}
epochs: 40
batch_size: 12
checkpoint_every: 5
permutations: 100
"""
FINETUNE = """
seed: 3
pretrain: none
network:
  preprocessing: {modalities: [rna]}
  towers: {omics: {tower: omics_transformer, tokenizer: {tokenizer: chunk}, width: 16, depth: 1, heads: 2}}
  fusion: {fusion: gated_mean}
  width: 16
tasks: [{task: subtype, endpoint: subtype}]
splits: {folds: 2, inner_folds: 2}
adapt: {mode: scratch}
fit: {epochs: 1, batch_size: 16}
processes: 1
"""

pytestmark = pytest.mark.timeout(1800)
Launch = Callable[..., list[str]]


@pytest.fixture(scope="module")
def workplace(slurm, simulated, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    for name, text in (("pretrain", PRETRAIN), ("finetune", FINETUNE)):
        (folder / f"{name}.yaml").write_text(f"cohort: {simulated / 'cohort'}\nout: run\n{text}")
    return folder


@pytest.fixture(scope="module")
def launch(slurm, workplace) -> Launch:
    """Submit a run to the folder `out`, or the doctor; returns the numbers of its jobs."""

    def submit(command: str, out: Path, *options: str) -> list[str]:
        run = [] if command == "doctor" else [str(workplace / f"{command}.yaml"), f"out={out}"]
        words = [command, *run, "--slurm", "--submit"]
        with pytest.MonkeyPatch.context() as patch, (workplace / f"{out.name}.said").open("w+") as said:
            for name, value in slurm.environment.items():
                patch.setenv(name, value)
            patch.setenv("PYTHONPATH", str(REPOSITORY))
            patch.setattr("subprocess.run", _writing_to(said))
            patch.chdir(workplace)
            assert main(["launch", *words, "--folder", str(workplace / f"launched-{out.name}"), *options]) == 0
            said.seek(0)
            return re.findall(r"^(?:Submitted batch job )?(\d+)$", said.read(), re.MULTILINE)

    return submit


def _writing_to(said):
    import subprocess

    run = subprocess.run
    return lambda *args, **kwargs: run(*args, **{"stdout": said, **kwargs})


@pytest.fixture(scope="module")
def two_nodes(slurm, launch, workplace) -> Path:
    """A run over two nodes that nothing happened to."""
    (job,) = launch("pretrain", workplace / "two", "--nodes", "2", "--processes", "1")
    assert slurm.ended(job, 900)["JobState"] == "COMPLETED", log_of(workplace / "two", job)
    return workplace / "two"


def log_of(run: Path, job: str) -> str:
    logs = run.parent / f"launched-{run.name}" / "logs"
    paths = [logs / f"{job}.log", *sorted((logs / job).glob("*.log"))]
    return "\n".join(f"{path.name}: {path.read_text()}" for path in paths if path.exists())


def rows(run: Path) -> list[dict]:
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    return [row for row in map(json.loads, lines) if row["split"] == "train"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def equal(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def saved(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))


def on_second_node(job: str) -> list[psutil.Process]:
    """Processes of a job's step on its second node: torchrun first, then its worker."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            environment, words = process.environ(), process.cmdline()
            if environment.get("SLURM_JOB_ID") == job and environment.get("SLURM_NODEID") == "1":
                found.append(("launch.torchrun" not in words, process))
    return [process for _, process in sorted(found, key=lambda each: each[0])]


def wait_for(slurm, run: Path, job: str, count: int, checkpoints: int = 0) -> None:
    """Until so many steps are done and so many checkpoints whole, while the job runs."""
    end = time.monotonic() + 600
    while len(rows(run)) < count or len(saved(run)) < checkpoints:
        assert time.monotonic() < end and slurm.job(job)["JobState"] in ("PENDING", "RUNNING"), log_of(run, job)
        time.sleep(0.05)


def test_the_doctor_measures_two_nodes_and_the_link_between_them(slurm, launch, workplace):
    (job,) = launch("doctor", workplace / "doctor", "--nodes", "2", "--processes", "1", "--json")
    assert slurm.ended(job)["JobState"] == "COMPLETED", log_of(workplace / "doctor", job)
    assert slurm.job(job)["Requeue"] == "0"
    log = workplace / "launched-doctor" / "logs" / job / "rank-0.log"
    found = json.loads(log.read_text().partition("\n")[2])
    assert [each["node"] for each in found["processes"]] == [0, 1] and found["ok"] is True
    (link,) = found["links"]
    assert link["first"].endswith("(node 0)") and link["second"].endswith("(node 1)") and link["bandwidth"] > 0
    assert {each["size"] for each in found["collectives"]} == {2**10, 2**16, 2**20, 2**24, 2**26}


def test_two_nodes_end_with_the_weights_of_one_process(two_nodes, workplace, monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pretrain(workplace / "pretrain.yaml", [f"out={workplace / 'one'}"])
    torch.set_num_threads(threads)
    assert [row["step"] for row in rows(two_nodes)] == list(range(1, STEPS + 1))
    ours, theirs = weights(two_nodes), weights(workplace / "one")
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_a_signal_to_one_task_saves_queues_again_and_goes_on(slurm, launch, two_nodes, workplace):
    run = workplace / "signal"
    (job,) = launch("pretrain", run, "--nodes", "2", "--processes", "1")
    wait_for(slurm, run, job, 3)
    # torchrun on the second node alone, as SLURM itself would tell both.
    os.kill(on_second_node(job)[0].pid, signal.SIGUSR1)
    slurm.wait(job, lambda found: found["Restarts"] == "1", 120)
    (*_, last) = saved(run)
    assert 3 <= last < STEPS and last == rows(run)[-1]["step"], "the step it stopped after is saved"
    assert not (run / "model").exists()
    slurm.start_now(job)
    assert slurm.ended(job, 900)["JobState"] == "COMPLETED", log_of(run, job)
    assert [row["step"] for row in rows(run)] == list(range(1, STEPS + 1)), "no step was done twice or left out"
    assert equal(run, two_nodes)
    text = log_of(run, job)
    assert "saved; to be started again" in text and text.count("rank 1 of 2 on ") == 2


def test_a_killed_node_ends_in_a_clear_error_and_a_checkpoint_that_goes_on(slurm, launch, two_nodes, workplace):
    run = workplace / "killed"
    (job,) = launch("pretrain", run, "--nodes", "2", "--processes", "1")
    wait_for(slurm, run, job, 8, checkpoints=1)
    processes = on_second_node(job)
    step = processes[0].parent()
    assert step is not None and "slurmstepd" in step.name()
    slurm.kill_node("node2")
    for process in (step, *processes):
        process.kill()
    slurm.wait(job, lambda found: found["JobState"] not in ("RUNNING", "COMPLETING"), 240)
    text = log_of(run, job)
    # Torchrun numbers nodes by name, and both have the name of this machine.
    assert re.search(r"rank \d failed on ", text) and "another process" in text, text
    assert "Traceback" not in text
    (*_, last) = saved(run)
    assert 5 <= last < STEPS
    slurm.start_daemons()
    # SLURM queues it again by itself. It is not hurried: for a minute it still tells the lost node to end the job.
    assert slurm.ended(job, 900)["JobState"] == "COMPLETED", log_of(run, job)
    assert rows(run)[-1]["step"] == STEPS
    assert equal(run, two_nodes)


def test_an_array_of_folds_gives_what_one_process_gives(slurm, launch, workplace):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    finetune(workplace / "finetune.yaml", [f"out={workplace / 'whole'}"])
    torch.set_num_threads(threads)
    run = workplace / "array"
    (last,) = launch("finetune", run)
    assert slurm.ended(last, 900)["JobState"] == "COMPLETED", log_of(run, last)
    logs = sorted((workplace / "launched-array" / "logs").glob("*-*.log"))
    folds = [re.search(r"^done in .*: (\S+); once", path.read_text(), re.MULTILINE).group(1) for path in logs]  # type: ignore[union-attr]
    assert folds == ["0", "1", "all"]
    one, other = (json.loads((out / "metrics.json").read_text()) for out in (workplace / "whole", run))
    assert one.pop("seconds") > 0 and other.pop("seconds") > 0
    assert one == other
    tables = [(out / "predictions.parquet").read_bytes() for out in (workplace / "whole", run)]
    assert tables[0] == tables[1]
    assert (run / "report.html").exists() and (run / "adapter" / "adapter.json").exists()
