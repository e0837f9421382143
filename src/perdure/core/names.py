"""Checks of names that are stored: channels, streams, queues, tags, message keys, run ids.

Rules: a name is checked at the line that gives it, before anything is written; a stored name is
text that every reader of the file can show.
"""

from __future__ import annotations

from typing import Any

from perdure.core.limits import NAME_CHARS_MAX
from perdure.core.numbers import shown
from perdure.errors import BadName, DefinitionError

LOGS = "perdure_logs"
"""The stream of the lines that steps log."""


def checked_to_emit(name: Any) -> str:
    """The name of a stream, if items can be emitted to it. Raises `BadName`."""
    if name == LOGS:
        raise BadName("stream", f"{LOGS!r} has the lines that steps log: give it another name")
    return checked("stream", name)


def checked(what: str, name: Any) -> str:
    """The name, if it can be stored; `what` is "channel" and the like. Raises `BadName`."""
    if not isinstance(name, str):
        raise BadName(what, f"it is {type(name).__name__}, not str")
    if len(name) > NAME_CHARS_MAX:
        raise BadName(what, f"it has {len(name):,} characters; the limit is {NAME_CHARS_MAX:,}")
    if name.isprintable():
        return name
    if "\0" in name:
        raise BadName(what, "it holds a NUL character")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        detail = f"{name[error.start]!a} at position {error.start} is no valid text"
        raise BadName(what, detail) from None
    return name


def checked_id(run_id: Any) -> str:
    """A run's id, if it can be one. Raises `BadName`."""
    usable = isinstance(run_id, str) and 1 <= len(run_id) <= 200
    # Addresses of pages end in an id, and every browser takes these two for folders.
    if not usable or not run_id.isprintable() or "~" in run_id or run_id in (".", ".."):
        shape = "1 to 200 printable characters and no '~', and is neither '.' nor '..'"
        raise BadName("run id", f"it has {shape}, unlike {ascii(run_id)[:220]}")
    return str(run_id)


def checked_tags(tags: dict[str, Any]) -> dict[str, Any]:
    """Tags, if their names can be stored. Raises `BadName`; `DefinitionError` if it is no dict."""
    if not isinstance(tags, dict):
        example = 'tags={"team": "billing"}'
        raise DefinitionError(
            f"tags is a dict of values by name, such as {example}, not {shown(tags)}."
        )
    for name in tags:
        checked("tag", name)
    return tags
