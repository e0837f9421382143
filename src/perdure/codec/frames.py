"""Frames of user code: recorded from a traceback as data, and rebuilt as a traceback that Python
prints as its own.

Rules: frames of Perdure and of asyncio are left out; the source line is read when the error is
recorded, because the file may have changed by the time it is read; a rebuilt frame never runs,
and holds neither variables nor other frames; a store is data from elsewhere, so what it names is no
longer than what is recorded, and names no file that can't be read to its end.
"""

from __future__ import annotations

import functools
import linecache
import os
from types import CodeType, FrameType, FunctionType, TracebackType
from typing import Any

FRAMES_MAX = 20
"""Frames of one error: of more, the outermost and the innermost half are kept."""

SOURCE_CHARS_MAX = 200
PATH_CHARS_MAX = 500
_MACHINERY = frozenset({"perdure", "asyncio", "concurrent"})
_LIBRARIES = ("site-packages", "dist-packages", "/lib/python3", "\\Lib\\")
_SOURCE = "__recorded_source__"


def recorded(
    traceback: TracebackType | None, frames_max: int = FRAMES_MAX
) -> tuple[list[dict[str, Any]], int]:
    """The frames of user code, the outermost first, and how many were left out in the middle.

    Returns dicts with `file` (as the interpreter names it), `line`, `function` and `source` (the
    line's text, or an empty string).
    """
    found: list[tuple[FrameType, int]] = []
    while traceback is not None:
        frame = traceback.tb_frame
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _MACHINERY:
            found.append((frame, traceback.tb_lineno or 0))
        traceback = traceback.tb_next
    left_out = max(0, len(found) - frames_max)
    if left_out:
        half = frames_max // 2
        found = found[:half] + found[half + left_out :]
    return [_described(frame, line) for frame, line in found], left_out


def _described(frame: FrameType, line: int) -> dict[str, Any]:
    code, source = frame.f_code, frame.f_globals.get(_SOURCE)
    if not isinstance(source, str):
        source = linecache.getline(code.co_filename, line, frame.f_globals).strip()[
            :SOURCE_CHARS_MAX
        ]
    function = code.co_qualname.rpartition("<locals>.")[2][:PATH_CHARS_MAX]
    return {
        "file": code.co_filename[-PATH_CHARS_MAX:],
        "line": line,
        "function": function,
        "source": source,
    }


def rebuilt(frames: Any) -> TracebackType | None:
    """A traceback of recorded frames; other values are skipped."""
    found: TracebackType | None = None
    given: list[Any] = frames[:FRAMES_MAX] if isinstance(frames, list) else []
    for frame in reversed(given):
        match frame:
            case {"file": str(file), "line": int(line), "function": str(function)} if (
                0 <= line < 2**31
            ):
                code = _code(file[-PATH_CHARS_MAX:], line, function[:PATH_CHARS_MAX])
                found = TracebackType(found, _frame(code, frame.get("source")), 0, line)
    return found


def place(error: Any) -> str:
    """The last line of the user's own code in the origin of a recorded error, such as
    `app.py:12 in charge`.
    """
    found = ""
    while isinstance(error, dict):
        frames = [
            one
            for one in error.get("frames") or ()
            if isinstance(one, dict) and {"file", "line", "function"} <= one.keys()
        ]
        own = [
            frame for frame in frames if not any(part in str(frame["file"]) for part in _LIBRARIES)
        ]
        for frame in (own or frames)[-1:]:
            found = (
                f"{str(frame['file']).replace(chr(92), '/').rpartition('/')[2]}:{frame['line']} "
                f"in {frame['function']}"
            )
        error = error.get("cause")
    return found


def _never() -> Any:
    yield


_UNITS = len(_never.__code__.co_code) // 2
# A table of source positions that has none, so that the line of the traceback counts: an entry has
# up to 8 units of code.
_CODE = _never.__code__.replace(
    co_linetable=bytes(0xF8 | (min(8, _UNITS - first) - 1) for first in range(0, _UNITS, 8))
)


@functools.lru_cache(maxsize=1_000)
def _code(file: str, line: int, function: str) -> CodeType:
    if "\0" in file or (
        os.path.exists(file) and not os.path.isfile(file)
    ):  # Python would read a device for ever
        file = f"<{file!r}>"
    return _CODE.replace(
        co_filename=file,
        co_name=function.rpartition(".")[2],
        co_qualname=function,
        co_firstlineno=line,
    )


def _frame(code: CodeType, source: Any) -> FrameType:
    """The frame of a generator that is not begun: it has no caller, which it would keep alive."""
    frame: FrameType = FunctionType(code, {"__name__": "recorded", _SOURCE: source})().gi_frame
    return frame
