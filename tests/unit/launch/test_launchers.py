"""What `chiasma launch` writes: scripts that bash and SLURM's options understand, manifests that Kubernetes does."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from foundation.errors import ConfigError
from launch.launchers import kubernetes, local, slurm
from launch.launchers.base import Job, Plan
from launch.launchers.cluster import Cluster, load_cluster

AWKWARD = ("out=my runs/it's", "tasks=[{task: subtype}]", 'name=$HOME `x` "y"')


DOCTOR = ["-m", "launch.cli", "doctor", "--distributed"]


def make_job(command="pretrain", overrides=AWKWARD, folds=(), rendezvous="", config="cfg/a b.yaml", **keys) -> Job:
    cluster = Cluster.model_validate(keys)
    path = None if command == "doctor" else Path(config)
    return Job(command, path, tuple(overrides), cluster, Path("launched/it"), rendezvous, tuple(folds))


def directives(script: str) -> dict[str, str]:
    lines = [shlex.split(line)[1] for line in script.splitlines() if line.startswith("#SBATCH ")]
    options = [line.removeprefix("--").partition("=") for line in lines]
    assert len({name for name, _, _ in options}) == len(options)
    return {name: value for name, _, value in options}


def ran(script: str, tmp_path: Path, code: int = 0, **environment: str) -> tuple[int, list[list[str]]]:
    """Run a batch script with programs that write down their words in place of SLURM's; srun ends with `code`."""
    programs, said = tmp_path / "bin", tmp_path / "said"
    programs.mkdir(exist_ok=True)
    said.unlink(missing_ok=True)
    for name in ("srun", "scontrol", "sbatch", "module"):
        ending = code if name == "srun" else 0
        lines = f'#!/bin/bash\nprintf "%s\\0" {name} "$@" $\'\\n\' >>{said}\nenv >{said}.env\necho 41\nexit {ending}\n'
        (programs / name).write_text(lines)
        (programs / name).chmod(0o755)
    known = {"PATH": f"{programs}:/usr/bin:/bin", "SLURM_JOB_ID": "70007", "SLURM_CPUS_ON_NODE": "7", **environment}
    done = subprocess.run(["bash", "-c", script], env=known, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stderr == ""
    calls = said.read_text().split("\n\0") if said.exists() else []
    return done.returncode, [call.split("\0")[:-1] for call in calls if call]


def value_of(words: list[str], option: str) -> str:
    (found,) = [word.split("=", 1)[1] for word in words if word.startswith(f"{option}=")]
    return found


def only(plan: Plan) -> str:
    (text,) = plan.files.values()
    return text


# SLURM


def test_a_batch_script_asks_for_what_was_asked(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = dict(nodes=4, gpus=8, time="2-00:00:00", partition="gpu", account="lab", mem="0", cpus_per_task=96)
    script = only(slurm.plan(make_job(**asked, sbatch=["--constraint=a100"], warn_before_end=600)))
    assert directives(script) == {
        "job-name": "pretrain-a b", "nodes": "4", "ntasks-per-node": "1", "gpus-per-node": "8", "cpus-per-task": "96",
        "mem": "0", "time": "2-00:00:00", "partition": "gpu", "account": "lab", "chdir": str(tmp_path),
        "output": f"{tmp_path}/launched/it/logs/%j.log", "open-mode": "append", "signal": "USR1@600", "requeue": "",
        "constraint": "a100",
    }  # fmt: skip
    typed = directives(only(slurm.plan(make_job(gpus=2, gres="gpu:h100"))))
    assert typed["gres"] == "gpu:h100:2" and "gpus-per-node" not in typed
    assert {"time", "mem", "account", "gres", "gpus-per-node"} & set(directives(only(slurm.plan(make_job())))) == set()


def test_a_batch_script_runs_torchrun_once_on_each_node(tmp_path):
    script = only(slurm.plan(make_job(nodes=2, gpus=4, python="py", cpus_per_task=8, environment={"A": 'x "$y`'})))
    code, (words,) = ran(script, tmp_path, SLURM_RESTART_COUNT="3", SLURM_CPUS_PER_TASK="8")
    assert code == 0
    split = words.index("py")
    assert words[:split] == ["srun", "--kill-on-bad-exit=1", "--cpus-per-task=8"]
    assert words[split : split + 5] == ["py", "-m", "launch.torchrun", "--nnodes=2", "--nproc-per-node=4"]
    assert value_of(words, "--rdzv-backend") == "c10d" and value_of(words, "--rdzv-id") == "70007.3"
    host = subprocess.run(["hostname"], capture_output=True, text=True, check=True).stdout.strip()
    assert value_of(words, "--rdzv-endpoint") == f"{host}:20007"
    assert words[-7:] == ["-m", "launch.cli", "pretrain", "cfg/a b.yaml", *AWKWARD]
    known = (tmp_path / "said.env").read_text()
    assert "\nOMP_NUM_THREADS=2\n" in known and '\nA=x "$y`\n' in known
    assert f"CHIASMA_LOGS={Path.cwd()}/launched/it/logs/70007\n" in known


@pytest.mark.parametrize(
    ("code", "restarts", "queued"),
    [(0, "0", False), (1, "0", False), (143, "1", False), (75, "1", True), (75, "2", False)],
)
def test_only_a_run_that_asks_for_it_is_queued_again_and_not_for_ever(tmp_path, code, restarts, queued):
    script = only(slurm.plan(make_job(requeues=2)))
    ended, calls = ran(script, tmp_path, code, SLURM_RESTART_COUNT=restarts)
    assert ended == code
    assert calls[1:] == ([["scontrol", "requeue", "70007"]] if queued else [])


def test_a_line_that_fails_before_the_run_ends_the_job(tmp_path):
    script = only(slurm.plan(make_job(setup=["echo 1 >>lines", "false", "echo 2 >>lines"], module=["cuda/12"])))
    code, calls = ran(script, tmp_path)
    assert code == 1 and calls == [["module", "load", "cuda/12"]]
    assert (tmp_path / "lines").read_text() == "1\n"


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        (
            {"image": "i.sqsh", "mounts": ["/d:/d", "/e:/f"]},
            ["--container-image=i.sqsh", "--container-mounts=/d:/d,/e:/f", "--container-workdir={here}", "python"],
        ),
        (
            {"image": "i.sif", "runtime": "apptainer", "mounts": ["/d:/d"]},
            ["apptainer", "exec", "--nv", "--bind=/d:/d", "--pwd={here}", "i.sif", "python"],
        ),
    ],
)
def test_a_container_is_opened_by_the_step(tmp_path, monkeypatch, container, expected):
    monkeypatch.chdir(tmp_path)
    _, (words,) = ran(only(slurm.plan(make_job(gpus=1, container=container))), tmp_path)
    assert words[2 : 2 + len(expected)] == [word.format(here=tmp_path) for word in expected]


def test_what_came_from_the_environment_is_written_as_a_reference(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN_OF_TEST", "s3cr3t")
    profile = tmp_path / "cluster.yaml"
    profile.write_text("environment: {WANDB_API_KEY: '${env:TOKEN_OF_TEST}', B: 'a${env:TOKEN_OF_TEST}$c'}\n")
    job = Job("pretrain", Path("c.yaml"), (), load_cluster(profile, {}), tmp_path)
    script = only(slurm.plan(job))
    assert "s3cr3t" not in script
    ran(script, tmp_path, TOKEN_OF_TEST="later")
    known = (tmp_path / "said.env").read_text()
    assert "\nWANDB_API_KEY=later\n" in known and "\nB=alater$c\n" in known
    unset = subprocess.run(["bash", "-c", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert unset.returncode and "TOKEN_OF_TEST" in unset.stderr


def test_folds_are_an_array_and_a_last_job_joins_them(tmp_path):
    plan = slurm.plan(make_job("finetune", folds=["0", "site B", "all"], gpus=4, python="py", time="1:00:00"))
    array, last = plan.files.values()
    assert directives(array)["array"] == "0-2" and directives(array)["gpus-per-node"] == "1"
    assert {"array", "gpus-per-node", "nodes"} & set(directives(last)) == set()
    words = ["py", "-m", "launch.cli", "finetune", "cfg/a b.yaml", *AWKWARD]
    task = {"SLURM_ARRAY_JOB_ID": "70000", "SLURM_ARRAY_TASK_ID": "1"}
    code, calls = ran(array, tmp_path, 75, **task)
    assert code == 75
    assert calls == [["srun", *words, "--fold", "site B"], ["scontrol", "requeue", "70000_1"]]
    assert ran(last, tmp_path)[1] == [["srun", *words]]
    (tmp_path / "logs").mkdir()
    _, calls = ran("\n".join(plan.start), tmp_path)
    paths = [str(path) for path in plan.files]
    assert calls[0] == ["sbatch", "--parsable", paths[0]]
    assert calls[1] == ["sbatch", "--dependency=afterok:41", "--kill-on-invalid-dep=yes", paths[1]]


def test_the_doctor_takes_the_path_of_a_run_and_is_not_queued_again(tmp_path):
    keys = dict(nodes=2, gpus=8, gres="gpu:a100", mem="0", partition="gpu", module=["cuda"], cpus_per_task=16)
    doctor, run = (
        only(slurm.plan(make_job(command, words, **keys))) for command, words in (("doctor", ()), ("pretrain", AWKWARD))
    )
    asked, of_run = directives(doctor.replace("no-requeue", "requeue")), directives(run)
    assert (asked.pop("job-name"), of_run.pop("job-name")) == ("doctor", "pretrain-a b")
    assert of_run.pop("signal") == "USR1@300" and asked == of_run and "#SBATCH --no-requeue\n" in doctor
    code, calls = ran(doctor, tmp_path, 75)
    _, calls_of_run = ran(run, tmp_path)
    assert code == 75 and calls[:-1] == calls_of_run[:-1], "and no scontrol"
    words, words_of_run = calls[-1], calls_of_run[-1]
    assert words[-4:] == DOCTOR and words[:-4] == words_of_run[: -4 - len(AWKWARD)]


# Kubernetes


def documents(plan: Plan) -> list[dict]:
    found = list(yaml.safe_load_all(only(plan)))
    for document in found:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    return found


def test_a_manifest_is_valid_and_its_pods_meet_by_name():
    settings = {
        "namespace": "lab", "secrets": ["tokens"], "pull_secrets": ["registry"], "node_selector": {"gpu": "h100"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
    }  # fmt: skip
    container = {"image": "registry/chiasma:1", "mounts": ["data:/data", "data:/more", "runs:/runs"]}
    keys = dict(nodes=3, gpus=8, mem="500Gi", cpus_per_task=64, environment={"NCCL_DEBUG": "INFO"}, kubernetes=settings)
    service, job = documents(kubernetes.plan(make_job(container=container, logs="/runs/logs", **keys)))
    name = service["metadata"]["name"]
    assert name == job["metadata"]["name"] == "pretrain-a-b"
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    pod = spec["template"]["spec"]
    # An indexed Job names the host of each pod NAME-INDEX; the service makes it known as NAME-INDEX.SUBDOMAIN.
    assert pod["subdomain"] == name
    (worker,) = pod["containers"]
    assert value_of(worker["command"], "--rdzv-endpoint") == f"{name}-0.{name}:{service['spec']['ports'][0]['port']}"
    assert worker["command"][-4 - len(AWKWARD) :] == ["-m", "launch.cli", "pretrain", "cfg/a b.yaml", *AWKWARD]
    assert worker["resources"] == {
        "requests": {"cpu": "64", "memory": "500Gi"}, "limits": {"nvidia.com/gpu": "8"},
    }  # fmt: skip
    env = {each["name"]: each["value"] for each in worker["env"]}
    assert env == {"OMP_NUM_THREADS": "8", "NCCL_DEBUG": "INFO", "CHIASMA_LOGS": "/runs/logs"}
    claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if v["name"] != "memory"}
    mounted = {mount["mountPath"]: claims.get(mount["name"]) for mount in worker["volumeMounts"]}
    assert mounted == {"/dev/shm": None, "/data": "data", "/more": "data", "/runs": "runs"}
    assert pod["restartPolicy"] == "Never", "a policy by exit code needs that"


def test_the_smallest_manifests_are_valid():
    container = {"image": "i"}
    assert [d["kind"] for d in documents(kubernetes.plan(make_job(container=container)))] == ["Service", "Job"]
    (job,) = documents(kubernetes.plan(make_job("finetune", container=container, nodes=4, setup=["cd /data"])))
    assert job["spec"]["completions"] == 1
    shell, options, text = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert (shell, options) == ("/bin/sh", "-ec")
    assert shlex.split(text.splitlines()[1])[-2 - len(AWKWARD) :] == ["finetune", "cfg/a b.yaml", *AWKWARD]
    long = documents(kubernetes.plan(make_job(container=container, config=f"{'x' * 80}_B.yaml")))
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", long[1]["metadata"]["name"])
    assert len(long[1]["metadata"]["name"]) <= 52


def test_a_manifest_of_the_doctor_has_the_pods_of_a_run_and_no_second_try():
    keys = dict(container={"image": "i"}, nodes=3, gpus=8)
    service, job = documents(kubernetes.plan(make_job("doctor", (), **keys)))
    _, run = documents(kubernetes.plan(make_job(**keys)))
    assert service["metadata"]["name"] == job["metadata"]["name"] == "doctor"
    assert (job["spec"].pop("backoffLimit"), run["spec"].pop("backoffLimit")) == (0, 100)
    pod, pod_of_run = (each["spec"].pop("template")["spec"] for each in (job, run))
    assert job["spec"] == run["spec"]
    (worker,), (of_run,) = pod["containers"], pod_of_run["containers"]
    assert worker["command"][-4:] == DOCTOR and worker["command"][:5] == of_run["command"][:5]
    assert worker["resources"] == of_run["resources"]


def test_a_manifest_holds_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN_OF_TEST", "s3cr3t")
    profile = tmp_path / "cluster.yaml"
    profile.write_text("container: {image: i}\nenvironment: {KEY: '${env:TOKEN_OF_TEST}'}\n")
    with pytest.raises(ConfigError, match=r"environment\.KEY: .*\n.*kubernetes\.secrets"):
        kubernetes.plan(Job("pretrain", Path("c.yaml"), (), load_cluster(profile, {}), tmp_path))
    with pytest.raises(ConfigError, match="--container IMAGE"):
        kubernetes.plan(make_job())


# Here


def test_here_one_line_becomes_the_run():
    *exports, line = local.plan(make_job(processes=2, gpus=0, environment={"A": "b c"}, python="py")).start
    assert {"export A='b c'", "export CUDA_VISIBLE_DEVICES=''"} <= set(exports)
    assert any(each.startswith("export OMP_NUM_THREADS=") for each in exports)
    words = shlex.split(line)
    assert words[:7] == ["exec", "py", "-m", "launch.torchrun", "--nnodes=1", "--nproc-per-node=2", "--standalone"]
    assert words[7:] == ["-m", "launch.cli", "pretrain", "cfg/a b.yaml", *AWKWARD]


def test_here_fine_tuning_is_one_process_that_has_others():
    (line,) = local.plan(make_job("finetune", processes=3, python="py")).start
    assert shlex.split(line) == ["exec", "py", "-m", "launch.cli", "finetune", "cfg/a b.yaml", *AWKWARD, "processes=3"]


def test_here_the_doctor_is_started_as_a_run_is():
    doctor, run = (
        shlex.split(local.plan(make_job(command, words, processes=2, python="py")).start[-1])
        for command, words in (("doctor", ()), ("pretrain", AWKWARD))
    )
    assert doctor[-4:] == DOCTOR and doctor[:-4] == run[: -4 - len(AWKWARD)]


def test_several_nodes_without_a_scheduler_have_to_know_where_to_meet():
    with pytest.raises(ConfigError, match="--rendezvous HOST:PORT"):
        local.plan(make_job(nodes=2, processes=1))
    words = shlex.split(local.plan(make_job(nodes=2, processes=1, rendezvous="localhost:1")).start[-1])
    assert value_of(words, "--rdzv-endpoint") == "localhost:1" and value_of(words, "--rdzv-id") == "pretrain-a b"
    for nowhere in ("localhost", "localhost:http:x", "nobody.invalid:29500"):
        with pytest.raises(ConfigError, match="no place to meet"):
            local.plan(make_job(nodes=2, processes=1, rendezvous=nowhere))


def test_more_gpus_than_there_are_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"3 GPUs are asked for and 2 are here\n.*--gpus 0 --processes N"):
        local.plan(make_job(gpus=3))
    assert "--nproc-per-node=2" in local.plan(make_job()).start[-1]
    assert "--nproc-per-node=1" in local.plan(make_job(gpus=1)).start[-1]
    assert "--nproc-per-node=1" in local.plan(make_job(gpus=0)).start[-1]


# The profile


def test_options_come_before_the_profile(tmp_path):
    profile = tmp_path / "cluster.yaml"
    profile.write_text(
        "scheduler: slurm\nnodes: 2\ntime: 12:30:00\nenvironment: {A: 1}\ncontainer: {image: i, mounts: [/a:/a]}\n"
    )
    asked = {"nodes": 4, "time": None, "module": (), "environment.B": "x: y", "container.image": "j:1"}
    cluster = load_cluster(profile, asked)
    assert (cluster.scheduler, cluster.nodes, cluster.time) == ("slurm", 4, "12:30:00")
    assert cluster.environment == {"A": "1", "B": "x: y"}
    assert cluster.container is not None and (cluster.container.image, cluster.container.mounts) == ("j:1", ["/a:/a"])
    without = load_cluster(None, asked)
    assert without.nodes == 4 and without.environment == {"B": "x: y"}


def test_profiles_to_copy_are_valid(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cr3t")
    plans = {"slurm": slurm.plan, "kubernetes": kubernetes.plan}
    profiles = sorted((Path(__file__).parents[3] / "configs" / "clusters").glob("*.yaml"))
    assert [path.stem for path in profiles] == sorted(plans)
    for path in profiles:
        cluster = load_cluster(path, {"nodes": 2})
        assert cluster.scheduler == path.stem
        assert plans[path.stem](Job("pretrain", Path("c.yaml"), (), cluster, Path("f"))).files


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"time": "soon"}, "time"),
        ({"gpus": 2, "processes": 3}, "each GPU has one process"),
        ({"gres": "gpu"}, "give both"),
        ({"container.mounts": ("/data",), "container.image": "i"}, "container-mounts"),
        ({"container.mounts": ("/data:/data",)}, "container-image"),
    ],
)
@pytest.mark.parametrize("with_profile", [False, True])
def test_a_cluster_that_cannot_be_is_refused(tmp_path, asked, said, with_profile):
    profile = tmp_path / "cluster.yaml"
    profile.write_text("nodes: 2\n")
    with pytest.raises(ConfigError) as caught:
        load_cluster(profile if with_profile else None, asked)
    assert said.replace("-", ".") in str(caught.value).replace("-", ".")
    assert str(caught.value).startswith("command line: ")
