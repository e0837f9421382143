"""Refusals: what workflow code was kept from doing, remembered until it is known whether the code went on all the same.

Rules: the first one of a turn counts; it is kept as text and a weak reference, because an error keeps the frames that it went through;
a run that ends with the error, or with one that grew out of it, was not kept from failing; any other run stops there.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from types import FrameType
from typing import Any

import msgspec

from perdure.errors import chain

_LIBRARY, _INSTALLED = (asyncio.__file__[: -len("asyncio/__init__.py")], "<frozen "), "site-packages"


class Refusal(msgspec.Struct, frozen=True):
    """`what` was refused, `line` is the file and line of the user's code, `error` refers to what was raised there."""

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
        loop.refused = Refusal(what, _guilty_line(), weakref.ref(error))


def _guilty_line() -> str:
    """The innermost line that belongs neither to Python nor to a package that is installed; without one, the innermost."""
    frame: FrameType | None = sys._getframe(2)
    frames: list[FrameType] = []
    while frame is not None and not (frames and _is_core(frame)):
        if not _is_core(frame):
            frames.append(frame)
        frame = frame.f_back
    own = [one for one in frames if not one.f_code.co_filename.startswith(_LIBRARY) and _INSTALLED not in one.f_code.co_filename]
    return next((f"{one.f_code.co_filename}:{one.f_lineno} in {one.f_code.co_qualname}" for one in [*own, *frames]), "an unknown line")


def _is_core(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("perdure.core.")
