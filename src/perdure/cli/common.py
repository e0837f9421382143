"""Options, exit codes, clients and error messages that the commands share.

Rules: a command that inspects, controls or repairs never executes runs and never makes a store; an
error is a message and an exit code, never a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import getpass
import io
import os
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from enum import IntEnum
from typing import Any, NoReturn, TypeVar

import click
import msgspec

from perdure.cli.output import OutputLost, as_lines, discard, say
from perdure.errors import (
    DefinitionError,
    NotSerializable,
    PayloadTooLarge,
    PerdureError,
    QueueNotFound,
    RequestKeyUsed,
    RunExists,
    RunNotFound,
    ScheduleNotFound,
    StoreError,
    UnknownWorkflow,
)
from perdure.runtime.engine import Engine

STORE = "perdure.db"
ADDRESSES = ("s3://", "file:///")
"""How the address of a replica begins."""
COMPLETIONS_MAX = 50
CONFIRM_S_MAX = 10.0  # what is on the disk already is not waited for longer

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Exit(IntEnum):
    """What the exit code says, by contract."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    STORE = 4
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it
    UNREAD = 141  # 128 + SIGPIPE: the reader of the results has gone, as with `| head`


# --- options --------------------------------------------------------------------------------------

store_option = click.option(
    "--store",
    envvar="PERDURE_STORE",
    default=STORE,
    show_default=True,
    show_envvar=True,
    metavar="PATH",
    help="The SQLite file that holds the runs.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


def with_options(command: F, options: Sequence[Callable[[F], F]]) -> F:
    """A command with options, in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def ids_that_begin(ctx: click.Context, parameter: click.Parameter, prefix: str) -> list[str]:
    """Ids for a shell that completes one. An error is no id."""
    from perdure.store.sqlite import connection
    from perdure.store.sqlite.reader import Reader

    try:
        path = ctx.params.get("store") or STORE
        with contextlib.closing(connection.open_reader(path)) as db:
            return Reader(db, path).find_ids(prefix, COMPLETIONS_MAX)
    except Exception:
        return []


run_argument = click.argument("run_id", metavar="ID", shell_complete=ids_that_begin)


# --- the group ------------------------------------------------------------------------------------


class Misuse(click.ClickException):
    """What was asked for can't be done; the message says what can."""

    exit_code = Exit.USAGE


def misuse(message: str) -> Misuse:
    return Misuse(message)


class Commands(click.Group):
    """A group whose help lists its commands in sections, and whose commands fail with a message and
    an exit code.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sections: dict[str, list[click.Command]] = {}

    def add_section(self, title: str, commands: list[click.Command]) -> None:
        self.sections[title] = commands
        for command in commands:
            self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(name) for name in self.commands)
        for title, commands in self.sections.items():
            with formatter.section(title):
                rows = [
                    ((command.name or "").ljust(width), command.get_short_help_str(80))
                    for command in commands
                ]
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(Exit.INTERRUPTED) from None

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run the command that is typed and end the process; however it ends, with a message and an
        exit code of the contract.
        """
        sys.exit(self._ended(*args, **{**options, "standalone_mode": False}))

    def _ended(self, *args: Any, **options: Any) -> int:
        stdout = sys.stdout
        try:
            if (columns := shutil.get_terminal_size().columns) < 52:  # click would not go below 50
                options["terminal_width"] = columns - 2
            return super().main(*args, **options) or Exit.DONE
        except PerdureError as error:
            return _failed(f"Error: {error}", exit_code(error))
        except click.ClickException as error:
            error.show(text := io.StringIO())
            if isinstance(error, click.NoSuchOption) and not error.option_name.startswith("--"):
                text.write("A value that begins with a dash comes after --, as the last one.\n")
            return _failed(text.getvalue().rstrip("\n"), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            return Exit.INTERRUPTED
        except OutputLost as lost:
            return _unwritten(lost.error)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or error.filename is not None:
                raise
            discard(stdout)  # click has written help there
            return _unwritten(error)
        except SystemExit:
            if sys.stdout is stdout:
                raise
            return Exit.UNREAD  # click has replaced it: the reader of its help has gone


def _unwritten(error: OSError) -> int:
    """The exit code for results that can't be written, or whose reader has gone."""
    return (
        Exit.UNREAD
        if error.errno == errno.EPIPE
        else _failed(f"Error: The results can't be written: {error.strerror}.", Exit.FAILED)
    )


def _failed(text: str, code: int) -> int:
    say(*as_lines(text))
    return code


def exit_code(error: PerdureError) -> Exit:
    match error:
        case RunNotFound() | QueueNotFound() | ScheduleNotFound():
            return Exit.NOT_FOUND
        case StoreError():
            return Exit.STORE
        case (
            RunExists()
            | RequestKeyUsed()
            | NotSerializable()
            | PayloadTooLarge()
            | DefinitionError()
            | UnknownWorkflow()
        ):
            return Exit.USAGE
        case _:
            return Exit.FAILED


# --- engines --------------------------------------------------------------------------------------


def with_engine(store: str, act: Callable[[Engine], Awaitable[T]]) -> T:
    """Open the store as a client, which executes nothing, and do something with it."""
    if store.startswith(ADDRESSES):
        raise misuse(
            f"{store} is a replica, which is only looked at. Give this command where the engine "
            "that copies to it runs, with --store and the path of its file."
        )

    async def main() -> T:
        async with Engine(
            store, execute=False, create=False, replica_timeout=CONFIRM_S_MAX
        ) as engine:
            return await act(engine)

    return run_async(main())


def with_run(store: str, prefix: str, act: Callable[[Engine, str], Awaitable[T]]) -> T:
    """The same for one run, named by its id or the beginning of it."""

    async def main(engine: Engine) -> T:
        return await act(engine, await engine.find(prefix))

    return with_engine(store, main)


def with_run_as_it_was(
    store: str, prefix: str, act: Callable[[Engine, str], Awaitable[object]]
) -> tuple[str, str]:
    """The same for a verb that may change nothing. Returns the run's id and its status before."""

    async def main(engine: Engine, run_id: str) -> tuple[str, str]:
        status = await (await engine.get(run_id)).status()
        await act(engine, run_id)
        return run_id, status

    return with_run(store, prefix, main)


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; a Ctrl-C that is not handled ends the command silently."""
    try:
        return asyncio.run(main)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(Exit.INTERRUPTED) from None


def command(store: str, *arguments: str) -> str:
    """A command for this store, as it would be typed; options go before a `--`."""
    named = [] if store in (STORE, os.environ.get("PERDURE_STORE")) else ["--store", store]
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return shlex.join(["perdure", *arguments[:at], *named, *arguments[at:]])


# --- values ---------------------------------------------------------------------------------------


def strict_json(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    """The callback of options that take JSON and nothing else; gives `(value,)`, or None where
    nothing was given.
    """
    if text is None:
        return None
    try:
        return (msgspec.json.decode(text),)
    except msgspec.DecodeError as error:
        raise click.BadParameter(
            f"{text!r} is not JSON ({error}). A string needs its quotes: '\"text\"'."
        ) from error


def user_name() -> str | None:
    """The name of the user of this process, if it has one."""
    try:
        return getpass.getuser() or None
    except (KeyError, OSError):
        return None
