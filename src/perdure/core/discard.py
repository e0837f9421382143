"""Drops a suspended workflow without resuming it: no `finally`, `except` or `with` of user code
runs.

A parked run leaves memory and comes back by replay. Python closes a suspended coroutine when it is
freed, and closing runs its `finally` blocks: side effects that never happened as far as the history
is concerned. CPython skips that for frames that are marked as completed, so this module marks them.
The mark is one byte in the generator object; where it stands is found by watching a coroutine
change state, and then proven on throw-away coroutines (docs/adr/0004). Where the proof fails,
`supported` is False and runs stay in memory until they end.

Rules: only frames that belong to the dropped run are marked: those that nothing outside of it
holds, counted as the garbage collector counts; nothing is written before the proof has passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import gc
import sys
import types
import weakref
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any

from perdure.core.loop import Handle

_COMPLETED = 1  # FRAME_COMPLETED: the same number in CPython 3.11 to 3.14
_FRAMES = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)

OBJECTS_MAX = 10_000
"""So many objects are looked at below the frames of a run; where there are more, those that are
farthest away are left as they are.
"""


def discard(suspended: Iterable[Any], loop: Any, owner: Any = None) -> None:
    """Mark every frame that ends with the given coroutines of `loop`, so that freeing them runs
    nothing. Needs `supported`.

    `owner` is an object that does not end with them, and what it holds is not looked at.

    A frame may be held by anything: a list, a cell, an attribute, an exit stack, `enumerate`, an
    object with `__await__`. Which of them end with the run is found by counting references, as the
    garbage collector does: what has more of them than the objects of the run account for is held by
    somebody else, and so is all that it holds.
    """
    roots = list(suspended)
    found, counts = _reachable(roots, loop, {id(owner)})
    kept = {id(item) for item in roots} | {id(owner)}
    kept |= {
        id(item) for item in found if issubclass(type(item), _OURS)
    }  # our own lists hold those, and they end all the same
    holders = zip(found, _refcounts(found), strict=True)
    outside = [
        item
        for item, held in holders
        if held - _refcount_alone > counts.get(id(item), 0) and id(item) not in kept
    ]
    stays = {id(item) for item in _reachable(outside, loop, kept)[0]}
    for item in found:
        if isinstance(item, _FRAMES) and id(item) not in stays:
            _mark(item)


def _reachable(
    roots: list[Any], loop: Any, without: Collection[int]
) -> tuple[list[Any], dict[int, int]]:
    """What is held below some objects, and how often within it; the process's own things (modules,
    classes, loops) are no part of it.
    """
    found: list[Any] = []
    counts: dict[int, int] = {}
    seen = {id(item) for item in roots} | {*without}
    todo, is_tracked = deque(roots), gc.is_tracked
    while todo and len(found) < OBJECTS_MAX:
        item = todo.popleft()
        found.append(item)
        for below in _referents(item):
            if not is_tracked(below) or (kind := type(below)) in _UNSEEN:
                continue
            key = id(below)
            if key in counts:
                counts[key] += 1
            else:
                counts[key] = 1
                if (
                    key not in seen
                    and not issubclass(kind, _SHARED)
                    and not _is_without_state(below, kind, loop)
                ):
                    seen.add(key)
                    todo.append(below)
    return found, counts


def _referents(item: Any) -> Iterable[Any]:
    """Of a function only what it has closed over: its globals belong to its module."""
    if isinstance(item, types.FunctionType):
        return (*(item.__closure__ or ()), item.__defaults__, item.__kwdefaults__)
    return gc.get_referents(item)


def _is_without_state(item: Any, kind: type, loop: Any) -> bool:
    """A function that has closed over nothing, and what waits on another loop."""
    if kind is types.FunctionType:
        return item.__closure__ is item.__defaults__ is item.__kwdefaults__ is None
    return issubclass(kind, asyncio.Future) and item.get_loop() is not loop


def _refcounts(items: list[Any]) -> list[int]:
    return [sys.getrefcount(item) for item in items]


_refcount_alone = _refcounts([object()])[0]
"""What `_refcounts` says of an object that nothing holds but the list; it differs from interpreter
to interpreter.
"""


def untie(tasks: Iterable[Any], timers: Iterable[Any]) -> None:
    """Break the circles of tasks and timeouts with what they wait for, so that all are freed at
    once and not by the garbage collector.
    """
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


_not_awaited_by: Any = getattr(
    asyncio, "future_discard_from_awaited_by", lambda *_: None
)  # new in 3.14
_SHARED = (type, types.ModuleType, types.CodeType, asyncio.AbstractEventLoop)
_UNSEEN = frozenset({contextvars.Context, types.CodeType, types.ModuleType, type})
_OURS = (asyncio.Future, asyncio.Timeout, Handle)


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
    return [
        byte - 256 if byte > 127 else byte
        for byte in ctypes.string_at(id(item), types.CoroutineType.__basicsize__)
    ]


def _candidates(code: types.CodeType) -> set[int]:
    """Offsets whose byte is below zero and rises from created to suspended, and is
    small when done.
    """
    coro = types.FunctionType(code, globals())([], None)
    created = _bytes_of(coro)
    coro.send(None)
    suspended = _bytes_of(coro)
    with contextlib.suppress(StopIteration):
        coro.send(None)
    states = zip(created, suspended, _bytes_of(coro), strict=True)
    return {
        offset
        for offset, (first, second, third) in enumerate(states)
        if first < second < 0 < third <= 4
    }


def _find_offset() -> int:
    """The offset of the state byte, or 0. A byte of an address can look like it, but not for nine
    codes at once.
    """
    codes = [_sleeper.__code__.replace(co_name=f"sleeper_{n}") for n in range(9)]
    found = set.intersection(*map(_candidates, codes))
    return found.pop() if len(found) == 1 else 0


def _proven() -> bool:
    """Whether a marked coroutine is freed, with all that it holds, and without running its
    `finally`.
    """
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
