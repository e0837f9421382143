"""Races: several stores on one database, in threads, that want the same at the same moment."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from perdure.errors import LeaseLost, RunExists, RunFinished
from perdure.store.base import Store
from perdure.store.rows import Started, Woken, WorkerEnded
from perdure.store.writes import (
    AdoptChild,
    ControlRun,
    Deliver,
    EndWorker,
    Finish,
    ForkRun,
    RenewLease,
    StartRun,
    Transact,
    Turn,
    Write,
)
from tests.store.conformance.support import (
    OpenStore,
    claim,
    finish,
    join,
    message,
    one,
    owned,
    row,
    start,
    suspend,
)

RACERS = 4
ROUNDS = 15


class Race:
    """Stores with a thread each, that begin together."""

    def __init__(self, stores: list[Store]) -> None:
        self.stores = stores
        self._threads = ThreadPoolExecutor(len(stores))
        self._line = threading.Barrier(len(stores))

    def run(self, act: Callable[[int, Store], Any]) -> list[Any]:
        """What each racer's act gives; an error is raised here."""

        def begin(number: int) -> Any:
            self._line.wait(60)
            return act(number, self.stores[number])

        return list(self._threads.map(begin, range(len(self.stores))))

    def write(self, write: Callable[..., Write], *args: Any) -> list[Any]:
        """The results of `write(number, *args)` of each racer."""
        return self.run(lambda number, store: one(store, write(number, *args)))

    def close(self) -> None:
        self._threads.shutdown()


@pytest.fixture
def race(store: Store, open_store: OpenStore) -> Iterator[Race]:
    race = Race([store, *(open_store() for _ in range(RACERS - 1))])
    yield race
    race.close()


def test_every_run_is_claimed_once(race: Race, store: Store) -> None:
    store.write([StartRun(f"r{n}", "flow", b"{}", 1, 0, 0) for n in range(200)], True)
    workers = [join(store, f"w{n}") for n in range(RACERS)]

    def take_all(number: int, own: Store) -> list[int]:
        taken: list[int] = []
        while found := claim(own, workers[number], limit=7, insists=True):
            taken += found
        return taken

    claimed = race.run(take_all)
    assert Counter(run for taken in claimed for run in taken).most_common(1)[0][1] == 1
    assert sum(map(len, claimed)) == 200
    for number, taken in enumerate(claimed):
        assert {store.run_row(run).owner for run in taken} <= {workers[number]}


def test_an_id_is_started_once(race: Race, store: Store) -> None:
    for turn in range(ROUNDS):
        large = b'{"text":"' + b"x" * 3_000 + b'"}'
        got = race.write(lambda n, id, args: StartRun(id, "flow", args, n, 0, 0), f"r{turn}", large)
        assert Counter(started.created for started in got) == {True: 1, False: RACERS - 1}
        assert {store.run_row(started.run).args for started in got} == {large}
        assert len({started.run for started in got}) == 1


def test_of_two_different_starts_one_is_refused(race: Race) -> None:
    for turn in range(ROUNDS):
        got = race.write(lambda n, id: StartRun(id, "flow", b"%d" % n, 1, 0, 0), f"r{turn}")
        assert Counter(map(type, got)) == {Started: 1, RunExists: RACERS - 1}


def test_a_key_arrives_once(race: Race, store: Store) -> None:
    run = start(store).run
    for turn in range(ROUNDS):
        got = race.write(lambda _, key: message(key=key), f"k{turn}")
        assert got == [Woken(run)] * RACERS
    assert len(store.inbox(run, 0)) == ROUNDS


def test_a_message_arrives_or_is_refused_when_its_run_ends(race: Race, store: Store) -> None:
    for turn in range(ROUNDS):
        run, worker = owned(store, f"r{turn}")

        def act(number: int, id: str = f"r{turn}", run: int = run, worker: int = worker) -> Write:
            return finish(run, worker, "completed") if number == 0 else message(id)

        got = race.write(act)
        assert {type(result) for result in got[1:]} <= {Woken, RunFinished}
        assert store.status(f"r{turn}") == "completed"
        assert store.inbox(run, 0) == []


def test_a_message_to_a_run_that_continues_reaches_its_successor(race: Race, store: Store) -> None:
    sent = 0
    run, worker = owned(store)
    for turn in range(ROUNDS):
        successor = StartRun("r", "flow", b"{}", 1, 0, None, owner=worker)
        end = Turn(run, worker, [], 0, finish=Finish("completed", successor=successor))

        def act(number: int, key: str = f"k{turn}", end: Turn = end) -> Write:
            return end if number == 0 else message(key=f"{key}-{number}")

        got = race.write(act)
        run, sent = got[0].woken[-1], sent + RACERS - 1
        assert all(isinstance(result, Woken) for result in got[1:])
        assert len(store.inbox(run, 0)) == sent, "none is lost, none arrives twice"


def test_a_worker_is_ended_once(race: Race, store: Store) -> None:
    for turn in range(ROUNDS):
        run, worker = owned(store, f"r{turn}")
        got = race.write(lambda _, worker: EndWorker(worker, 1, crashed=True), worker)
        assert sorted(map(str, got)) == sorted([str(WorkerEnded(1, []))] + ["None"] * (RACERS - 1))
        assert store.run_row(run).crashes == 1


def test_a_lease_is_renewed_or_its_worker_ended(race: Race, store: Store) -> None:
    """A worker is ended only if it has renewed nothing since that was looked up."""
    for turn in range(ROUNDS):
        run, worker = owned(store, f"r{turn}")

        def act(number: int, worker: int = worker) -> Write:
            if number == 0:
                return RenewLease(worker, 99)
            return EndWorker(worker, 1, crashed=False, beats=0)

        renewed, *ended = race.write(act)
        assert renewed is (not any(ended))
        assert store.run_row(run).owner == (worker if renewed else None)
        one(store, EndWorker(worker, 2, crashed=False))


def test_the_fence_holds_while_a_worker_is_ended(race: Race, store: Store) -> None:
    """Rows of the former owner are before the claim of the next one, or refused."""
    for turn in range(ROUNDS):
        run, worker = owned(store, f"r{turn}")
        second = join(store)

        def act(
            number: int, own: Store, run: int = run, worker: int = worker, second: int = second
        ) -> Any:
            if number == 0:
                results = [one(own, row(run, worker, seq)) for seq in range(2, 12)]
                return [not isinstance(result, LeaseLost) for result in results]
            if number == 1:
                one(own, EndWorker(worker, 1, crashed=True))
                return claim(own, second, 1)
            return None

        written, claimed, *_ = race.run(act)
        assert claimed == [run]
        assert written == sorted(written, reverse=True), "refused once, refused for good"
        assert len(store.history(run)) == 1 + sum(written)
        assert one(store, row(run, second, 2 + sum(written))) is None
        one(store, finish(run, second, "completed"))
        one(store, EndWorker(second, 1, crashed=False))


def test_a_failed_run_is_retried_once(race: Race, store: Store) -> None:
    run, worker = owned(store)
    for turn in range(ROUNDS):
        one(store, finish(run, worker, "failed"))
        got = race.write(lambda _, run: ForkRun(run, "r", 2, 5, replace=True), run)
        assert Counter(map(type, got)) == {Started: 1, RunExists: RACERS - 1}
        (run,) = [result.run for result in got if isinstance(result, Started)]
        worker = join(store)
        assert claim(store, worker, 9, insists=True) == [run]
        assert store.has_run(f"r~{turn + 1}")


def test_a_cancel_ends_a_run_or_finds_its_end(race: Race, store: Store) -> None:
    for turn in range(ROUNDS):
        run = start(store, f"r{turn}").run
        worker = join(store, asked=True)
        family = store.family(run)

        def act(
            number: int,
            own: Store,
            id: str = f"r{turn}",
            worker: int = worker,
            family: Any = family,
        ) -> Any:
            if number == 0:
                return claim(own, worker, 9, families=(family,))
            return one(own, Deliver(id, "cancel", 3, verb="cancel"))

        claimed, *cancels = race.run(act)
        assert all(isinstance(result, Woken) for result in cancels)
        if claimed:
            assert store.status(f"r{turn}") == "running"
            assert [arrived.kind for arrived in store.inbox(run, 0)] == ["cancel"]
        else:
            assert store.status(f"r{turn}") == "cancelled"


# --- wake-ups that must not be lost ---------------------------------------------------------------


@pytest.mark.parametrize("leave", ["release", "end"])
def test_a_message_wakes_a_run_whatever_its_owner_does(
    race: Race, store: Store, leave: str
) -> None:
    """The run is released, or its worker ends, while messages arrive: it is due afterwards."""
    for turn in range(ROUNDS):
        run, worker = owned(store, f"r{turn}")
        one(store, suspend(run, worker, "waiting"))

        def act(number: int, id: str, run: int, worker: int) -> Write:
            if number > 0:
                return message(id, at_ms=5)
            if leave == "end":
                return EndWorker(worker, 6, crashed=False)
            return suspend(run, worker, "waiting", at_ms=6, release=True)

        race.write(act, f"r{turn}", run, worker)
        got = store.run_row(run)
        assert got.owner is None
        assert got.due_ms in (5, 6)


def test_a_child_wakes_its_parent_whatever_that_does(race: Race, store: Store) -> None:
    for turn in range(ROUNDS):
        parent, worker = owned(store, f"p{turn}")
        child = start(store, f"c{turn}", owner=worker, parent=parent, parent_seq=2).run

        def act(number: int, parent: int, child: int, worker: int) -> Write:
            if number == 0:
                return suspend(parent, worker, "waiting", at_ms=6, release=True)
            if number == 1:
                return finish(child, worker, "completed", at_ms=5)
            return message(f"none{number}")

        race.write(act, parent, child, worker)
        assert store.run_row(parent).due_ms in (5, 6)
        assert len(store.inbox(parent, 0)) == 1


def test_a_cancel_ends_a_run_that_is_blocked_at_the_same_moment(race: Race, store: Store) -> None:
    why: dict[str, Any] = {"blocked_by": "code", "reason": "why", "release": True}
    for turn in range(ROUNDS):
        run, worker = owned(store, f"r{turn}")

        def act(number: int, id: str, run: int, worker: int) -> Write:
            if number == 0:
                return suspend(run, worker, "blocked", **why)
            return Deliver(id, "cancel", 3, verb="cancel")

        race.write(act, f"r{turn}", run, worker)
        assert store.status(f"r{turn}") == "cancelled"
        assert store.inbox(run, 0) == []


def test_a_pause_is_kept_whatever_the_owner_does(race: Race, store: Store) -> None:
    for turn in range(ROUNDS):
        run, worker = owned(store, f"r{turn}")

        def act(number: int, id: str, run: int, worker: int) -> Write:
            if number == 0:
                return ControlRun(id, "pause", 3)
            return suspend(run, worker, ("running", "waiting", "pending")[number - 1])

        race.write(act, f"r{turn}", run, worker)
        assert store.status(f"r{turn}") == "paused"


def test_an_adopted_child_wakes_its_new_parent_or_has_ended(race: Race, store: Store) -> None:
    for turn in range(ROUNDS):
        first, worker = owned(store, f"p{turn}")
        child = start(store, f"c{turn}", owner=worker, parent=first, parent_seq=2).run
        later = start(store, f"l{turn}", owner=worker).run
        one(store, suspend(later, worker, "waiting", release=True))

        def act(number: int, child: int, later: int, worker: int) -> Write:
            if number == 0:
                return finish(child, worker, "completed", at_ms=5)
            if number == 1:
                return AdoptChild(child, later)
            return message(f"none{number}")

        _, adopted, *_ = race.write(act, child, later, worker)
        assert store.run_row(later).due_ms == (5 if adopted else None)
        assert len(store.inbox(first, 0)) == (0 if adopted else 1)


# --- runs that grow -------------------------------------------------------------------------------


def test_a_fork_of_a_run_that_grows_has_its_first_rows(race: Race, store: Store) -> None:
    run, worker = owned(store)

    def act(number: int, own: Store) -> list[int]:
        if number == 0:
            for seq in range(2, 40):
                data = b'{"text":"' + b"%d" % seq * 600 + b'"}'
                assert one(own, row(run, worker, seq, data)) is None
            return []
        return [one(own, ForkRun(run, f"f{number}-{n}", 20, 5)).run for n in range(8)]

    for fork in [fork for forks in race.run(act) for fork in forks]:
        rows = store.history_page(fork, 0, None)
        assert [event.seq for event in rows] == list(range(1, len(rows) + 1))
        assert len(rows) < 20
        assert rows == store.history_page(run, 0, len(rows))


def test_runs_that_others_write_grow_without_gaps(race: Race, store: Store) -> None:
    runs = [owned(store, f"r{n}") for n in range(RACERS)]

    def grow(number: int, own: Store) -> None:
        run, worker = runs[number]
        for seq in range(2, 40):
            data = b'{"text":"' + b"%d" % seq * 600 + b'"}'
            assert one(own, row(run, worker, seq, data)) is None
            one(own, message(f"r{(number + 1) % RACERS}"))

    race.run(grow)
    for run, _ in runs:
        assert [event.seq for event in store.history(run)] == list(range(1, 40))
        assert len(store.inbox(run, 0)) == 38


def test_children_that_end_together_all_answer_their_parent(race: Race, store: Store) -> None:
    for turn in range(ROUNDS):
        parent, worker = owned(store, f"p{turn}")
        children = [
            start(store, f"p{turn}/{n}", owner=worker, parent=parent, parent_seq=n + 2).run
            for n in range(RACERS)
        ]
        one(store, suspend(parent, worker, "waiting", release=True))
        race.write(lambda n, w, *to: finish(to[n], w, "completed", at_ms=4), worker, *children)
        answers = sorted(arrived.ref or 0 for arrived in store.inbox(parent, 0))
        assert answers == list(range(2, RACERS + 2))
        assert store.run_row(parent).due_ms == 4


def test_transactional_steps_of_many_processes_add_up(race: Race, store: Store) -> None:
    runs = [owned(store, f"r{n}") for n in range(RACERS)]

    def transact(own: Store, number: int, work: Callable[[Any], Any]) -> Any:
        errors: list[Any] = []
        run, worker = runs[number]
        one(own, Transact(run, worker, work, lambda value, error: errors.append(error)))
        return errors[0]

    def make(db: Any) -> None:
        db.execute("CREATE TABLE total (n INTEGER)")
        db.execute("INSERT INTO total VALUES (0)")

    assert transact(store, 0, make) is None

    def add(number: int, own: Store) -> None:
        for _ in range(20):
            error = transact(own, number, lambda db: db.execute("UPDATE total SET n = n + 1"))
            assert error is None

    race.run(add)
    found: list[Any] = []
    transact(store, 0, lambda db: found.extend(db.execute("SELECT n FROM total")))
    assert found == [(20 * RACERS,)]
