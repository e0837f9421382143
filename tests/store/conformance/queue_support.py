"""What tests of queues write again and again: runs and steps that ask, and who is admitted."""

from __future__ import annotations

from typing import Any

from perdure.errors import PerdureError
from perdure.store.base import Store
from perdure.store.rows import Claimed, Place, Started, Written
from perdure.store.writes import (
    Append,
    AskPlace,
    Claim,
    Family,
    Finish,
    ReleasePlaces,
    StartRun,
    Turn,
)
from tests.store.conformance.support import one

NAMES = ("flow",)


def enqueue(
    store: Store, id: str, at_ms: int = 0, owner: int | None = None, **more: Any
) -> Started:
    """Start a run in queue q."""
    given: dict[str, Any] = {"queue": "q", "workflow": "flow", "due_ms": at_ms} | more
    start = StartRun(id, args=b"{}", seed=1, at_ms=at_ms, owner=owner, **given)
    started = one(store, start)
    assert isinstance(started, Started), started
    return started


def asking(
    run: int, owner: int, seq: int = 2, at_ms: int = 0, *, queue: str = "q",
    key: str | None = None, weight: int = 1, priority: int = 0,
) -> AskPlace:  # fmt: skip
    return AskPlace(run, owner, seq, queue, key, weight, priority, at_ms)


def ask(store: Store, run: int, owner: int, seq: int = 2, at_ms: int = 0, **more: Any) -> Place:
    """Ask for a place for a step."""
    place = one(store, asking(run, owner, seq, at_ms, **more))
    assert isinstance(place, Place), place
    return place


def refused(store: Store, write: Any) -> PerdureError:
    """The error that a write is refused with."""
    error = one(store, write)
    assert isinstance(error, PerdureError), error
    return error


def free(store: Store, worker: int, *places: Place, at_ms: int = 0) -> Written:
    """Release places of a worker's steps."""
    written: Written = one(store, ReleasePlaces([one.place for one in places], worker, at_ms))
    return written


def written(store: Store, write: Append | Turn) -> Written:
    result = one(store, write)
    assert isinstance(result, Written), result
    return result


def claimed(
    store: Store,
    worker: int,
    now_ms: int = 0,
    limit: int = 100,
    *,
    names: tuple[str, ...] = NAMES,
    families: tuple[Family, ...] | None = None,
    insists: bool = True,
) -> Claimed:
    """What a worker gets, beyond its share if need be."""
    result: Claimed = one(
        store, Claim(worker, names, limit, now_ms, insists=insists, families=families)
    )
    return result


def end(store: Store, run: int, worker: int, at_ms: int = 0) -> Written:
    """Complete a run."""
    return written(store, Turn(run, worker, [], at_ms, finish=Finish("completed", b"1")))


def ids(store: Store, runs: list[int]) -> list[str]:
    return [store.run_row(run).id for run in runs]


def waiting(store: Store, name: str = "q") -> tuple[int, int]:
    """How many places wait in a queue, and how many are admitted."""
    row = store.queue_row(name)
    return row.waiting, row.running
