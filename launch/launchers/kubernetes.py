"""An indexed Job of Kubernetes and the headless service through which its pods meet; no operator is needed."""

from __future__ import annotations

import re
from typing import Any

import yaml

from foundation.errors import ConfigError
from launch.exit_codes import START_AGAIN, TERMINATED, WRONG_INPUT
from launch.launchers.base import Job, Plan, quoted
from launch.launchers.cluster import Cluster
from launch.rank_log import LOGS

PORT = 29400
LONGEST_NAME = 52
"""Of a job: the names of its pods add an index and five letters, and may have 63 letters."""


def plan(job: Job) -> Plan:
    """The manifest, and the line that applies it.

    Raises:
        ConfigError: The profile names no image.
    """
    if job.cluster.container is None:
        raise ConfigError(
            "Kubernetes runs images only", where="container", fix="name an image that holds chiasma: --container IMAGE"
        )
    name = re.sub(r"[^a-z0-9]+", "-", job.name.lower()).strip("-")[:LONGEST_NAME].rstrip("-")
    documents = [_job(job, name)] if job.command == "finetune" else [_service(job.cluster, name), _job(job, name)]
    path = job.folder / "job.yaml"
    return Plan({path: yaml.safe_dump_all(documents, sort_keys=False)}, (f"kubectl apply -f {quoted([str(path)])}",))


def _service(cluster: Cluster, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(cluster, name),
        # Pods find each other before they are ready: they become so by meeting.
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": name},
            "ports": [{"name": "rendezvous", "port": PORT}],
        },
    }


def _job(job: Job, name: str) -> dict[str, Any]:
    cluster = job.cluster
    # Folds share the GPUs of one pod by themselves; see finetune/pool.py.
    pods = 1 if job.command == "finetune" else cluster.nodes
    ignored = {"operator": "In", "values": [START_AGAIN, TERMINATED]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(cluster, name),
        "spec": {
            "completionMode": "Indexed",
            "completions": pods,
            "parallelism": pods,
            "backoffLimit": cluster.requeues if job.goes_on else 0,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {"action": "Ignore", "onExitCodes": {"containerName": "chiasma", **ignored}},
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": "chiasma", "operator": "In", "values": [WRONG_INPUT]},
                    },
                ]
            },
            "template": {"metadata": {"labels": {"app": "chiasma"}}, "spec": _pod(job, name)},
        },
    }


def _pod(job: Job, name: str) -> dict[str, Any]:
    cluster, settings = job.cluster, job.cluster.kubernetes
    assert cluster.container is not None
    mounts = [mount.split(":", 1) for mount in cluster.container.mounts]
    claims = {claim: f"disk-{number}" for number, claim in enumerate(dict.fromkeys(claim for claim, _ in mounts))}
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": cluster.warn_before_end,
        "subdomain": name,
        "containers": [
            {
                "name": "chiasma",
                "image": cluster.container.image,
                "command": _command(job, name),
                "env": _environment(job),
                "envFrom": [{"secretRef": {"name": secret}} for secret in settings.secrets],
                "resources": _resources(cluster),
                "volumeMounts": [
                    {"name": "memory", "mountPath": "/dev/shm"},
                    *({"name": claims[claim], "mountPath": inside} for claim, inside in mounts),
                ],
            }
        ],
        "volumes": [
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
            *({"name": disk, "persistentVolumeClaim": {"claimName": claim}} for claim, disk in claims.items()),
        ],
        "nodeSelector": settings.node_selector,
        "tolerations": settings.tolerations,
        "imagePullSecrets": [{"name": secret} for secret in settings.pull_secrets],
    }
    return _without_empty(pod)


def _command(job: Job, name: str) -> list[str]:
    if job.command == "finetune":
        words = job.alone()
    else:
        rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint={name}-0.{name}:{PORT}", f"--rdzv-id={name}"]
        words = [*job.agent(rendezvous=rendezvous), *job.together()]
    if not job.cluster.setup:
        return words
    return ["/bin/sh", "-ec", "\n".join([*job.cluster.setup, f"exec {quoted(words)}"])]


def _environment(job: Job) -> list[dict[str, str]]:
    cluster = job.cluster
    values = {"OMP_NUM_THREADS": str(max(1, (cluster.cpus_per_task or 1) // cluster.per_node)), **cluster.references()}
    if cluster.logs is not None:
        values[LOGS] = str(cluster.logs)
    for key, value in values.items():
        if "${env:" in value:
            raise ConfigError(
                "a manifest holds no value of your environment",
                where=f"environment.{key}",
                fix="put it into a secret of the cluster and name that under kubernetes.secrets",
            )
    return [{"name": key, "value": value} for key, value in values.items()]


def _resources(cluster: Cluster) -> dict[str, Any]:
    asked = {"cpu": cluster.cpus_per_task and str(cluster.cpus_per_task), "memory": cluster.mem}
    asked = {key: value for key, value in asked.items() if value}
    return {"requests": asked, "limits": {cluster.kubernetes.gpu_resource: str(cluster.gpus)} if cluster.gpus else {}}


def _metadata(cluster: Cluster, name: str) -> dict[str, Any]:
    return _without_empty({"name": name, "namespace": cluster.kubernetes.namespace or "", "labels": {"app": "chiasma"}})


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: kept for key, item in value.items() if (kept := _without_empty(item)) not in ({}, [], "")}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value
