"""`dev`: worker, pages and reload in one, while an app is written.

Rules: two processes. The first one owns the socket and watches the files; the second one executes
and serves, and is replaced when the code changes. Requests wait in the socket meanwhile, so the
pages stay where they are. Code that can't be imported is shown over the store as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from perdure.api.tokens import Token
from perdure.cli import log_lines, serving, targets
from perdure.cli.common import Exit, Misuse, store_option
from perdure.cli.execution import execute, opened, stop_signals
from perdure.cli.output import as_lines, say
from perdure.errors import PerdureError
from perdure.runtime.engine import Engine

CHILD, NOTICE = "PERDURE_DEV_SOCKET", "PERDURE_DEV_NOTICE"
GRACE_S = 2.0
END_S_MAX = 10.0
LOOK_S = 0.2
LOOKS_SHARE = 20
"""So many times as long as a look takes nothing is done."""
FILES_MAX = 5_000
QUICK_S, QUICK_DEATHS_MAX = 3.0, 3
"""So many ends within so many seconds of a start, and the code is left out until it changes."""
LEFT_OUT = {"__pycache__", "node_modules", "site-packages"}


@click.command(short_help="Worker, pages and reload in one, while you write.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@store_option
@serving.serve_options
@click.option(
    "--watch",
    multiple=True,
    type=click.Path(exists=True),
    metavar="PATH",
    help="A further file or folder whose changes restart the worker. The folders of the files are "
    "watched anyway.",
)
def dev(
    files: tuple[str, ...],
    store: str,
    host: str,
    port: int | None,
    token: str | None,
    view_token: str | None,
    open_it: bool,
    watch: tuple[str, ...],
) -> None:
    """Execute the runs of a store and show its pages, and take up every change of the code.

    The worker restarts when a Python file beside or below FILE changes; runs go on where they
    were. Code that can't be imported is shown here and in the pages, which stay.

    \b
    Examples:
      perdure dev app.py
      perdure dev app.py --open --store dev.db
      perdure dev flows/*.py --watch ../shared
    """
    tokens = serving.tokens_given(token, view_token)
    if CHILD in os.environ:
        log_lines.show_all(quiet=False)
        execute(_work(files, store, tokens))
    folders = [targets.split_target(file)[0].resolve().parent for file in files]
    watched = [*dict.fromkeys([*folders, *(Path(one).resolve() for one in watch)])]
    at = serving.listening(host, port, tokens)
    execute(_supervise(at, watched, tokens, open_it))


# --- the first process ----------------------------------------------------------------------------


async def _supervise(
    at: socket.socket, watched: Sequence[Path], tokens: list[Token], open_it: bool
) -> int:
    from perdure.http.server import address_of

    serving.tell(address_of(at), tokens, open_it)
    with stop_signals() as stopped:
        supervisor = Supervisor(at, stopped, Changes(watched))
        await supervisor.run()
    say("Stopped. What is left goes on with the next start.")
    return Exit.DONE


class Supervisor:
    """Keeps one child at work, with the code as it is now."""

    def __init__(self, at: socket.socket, stopped: asyncio.Event, changes: Changes) -> None:
        self._socket, self._stopped, self._changes = at, stopped, changes
        self._quick = 0

    async def run(self) -> None:
        """Start children until stopped: one after each change, and one after each death."""
        while not self._stopped.is_set():
            began_s = time.monotonic()
            child = await self._start(self._notice())
            try:
                ended = await self._until_due(child)
            finally:
                await _end(child)
            if ended:
                self._died(child.returncode or 0, time.monotonic() - began_s)
            else:
                self._quick = 0

    def _notice(self) -> str:
        """Why a child does without the code; empty where it does not."""
        if self._quick < QUICK_DEATHS_MAX:
            return ""
        return (
            f"The code ended its process {self._quick} times right after the start (see the "
            "terminal). It is left out until a file changes."
        )

    def _died(self, code: int, lived_s: float) -> None:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        say(f"The worker ended ({how}). It is started again; runs go on where they were.")
        self._quick = self._quick + 1 if lived_s < QUICK_S else 1

    async def _start(self, notice: str) -> asyncio.subprocess.Process:
        number = self._socket.fileno()
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "perdure.cli", *sys.argv[1:],
            stdin=asyncio.subprocess.PIPE, pass_fds=[number],
            start_new_session=True,  # Ctrl-C reaches this process, which then ends the child
            env={**os.environ, CHILD: str(number), NOTICE: notice},
        )  # fmt: skip

    async def _until_due(self, child: asyncio.subprocess.Process) -> bool:
        """Wait for the child's end (True), for a change of the code, or for a stop."""
        waits = [
            asyncio.ensure_future(one)
            for one in (child.wait(), self._changes.next(), self._stopped.wait())
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if waits[1].done() and not self._stopped.is_set():
                say(f"{waits[1].result()} changed: the worker restarts.")
            return waits[0].done() and not self._stopped.is_set()
        finally:
            for one in waits:
                one.cancel()


async def _end(child: asyncio.subprocess.Process) -> None:
    """End a child: it drains, and is killed where that takes too long. Nothing is lost then."""
    if child.stdin is not None:
        child.stdin.close()
    with contextlib.suppress(ProcessLookupError):
        try:
            async with asyncio.timeout(END_S_MAX):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()


@dataclass
class Changes:
    """Changes of Python files below some folders, looked for now and then."""

    watched: Sequence[Path]

    def __post_init__(self) -> None:
        self._seen = self._look()

    async def next(self) -> str:
        """Return the name of a file when one has changed, has come or has gone, as soon as all of
        them stay as they are: editors write a file in several steps.
        """
        changed: set[str] = set()
        while True:
            await asyncio.sleep(max(LOOK_S, LOOKS_SHARE * self._took_s))
            before, self._seen = self._seen, self._look()
            again = {path for path, _ in before.items() ^ self._seen.items()}
            if changed and not again:
                return os.path.basename(min(changed))
            changed |= again

    def _look(self) -> dict[str, tuple[int, int]]:
        begun_s = time.monotonic()
        found = self._found()
        self._took_s = time.monotonic() - begun_s
        return found

    def _found(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for path in self.watched:
            for file in _python_files(path):
                with contextlib.suppress(OSError):
                    about = os.stat(file)
                    found[file] = about.st_mtime_ns, about.st_size
                if len(found) >= FILES_MAX:
                    return found
        return found


def _python_files(path: Path) -> Iterator[str]:
    if path.is_file():
        yield str(path)
        return
    for folder, folders, files in os.walk(path):
        folders[:] = [
            name
            for name in folders
            if name not in LEFT_OUT
            and not name.startswith(".")
            and not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
        ]
        yield from (os.path.join(folder, name) for name in files if name.endswith(".py"))


# --- the second process ---------------------------------------------------------------------------


async def _work(files: Sequence[str], store: str, tokens: list[Token]) -> int:
    from perdure.http import server
    from perdure.http.app import application
    from perdure.http.counters import counters_of
    from perdure.http.site import Site

    at = socket.socket(fileno=int(os.environ.pop(CHILD)))  # not for programs that the code starts
    options, notice = _code(files)
    with stop_signals() as stopped:
        _stop_with_parent(stopped)
        engine, mark = Engine(store, close_grace=GRACE_S, **options), secrets.token_hex(4)
        counters = counters_of(engine)
        if not await opened(engine, stopped):
            return Exit.DONE
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_exit(engine.__aexit__)
            site = Site(store, engine=engine, notice=notice, dev=mark, counters=counters)
            await stack.enter_async_context(
                server.served(application(site, token=tokens or None), at)
            )
            if notice is None:
                say(f"Executing {', '.join(sorted(engine.workflows))} from {store}.")
            else:
                say(*as_lines(notice), "The pages stay. Nothing is executed until this is fixed.")
            await stopped.wait()
    return Exit.DONE


def _code(files: Sequence[str]) -> tuple[dict[str, Any], str | None]:
    """Options of an engine with the code of these files; without it, and why, where it can't be
    used.
    """
    without: dict[str, Any] = {"execute": False}
    if notice := os.environ.pop(NOTICE, ""):
        return without, notice
    try:
        workflows = targets.workflows_in(files)
        return {"workflows": [*workflows.values()], **targets.declared_in(files)}, None
    except Misuse as error:
        return without, error.message
    except PerdureError as error:
        return without, str(error)


def _stop_with_parent(stopped: asyncio.Event) -> None:
    """Stop when the first process has closed the pipe between them, also by its death."""
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stopped.set)
