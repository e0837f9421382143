"""Drops a suspended workflow without resuming it: no `finally`, `except` or `with` of user code runs.

A parked run leaves memory and comes back by replay. Python closes a suspended coroutine when it is freed, and
closing runs its `finally` blocks: side effects that never happened as far as the history is concerned. CPython
skips that for frames that are marked as completed, so this module marks them. The mark is one byte in the
generator object; where it stands is found by watching a coroutine change state, and then proven on throw-away
coroutines (docs/adr/0004). Where the proof fails, `supported` is False and runs stay in memory until they end.

Rules: only frames that belong to the dropped run are marked; nothing is written before the proof has passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import types
import weakref
from collections.abc import Iterable
from typing import Any

_COMPLETED = 1  # FRAME_COMPLETED: the same number in CPython 3.11 to 3.14
_FRAMES = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)


def discard(suspended: Iterable[Any]) -> None:
    """Mark every frame below the given coroutines, so that freeing them runs nothing. Needs `supported`."""
    todo, seen = list(suspended), set[int]()
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, _FRAMES):
            _mark(item)
            todo += [below for below in gc.get_referents(item) if isinstance(below, _OWNED)]
        elif isinstance(item, types.MethodType):
            todo.append(item.__self__)
        elif isinstance(item, contextlib.AbstractContextManager | contextlib.AbstractAsyncContextManager):
            todo.append(getattr(item, "gen", None))  # what @contextmanager keeps its generator in


def untie(tasks: Iterable[Any], timers: Iterable[Any]) -> None:
    """Break the circles of tasks and timeouts with what they wait for, so that all are freed at once and not by the garbage collector."""
    for task in tasks:
        task._log_destroy_pending = False  # it is dropped on purpose
        waiter = task._fut_waiter
        for callback, _ in getattr(waiter, "_callbacks", None) or ():
            waiter.remove_done_callback(callback)
        _not_awaited_by(waiter, task)
    for timer in timers:
        if isinstance(timeout := getattr(timer._callback, "__self__", None), asyncio.Timeout):
            timeout._task = None  # type: ignore[attr-defined]
        timer._callback = timer._args = None


_not_awaited_by: Any = getattr(asyncio, "future_discard_from_awaited_by", lambda *_: None)  # new in 3.14
_OWNED = (*_FRAMES, types.MethodType, contextlib.AbstractContextManager, contextlib.AbstractAsyncContextManager)


def _mark(frame: Any) -> None:
    state = ctypes.c_int8.from_address(id(frame) + _offset)
    if state.value < 0:  # created or suspended; running and ended frames are left alone
        state.value = _COMPLETED


class _Pause:
    def __await__(self) -> Any:
        yield


class _Witness:
    """Weakly referable, so that a freed frame can be told from a leaked one."""


async def _sleeper(ran: list[str], witness: _Witness | None) -> None:
    try:
        await _Pause()
    finally:
        ran.append("finally")


def _bytes_of(item: Any) -> list[int]:
    return [byte - 256 if byte > 127 else byte for byte in ctypes.string_at(id(item), types.CoroutineType.__basicsize__)]


def _candidates(code: types.CodeType) -> set[int]:
    """Offsets whose byte is below zero and rises from created to suspended, and is small when done."""
    coro = types.FunctionType(code, globals())([], None)
    created = _bytes_of(coro)
    coro.send(None)
    suspended = _bytes_of(coro)
    with contextlib.suppress(StopIteration):
        coro.send(None)
    states = zip(created, suspended, _bytes_of(coro), strict=True)
    return {offset for offset, (first, second, third) in enumerate(states) if first < second < 0 < third <= 4}


def _find_offset() -> int:
    """The offset of the state byte, or 0. A byte of an address can look like it, but not for nine codes at once."""
    codes = [_sleeper.__code__.replace(co_name=f"sleeper_{n}") for n in range(9)]
    found = set.intersection(*map(_candidates, codes))
    return found.pop() if len(found) == 1 else 0


def _proven() -> bool:
    """Whether a marked coroutine is freed, with all that it holds, and without running its `finally`."""
    ran: list[str] = []
    witness = _Witness()
    gone = weakref.ref(witness)
    coro = _sleeper(ran, witness)
    coro.send(None)
    del witness
    _mark(coro)
    del coro
    return gone() is None and not ran


_offset = _find_offset() if hasattr(types.CoroutineType, "cr_frame") else 0
supported = bool(_offset) and _proven()
"""Whether runs can be dropped from memory on this interpreter."""
