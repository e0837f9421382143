"""Checks of the names that code gives to what is stored: channels, streams, queues, tags, message
keys, run ids.

Rules: a name is checked where it is given, so that the error is raised at that line and nothing was
written; a stored name is text that every reader of the file can show.
"""

from __future__ import annotations

from typing import Any

from perdure.core.limits import NAME_CHARS_MAX
from perdure.core.numbers import shown
from perdure.errors import BadName, DefinitionError


def checked(what: str, name: Any) -> str:
    """The name, if it can be stored; `what` is "channel", "message key" and so on. Raises
    `BadName`.
    """
    if not isinstance(name, str):
        raise BadName(what, f"it is {type(name).__name__}, not str")
    if len(name) > NAME_CHARS_MAX:
        raise BadName(
            what, f"it has {len(name):,} characters, and {NAME_CHARS_MAX:,} are the limit"
        )
    if name.isprintable():
        return name
    if "\0" in name:
        raise BadName(what, "it holds a NUL character")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise BadName(
            what, f"{name[error.start]!a} at position {error.start} is no valid text"
        ) from None
    return name


def checked_id(run_id: Any) -> str:
    """A run's id, if it can be one. Raises `BadName`."""
    if (
        not isinstance(run_id, str)
        or not run_id
        or len(run_id) > 200
        or not run_id.isprintable()
        or "~" in run_id
    ):
        raise BadName(
            "run id",
            f"it has 1 to 200 printable characters and no '~', unlike {ascii(run_id)[:220]}",
        )
    return run_id


def checked_tags(tags: dict[str, Any]) -> dict[str, Any]:
    """Tags, if all their names can be stored. Raises `BadName`, and `DefinitionError` for what is
    no dict.
    """
    if not isinstance(tags, dict):
        raise DefinitionError(
            f'tags is a dict of values by name, such as tags={{"team": "billing"}}, not '
            f"{shown(tags)}."
        )
    for name in tags:
        checked("tag", name)
    return tags
