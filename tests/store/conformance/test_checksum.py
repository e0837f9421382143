"""The checksum over all histories, in backends that keep one: the same whatever wrote the rows."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.store.base import Store
from perdure.store.writes import (
    BatchRolledBack,
    BeginEpoch,
    ForkRun,
    RenewLease,
    StartRun,
    Transact,
)
from tests.store.conformance.backends import Backend
from tests.store.conformance.support import claim, join, message, one, owned, row


@pytest.fixture
def checked(backend: Backend, store: Any) -> Any:
    """Gives rows, digest and commits of a store whose checksum has been begun."""
    assert backend.begin_checksum is not None
    assert backend.checksum is not None
    owned(store, "before")
    backend.begin_checksum(store.store)
    checksum = backend.checksum
    return lambda: checksum(store.store)


def test_every_row_counts_whoever_writes_it(checked: Any, store: Store, other: Store) -> None:
    run, worker = owned(store)
    rows, digest, commits = checked()
    assert rows == 2
    one(other, row(run, worker, 2))
    assert checked()[0] == 3
    assert checked()[1] != digest
    assert checked()[2] == commits + 1
    one(store, ForkRun(run, "fork", 3, 0))
    assert checked()[0] == 5
    step = Transact(run, worker, lambda db: 1, lambda value, error: row(run, worker, 3).rows[0])  # type: ignore[arg-type,return-value]
    one(store, step)
    assert checked()[0] == 6


def test_what_changes_nothing_does_not_count(checked: Any, store: Store) -> None:
    worker = join(store)
    before = checked()
    one(store, RenewLease(worker, 99))
    one(store, message("nobody"))
    assert claim(store, worker) == []
    bad = StartRun("bad", "flow", None, 1, 0, 0)  # type: ignore[arg-type]
    with pytest.raises(BatchRolledBack):
        store.write([row(1, 1, 2), bad], True)
    assert checked() == before
    one(store, message("before"))
    assert checked() == (*before[:2], before[2] + 1)


def test_an_epoch_begins_through_the_writer(checked: Any, store: Store) -> None:
    before = checked()
    assert one(store, BeginEpoch("store-1", "file:///elsewhere", 2)) is None
    assert checked()[:2] == before[:2]
