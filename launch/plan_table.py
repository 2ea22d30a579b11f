"""What a pretraining run will cost, as short tables on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pretrain.plan import Memory, Operations, Plan


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Print a plan.

    Args:
        plan: What was found.
        console: Where to print; stdout by default.
    """
    console = console or Console()
    console.print(_parameters(plan.parameters, plan.operations))
    console.print(_operations(plan.operations))
    console.print(_memory(plan.memory))
    console.print(_fits(plan.memory, plan.gpus))
    console.print(
        f"about {plan.steps:,} steps of {plan.batch_size:,} records on {plan.gpus} GPU{'s' * (plan.gpus > 1)}: "
        f"{plan.samples:,} samples, {plan.operations_of_run:.2g} operations",
        soft_wrap=True,
        highlight=False,
    )


def _table(*columns: str) -> Table:
    """A table whose first column is words and whose others are numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    return table


def _parameters(parameters: dict[str, int], operations: Operations) -> Table:
    table = _table("part", "parameters", "GFLOP forward, per record")
    for name, count in parameters.items():
        forward = operations.towers.get(name)
        table.add_row(Text(name), f"{count:,}", "" if forward is None else f"{forward / 1e9:,.1f}")
    return table


def _operations(operations: Operations) -> Table:
    table = _table("per record", "GFLOP")
    table.add_row("forward, all views", f"{operations.forward / 1e9:,.1f}")
    table.add_row("forward and backward", f"{operations.forward_and_backward / 1e9:,.1f}")
    table.add_row("step, with what is computed again", f"{operations.step / 1e9:,.1f}")
    return table


def _memory(memory: Memory) -> Table:
    table = _table("on each GPU", "GB")
    for name in ("weights", "gradients", "optimiser", "average"):
        table.add_row(name, f"{getattr(memory, name) / 1e9:,.2f}")
    table.add_row(f"activations, {memory.records_at_once} records at once", f"{memory.activations / 1e9:,.2f}")
    table.add_row("  without activation checkpointing", f"{memory.activations_kept / 1e9:,.2f}")
    table.add_row("  with it", f"{memory.activations_checkpointed / 1e9:,.2f}")
    return table


def _fits(memory: Memory, gpus: int) -> Table:
    table = _table("a GPU of", "ddp", f"sharded over {gpus}")
    table.add_row("needs", f"{memory.ddp / 1e9:,.2f} GB", f"{memory.sharded / 1e9:,.2f} GB")
    for size, fits in memory.fits.items():
        table.add_row(f"{size} GB", *("fits" if fits[way] else "too small" for way in ("ddp", "sharded")))
    return table
