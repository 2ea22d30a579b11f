"""What the exit codes of chiasma mean, for the command and for whoever starts it."""

from __future__ import annotations

FAILED = 1
WRONG_INPUT = 2
START_AGAIN = 75
"""Told that time is nearly up: what was done is saved, and the same command goes on. EX_TEMPFAIL of sysexits.h."""
INTERRUPTED = 130
TERMINATED = 143
