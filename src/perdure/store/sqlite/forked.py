"""What a forked child inherits and must not use: engines, SQLite connections, shared sockets.

Rules: the child makes no call into SQLite for what it inherits, not even to close it. A connection
may be inside a transaction of a thread that the child does not have, and undoing that would change
the index of the WAL, which both processes map. So it is never freed. A descriptor is taken away by
its number, because closing the object around it would reach into the parent's event loop. A fork
waits until no thread is at work inside SQLite: a lock that SQLite has once for the whole process,
such as the one of its memory, would stay locked in the child, whose first use of SQLite would hang.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from time import monotonic
from typing import Any, NoReturn, Protocol

import apsw

from perdure.errors import UsedAfterFork

Identity = tuple[int, int]

QUIET_WAIT_S = 0.25
"""The longest time that a fork waits for other threads to come out of SQLite."""
_COME_OUT_S = 0.001
_SWITCH_S = 1.0
_switched_s: float | None = None
"""The switch interval of the process, while a fork has another one."""

_opening = threading.RLock()
"""Held while a connection is opened: `apsw.connections` has it only afterwards."""


class Inherited(Protocol):
    """Something that a fork copies.

    `in_child` makes the copy unusable; it is called in the child before anything else runs there.
    """

    def in_child(self) -> None: ...


_things: weakref.WeakSet[Any] = weakref.WeakSet()
_files: dict[Identity, int] = {}  # inherited ones, with the process that has them open


class Dead:
    """In place of a connection in a child: every attribute raises `UsedAfterFork`."""

    def __init__(self) -> None:
        self.__dict__["parent"] = os.getppid()

    def __getattr__(self, name: str) -> NoReturn:
        raise UsedAfterFork(self.__dict__["parent"])


def watch(thing: Inherited) -> None:
    """Call `thing.in_child` in every child that is forked from now on, while the thing exists."""
    _things.add(thing)


def unwatch(thing: Inherited) -> None:
    """Stop that: the thing was closed."""
    _things.discard(thing)


def inherited(identity: Identity | None) -> None:
    """In a child: note that the parent has this file open, with locks that the child has not."""
    if identity is not None:
        _files[identity] = os.getppid()


def connection(
    path: str, flags: int = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, *, vfs: str | None
) -> apsw.Connection:
    """Open a file with SQLite. A fork by another thread waits until it is open."""
    with _opening:
        return apsw.Connection(path, flags=flags, vfs=vfs)


def check(path: str) -> None:
    """Raise `UsedAfterFork` for a file that the parent had open: SQLite must not open it here."""
    if _files:
        with contextlib.suppress(OSError):
            found = os.stat(path)
            if (parent := _files.get((found.st_dev, found.st_ino))) is not None:
                raise UsedAfterFork(parent)


def take_away(descriptors: list[int]) -> None:
    """Close these descriptors here.

    Their numbers name the null device then, for objects that will close them again.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in descriptors:
        with contextlib.suppress(OSError):
            os.dup2(nothing, number, inheritable=False)
    os.close(nothing)


def _keep_for_ever(things: list[Any]) -> None:
    """Never free these objects, not even when the process ends."""
    import ctypes  # here only: it takes longer to load than a store

    for thing in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _is_inside_sqlite() -> bool:
    """True while another thread is in a call of SQLite, or waits at its end for the interpreter."""
    try:
        for each in apsw.connections():
            with contextlib.suppress(apsw.ConnectionClosedError):
                each.total_changes()
    except apsw.ThreadingViolationError:
        return True
    return False


def _before() -> None:
    """Wait until no thread is at work inside SQLite.

    A thread needs the interpreter's lock to come back from SQLite and to enter it again. So this
    one keeps the lock until all the others sleep: then they wait for that lock, for a disk or for
    something else, and hold none of SQLite's locks for the whole process.
    """
    global _switched_s
    if not _opening.acquire(timeout=QUIET_WAIT_S):
        return
    if _switched_s is not None or not _is_inside_sqlite():
        return
    from perdure.store.sqlite.thread_states import ThreadStates  # loads ctypes: slow, and rare

    _switched_s = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    states, until_s, asleep = ThreadStates(), monotonic() + QUIET_WAIT_S, 0
    while asleep < 2 and monotonic() < until_s:  # twice: one may have woken another in between
        look_s = monotonic() + _COME_OUT_S
        while monotonic() < look_s:
            pass
        asleep = 0 if states.others_run() else asleep + 1


def _after() -> None:
    global _switched_s
    if _switched_s is not None:
        sys.setswitchinterval(_switched_s)
        _switched_s = None


def _in_parent() -> None:
    _after()
    with contextlib.suppress(RuntimeError):  # it was not free in time
        _opening.release()


def _in_child() -> None:
    global _opening
    _after()
    _opening = threading.RLock()  # a thread that the child does not have may hold the other one
    things = list(_things)
    _things.clear()
    if things:
        _keep_for_ever([*apsw.connections(), *(vars(thing).get("_cursor") for thing in things)])
    for thing in things:
        thing.in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
