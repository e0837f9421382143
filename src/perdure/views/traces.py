"""Tracebacks of recorded errors as lines: frames in the user's code, then causes and members.

Rules: the outermost error comes first, because its line is above; a frame reads as Python
writes it, so editors find it; errors recorded by earlier versions, which hold a traceback as text,
are shown as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from perdure.codec.errors import listed

MEMBERS_SHOWN_MAX = 5


def trace(error: Any) -> list[str]:
    """The lines below an error's own line; none where nothing is known."""
    if not isinstance(error, dict):
        return []
    if isinstance(text := error.get("traceback"), str):
        return text.rstrip().split("\n") if text else []
    return list(_lines(error, 0))


def _lines(error: dict[str, Any], depth: int) -> Iterator[str]:
    for note in listed(error.get("notes")):
        yield f"  {note}"
    if isinstance(left_out := error.get("left_out"), dict):
        yield "  not recorded in full: " + ", ".join(
            f"{name} ({why})" for name, why in left_out.items()
        )
    for frame in _frames(error):
        yield f'  File "{frame["file"]}", line {frame["line"]}, in {frame["function"]}'
        if frame.get("source"):
            yield f"    {frame['source']}"
    members = [one for one in listed(error.get("errors")) if isinstance(one, dict)]
    for number, member in enumerate(members[:MEMBERS_SHOWN_MAX], 1):
        yield f"{number} of {len(members)}: {_headline(member)}"
        yield from _lines(member, depth + 1)
    for key, words in (("cause", "caused by"), ("context", "while handling")):
        if isinstance(inner := error.get(key), dict) and depth < 20:
            yield f"{words} {_headline(inner)}"
            yield from _lines(inner, depth + 1)


def without_frames(error: Any) -> Any:
    """A recorded error as JSON without what `trace` says better."""
    if isinstance(error, dict):
        return {
            key: without_frames(item)
            for key, item in error.items()
            if key not in ("frames", "traceback")
        }
    return [without_frames(item) for item in error] if isinstance(error, list) else error


def _frames(error: Any) -> list[dict[str, Any]]:
    found = listed(error.get("frames")) if isinstance(error, dict) else []
    return [
        frame
        for frame in found
        if isinstance(frame, dict) and {"file", "line", "function"} <= frame.keys()
    ]


def _headline(error: dict[str, Any]) -> str:
    return f"{error.get('type', 'Error')}: {error.get('message') or ''}".partition("\n")[0].rstrip(
        ": "
    )
