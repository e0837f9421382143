"""Names of a run's commands outside its history: idempotency keys, keys of messages, ids of
children and of started runs.

Rules: a command keeps its name over crashes and retries, so that what is done again can be
recognized where it arrives; a command behind the cut of a retry that asks for the same as one that
was cut off takes over that name, any other gets a new one; names are a function of the history, so
every process makes the same ones.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

from perdure.core import events as ev
from perdure.core.events import Command, Event

TAKEN_BACK = b'{"taken_back":true}'
"""A note in the place of a failure that a retry has taken back."""

NAMED = frozenset({ev.STEP, ev.CHILD, ev.SPAWN, ev.SEND})


class Cut(msgspec.Struct, omit_defaults=True):
    """The note behind which a retried or forked run continues.

    None of its open steps has begun up to row `upto`.
    """

    released: bool
    upto: int = 0
    retry: int = 0
    """Which retry of the run this is; 0 for a fork."""
    cut: list[tuple[str, str, str, str]] = msgspec.field(default_factory=list)
    """Commands that were cut off: kind, name, digest of the arguments, and the name outside."""
    sent: dict[int, str] = msgspec.field(default_factory=dict)
    """In a fork, what its source has sent or started: the key of the message, or the id of the run.
    """


def cut_of(row: Event | Command) -> Cut | None:
    """The note of a retry, a fork or a release, if the row is one."""
    if row.kind != ev.ATTEMPT or row.ref is not None or row.data is None:
        return None
    raw = row.data if isinstance(row.data, bytes) else row.data.read()
    if not raw.startswith(b'{"released":'):
        return None
    note = msgspec.json.decode(raw, type=Cut)
    note.upto = note.upto or row.seq
    return note


class Names:
    """The names of one run that was retried or forked, made from its rows in their order.

    `origin` is the key of the first generation.
    """

    def __init__(self, origin: int, rows: Iterable[Event] = ()) -> None:
        self.retries = 0
        self._origin = origin
        self._bases: list[tuple[int, str]] = [(0, str(origin))]
        self._other: dict[int, str] = {}
        self._sent: dict[int, str] = {}
        self._left: dict[tuple[str, str, str], deque[str]] = {}
        self.add_all(rows)

    def add_all(self, rows: Iterable[Event]) -> None:
        for row in rows:
            self.add(row)

    def add(self, row: Event | Command) -> None:
        if row.kind in NAMED:
            left = self._left.get(_content(row)) if self._left else None
            if left:
                self._other[row.seq] = left.popleft()
        elif row.kind == ev.ATTEMPT and (note := cut_of(row)) is not None:
            self._pass(row.seq, note, forked=row.name is not None)

    def _pass(self, seq: int, note: Cut, forked: bool) -> None:
        if forked:
            self._other.clear()
            self._left.clear()
            self._sent = note.sent
        if note.retry:
            self.retries = note.retry
            self._bases.append((seq, f"{self._origin}-{note.retry}"))
        for kind, name, digest, outside in note.cut:
            self._left.setdefault((kind, name, digest), deque()).append(outside)

    def of(self, seq: int) -> str:
        """The name of the command in a row."""
        base = next(base for first, base in reversed(self._bases) if first <= seq)
        return self._other.get(seq) or f"{base}/{seq}"

    def sent(self, seq: int) -> str | None:
        """What the source of a fork has sent or started by this row already."""
        return self._sent.get(seq)

    def cut_off(self, rows: Iterable[Event]) -> list[tuple[str, str, str, str]]:
        """The entries of a note for commands that are cut off."""
        return [(*_content(row), self.of(row.seq)) for row in rows if row.kind in NAMED]


def message_key(name: str) -> str:
    """The key under which a message without a key of its own is sent."""
    return "run:" + name.replace("/", ":")


def run_id(parent: str, name: str) -> str:
    """The id of a child or a started run that was given none."""
    return f"{parent}.{name.replace('/', '.')}"


def _content(row: Event | Command) -> tuple[str, str, str]:
    data: Any = row.data
    raw = data if data is None or isinstance(data, bytes) else data.read()
    return row.kind, row.name or "", hashlib.blake2b(raw or b"", digest_size=12).hexdigest()


def new_seed() -> int:
    """The seed of a new run's random numbers."""
    return int.from_bytes(os.urandom(8)) >> 2
