"""The command line: quick to answer, exit codes 0, 1, 2 and 130, one message and no traceback."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest

from foundation.errors import DataError
from foundation.progress import Progress
from launch.cli import cli, main
from launch.machine import usable_cores
from pretrain.planning.hardware import Hardware

COMMANDS = sorted(cli.commands)
HEAVY = {
    "torch", "monai", "pandas", "nibabel", "pydicom", "transformers", "datasets", "matplotlib", "scipy", "sklearn",
    "anndata", "numpy", "pyarrow", "wandb", "timm", "peft", "accelerate", "deepspeed", "captum", "pydantic",
}  # fmt: skip

REPORT_IMPORTS = """
import json, sys
from launch.cli import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def run(*args: str, code: str = REPORT_IMPORTS) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=120, check=False)


def stand_in(monkeypatch, module: str, **functions) -> None:
    """Put a module with these functions where a command looks for its room."""
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**functions))


def fail_with(monkeypatch, error: BaseException) -> None:
    def prepare(*args, **kwargs):
        raise error

    stand_in(monkeypatch, "foundation.cohort.prepare", prepare=prepare)


PREPARE = ["prepare", "cohort.yaml", "--out", "out"]


# Help


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda command: " ".join(command) or "-")
def test_help_has_an_example_and_imports_nothing_heavy(command):
    done = run(*command, "--help")
    code, modules = json.loads(done.stderr)
    assert code == 0
    assert f"Example:\n  chiasma {' '.join(command)}" in done.stdout
    assert HEAVY & set(modules) == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_a_command_line_that_is_understood(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = cli.commands[name]
    for line in command.example.splitlines():
        program, first, *args = line.split()
        assert (program, first) == ("chiasma", name)
        assert command.make_context(name, args).params


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name}" in out for name in COMMANDS)
    assert "..." not in out.replace("[ARGS]...", "")


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("chiasma 0.")


# Wrong input


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["prepar"], "No such command 'prepar'; did you mean 'prepare'?"),
        (
            ["zzz"],
            "known: describe, describe-model, doctor, embed, explain, finetune, launch, predict, prepare, pretrain,",
        ),
        (["prepare", "c.yaml", "--ot", "x"], "--out"),
        (["prepare", "c.yaml"], "Missing option '--out'"),
        (["prepare"], "Missing argument 'COHORT.yaml'"),
        (["prepare", "c.yaml", "--out", "x", "--root", "nowhere"], "'nowhere' does not exist"),
        (["prepare", "c.yaml", "--out", "x", "--workers", "0"], "0 is not in the range x>=1"),
        (["simulate", "x", "--patients", "none"], "'none' is not a valid integer"),
        (["pretrain", "c.yaml", "--gpus", "8"], "--gpus, --hardware, --measured and --json go with --plan"),
        (["launch", "predict", "c.yaml"], "'predict' is not one of 'pretrain', 'finetune'"),
        (["launch", "finetune", "c.yaml", "--nodes", "2"], "--strategy and --nodes go with pretrain"),
        (["launch", "finetune", "c.yaml", "--strategy", "ddp"], "--strategy and --nodes go with pretrain"),
        (["launch", "pretrain"], "Missing argument 'CONFIG.yaml'"),
        (["launch", "doctor", "c.yaml"], "doctor takes neither CONFIG.yaml nor --strategy"),
        (["launch", "doctor", "--strategy", "ddp"], "doctor takes neither CONFIG.yaml nor --strategy"),
        (["launch", "pretrain", "c.yaml", "--json"], "--timeout and --json go with doctor"),
        (["doctor", "--timeout", "5"], "--timeout goes with --distributed"),
        (["doctor", "--distributed"], "what to do: start as many as the run will have"),
        (["launch", "pretrain", "c.yaml", "--env", "A B=1"], "--env takes NAME=VALUE, and 'A B=1' is not that"),
        (["launch", "pretrain", "c.yaml", "--slurm"], "c.yaml: no such file"),
        (["launch", "pretrain", "c.yaml", "--time", "soon"], "time: "),
        (["pretrain", "c.yaml", "--json"], "--gpus, --hardware, --measured and --json go with --plan"),
    ],
)
def test_a_wrong_command_line_exits_with_2(args, expected, capsys):
    assert main(args) == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_nothing_asked_shows_the_help(capsys):
    assert main([]) == 2
    said = capsys.readouterr()
    assert "Commands:" in said.err + said.out


def test_the_program_itself_returns_the_code(tmp_path):
    done = run("nonsense", code="import sys; from launch.cli import main; sys.exit(main(sys.argv[1:]))")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


# Failures


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (
            DataError("no header", where="rna.tsv", fix="add one"),
            2,
            "chiasma prepare: rna.tsv: no header\n  what to do: add one\n",
        ),
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer"),
            1,
            "chiasma prepare: another process of this run was lost; start the same command again",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/x"),
            1,
            "chiasma prepare: out/x: the disk is full\n  what to do: make room on the disk, then start the same",
        ),
        (OSError(errno.EROFS, "Read-only file system"), 1, "chiasma prepare: the disk is read-only\n  what to do: "),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 1, "chiasma prepare: out: permission denied\n"),
        (FileExistsError(errno.EEXIST, "File exists", "out"), 1, "chiasma prepare: unexpected: FileExistsError: "),
        (
            ValueError("two\nlines"),
            1,
            "chiasma prepare: unexpected: ValueError: two lines; run again with --debug for the traceback\n",
        ),
        (
            ModuleNotFoundError("No module named 'x'", name="x"),
            1,
            "chiasma prepare: the package 'x' is not installed\n  what to do: run chiasma doctor\n",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_a_failure_is_one_message_without_a_traceback(monkeypatch, capsys, error, code, expected):
    fail_with(monkeypatch, error)
    assert main(PREPARE) == code
    assert capsys.readouterr().err.startswith(expected)


@pytest.mark.parametrize("args", [["--debug", *PREPARE], [*PREPARE, "--debug"]], ids=["before", "after"])
def test_debug_shows_the_traceback_before_the_message(monkeypatch, capsys, args):
    fail_with(monkeypatch, ValueError("bad"))
    assert main(args) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "chiasma prepare: unexpected: ValueError: bad" in err.splitlines()[-1]


def test_debug_does_not_last_beyond_its_call(monkeypatch, capsys):
    fail_with(monkeypatch, ValueError("bad"))
    main(["--debug", *PREPARE])
    capsys.readouterr()
    main(PREPARE)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupted_preparation_says_that_it_goes_on(monkeypatch, capsys, error):
    fail_with(monkeypatch, error)
    assert main(PREPARE) == 130
    expected = "chiasma prepare: interrupted; start the same command again and it goes on where it stopped\n"
    assert capsys.readouterr().err.lstrip("\n") == expected


def test_an_interrupted_simulation_promises_no_more_than_it_keeps(monkeypatch, capsys):
    def simulate(**kwargs):
        raise KeyboardInterrupt

    stand_in(monkeypatch, "foundation.simulation.simulate", simulate=simulate)
    assert main(["simulate", "out"]) == 130
    assert capsys.readouterr().err.lstrip("\n") == "chiasma simulate: interrupted; start the same command again\n"


def test_control_c_reaches_the_message(tmp_path):
    program = """
import os, signal, sys, types
# A runner in the background of a shell ignores the signal, and so do its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
def prepare(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
sys.modules["foundation.cohort.prepare"] = types.SimpleNamespace(prepare=prepare)
from launch.cli import main
sys.exit(main(["prepare", "c.yaml", "--out", "out"]))
"""
    assert hasattr(signal, "SIGINT")
    done = run(code=program)
    assert done.returncode == 130
    assert "goes on where it stopped" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_gone_is_no_error():
    program = "import sys; from launch.cli import main; sys.exit(main(['--help']))"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(timeout=60) == 1
    assert err == ""


# What the commands pass on


def test_simulate_passes_on_what_was_asked(monkeypatch, tmp_path, capsys):
    asked = {}

    def simulate(*, out, patients, seed, progress, scans, after, annotations):
        asked.update(out=out, patients=patients, seed=seed, scans=scans, after=after, annotations=annotations)
        progress(0, patients)
        progress(patients, patients)

    stand_in(monkeypatch, "foundation.simulation.simulate", simulate=simulate)
    assert main(["simulate", str(tmp_path / "source"), "--patients", "7", "--seed", "3", "--no-scans"]) == 0
    plain = {"after": 0, "annotations": False}
    assert asked == {"out": tmp_path / "source", "patients": 7, "seed": 3, "scans": False, **plain}
    assert f"chiasma prepare {tmp_path / 'source' / 'cohort.yaml'}" in capsys.readouterr().out
    assert main(["simulate", str(tmp_path), "--after", "9", "--annotations"]) == 0
    assert asked == {"out": tmp_path, "patients": 300, "seed": 0, "scans": True, "after": 9, "annotations": True}


CONTENT = {
    "name": "made-up",
    "patients": 12,
    "modalities": {
        "mri": {"kind": "image", "patients": 7, "shape": [8, 9, 10], "channels": {"t1": 7, "flair": 5}},
        "rna": {"kind": "omics", "patients": 11, "features": 123},
    },
    "patterns": {"rna": 5, "mri+rna": 6, "mri": 1},
    "endpoints": {
        "[grade]": {"kind": "subtype", "patients": 9, "classes": {"low": 4, "high": 5}},
        "os": {"kind": "survival", "patients": 10, "events": 6, "median_follow_up": 812.5, "unit": "days"},
        "ic50": {"kind": "regression", "patients": 3},
    },
    "quarantined": 2,
}


def test_prepare_passes_on_what_was_asked_and_prints_what_came_of_it(monkeypatch, tmp_path, capsys):
    asked = {}

    def prepare(path: Path, *, out: Path, progress: Progress, **rest) -> None:
        asked.update(path=path, out=out, **rest)
        progress.start("preparing", 1, "patients")
        progress.advance(1, 10)
        progress.finish()
        out.mkdir()
        (out / "cohort.json").write_text(json.dumps(CONTENT), encoding="utf-8")

    stand_in(monkeypatch, "foundation.cohort.prepare", prepare=prepare)
    monkeypatch.setenv("COLUMNS", "100")
    out = tmp_path / "cohort"
    assert main(["prepare", "c.yaml", "a.b=1", "--out", str(out), "c=-2", "--root", str(tmp_path)]) == 0
    assert asked == {
        "path": Path("c.yaml"),
        "out": out,
        "root": tmp_path,
        "workers": usable_cores(),
        "overrides": ("a.b=1", "c=-2"),
    }
    said = capsys.readouterr()
    assert said.err == ""
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    assert "made-up: 12 patients" in lines
    assert "mri image 7 8 x 9 x 10 voxels; t1 7, flair 5" in lines
    assert "rna omics 11 123 features" in lines
    assert lines.index("mri + rna 6") < lines.index("rna 5") < lines.index("mri 1")
    assert "[grade] subtype 9 low 4, high 5" in lines
    assert "os survival 10 6 events, median follow-up 812.5 days" in lines
    assert f"quarantined: 2, each with its reason in {out / 'quarantine.tsv'}" in lines
    assert f"open {out / 'summary.html'}" in lines


def test_rare_patterns_are_summed_up(tmp_path, capsys):
    from launch.cohort_table import print_cohort

    patterns = {f"m{i}": 100 - i for i in range(11)}
    print_cohort({**CONTENT, "patterns": patterns, "endpoints": {}, "quarantined": 0}, tmp_path)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "m7 93" in lines
    assert "m8 92" not in lines
    assert f"3 more patterns {92 + 91 + 90}" in lines
    assert "quarantined: 0" in lines


def test_annotations_are_counted(tmp_path, capsys):
    from launch.cohort_table import print_cohort

    entry = {
        "image": "mri",
        "drawn": "masks",
        "patients": 5,
        "regions": {"core": {"patients": 3}, "rim": {"patients": 0}},
    }
    print_cohort({**CONTENT, "annotations": {"tumour": entry}}, tmp_path)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "tumour masks of mri 5 core 3, rim 0" in lines


def test_a_plan_is_printed_as_tables_or_as_json(monkeypatch, capsys):
    memory = types.SimpleNamespace(
        **dict.fromkeys(("weights", "gradients", "optimiser", "average"), 1.5e9),
        batch=2e9,
        activations=3e9,
        working=4e9,
        total=15e9,
        fits={24: True, 80: True},
    )
    timing = types.SimpleNamespace(
        sent={"gradients": 3e9, "parameters": 0.0, "contrast": 1e7},
        seconds={"gradients": 0.25, "contrast": 0.25},
        compute=2.0,
        efficiency=(0.75, 0.8),
    )
    scale = types.SimpleNamespace(
        gpus=64,
        share=64,
        rate=types.SimpleNamespace(source="assumed: 9 TFLOP/s"),
        activations=types.SimpleNamespace(configured=3e9, kept=9e9, checkpointed=3e9, records_at_once=16),
        strategies={
            "ddp": types.SimpleNamespace(cannot=None, memory=memory, timing=timing),
            "zero3": types.SimpleNamespace(cannot="ema", memory=None, timing=None),
        },
        storage=types.SimpleNamespace(
            samples_per_second=1500.0, bytes_per_second=3e9, of_node=1e9, checkpoint=5e9, checkpoint_seconds=1.0
        ),
        hours=(1.0, 2.0),
        loads={"memory": 0.5, "storage": 0.75},
        first="storage",
    )
    asked = []

    def make_plan(*args):
        asked.append(args[:5])
        return types.SimpleNamespace(
            parameters={"[ct]": 300, "total": 1200},
            operations=types.SimpleNamespace(towers={"[ct]": 7e9}, forward=8e9, forward_and_backward=24e9, step=32e9),
            hardware=Hardware(),
            strategy="ddp",
            batch_size=4096,
            steps=781,
            samples=3198976,
            operations_of_run=1.7e20,
            bytes_per_record=1e6,
            scales=[scale],
            document=lambda: {"steps": 781},
        )

    stand_in(monkeypatch, "pretrain.planning.plan", make_plan=make_plan)
    monkeypatch.setenv("COLUMNS", "140")
    assert main(["pretrain", "c.yaml", "a=1", "--plan", "--gpus", "8", "--gpus", "64", "--measured", "run"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"[ct] 300 7.0", "total 1,200", "step, with what is computed again 32.0"} <= set(lines)
    assert {"64 GPUs, 64 records of 4,096 on each", "activations, 16 records at once 3.00"} <= set(lines)
    assert {"ddp * 1.50 1.50 1.50 1.50 2.00 3.00 4.00 15.00 24, 80", "zero3 cannot do `ema`"} <= set(lines)
    assert "ddp * 3.000 0.000 0.010 0.500 2.000 75% to 80%" in lines
    assert "on 64 GPUs 1,500.0 1.0 to 2.0 64 to 128 3.00 1.00 5.00 1.0" in lines
    assert "on 64 GPUs 0.50 0.75 nothing yet; storage next" in lines
    assert "about 781 steps of 4,096 records: 3,198,976 samples, 1.7e+20 operations" in lines
    assert main(["pretrain", "c.yaml", "--plan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"steps": 781}
    assert asked == [(Path("c.yaml"), ("a=1",), (8, 64), None, Path("run")), (Path("c.yaml"), (), (1,), None, None)]
