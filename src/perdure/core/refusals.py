"""Refusals: what workflow code was kept from doing, remembered until it is known whether the code
went on all the same.

Rules: the first one of a turn counts; it is kept as text and a weak reference, because an error
keeps the frames that it went through; a run that ends with the error, or with one that grew out of
it, was not kept from failing; any other run stops there.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from types import FrameType
from typing import Any

import msgspec

from perdure.errors import chain

_LIBRARY = asyncio.__file__[: -len("asyncio/__init__.py")], "<frozen "


class Refusal(msgspec.Struct, frozen=True):
    """`what` was refused, `line` is the file and line of the user's code, `error` refers to what
    was raised there.
    """

    what: str
    line: str
    error: weakref.ref[BaseException]

    def ended(self, task: Any) -> bool:
        """Whether the task has ended with this error."""
        if task is None or not task.done() or task.cancelled():
            return False
        error = self.error()
        return error is not None and any(one is error for one in chain(task.exception()))


def remember(loop: Any, what: str, error: BaseException) -> None:
    """Keep in mind, at a workflow's loop, that this error is going to be raised."""
    if loop is not None and loop.refused is None and loop.owner is not None:
        loop.refused = Refusal(what, _guilty_line(loop), weakref.ref(error))


def _guilty_line(loop: Any) -> str:
    """The innermost line that belongs neither to Python nor to a package that is installed.

    In a task that a package has made there is none: then the line that waits for the package is
    added, if a task of the run has one.
    """
    frame: FrameType | None = sys._getframe(2)
    frames: list[FrameType] = []
    while frame is not None and not (frames and _is_core(frame)):
        if not _is_core(frame):
            frames.append(frame)
        frame = frame.f_back
    if own := next(filter(_is_own, frames), None):
        return _place(own)
    waiting = (
        next(filter(_is_own, reversed(_awaited(task.get_coro()))), None)
        for task in loop.live_tasks()
    )
    places = [
        _place(frame)
        for frame in [next(filter(None, waiting), None), *frames[:1]]
        if frame is not None
    ]
    return ", through ".join(places) or "an unknown line"


def _awaited(coro: Any) -> list[FrameType]:
    """The frames of a coroutine and of what it waits for, outermost first."""
    frames: list[FrameType] = []
    while coro is not None:
        kind = {"coroutine": "cr", "generator": "gi", "async_generator": "ag"}.get(
            type(coro).__name__, ""
        )
        frame = getattr(coro, f"{kind}_frame", None)
        if frame is not None and not _is_core(frame):
            frames.append(frame)
        coro = getattr(coro, f"{kind}_yieldfrom" if kind == "gi" else f"{kind}_await", None)
    return frames


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def _is_own(frame: FrameType) -> bool:
    return not is_installed(frame.f_code.co_filename)


def is_installed(path: str) -> bool:
    """Whether a file belongs to Python or to a package."""
    return path.startswith(_LIBRARY) or "site-packages" in path or "dist-packages" in path


def _is_core(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("perdure.core.")
