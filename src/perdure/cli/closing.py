"""The end of a process that has executed runs, although threads of their steps go on.

Rules: what is recorded is safe, and a step that was cut off is tried again, so nothing is worth
waiting for beyond the grace; a process whose threads have all ended is left to end as any other,
with its exit handlers.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, NoReturn

import click

from perdure.cli.common import Exit
from perdure.cli.output import as_lines, say
from perdure.process.thread_pool import NAME

CLOSE_S_MAX = 5.0


class Closing:
    """Watches over what asyncio does behind the end of a command: it would wait for every thread of
    its default executor.
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
