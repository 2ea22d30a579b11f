"""What every command of `chiasma` has: an example in its help, `--debug`, and what is known of a call when it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from foundation.errors import nearest


@dataclass
class Call:
    """What is known of a call when it fails."""

    name: str = "chiasma"
    goes_on: str = ""
    debug: bool = False


def _debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Call).debug = True


class Command(click.Command):
    """A command that shows its example as written and takes `--debug`.

    Args:
        example: One or several command lines.
        goes_on: Where it goes on when it is interrupted and started again; empty where it starts anew.
    """

    def __init__(self, *args: Any, example: str, goes_on: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        self.goes_on = goes_on
        self.params.append(
            click.Option(
                ["--debug"], is_flag=True, expose_value=False, callback=_debug, help="Show the traceback of a failure."
            )
        )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example."""
        with formatter.section("Example"):
            for line in self.example.splitlines():
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Group(Command, click.Group):
    """The commands; a wrong name is answered with the nearest."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names."""
        if args[0] not in self.commands:
            ctx.fail(f"No such command '{args[0]}'; {nearest(args[0], self.commands)}")
        call = ctx.ensure_object(Call)
        call.name = f"chiasma {args[0]}"
        call.goes_on = getattr(self.commands[args[0]], "goes_on", "")
        return super().resolve_command(ctx, args)
