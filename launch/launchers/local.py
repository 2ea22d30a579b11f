"""Processes on this machine, or on this one of several that meet without a scheduler."""

from __future__ import annotations

import os
import shlex
import socket
from dataclasses import replace

from foundation.errors import ConfigError
from launch.launchers.base import Job, Plan, quoted, threads
from launch.machine import usable_cores
from launch.rank_log import LOGS


def plan(job: Job) -> Plan:
    """One line of shell that becomes the run.

    Raises:
        ConfigError: There are fewer GPUs here, or several nodes and no place to meet.
    """
    job = _on_what_is_here(job)
    if job.command == "finetune":
        # Its folds share this machine by themselves; see finetune/pool.py.
        count = job.cluster.gpus or job.cluster.processes
        words = [*job.alone(), *([f"processes={count}"] if count else [])]
        environment = {}
    else:
        words = [*job.agent(rendezvous=_rendezvous(job)), *job.together()]
        environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads(job, usable_cores())))}
    if job.cluster.gpus == 0:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    if job.cluster.logs is not None:
        environment[LOGS] = str(job.cluster.logs.absolute())
    environment |= job.cluster.environment
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    return Plan(start=(*lines, f"exec {quoted(words)}"), waits=True)


def _rendezvous(job: Job) -> list[str]:
    if job.cluster.nodes == 1:
        return ["--standalone"]
    if not job.rendezvous:
        raise ConfigError(
            f"{job.cluster.nodes} nodes have to know where to meet",
            where="--nodes",
            fix="start the same command on each with --rendezvous HOST:PORT of one of them, or use --slurm or "
            "--kubernetes",
        )
    host, _, port = job.rendezvous.rpartition(":")
    try:
        socket.getaddrinfo(host, int(port))
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"'{job.rendezvous}' is no place to meet ({error})",
            where="--rendezvous",
            fix="write HOST:PORT of a node that this one knows by that name, such as node-a:29500",
        ) from None
    return ["--rdzv-backend=c10d", f"--rdzv-endpoint={job.rendezvous}", f"--rdzv-id={job.name}"]


def _on_what_is_here(job: Job) -> Job:
    """The job with as many GPUs as there are, unless it says how many."""
    cluster = job.cluster
    if cluster.container is not None:
        raise ConfigError("no container is opened here", where="container", fix="start chiasma inside it")
    if cluster.gpus == 0 or (cluster.gpus is None and cluster.processes):
        return job
    import torch

    there = torch.cuda.device_count()
    if cluster.gpus is None:
        return replace(job, cluster=cluster.model_copy(update={"gpus": there or None}))
    if cluster.gpus > there:
        raise ConfigError(
            f"{cluster.gpus} GPUs are asked for and {there} are here",
            where="--gpus",
            fix="ask for fewer, write --gpus 0 --processes N for N processes on the CPU, or use --slurm",
        )
    return job
