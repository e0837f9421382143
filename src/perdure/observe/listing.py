"""Databases as rows: filtered, sorted, with what their state means in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from perdure.core import lifecycle
from perdure.observe.catalogue import Entry
from perdure.views import format

PAGE_ROWS = 200
CHOICES = (
    lifecycle.RUNNING, lifecycle.WAITING, lifecycle.BLOCKED, lifecycle.FAILED, "silent", "behind",
)  # fmt: skip
_COUNTED = (lifecycle.FAILED, lifecycle.BLOCKED, lifecycle.WAITING)
SORTS = ("name", "seen", "size", *_COUNTED, "lag")


class Query(msgspec.Struct, frozen=True):
    """What is asked for: names with a text, databases that have one of `only`, from row `after`."""

    text: str = ""
    only: tuple[str, ...] = ()
    sort: str = "name"
    after: int = 0


class Row(msgspec.Struct):
    """A database. `state` is a word, `meaning` the sentence behind it, such as why a file can't be
    read; numbers of `more` are lower
    bounds; times are milliseconds UTC. Where it is not `counted`, how many runs there are is not
    known before it is opened.
    """

    name: str
    state: str
    meaning: str
    seen_ms: int | None
    size_bytes: int | None = None
    counts: dict[str, int] = {}
    more: list[str] = []
    blocked: list[tuple[str, str]] = []
    lag_s: float | None = None
    holder: str = ""
    due_ms: int | None = None
    txid: int | None = None
    drill: str = ""
    counted: bool = False

    @property
    def seen(self) -> datetime:
        """When it was last seen, in UTC."""
        return datetime.fromtimestamp((self.seen_ms or 0) / 1000, UTC)

    def number(self, status: str) -> str:
        """How many runs have a status, as text.

        >>> Row("a", "ended", "", 0, counts={"failed": 10_000}, more=["failed"]).number("failed")
        '10,000+'
        """
        n = self.counts.get(status, 0)
        return f"{n:,}{'+' if status in self.more else ''}" if n else ""


class Page(msgspec.Struct):
    """Some rows. `total` counts all databases, `matching` those asked for, `choices` those that
    surely have what each choice asks for; `uncounted` of those with the text may have it, and are
    shown for each status. `next` is where the next rows begin.
    """

    rows: list[Row]
    total: int
    matching: int
    choices: dict[str, int]
    next: int | None
    uncounted: int = 0


def page(entries: Sequence[Entry], query: Query, now_ms: int) -> Page:
    """The rows of a query."""
    all_rows = [row(one, now_ms) for one in entries]
    named = [one for one in all_rows if query.text.lower() in one.name.lower()]
    choices = {name: sum(has(one, name) for one in named) for name in CHOICES}
    shown = [one for one in named if all(may_have(one, name) for name in query.only)]
    shown.sort(key=lambda one: one.name)
    if (key := _KEYS.get(query.sort)) is not None:
        shown.sort(key=key, reverse=True)
    end = query.after + PAGE_ROWS
    following = end if end < len(shown) else None
    uncounted = sum(not one.counted for one in named)
    return Page(shown[query.after : end], len(all_rows), len(shown), choices, following, uncounted)


def may_have(row: Row, choice: str) -> bool:
    """Whether a database is shown for a choice: what was not counted is hidden by no status."""
    return has(row, choice) or (choice in lifecycle.STATUSES and not row.counted)


def has(row: Row, choice: str) -> bool:
    """Whether a database is known to be one of a choice."""
    if choice in lifecycle.STATUSES:
        return row.counts.get(choice, 0) > 0
    return row.state == "silent" if choice == "silent" else row.state in ("behind", "failing")


def _count(status: str, row: Row) -> int:
    return row.counts.get(status, 0)


_KEYS: dict[str, Callable[[Row], Any]] = {
    "seen": lambda row: row.seen_ms or 0,
    "size": lambda row: row.size_bytes or 0,
    **{status: partial(_count, status) for status in _COUNTED},
    "lag": lambda row: row.lag_s or 0.0,
}


def row(entry: Entry, now_ms: int) -> Row:
    """A database as a row."""
    state = entry.state(now_ms)
    made = Row(entry.name, state, entry.problem or _meaning(entry, state, now_ms), entry.seen_ms)
    made.size_bytes = entry.size_bytes
    summary = entry.summary
    if summary is None:
        return _by_lease(made, entry)
    made.size_bytes, made.counts, made.more = summary.size_bytes, summary.counts, summary.more
    made.counted = True
    made.blocked, made.due_ms, made.txid = summary.blocked, summary.due_ms, summary.txid
    if entry.is_file:
        return made
    made.lag_s = None if summary.ended else summary.lag_s
    made.holder = f"{summary.host}, pid {summary.pid}" if not summary.ended else ""
    if summary.drill_ok is not None:
        made.drill = "verified" if summary.drill_ok else "its last test restore failed"
    return made


def _by_lease(made: Row, entry: Entry) -> Row:
    if entry.lease is not None:
        made.txid = entry.lease.txid
        made.holder = entry.lease.who if entry.lease.holder else ""
    return made


def _meaning(entry: Entry, state: str, now_ms: int) -> str:
    ago = format.duration(max(0, now_ms - entry.seen_ms))
    match state:
        case "file" if entry.summary is None:
            return "A file of an early version, whose runs are not counted; open it to see them."
        case "file":
            return "A file, as it is on this machine."
        case "ended":
            return "Its engine has ended in order; everything that it recorded is there."
        case "silent":
            return (
                f"Not heard of for {ago}: its engine has died, or can't reach the bucket. What it "
                "did since is not here."
            )
        case "unknown" if entry.lease is None:
            return "Nothing says how it is; open it to look."
        case _ if entry.summary is None:
            return "It has no summary; its lease says that much. Open it to see its runs."
        case _:
            reason = f": {entry.summary.reason}" if entry.summary.reason else "."
            return f"An engine {_DOES.get(state, state)}{reason}"


_DOES = {
    "replicating": "holds it and replicates it",
    "behind": "holds it, and its replica is behind",
    "failing": "holds it, and can't replicate it",
    "starting": "holds it, and its replica is starting",
    "stopped": "has stopped to replicate it",
}
