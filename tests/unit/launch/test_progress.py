"""Progress on the terminal: silent when short, a line now and then in a log, a bar on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from launch.progress import LINE_SECONDS, SILENT_SECONDS, Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


def work(progress: Progress, clock: Clock, seconds: float, steps: int, total: int | None = None) -> None:
    progress.start("preparing", steps if total is None else total, "patients")
    for _ in range(steps):
        clock.now += seconds / steps
        progress.advance(1, 1_000_000)


def test_short_work_is_silent(clock, capsys):
    progress = Progress(clock)
    work(progress, clock, SILENT_SECONDS * 0.9, 50)
    progress.finish()
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_a_line_now_and_then(clock, capsys):
    progress = Progress(clock)
    work(progress, clock, 30.0, 240)
    progress.finish()
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0] == "preparing: 16 of 240 patients, 8.0 MB/s, 0:28 left"
    assert 30 / LINE_SECONDS - 1 <= len(lines) - 1 <= 30 / LINE_SECONDS + 1
    assert lines[-1] == "preparing: 240 of 240 patients, 8.0 MB/s, took 0:30"


def test_finishing_says_nothing_twice(clock, capsys):
    progress = Progress(clock)
    work(progress, clock, 30.0, 3)
    progress.finish()
    capsys.readouterr()
    progress.finish()
    assert capsys.readouterr().err == ""


def test_each_piece_of_work_counts_from_its_start(clock, capsys):
    progress = Progress(clock)
    work(progress, clock, 30.0, 3)
    progress.finish()
    capsys.readouterr()
    work(progress, clock, 1.0, 3)
    progress.finish()
    assert capsys.readouterr().err == ""


def test_work_of_unknown_length_is_told_at_its_end(clock, capsys):
    progress = Progress(clock)
    progress.start("reading rna.tsv", None, "")
    clock.now += 3700
    progress.finish()
    assert capsys.readouterr().err == "reading rna.tsv, took 1:01:40\n"


def test_a_function_of_done_and_total(clock, capsys):
    progress = Progress(clock)
    report = progress.report("simulating", "patients")
    report(0, 10)
    clock.now += 5
    report(4, 10)
    assert capsys.readouterr().err == "simulating: 4 of 10 patients, 0:08 left\n"
    clock.now += 5
    report(10, 10)
    progress.finish()
    assert capsys.readouterr().err.splitlines()[-1] == "simulating: 10 of 10 patients, took 0:10"


def test_a_terminal_gets_a_bar_that_goes_and_a_line_that_stays(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress(clock) as progress:
        work(progress, clock, 10.0, 80)
        assert "━" in terminal.getvalue()
        assert "preparing: 80 of 80 patients" in terminal.getvalue()
        progress.finish()
    up, erase = "\x1b[1A", "\x1b[2K"
    assert f"{up}{erase}preparing" in terminal.getvalue()
    assert terminal.getvalue().endswith("preparing: 80 of 80 patients, 8.0 MB/s, took 0:10\n")


def test_a_terminal_is_told_at_once_of_work_of_unknown_length(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress(clock) as progress:
        progress.start("reading rna.tsv", None, "")
        assert "reading rna.tsv" in terminal.getvalue()
        progress.finish()


def test_a_failure_leaves_the_terminal_with_its_cursor(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    def fail() -> None:
        with Progress(clock) as progress:
            work(progress, clock, 10.0, 10)
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        fail()
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert terminal.getvalue().rindex(hidden) < terminal.getvalue().rindex(shown)
