"""`chiasma launch` as it is typed: what is shown, written and started, and what is refused before that."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import yaml

from launch.cli import main
from launch.commands.launch import STRATEGIES

REPOSITORY = Path(__file__).parents[3]
CONFIG = str(REPOSITORY / "configs" / "pretrain" / "tiny.yaml")
SLURM = ["launch", "pretrain", CONFIG, "epochs=2", "--nodes", "2", "--gpus", "8", "--slurm"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHIASMA_CLUSTER", raising=False)


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_dry_run_shows_everything_and_writes_and_starts_nothing(tmp_path, capfd):
    assert main([*SLURM, "--submit", "--dry-run", "--env", "NCCL_DEBUG=INFO"]) == 0
    said = capfd.readouterr().out
    assert "#SBATCH --nodes=2" in said and 'export NCCL_DEBUG="INFO"' in said and "epochs=2" in said
    assert said.splitlines()[-1] == "sbatch launched/pretrain-tiny/job.sbatch"
    assert main(["launch", "pretrain", CONFIG, "--gpus", "0", "--processes", "2", "--env", "A=b c", "--dry-run"]) == 0
    *exports, line = capfd.readouterr().out.splitlines()
    assert "export A='b c'" in exports and "export CUDA_VISIBLE_DEVICES=''" in exports
    assert line.startswith(f"exec {sys.executable} -m launch.torchrun --nnodes=1 --nproc-per-node=2 --standalone")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("where", "last"),
    [
        (["--gpus", "0", "--processes", "2"], "-m launch.cli doctor --distributed"),
        (["--processes", "2", "--timeout", "300", "--json"], "doctor --distributed --timeout=300 --json"),
        (["--nodes", "2", "--gpus", "8", "--slurm"], "sbatch launched/doctor/job.sbatch"),
        (["--nodes", "2", "--kubernetes", "--container", "i"], "kubectl apply -f launched/doctor/job.yaml"),
    ],
    ids=["here", "with options", "slurm", "kubernetes"],
)
def test_the_doctor_is_launched_like_a_run_without_a_config(tmp_path, capfd, where, last):
    assert main(["launch", "doctor", *where, "--dry-run"]) == 0
    said = capfd.readouterr().out
    assert said.splitlines()[-1].endswith(last) and "doctor" in said
    assert list(tmp_path.iterdir()) == []


def test_without_submit_it_is_written_and_shown(tmp_path, capfd):
    assert main(SLURM) == 0
    script = (tmp_path / "launched" / "pretrain-tiny" / "job.sbatch").read_text()
    assert script in capfd.readouterr().out and os.listdir(tmp_path / "launched" / "pretrain-tiny") == ["job.sbatch"]


def test_with_submit_it_is_handed_over_and_a_refusal_is_told(tmp_path, monkeypatch, capfd):
    programs = tmp_path / "bin"
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    program(programs, "sbatch", 'cat "$1" >submitted; echo Submitted batch job 7')
    assert main([*SLURM, "--submit"]) == 0
    assert (tmp_path / "submitted").read_text().startswith("#!/bin/bash\n#SBATCH")
    assert "Submitted batch job 7" in capfd.readouterr().out
    program(programs, "sbatch", "echo 'invalid partition specified: gpuu' >&2; exit 1")
    assert main([*SLURM, "--submit"]) == 1
    assert "the scheduler refused: invalid partition specified: gpuu\n  what to do" in capfd.readouterr().err


def test_where_there_is_no_scheduler_it_says_so(tmp_path, monkeypatch, capfd):
    program(tmp_path / "bin", "bash", 'exec /bin/bash "$@"')
    program(tmp_path / "bin", "mkdir", 'exec /bin/mkdir "$@"')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert main([*SLURM, "--submit"]) == 2
    assert "sbatch: command not found\n  what to do: start the lines above on a login node" in capfd.readouterr().err


def test_a_config_that_cannot_run_is_refused_before_anything_is_written(tmp_path, capfd):
    assert main([*SLURM, "epoch=3"]) == 2
    assert "unknown key 'epoch'; did you mean 'epochs'?" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_profile_is_found_in_the_environment(tmp_path, monkeypatch, capfd):
    (tmp_path / "mine.yaml").write_text("scheduler: kubernetes\ncontainer: {image: i}\nnodes: 3\n")
    monkeypatch.setenv("CHIASMA_CLUSTER", str(tmp_path / "mine.yaml"))
    assert main(["launch", "pretrain", "/data/not-here.yaml", "--dry-run", "--processes", "2"]) == 0
    text = capfd.readouterr().out.split("# to start it:")[0]
    assert [document["kind"] for document in yaml.safe_load_all(text)] == ["Service", "Job"]
    (tmp_path / "mine.yaml").write_text("nodse: 3\n")
    assert main(["launch", "pretrain", CONFIG, "--dry-run"]) == 2
    assert "unknown key 'nodse'; did you mean 'nodes'?" in capfd.readouterr().err


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_of_a_run_can_be_asked_for(strategy, capfd):
    words = [
        "launch",
        "pretrain",
        CONFIG,
        "ema=null",
        "--processes",
        "2",
        "--slurm",
        "--strategy",
        strategy,
        "--dry-run",
    ]
    assert main(words) == 0
    assert f"{CONFIG} ema=null strategy={strategy} || code=$?" in capfd.readouterr().out


def test_the_command_knows_the_strategies_of_a_run():
    from foundation.training.parallel import strategies

    assert sorted(strategies.STRATEGIES) == sorted(STRATEGIES)


def test_nothing_is_submitted_where_there_is_no_scheduler(capsys):
    assert main(["launch", "pretrain", CONFIG, "--gpus", "0", "--processes", "2", "--submit"]) == 2
    assert "--submit" in capsys.readouterr().err


def test_two_schedulers_are_refused(capsys):
    assert main([*SLURM, "--kubernetes", "--dry-run"]) == 2
    assert "give one" in capsys.readouterr().err


def test_a_cohort_that_is_not_here_is_told(capsys):
    assert main([*SLURM, "cohort=nowhere", "--dry-run"]) == 0
    assert "/nowhere; it has to be where this runs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--time", "1:00:00", "--mem", "4G"], "--time and --mem would change nothing on this machine"),
        (["--kubernetes", "--container", "i", "--partition", "gpu"], "--partition would change nothing on Kubernetes"),
    ],
)
def test_what_would_change_nothing_is_refused(asked, said, capsys):
    assert main(["launch", "doctor", *asked, "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_a_config_in_a_container_has_its_whole_path(capsys):
    words = ["--kubernetes", "--container", "i", "--dry-run"]
    assert main(["launch", "pretrain", "mine.yaml", *words]) == 2
    assert "mine.yaml: on Kubernetes the config is read in the container" in capsys.readouterr().err
    assert main(["launch", "pretrain", "/data/mine.yaml", *words]) == 0


def test_a_scheduler_that_is_none_is_refused_in_a_profile_too(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("scheduler: pbs\n")
    assert main([*SLURM, "--cluster", str(tmp_path / "mine.yaml"), "--dry-run"]) == 2
    assert "mine.yaml" in (said := capsys.readouterr().err) and "scheduler" in said


def test_a_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert main([*SLURM, "--folder", str(tmp_path / "taken" / "here")]) == 2
    assert "job.sbatch: cannot be written: Not a directory\n  what to do: name another" in capsys.readouterr().err


def test_nodes_of_the_doctor_wait_as_long_as_it_is_told(capfd):
    assert main(["launch", "doctor", "--processes", "2", "--timeout", "90", "--dry-run"]) == 0
    assert "--rdzv-conf=join_timeout=90 " in capfd.readouterr().out
    assert main(["launch", "doctor", "--processes", "2", "--dry-run"]) == 0
    assert "rdzv-conf" not in capfd.readouterr().out


def test_a_config_of_another_command_is_refused(capsys):
    assert main(["launch", "finetune", CONFIG, "--gpus", "0", "--dry-run"]) == 2
    assert "tiny.yaml" in capsys.readouterr().err
