"""Folds of a run in processes of their own: one for each GPU, or as many as cores and memory allow."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finetune.base_model import Pretrain
from finetune.fold import methods_of, run_fold
from finetune.resuming import count_done
from finetune.splits import Fold
from finetune.study import Study
from foundation.errors import ChiasmaError
from foundation.progress import Progress
from foundation.training.stopping import Stopped

BYTES_PER_PROCESS = 2 * 2**30
"""Memory that a process needs before it has read any image: the libraries, a small model, batches."""

BYTES_PER_WEIGHT_BYTE = 8
"""Of a model: the base, what is adapted, its gradient, the optimiser, and room to compute in."""

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Job:
    """What every process is told.

    Attributes:
        study: Of the run.
        folder: Of its folds.
        pretrain: For ``pretrain: per_fold``.
    """

    study: Study
    folder: Path
    pretrain: Pretrain | None


def run_all(job: Job, folds: Sequence[Fold], progress: Progress) -> None:
    """Do all that is not yet done, here or in several processes.

    Raises:
        ChiasmaError: A fold failed, or a process was ended from outside; what is finished is kept.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    total = sum(len(methods_of(job.study.config, fold)) for fold in folds)
    done = count_done(job.folder, _names(folds))
    progress.start("fine-tuning", total, "models")
    progress.advance(done)
    processes = min(job.study.config.processes or _room(job.study), len(folds))
    if processes == 1:
        for fold in folds:
            run_fold(job.study, fold, job.folder / fold.name, job.pretrain, lambda: progress.advance(1))
    elif done < total:
        _in_processes(job, folds, processes, progress, done)
    progress.finish()


def _names(folds: Sequence[Fold]) -> set[str]:
    return {fold.name for fold in folds}


def _in_processes(job: Job, folds: Sequence[Fold], processes: int, progress: Progress, done: int) -> None:
    threads = max(1, _cores() // processes)
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(processes):
        numbers.put(number)
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(threads, numbers))
    try:
        waiting: set[Future] = {pool.submit(_work, job, fold) for fold in folds}
        while waiting:
            ended, waiting = wait(waiting, POLL_SECONDS, FIRST_COMPLETED)
            now = count_done(job.folder, _names(folds))
            if now > done:
                progress.advance(now - done)
                done = now
            for future in ended:
                future.result()
    except BrokenProcessPool:
        raise ChiasmaError(
            "a process was ended from outside, most likely for want of memory",
            where=str(job.folder),
            fix="run the same command with a smaller `processes`: what is finished is kept",
        ) from None
    except BaseException:
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(threads: int, numbers: Any) -> None:
    """Set a process up: its number, which is that of its GPU, its share of the cores, and an end with its parent's."""
    import signal

    os.environ["LOCAL_RANK"] = str(numbers.get())

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """A parent that was killed cannot end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: Job, fold: Fold) -> None:
    try:
        with contextlib.redirect_stdout(None):
            run_fold(job.study, fold, job.folder / fold.name, job.pretrain, lambda: None)
    except Stopped as error:
        # Told to end while it pretrained, it would begin the next fold.
        os._exit(error.exit_code)


def _room(study: Study) -> int:
    """How many processes the machine has room for: one for each GPU, which folds cannot share."""
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    import psutil

    config = study.config
    folder = config.model_folder()
    weights = folder / "model.safetensors" if folder is not None else None
    each = BYTES_PER_PROCESS + BYTES_PER_WEIGHT_BYTE * (weights.stat().st_size if weights and weights.is_file() else 0)
    return max(1, min(_cores(), int(psutil.virtual_memory().available // each)))


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
