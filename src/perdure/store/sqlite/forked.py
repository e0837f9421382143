"""What a forked child inherits and must not use: engines, SQLite connections, shared sockets.

Rules: the child makes no call into SQLite for what it inherits, not even to close it. A connection
may be inside a transaction of a thread that the child does not have, and undoing that would change
the index of the WAL, which both processes map. So it is never freed. A descriptor is taken away by
its number, because closing the object around it would reach into the parent's event loop.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any, NoReturn, Protocol

import apsw

from perdure.errors import UsedAfterFork

Identity = tuple[int, int]


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


def _in_child() -> None:
    things = list(_things)
    _things.clear()
    if things:
        _keep_for_ever([*apsw.connections(), *(vars(thing).get("_cursor") for thing in things)])
    for thing in things:
        thing.in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
