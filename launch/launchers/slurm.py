"""Batch scripts for SLURM: a run over nodes that is queued again until it is done; folds as an array, then joined."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from launch.exit_codes import START_AGAIN
from launch.launchers.base import Job, Plan, quoted
from launch.launchers.cluster import Cluster, Container
from launch.rank_log import LOGS

PORTS = "$((10000 + SLURM_JOB_ID % 20000))"
"""Of a job's own, so that two jobs on one node do not meet; below those that the system hands out."""


def plan(job: Job) -> Plan:
    """The scripts, and the lines that submit them."""
    logs = (job.cluster.logs or job.folder / "logs").absolute()
    if job.command == "finetune":
        return _folds(job, logs)
    path = job.folder / "job.sbatch"
    return Plan({path: _together(job, logs)}, (quoted(["mkdir", "-p", str(logs)]), f"sbatch {quoted([str(path)])}"))


def _together(job: Job, logs: Path) -> str:
    cluster = job.cluster
    asked = {"nodes": cluster.nodes, "ntasks-per-node": 1, **_gpus(cluster, cluster.gpus)}
    rendezvous = '--rdzv-backend=c10d --rdzv-endpoint="$meet" --rdzv-id="$SLURM_JOB_ID.$start"'
    agent = f"{quoted(job.agent(rendezvous=[]))} {rendezvous}"
    return "\n".join(
        [
            *_head(job, asked, output=logs / "%j.log"),
            f'export {LOGS}={quoted([str(logs)])}/"$SLURM_JOB_ID"',
            *_threads(cluster.per_node),
            'start="${SLURM_RESTART_COUNT:-0}"',
            "# This script runs on the first node: there the nodes meet.",
            f'meet="$(hostname):{PORTS}"',
            *_run([quoted(["srun", "--kill-on-bad-exit=1", *_step(cluster)]), agent, quoted(job.together())]),
            *(_again(cluster, "$SLURM_JOB_ID") if job.goes_on else ['exit "$code"', ""]),
        ]
    )


def _folds(job: Job, logs: Path) -> Plan:
    cluster = job.cluster
    each = {"ntasks": 1, **_gpus(cluster, 1 if cluster.gpus else None), "array": f"0-{len(job.folds) - 1}"}
    step, words = quoted(["srun", *_step(cluster)]), quoted(job.alone())
    array = [
        *_head(job, each, output=logs / "%A-%a.log"),
        f"folds=({quoted(job.folds)})",
        *_run([step, f'{words} --fold "${{folds[SLURM_ARRAY_TASK_ID]}}"']),
        *_again(cluster, "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"),
    ]
    last = [
        *_head(job, {"ntasks": 1}, output=logs / "%j.log"),
        "# Every fold is done: what is left is to join them.",
        *_run([step, words]),
        *_again(cluster, "$SLURM_JOB_ID"),
    ]
    paths = job.folder / "folds.sbatch", job.folder / "join.sbatch"
    submit = (
        quoted(["mkdir", "-p", str(logs)]),
        f"folds=$(sbatch --parsable {quoted([str(paths[0])])})",
        f'sbatch --dependency=afterok:"${{folds%%;*}}" --kill-on-invalid-dep=yes {quoted([str(paths[1])])}',
    )
    return Plan({paths[0]: "\n".join(array), paths[1]: "\n".join(last)}, submit)


def _head(job: Job, asked: Mapping[str, object], *, output: Path) -> list[str]:
    """What SLURM reads, and the lines that make a process run on its nodes."""
    cluster = job.cluster
    options = {
        "job-name": job.name,
        **asked,
        "cpus-per-task": cluster.cpus_per_task,
        "mem": cluster.mem,
        "time": cluster.time,
        "partition": cluster.partition,
        "account": cluster.account,
        "chdir": Path.cwd(),
        "output": output,
        "open-mode": "append",
        # To the step, not to this shell; torchrun tells its workers, and they save.
        "signal": f"USR1@{cluster.warn_before_end}" if job.goes_on else None,
    }
    return [
        "#!/bin/bash",
        *(f"#SBATCH {quoted([f'--{name}={value}'])}" for name, value in options.items() if value is not None),
        f"#SBATCH --{'requeue' if job.goes_on else 'no-requeue'}",
        *(f"#SBATCH {line}" for line in cluster.sbatch),
        "",
        "set -e",
        *(f"module load {quoted([name])}" for name in cluster.module),
        *cluster.setup,
        *(f"export {name}={_shell(value)}" for name, value in cluster.references().items()),
    ]


def _gpus(cluster: Cluster, count: int | None) -> dict[str, object]:
    if not count:
        return {}
    return {"gres": f"{cluster.gres}:{count}"} if cluster.gres else {"gpus-per-node": count}


def _threads(processes: int) -> list[str]:
    cores = "${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}"
    return [
        f"threads=$(({cores} / {processes}))" if processes > 1 else f"threads={cores}",
        'export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"',
    ]


def _step(cluster: Cluster) -> list[str]:
    """What follows srun: SLURM does not hand on the cores of a job by itself, and a container is opened here."""
    cores = [f"--cpus-per-task={cluster.cpus_per_task}"] if cluster.cpus_per_task else []
    return [*cores, *(_container(cluster.container, gpus=bool(cluster.gpus)) if cluster.container else [])]


def _container(container: Container, *, gpus: bool) -> list[str]:
    if container.runtime == "pyxis":
        mounts = [f"--container-mounts={','.join(container.mounts)}"] if container.mounts else []
        return [f"--container-image={container.image}", *mounts, f"--container-workdir={Path.cwd()}"]
    binds = [f"--bind={mount}" for mount in container.mounts]
    return ["apptainer", "exec", *(["--nv"] if gpus else []), *binds, f"--pwd={Path.cwd()}", container.image]


def _run(parts: Sequence[str]) -> list[str]:
    """The run itself, on several lines; what it ends with does not end the script."""
    return ["", "code=0", " \\\n    ".join(parts) + " || code=$?", ""]


def _again(cluster: Cluster, job: str) -> list[str]:
    """What follows the run: it is queued again if it has saved and asks for that."""
    return [
        f"# {START_AGAIN}: it was told that time is nearly up, has saved, and goes on from there.",
        f'if [ "$code" -eq {START_AGAIN} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {cluster.requeues} ]; then',
        f'    scontrol requeue "{job}"',
        "fi",
        'exit "$code"',
        "",
    ]


def _shell(value: str) -> str:
    """A value in quotes; what came from the environment comes from there when the job starts, and has to be there."""
    escaped = re.sub(r'([\\"`$])', r"\\\1", value)
    return '"' + re.sub(r"\\\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}", r"${\1:?}", escaped) + '"'
