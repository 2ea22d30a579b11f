"""The `chiasma` command: its subcommands, and how each failure is told to the person at the keyboard."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Sequence

import click

from foundation.errors import ChiasmaError, ToldByAnother, WriteError
from launch.command import Call, Group
from launch.commands.describe import describe
from launch.commands.describe_model import describe_model
from launch.commands.doctor import doctor
from launch.commands.embed import embed
from launch.commands.explain import explain
from launch.commands.finetune import finetune
from launch.commands.launch import launch
from launch.commands.predict import predict
from launch.commands.prepare import prepare
from launch.commands.pretrain import pretrain
from launch.commands.publish import publish
from launch.commands.simulate import simulate
from launch.exit_codes import FAILED, INTERRUPTED, START_AGAIN, TERMINATED
from launch.rank_log import write_if_asked


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    example="chiasma simulate demo/source\nchiasma prepare demo/source/cohort.yaml --out demo/cohort",
)
@click.version_option(package_name="chiasma", message="%(package)s %(version)s")
def cli() -> None:
    """Join what a scan shows with what the genome says, for patients of whom most lack something."""


for command in (
    simulate,
    describe,
    prepare,
    pretrain,
    finetune,
    embed,
    predict,
    explain,
    publish,
    describe_model,
    launch,
    doctor,
):
    cli.add_command(command)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: What follows `chiasma`; by default what this process was started with.

    Returns:
        The exit code: 0 done, 1 failed, 2 the input is wrong, 130 interrupted, 143 terminated, 75 told by
        SIGUSR1 that time is nearly up and to be started again.
    """
    call = Call()
    write_if_asked()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
        signal.signal(signal.SIGUSR1, _terminate)
    arguments = None if args is None else list(args)
    try:
        code = cli.main(arguments, prog_name="chiasma", standalone_mode=False, obj=call)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, _Terminated, Exception) as error:
        if call.debug:
            traceback.print_exc()
        code, message = _explain(error, call)
        if not isinstance(error, ToldByAnother):
            print(f"{call.name}: {message}", file=sys.stderr)
        return code
    return code if isinstance(code, int) else 0


class _Terminated(BaseException):
    """Somebody, such as a batch system, asked this process to end."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated(number)


def _explain(error: BaseException, call: Call) -> tuple[int, str]:
    """The exit code and the message for an error."""
    if isinstance(error, ChiasmaError):
        return error.exit_code, str(error)
    again = "start the same command again" + (f" and it goes on {call.goes_on}" if call.goes_on else "")
    if isinstance(error, _Terminated):
        if error.args == (signal.SIGUSR1,):
            return START_AGAIN, f"told that time is nearly up; {again}"
        return TERMINATED, f"terminated; {again}"
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return INTERRUPTED, f"interrupted; {again}"
    if isinstance(error, OSError) and (refused := WriteError.of(error, then=again)):
        return refused.exit_code, str(refused)
    if _is_of_another_process(error):
        return FAILED, f"another process of this run was lost; {again}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return FAILED, f"the package '{error.name}' is not installed\n  what to do: run chiasma doctor"
    message = " ".join(str(error).split())
    return FAILED, f"unexpected: {type(error).__name__}: {message}; run again with --debug for the traceback"


def _is_of_another_process(error: BaseException) -> bool:
    """Whether processes could not speak with each other; gloo has no class of errors of its own."""
    return any(kind.__name__ == "DistError" for kind in type(error).__mro__) or "gloo/transport" in str(error)


if __name__ == "__main__":
    sys.exit(main())
