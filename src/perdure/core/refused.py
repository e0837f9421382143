"""Refusals: what workflow code was refused, kept until it is known whether it swallowed that.

Rules: the first one of a turn counts; it is text and a weak reference, because an error keeps its
frames alive; a run may end with that error, or with one caused by it; any other run is blocked.
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
_PREFIXES = {"coroutine": "cr", "generator": "gi", "async_generator": "ag"}


class Refusal(msgspec.Struct, frozen=True):
    """What was refused, at which line of the user's code, and the error raised there."""

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
    """Keep the refusal at the workflow's loop."""
    if loop is not None and loop.refused is None and loop.owner is not None:
        loop.refused = Refusal(what, _guilty_line(loop), weakref.ref(error))


def _guilty_line(loop: Any) -> str:
    """The innermost line of the user's code; in a task of a package, the line that waits for it."""
    frame: FrameType | None = sys._getframe(2)
    frames: list[FrameType] = []
    while frame is not None and not (frames and _is_core(frame)):
        if not _is_core(frame):
            frames.append(frame)
        frame = frame.f_back
    if own := next(filter(_is_own, frames), None):
        return _place(own)
    coros = (task.get_coro() for task in loop.live_tasks())
    waiting = (next(filter(_is_own, reversed(_awaited(coro))), None) for coro in coros)
    shown = [next(filter(None, waiting), None), *frames[:1]]
    places = [_place(frame) for frame in shown if frame is not None]
    return ", through ".join(places) or "an unknown line"


def _awaited(coro: Any) -> list[FrameType]:
    """The frames of a coroutine and of what it waits for, outermost first."""
    frames: list[FrameType] = []
    while coro is not None:
        kind = _PREFIXES.get(type(coro).__name__, "")
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
