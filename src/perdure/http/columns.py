"""Columns of the list of runs: which ones a browser has chosen, tags as columns among them.

Rules: the choice is a cookie that holds names only, so that addresses say which runs and never how
they look; a name that is unknown is left out.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

COOKIE = "perdure-columns"
TAGS_MAX = 8
NAME_CHARS_MAX = 60


class Column(msgspec.Struct, frozen=True):
    """A column. `usual`: it is shown where nothing else was chosen; `tag`: the tag it shows."""

    name: str
    title: str
    usual: bool = True
    tag: str | None = None


CHOICES = (
    Column("workflow", "Workflow"),
    Column("why", "Why, or what it does"),
    Column("tags", "Tags"),
    Column("since", "Since"),
    Column("took", "Took"),
    Column("started", "Started", False),
    Column("queue", "Queue", False),
    Column("key", "Key", False),
    Column("rows", "Rows", False),
    Column("parent", "Parent", False),
)
_KNOWN = {column.name: column for column in CHOICES}


def chosen(cookie: str | None) -> list[Column]:
    """The columns that a cookie asks for; the usual ones without a cookie."""
    if cookie is None:
        return [column for column in CHOICES if column.usual]
    return _columns(cookie.split("."))


def cookie_of(names: Iterable[str], tags: str) -> str:
    """The cookie for columns by name, and for tags that are given with commas between them."""
    wanted = [*names, *("tag-" + tag.strip().encode().hex() for tag in tags.split(",") if tag)]
    return ".".join("tag-" + one.tag.encode().hex() if one.tag else one.name
                    for one in _columns(wanted))  # fmt: skip


def tags_of(columns: Iterable[Column]) -> str:
    """The tags that are columns, with commas between them."""
    return ", ".join(column.tag for column in columns if column.tag)


def _columns(names: Iterable[str]) -> list[Column]:
    wanted = list(dict.fromkeys(names))
    found = [column for column in CHOICES if column.name in wanted]
    tags = [_tag(name) for name in wanted if name.startswith("tag-")]
    return found + [tag for tag in tags if tag is not None][:TAGS_MAX]


def _tag(name: str) -> Column | None:
    try:
        tag = bytes.fromhex(name[4:]).decode()
    except ValueError:
        return None
    return Column(f"tag.{tag}", tag, tag=tag) if 0 < len(tag) <= NAME_CHARS_MAX else None
