"""Execution of a command's coroutine: stop signals, the grace of steps, the end of the process.

Rules: the first signal drains, the second one ends the process at once; what is recorded is safe,
and a step that was cut off is tried again, so nothing is worth waiting for beyond the grace; a
process whose threads have all ended ends as any other, with its exit handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any, NoReturn

import click

from perdure.cli.common import Exit, run_async
from perdure.cli.output import as_lines, say
from perdure.cli.replica_options import end_line
from perdure.process.thread_pool import NAME
from perdure.runtime.engine import Engine

CLOSE_S_MAX = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def opened(engine: Engine, stopped: asyncio.Event) -> bool:
    """Open the engine, which may wait for its replica for long; False where a stop comes first."""
    opening = asyncio.ensure_future(engine.__aenter__())
    stop = asyncio.ensure_future(stopped.wait())
    await asyncio.wait((opening, stop), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    end_line()
    if not opening.done():
        opening.cancel()
        await asyncio.wait([opening])
        return False
    opening.result()
    return True


def execute(main: Coroutine[Any, Any, int]) -> NoReturn:
    """Run a command's coroutine and end the process, without waiting for steps in threads beyond
    their grace: they are tried again.
    """
    gc.freeze()  # what was imported stays, so the collector need not look through it again
    # With 1,000 runs in memory the default takes a sixth of the time.
    gc.set_threshold(20_000, 20, 20)
    before, closing = threading.enumerate(), Closing()
    try:
        code = run_async(closing.watched(main))
    except click.exceptions.Exit as leaving:
        code = leaving.exit_code
    finally:
        closing.done()
    # Idle threads need a moment to notice that they are not needed.
    deadline = time.monotonic() + 0.2
    threads = [
        thread
        for thread in threading.enumerate()
        if thread not in before and keeps_the_process(thread)
    ]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        end_now(code)
    raise click.exceptions.Exit(code)


@contextlib.contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second one ends the process as kill -9
    would.

    The handlers are Python's, not the loop's, so they are called also in the middle of workflow
    code that never ends. Where such code blocks the loop, one signal is enough.
    """
    loop, stopped, asked = asyncio.get_running_loop(), asyncio.Event(), False

    def on_signal(*_: object) -> None:
        nonlocal asked
        if asked:
            os._exit(Exit.INTERRUPTED)  # what is recorded is safe
        asked = True
        if hasattr(signal, "alarm"):
            signal.alarm(int(CLOSE_S_MAX))
        loop.call_soon_threadsafe(stop)

    def stop() -> None:
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        stopped.set()

    alarm = (signal.SIGALRM,) if hasattr(signal, "alarm") else ()
    before = {number: signal.signal(number, on_signal) for number in (*_SIGNALS, *alarm)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- the end of the process ----------------------------------------------------------------------


class Closing:
    """A time limit for what asyncio does behind the end of a command: it would wait for every
    thread of its default executor.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    async def watched(self, main: Coroutine[Any, Any, int]) -> int:
        """The exit code of `main`; from its end on the process has some seconds to end."""
        code: int = Exit.FAILED
        text = ""
        try:
            code = await main
        except click.exceptions.Exit as leaving:
            code = leaving.exit_code
            raise
        except Exception as error:
            text = str(error)
            raise
        finally:
            self._timer = threading.Timer(CLOSE_S_MAX, end_now, (code, text))
            self._timer.daemon = True
            self._timer.start()
        return code

    def done(self) -> None:
        """Asyncio has closed its loop."""
        if self._timer is not None:
            self._timer.cancel()


def keeps_the_process(thread: threading.Thread) -> bool:
    """Whether a thread is a step's: Python would wait for it, or cut it off in the middle of its
    clean-up.
    """
    return not thread.daemon or thread.name.startswith(NAME)


def end_now(code: int, text: str = "") -> NoReturn:
    """End the process without waiting for any thread."""
    if text:
        say(*as_lines(text))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
