"""Sliced callbacks: a queue of calls that gives way to the event loop after `SLICE_S`.

Rules: calls are made in order, in an empty context; an error of one call does not keep the others
from being made; nothing is called at once, not even the first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from time import perf_counter
from typing import Any

SLICE_S = 0.02


def slice_end_s(loop: asyncio.AbstractEventLoop) -> float:
    """Until when, by `perf_counter`, calls may go on before the event loop gets its turn.

    A loop with `slice_s` has its own: in virtual time no load of the machine may decide.
    """
    return perf_counter() + getattr(loop, "slice_s", SLICE_S)


class Slices:
    """A queue of calls. A run of them takes `SLICE_S` and what its last call takes beyond that."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], None]] = deque()

    @property
    def busy(self) -> bool:
        """Whether something waits for its turn."""
        return bool(self._calls)

    def add(self, act: Callable[..., None], *args: Any) -> None:
        """Call `act` later, behind what has been added before."""
        if not self._calls:
            self._loop.call_soon(self._run, context=Context())
        self._calls.append(partial(act, *args))

    def _run(self) -> None:
        until_s = slice_end_s(self._loop)
        try:
            while self._calls:
                self._calls[0]()
                # only now: what is added meanwhile must not ask for a second callback
                self._calls.popleft()
                if perf_counter() > until_s:
                    break
        except BaseException:
            self._calls.popleft()
            raise
        finally:
            if self._calls:
                self._loop.call_soon(self._run, context=Context())
