"""Transactional steps: the step's own writes and its row are committed together or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perdure.core.events import COMPLETED, FAILED, Event
from perdure.errors import NotAllowedInStep
from perdure.store.base import Store
from perdure.store.writes import BatchRolledBack, StartRun, Transact, Write
from tests.store.conformance.support import join, message, one, owned, row


class Place:
    """A run with an owner, in which functions are executed as transactional steps."""

    def __init__(self, store: Store) -> None:
        self.store, self.seq = store, 1
        self.run, self.worker = owned(store)
        self.errors: list[BaseException | None] = []
        self.done(lambda db: db.execute("CREATE TABLE mine (a INTEGER PRIMARY KEY)") and None)

    def step(self, work: Callable[[Any], Any]) -> Transact:
        """The function as a write; its error ends up in `errors`."""
        self.seq += 1
        seq = self.seq

        def conclude(value: Any, error: BaseException | None) -> Event:
            self.errors.append(error)
            return Event(seq, FAILED if error else COMPLETED, 0, ref=1)

        return Transact(self.run, self.worker, work, conclude)

    def done(self, work: Callable[[Any], Any]) -> BaseException | None:
        """Execute one function; its error, if it had one."""
        self.store.write([self.step(work)], True)
        return self.errors[-1]

    def mine(self) -> list[int]:
        """What the step's own table has."""
        found: list[int] = []
        assert self.done(
            lambda db: found.extend(a for (a,) in db.execute("SELECT a FROM mine ORDER BY a"))
        ) is None  # fmt: skip
        return found

    def kinds(self) -> list[str]:
        return [event.kind for event in self.store.history(self.run)]


@pytest.fixture
def place(store: Store) -> Place:
    return Place(store)


def insert(*numbers: int) -> Callable[[Any], None]:
    def work(db: Any) -> None:
        for number in numbers:
            db.execute(f"INSERT INTO mine VALUES ({number})")

    return work


def test_what_it_writes_is_committed_with_its_row(place: Place) -> None:
    step = place.step(insert(1, 2))
    got = one(place.store, step)
    assert got == Event(place.seq, COMPLETED, 0, ref=1)
    assert place.mine() == [1, 2]
    assert place.store.history(place.run, place.seq - 2)[0] == got


def test_its_value_and_its_error_reach_its_row(place: Place) -> None:
    run, worker = place.run, place.worker
    seen: list[Any] = []

    def conclude(value: Any, error: BaseException | None) -> None:
        seen.append((value, error))

    assert one(place.store, Transact(run, worker, lambda db: 7, conclude)) is None
    broken = ValueError("no")

    def fail(db: Any) -> None:
        raise broken

    assert one(place.store, Transact(run, worker, fail, conclude)) is None
    assert seen == [(7, None), (None, broken)]


def test_a_failure_undoes_what_it_wrote_and_nothing_else(place: Place) -> None:
    def fail(db: Any) -> None:
        insert(2)(db)
        raise ValueError("no")

    batch: list[Write] = [place.step(insert(1)), message(), place.step(fail), place.step(insert(3))]
    got = place.store.write(batch, True)
    assert [getattr(result, "kind", None) for result in got] == [COMPLETED, None, FAILED, COMPLETED]
    assert place.mine() == [1, 3]
    assert len(place.store.inbox(place.run, 0)) == 1
    assert place.kinds()[-4:-1] == [COMPLETED, FAILED, COMPLETED]


def test_an_error_of_the_database_fails_the_step_alone(place: Place) -> None:
    place.done(insert(1))
    assert place.done(insert(2, 1)) is not None
    assert place.mine() == [1]


def test_rows_before_it_in_its_batch_stay_in_order(place: Place) -> None:
    place.seq += 1
    before = row(place.run, place.worker, place.seq)
    place.store.write([before, place.step(insert(1))], True)
    assert [event.seq for event in place.store.history(place.run)] == [1, 2, 3, 4]


def test_a_batch_that_is_rolled_back_takes_its_writes_along(place: Place) -> None:
    bad = StartRun("bad", "flow", None, 1, 0, 0)  # type: ignore[arg-type]
    with pytest.raises(BatchRolledBack):
        place.store.write([place.step(insert(1)), bad], True)
    place.seq -= 1
    assert place.mine() == []


@pytest.mark.parametrize(
    "sql",
    ["COMMIT", "ROLLBACK", "DELETE FROM run", "UPDATE run SET status = 'failed'", "DROP TABLE run"],
)
def test_the_transaction_and_our_tables_are_not_its_to_touch(place: Place, sql: str) -> None:
    def work(db: Any) -> None:
        insert(1)(db)
        db.execute(sql)

    assert isinstance(place.done(work), NotAllowedInStep)
    assert place.mine() == []
    assert place.store.status("r") == "running"


def test_the_connection_is_of_no_use_after_the_step(place: Place) -> None:
    kept: list[Any] = []
    place.done(lambda db: kept.append(db))
    with pytest.raises(NotAllowedInStep):
        kept[0].execute("SELECT 1")


def test_it_is_not_executed_for_another_than_the_owner(place: Place) -> None:
    called: list[Any] = []
    step = Transact(place.run, join(place.store), called.append, lambda value, error: None)
    one(place.store, step)
    assert called == []
