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
"""Objects that are visited below the frames of a run; farther ones are left as they are."""


def discard(suspended: Iterable[Any], loop: Any, owner: Any = None) -> None:
    """Mark every frame that ends with the given coroutines of `loop`, so that freeing them runs
    nothing. Needs `supported`. `owner` stays alive, and what it holds is not visited.

    Anything may hold a frame: a list, a cell, an attribute, an exit stack, an object with
    `__await__`. Counting references, as the garbage collector does, finds which frames end with the
    run: an object with more references than the objects of the run account for is held elsewhere,
    with all that it holds.
    """
    roots = list(suspended)
    found, counts = _reachable(roots, loop, {id(owner)})
    kept = {id(item) for item in roots} | {id(owner)}
    kept |= {id(item) for item in found if issubclass(type(item), _OURS)}  # lists of ours hold them
    outside = [
        item
        for item, held in zip(found, _refcounts(found), strict=True)
        if held - _refcount_alone > counts.get(id(item), 0) and id(item) not in kept
    ]
    stays = {id(item) for item in _reachable(outside, loop, kept)[0]}
    for item in found:
        if isinstance(item, _FRAMES) and id(item) not in stays:
            _mark(item)


def _reachable(
    roots: list[Any], loop: Any, without: Collection[int]
) -> tuple[list[Any], dict[int, int]]:
    """Objects below `roots`, but for modules, classes and loops, and how often each is held."""
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
                continue
            counts[key] = 1
            if key in seen or issubclass(kind, _SHARED) or _is_without_state(below, kind, loop):
                continue
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
"""What `_refcounts` returns for an object that only the list holds; interpreters differ."""


def untie(tasks: Iterable[Any], timers: Iterable[Any]) -> None:
    """Break the circles of tasks and timeouts: they are freed without the garbage collector."""
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


# new in 3.14
_not_awaited_by: Any = getattr(asyncio, "future_discard_from_awaited_by", lambda *_: None)
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
    """Weakly referable, so that a freed frame differs from a leaked one."""


async def _sleeper(ran: list[str], witness: _Witness | None) -> None:
    try:
        await _Pause()
    finally:
        ran.append("finally")


def _bytes_of(item: Any) -> list[int]:
    raw = ctypes.string_at(id(item), types.CoroutineType.__basicsize__)
    return [byte - 256 if byte > 127 else byte for byte in raw]


def _candidates(code: types.CodeType) -> set[int]:
    """Offsets whose byte is negative, rises from created to suspended, and is small when done."""
    coro = types.FunctionType(code, globals())([], None)
    created = _bytes_of(coro)
    coro.send(None)
    suspended = _bytes_of(coro)
    with contextlib.suppress(StopIteration):
        coro.send(None)
    states = enumerate(zip(created, suspended, _bytes_of(coro), strict=True))
    return {offset for offset, (one, two, three) in states if one < two < 0 < three <= 4}


def _find_offset() -> int:
    """The offset of the state byte, or 0. A byte of an address may look like it, not nine times."""
    codes = [_sleeper.__code__.replace(co_name=f"sleeper_{n}") for n in range(9)]
    found = set.intersection(*map(_candidates, codes))
    return found.pop() if len(found) == 1 else 0


def _proven() -> bool:
    """Whether a marked coroutine is freed, with what it holds, without running its `finally`."""
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
