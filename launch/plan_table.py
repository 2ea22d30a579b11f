"""What a pretraining run will cost, as short tables on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foundation.wording import counted, listed

if TYPE_CHECKING:
    from pretrain.planning.memory import Activations
    from pretrain.planning.plan import Operations, Plan
    from pretrain.planning.scale import Scale


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Print a plan.

    Args:
        plan: What was found.
        console: Where to print; stdout by default.
    """
    console = console or Console()
    console.print(_parameters(plan.parameters, plan.operations))
    console.print(_operations(plan.operations))
    for scale in plan.scales:
        _say(console, f"{counted(scale.gpus, 'GPU')}, {counted(scale.share, 'record')} of {plan.batch_size:,} on each")
        console.print(_activations(scale.activations))
        console.print(_memory(scale, plan.strategy))
        console.print(_network(scale, plan.strategy))
    console.print(_run(plan))
    console.print(_loads(plan))
    _say(console, f"* the strategy of the config, of which all tables but those by strategy are; {_assumptions(plan)}")
    _say(
        console,
        f"about {plan.steps:,} steps of {plan.batch_size:,} records: {plan.samples:,} samples, "
        f"{plan.operations_of_run:.2g} operations",
    )


def _say(console: Console, words: str) -> None:
    console.print(words, soft_wrap=True, highlight=False, markup=False)


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


def _activations(activations: Activations) -> Table:
    table = _table("on each GPU", "GB")
    table.add_row(f"activations, {activations.records_at_once} records at once", _gb(activations.configured))
    table.add_row("  without activation checkpointing", _gb(activations.kept))
    table.add_row("  with it", _gb(activations.checkpointed))
    return table


MEMORY = ("weights", "gradients", "optimiser", "average", "batch", "activations", "working", "total")


def _memory(scale: Scale, own: str) -> Table:
    table = _table("GB on each GPU", *MEMORY, "fits GPUs of")
    for name, plan in scale.strategies.items():
        if plan.memory is None:
            table.add_row(_marked(name, own), f"cannot do `{plan.cannot}`")
            continue
        sizes = [str(size) for size, fits in plan.memory.fits.items() if fits]
        table.add_row(
            _marked(name, own),
            *(_gb(getattr(plan.memory, part)) for part in MEMORY),
            ", ".join(sizes) or "none of these",
        )
    return table


def _network(scale: Scale, own: str) -> Table:
    kinds = ("gradients", "parameters", "contrast")
    table = _table("GB sent by each GPU, per step", *kinds, "seconds", "seconds computing", "efficiency")
    for name, plan in scale.strategies.items():
        timing = plan.timing
        if timing is None:
            continue
        table.add_row(
            _marked(name, own),
            *(f"{timing.sent[kind] / 1e9:,.3f}" for kind in kinds),
            f"{sum(timing.seconds.values()):,.3f}",
            f"{timing.compute:,.3f}",
            _range(*(f"{share:.0%}" for share in timing.efficiency)),
        )
    return table


def _run(plan: Plan) -> Table:
    table = _table(
        "the run",
        "samples/s",
        "hours",
        "GPU hours",
        "GB/s read",
        "by each node",
        "checkpoint, GB",
        "seconds to write it",
    )
    for scale in plan.scales:
        storage = scale.storage
        table.add_row(
            f"on {counted(scale.gpus, 'GPU')}",
            f"{storage.samples_per_second:,.1f}",
            _range(*(f"{hours:,.1f}" for hours in scale.hours)),
            _range(*(f"{scale.gpus * hours:,.0f}" for hours in scale.hours)),
            f"{storage.bytes_per_second / 1e9:,.2f}",
            f"{storage.of_node / 1e9:,.2f}",
            _gb(storage.checkpoint),
            f"{storage.checkpoint_seconds:,.1f}",
        )
    return table


def _loads(plan: Plan) -> Table:
    names = list(plan.scales[0].loads)
    table = _table("load, 1 is too much", *names, "breaks first")
    for scale in plan.scales:
        first = scale.first if scale.loads[scale.first] > 1 else f"nothing yet; {scale.first} next"
        table.add_row(f"on {counted(scale.gpus, 'GPU')}", *(f"{scale.loads[name]:.2f}" for name in names), first)
    return table


def _assumptions(plan: Plan) -> str:
    machines = plan.hardware
    speeds = listed(
        [
            f"{machines.inside_node:,g} GB/s inside a node",
            f"{machines.between_nodes:,g} between nodes for each GPU",
            f"{machines.storage:,g} of storage, {machines.storage_per_node:,g} for each node",
        ]
    )
    rates = dict.fromkeys(scale.rate.source for scale in plan.scales)
    return (
        f"{machines.name}, {speeds}; speed {', '.join(rates)}; stored {plan.bytes_per_record / 1e6:,.2f} MB per record"
    )


def _marked(name: str, own: str) -> str:
    return f"{name} *" if name == own else name


def _gb(size: float) -> str:
    return f"{size / 1e9:,.2f}"


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
