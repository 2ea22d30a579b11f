"""All that `chiasma doctor --distributed` measures, from the first meeting of the processes to the last link."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from datetime import timedelta

import torch

from foundation.collectives import rank
from foundation.errors import ChiasmaError, ConfigError, ToldByAnother
from foundation.training.processes import process_group
from launch.interconnect.alone import find_processes
from launch.interconnect.between import time_collectives, time_links
from launch.interconnect.findings import Findings
from launch.interconnect.meeting import Meeting
from launch.interconnect.timer import Timer

TIMEOUT = 60.0
"""Seconds that a process waits for the others."""


def measure(timeout: float = TIMEOUT) -> tuple[Findings, bool]:
    """Measure the processes that torchrun started this one with.

    Args:
        timeout: Seconds that each waits for the others.

    Returns:
        What was found, the same on every process, and whether this is the one that tells it.

    Raises:
        ConfigError: There is one process.
        ChiasmaError: Some did not come, were lost, or cannot speak with each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        raise ConfigError(
            "there is one process, and nothing to measure between it and others",
            where="--distributed",
            fix="start as many as the run will have, and as it will be started: chiasma launch doctor --nodes N "
            "--gpus G, with --slurm or --kubernetes on a cluster; --gpus 0 --processes 2 is two here, without GPUs",
        )
    meeting = Meeting(timeout)
    waited = meeting.wait("anything was measured")
    with ExitStack() as group:
        with meeting.for_all("connecting to each other"):
            group.enter_context(process_group(timedelta(seconds=timeout)))
        try:
            with meeting.for_all("measuring"):
                return _findings(meeting, waited, timeout), rank() == 0
        except ChiasmaError as error:
            if torch.cuda.is_available():
                _end(error)
            raise


def _findings(meeting: Meeting, waited: float, timeout: float) -> Findings:
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    watch = Timer(device, timeout)
    processes = find_processes(meeting, waited, watch)
    timings = tuple(time_collectives(meeting, watch))
    return Findings(processes, timings, tuple(time_links(meeting, watch, processes)))


def _end(error: ChiasmaError) -> None:
    """Tell an error and end at once: NCCL lets nobody leave while a collective hangs."""
    if not isinstance(error, ToldByAnother):
        print(f"chiasma doctor: {error}", file=sys.stderr, flush=True)
    os._exit(error.exit_code)
