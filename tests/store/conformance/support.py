"""What the tests of the suite write again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.core.events import COMPLETED, START, STEP, Event
from perdure.store.base import Store
from perdure.store.request_writes import Ask
from perdure.store.rows import QueueRow, Started
from perdure.store.writes import (
    Append,
    Claim,
    Deliver,
    EndWorker,
    Finish,
    JoinWorker,
    SetQueue,
    StartRun,
    Suspend,
    Turn,
    Write,
)

TTL_MS = 10_000
OpenStore = Callable[..., Store]
"""Opens another store on the database of a test; see the fixture `open_store`."""


def one(store: Store, write: Write) -> Any:
    """The result of a write alone in its batch."""
    (result,) = store.write([write], True)
    return result


def join(store: Store, name: str = "w", *, asked: bool = False, now_ms: int = 0) -> int:
    """A new worker."""
    worker: int = one(store, JoinWorker(name, "here", 1, "then", now_ms, TTL_MS, asked))
    return worker


def start(store: Store, id: str = "r", **more: Any) -> Started:
    """A new run; due at once and without an owner, if nothing else is said."""
    given: dict[str, Any] = {
        "workflow": "flow",
        "args": b"{}",
        "seed": 1,
        "at_ms": 0,
        "due_ms": 0,
    } | more
    started = one(store, StartRun(id, **given))
    assert isinstance(started, Started), started
    return started


def owned(store: Store, id: str = "r", **more: Any) -> tuple[int, int]:
    """A new run with one row of history and the new worker that executes it."""
    worker = join(store)
    more = {"due_ms": None, "first": [Event(1, START, 0)]} | more
    return start(store, id, owner=worker, **more).run, worker


def queue(store: Store, name: str = "q", at_ms: int = 0, **limits: Any) -> QueueRow:
    """Create a queue, or change it."""
    row = one(store, SetQueue(name, limits, at_ms))
    assert isinstance(row, QueueRow), row
    return row


def claim(store: Store, worker: int, now_ms: int = 0, limit: int = 100, **more: Any) -> list[int]:
    """Runs of the workflow "flow" that a worker gets."""
    found: list[int] = one(store, Claim(worker, ("flow",), limit, now_ms, **more)).runs
    return found


def row(run: int, worker: int, seq: int, data: bytes | None = b"null") -> Append:
    """One more row of history."""
    return Append(run, worker, [Event(seq, COMPLETED, 0, ref=1, data=data)])


def step_row(seq: int, name: str = "work", data: bytes | None = b"{}") -> Event:
    """The row of a step that was asked for."""
    return Event(seq, STEP, 0, name=name, data=data)


def suspend(run: int, worker: int, status: str | None, at_ms: int = 0, **more: Any) -> Turn:
    return Turn(run, worker, [], at_ms, suspend=Suspend(status, **more))


def finish(run: int, worker: int, status: str, at_ms: int = 0, **more: Any) -> Turn:
    return Turn(run, worker, [], at_ms, finish=Finish(status, **more))


def died(worker: int, now_ms: int = 0, crashes_max: int = 3) -> EndWorker:
    """A worker that was found dead."""
    return EndWorker(worker, now_ms, crashed=True, crashes_max=crashes_max)


def message(id: str = "r", data: bytes = b"1", key: str | None = None, at_ms: int = 0) -> Deliver:
    return Deliver(id, "message", at_ms, "channel", None, key, data)


def request(id: str = "r", key: str = "once", value: bytes = b"1", at_ms: int = 0) -> Ask:
    return Ask(id, "channel", key, "me", value, at_ms)
