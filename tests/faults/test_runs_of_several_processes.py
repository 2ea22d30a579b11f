"""Runs of two processes: asked to stop, killed, spoilt or started unlike, they lose nothing and say what happened."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from foundation.errors import ChiasmaError
from pretrain.run import pretrain
from tests.distributed.test_run_under_torchrun import CONFIG, assert_alike, finish, launch, rows, weights

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def workplace(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    (folder / "config.yaml").write_text(CONFIG.replace("COHORT", str(simulated / "cohort")) + "ema: 0.9\n")
    return folder


@pytest.fixture(scope="module")
def whole(workplace: Path) -> Path:
    """A run of two processes that nothing happened to."""
    process = launch(workplace, workplace / "whole", 2)
    finish(process)
    assert process.returncode == 0
    return workplace / "whole"


def after_first_checkpoint(workplace: Path, run: Path) -> tuple[Any, psutil.Process]:
    """A run of two processes that has just written its first checkpoint, and its second process."""
    process = launch(workplace, run, 2)
    while process.poll() is None and not list((run / "checkpoints").glob("step-*")):
        time.sleep(0.005)
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.environ().get("RANK") == "1":
                return process, child
    pytest.fail(f"the run ended: {finish(process)}")


def test_a_signal_to_one_process_stops_both_after_the_same_step_and_the_run_goes_on_to_the_same_bits(workplace, whole):
    run = workplace / "asked"
    process, second = after_first_checkpoint(workplace, run)
    second.send_signal(signal.SIGUSR1)
    output = finish(process)
    assert process.returncode != 0 and not (run / "model").exists(), "it was to be stopped in the middle"
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    step = json.loads((newest / "position.json").read_text())["step"]
    assert f"stopped by SIGUSR1 after step {step}, which is saved" in output
    assert len(list((newest / "random").iterdir())) == 2
    again = launch(workplace, run, 2)
    finish(again)
    assert again.returncode == 0
    assert [row["loss"] for row in rows(run)] == [row["loss"] for row in rows(whole)]
    ours, theirs = weights(run), weights(whole)
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())


@pytest.mark.parametrize(("processes", "strategy"), [(1, "ddp"), pytest.param(3, "fsdp", marks=pytest.mark.slow)])
def test_after_a_lost_process_the_run_goes_on_in_another_number_and_strategy(workplace, whole, processes, strategy):
    run = workplace / f"lost-{processes}"
    process, second = after_first_checkpoint(workplace, run)
    second.kill()
    finish(process)
    assert process.returncode != 0 and not (run / "model").exists()
    again = launch(workplace, run, processes, f"strategy={strategy}")
    finish(again)
    assert again.returncode == 0
    assert_alike(run, whole)


def spoilt(rank: int, workplace: str, out: str) -> None:
    """One of two processes, of which the second has a loss that is not finite, from its third step on."""
    from pretrain.step import Step

    losses, steps = Step.losses, iter(range(100))

    def bad(self, batch, logged, share=1.0):
        number = next(steps)
        for loss in losses(self, batch, logged, share):
            yield loss * float("nan") if rank == 1 and number >= 2 else loss

    Step.losses = bad
    start(rank, workplace, out, [])


def hanging(rank: int, workplace: str, out: str) -> None:
    """One of two processes, of which the second stands still in its third step."""
    from pretrain.engine import Batches

    take, calls = Batches.__next__, iter(range(100))

    def take_late(self):
        if rank == 1 and next(calls) == 2:
            time.sleep(600)
        return take(self)

    Batches.__next__ = take_late
    sys.stderr = open(f"{out}-{rank}.err", "w")  # noqa: SIM115  (until the process ends)
    start(rank, workplace, out, ["hang_after=3", "permutations=100"])


def unlike(rank: int, workplace: str, out: str) -> None:
    """One of two processes, of which the second has another config."""
    start(rank, workplace, out, ["optimiser.learning_rate=0.5"] if rank == 1 else [])


def start(rank: int, workplace: str, out: str, changes: list[str]) -> None:
    """Pretrain as one of two processes, and note the error."""
    os.environ.update(
        RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="localhost",
        MASTER_PORT=Path(workplace, "port").read_text(),
    )  # fmt: skip
    torch.set_num_threads(1)
    try:
        pretrain(Path(workplace) / "config.yaml", [f"out={out}", "checkpoint_every=1", *changes])
    except ChiasmaError as error:
        Path(f"{out}-{rank}.txt").write_text(f"{type(error).__name__} {error.exit_code} {error}")


def spawn(work: Any, workplace: Path, run: Path) -> list[str]:
    """What two processes end with."""
    import socket

    with socket.socket() as free:
        free.bind(("localhost", 0))
        (workplace / "port").write_text(str(free.getsockname()[1]))
    mp.spawn(work, (str(workplace), str(run)), nprocs=2)
    return [Path(f"{run}-{rank}.txt").read_text() for rank in range(2)]


def test_a_loss_that_is_not_finite_on_one_process_updates_nothing_on_any_and_ends_the_run(workplace):
    run = workplace / "spoilt"
    for told in spawn(spoilt, workplace, run):
        assert "not finite in 3 steps in a row" in told
    bad = rows(run, "non-finite")
    assert [row["step"] for row in bad] == [3, 4, 5] and all(len(row["rows"]) == 13 for row in bad)
    before, after = (
        {name: value for file in sorted((path / "module").iterdir()) for name, value in load_file(file).items()}
        for path in sorted((run / "checkpoints").glob("step-*"))
    )
    assert before and all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_process_that_stands_still_ends_the_run_with_the_stacks_of_all(workplace):
    run = workplace / "hanging"
    with pytest.raises(mp.ProcessExitedException):
        spawn(hanging, workplace, run)
    told = Path(f"{run}-0.err").read_text()
    assert "no step was finished in 3 s" in told
    assert re.search(r"process 1 is in _losses \(pretrain/engine.py:\d+\)", told)
    first, second = ((run / "stacks" / f"process-{rank}.txt").read_text() for rank in range(2))
    assert "in take_late" in second and "in take_late" not in first
    assert "in gather" in first
    assert [path.name for path in sorted((run / "checkpoints").glob("step-*"))]


def test_processes_that_were_started_unlike_do_not_begin(workplace):
    run = workplace / "unlike"
    told = spawn(unlike, workplace, run)
    assert "process 1 of 2 differs from process 0 in optimiser.learning_rate" in told[0]
    assert told[0].split()[1] == "2" and not run.exists()
