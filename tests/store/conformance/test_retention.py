"""Retention: runs that ended long ago are deleted, with all that goes with them, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perdure.core.events import START, STEP, Command, Event
from perdure.core.limits import Limits
from perdure.errors import RunNotFound
from perdure.store.base import Store
from perdure.store.retention_writes import (
    ForgetIdle,
    GiveBackSpace,
    HoldPruning,
    NoteArchive,
    Prunable,
    PrunablePage,
    PruneRuns,
    SweepPruned,
    Swept,
)
from perdure.store.rows import RunFilter, Started
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.writes import Append, Deliver, Emit, ForkRun, RecordHeartbeat, StartRun, Turn
from tests.store.conformance.backends import Backend
from tests.store.conformance.support import (
    OpenStore,
    claim,
    died,
    finish,
    join,
    message,
    one,
    owned,
    row,
    start,
    step_row,
)

LONG = b'"' + b"x" * 5_000 + b'"'


def never() -> bool:
    return False


def at_once() -> bool:
    return True


def ended(store: Store, id: str, at_ms: int = 10, status: str = "completed", **more: Any) -> int:
    """A run with a history, large arguments, a stream, a heartbeat, a message and a tag."""
    run, worker = owned(store, id, tags={"of": id}, args=LONG, **more)
    one(store, Append(run, worker, [step_row(2, data=LONG)]))
    one(store, Emit(run, worker, 2, 1, [("s", b"1")], 0))
    one(store, RecordHeartbeat(run, worker, 2, 1, b"2", 0))
    one(store, message(id))
    (taken,) = store.inbox(run, 0)
    rows: list[Event | Command] = [Event(3, "message", 0, name="channel", data=b"1")]
    one(store, Turn(run, worker, rows, 0, taken=[(taken.id, 3)]))
    one(store, message(id, b"2"))
    one(store, finish(run, worker, status, at_ms))
    return run


def page(store: Store, before_ms: int = 100, status: str = "completed") -> PrunablePage:
    return store.prunable(status, before_ms, (-1, 0), 1_000)


def ids(found: PrunablePage) -> list[str]:
    return [run.id for run in found.found]


def prune(store: Store, before_ms: int = 100, status: str = "completed") -> int:
    """Prune all that ended before a time. Returns the number of runs."""
    pruned = one(store, PruneRuns(page(store, before_ms, status).found, 200, never))
    swept = one(store, SweepPruned(10**6, 200, 100, never))
    assert swept.done
    return int(pruned.runs + swept.runs)


def left_of(store: Store, run: int) -> list[Any]:
    """What a store still has of a run that is gone."""
    return [
        *store.history(run),
        *store.stream(run, "s", 0, 10),
        *store.inbox(run, 0),
        *filter(None, [store.heartbeat(run, 2)]),
        *store.run_rows(RunFilter(tags={"of": "old"}, limit=9)),
    ]


def test_a_run_goes_with_all_that_it_consists_of(store: Store) -> None:
    run = ended(store, "old")
    kept = ended(store, "new", at_ms=500)
    assert left_of(store, run)
    assert prune(store) == 1
    assert left_of(store, run) == []
    assert not store.has_run("old")
    for read in (store.run_row, store.outcome, store.arguments, store.family):
        with pytest.raises(RunNotFound):
            read(run)
    assert [event.data for event in store.history_page(kept, 1, 1)] == [LONG]
    assert store.pruning().runs == 1
    assert store.pruning().rows == 3
    assert store.pruning().left == 0


def test_what_is_younger_or_has_not_ended_stays(store: Store) -> None:
    ended(store, "young", at_ms=100)
    start(store, "open")
    ended(store, "failed", status="failed")
    ended(store, "last")
    assert ids(page(store)) == []
    assert ids(page(store, 101)) == ["young"]
    assert ids(page(store, status="failed")) == ["failed"]


def test_the_newest_run_stays_so_that_its_key_is_not_given_again(store: Store) -> None:
    runs = [ended(store, id) for id in ("a", "b")]
    found = page(store)
    assert ids(found) == ["a"]
    assert found.kept == [("b", "it has the newest run, whose number stays taken")]
    asked = [Prunable(run, id, 10) for run, id in zip(runs, "ab", strict=True)]
    pruned = one(store, PruneRuns(asked, 200, never))
    assert (pruned.looked_at, pruned.runs) == (2, 1)
    assert start(store, "c").run > max(runs)
    assert prune(store) == 1


def test_numbers_that_readers_hold_do_not_come_back(store: Store) -> None:
    run = ended(store, "old")
    position = store.stream(run, "s", 0, 10)[-1].position
    one(store, message("other"))
    keeps, worker = owned(store, "other")
    assert prune(store) == 1
    one(store, Append(keeps, worker, [step_row(2)]))
    one(store, Emit(keeps, worker, 2, 1, [("s", b"1")], 0))
    assert store.stream_place(position) is None
    assert store.stream(keeps, "s", 0, 10)[0].position > position
    one(store, message("other"))
    (waiting,) = store.inbox(keeps, 0)
    for id in ("second", "third"):
        ended(store, id)
    prune(store)
    one(store, message("other", b"2"))
    assert [row.data for row in store.inbox(keeps, waiting.id)] == [b"2"]


def test_pages_go_on_behind_the_last_run(store: Store) -> None:
    for n in range(7):
        ended(store, f"r{n}", at_ms=n // 3)
    start(store, "newest")
    after, found = (-1, 0), []
    for _ in range(9):
        part = store.prunable("completed", 100, after, 2)
        found += ids(part)
        if part.after is None:
            break
        after = part.after
    assert found == [f"r{n}" for n in range(7)]


# --- families -------------------------------------------------------------------------------------


def test_a_family_goes_as_a_whole_once_all_of_it_has_ended(store: Store) -> None:
    parent = ended(store, "p")
    child = ended(store, "p.1", parent=parent, parent_seq=2)
    below, worker = owned(store, "p.1.1", parent=child, parent_seq=2)
    start(store, "newest")
    found = page(store)
    assert ids(found) == []
    assert found.kept == [("p", "its child p.1.1 has not ended for long enough")]
    one(store, finish(below, worker, "failed", 99))
    assert page(store).found == [Prunable(parent, "p", 10, (), 2)]
    assert prune(store) == 3
    assert [store.has_run(id) for id in ("p", "p.1", "p.1.1")] == [False] * 3
    assert left_of(store, child) == []


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_child_that_was_retried_meanwhile_stays_without_its_parent(
    store: Store, has_ended: bool
) -> None:
    """Also where it has ended again: no archive has it."""
    parent = ended(store, "p")
    child = ended(store, "c", status="failed", parent=parent, parent_seq=2)
    start(store, "newest", due_ms=10_000)
    asked = page(store).found
    again = one(store, ForkRun(child, "c", 2, 150, replace=True))
    assert isinstance(again, Started)
    if has_ended:
        worker = join(store)
        assert claim(store, worker, 160) == [again.run]
        one(store, finish(again.run, worker, "completed", 160))
    assert one(store, PruneRuns(asked, 200, never)).runs == 1
    assert one(store, SweepPruned(10**6, 200, 100, never)).done
    assert not store.has_run("p")
    assert not store.has_run("c~1")
    assert store.run_row(again.run).parent is None


def test_a_run_that_was_retried_meanwhile_stays(store: Store) -> None:
    run = ended(store, "r", status="failed")
    start(store, "newest")
    asked = page(store, status="failed").found
    again = one(store, ForkRun(run, "r", 2, 150, replace=True))
    assert one(store, PruneRuns(asked, 200, never)).runs == 0
    assert [store.has_run(id) for id in ("r", "r~1")] == [True, True]
    assert ids(page(store, status="failed")) == []
    worker = join(store)
    one(store, Deliver("r", "cancel", 160))
    assert store.run_row(again.run).status in ("cancelled", "pending")
    assert worker


def test_a_fork_lives_without_its_source(store: Store) -> None:
    source = ended(store, "source")
    fork = one(store, ForkRun(source, "fork", 3, 50))
    assert prune(store) == 1
    assert store.run_row(fork.run).forked_from == "source"
    assert store.history_page(fork.run, 1, 1)[0].data == LONG
    assert isinstance(one(store, ForkRun(source, "late", 3, 50)), RunNotFound)


# --- runs under one id ----------------------------------------------------------------------------


def goes_on(store: Store, run: int, worker: int, at_ms: int) -> int:
    """A run ends in a successor under its id, "loop"."""
    successor = StartRun("loop", "flow", b"{}", 1, at_ms, None, owner=worker)
    successor.first = [Event(1, START, at_ms)]
    written = one(store, finish(run, worker, "completed", at_ms, successor=successor))
    return int(written.woken[-1])


def test_of_a_run_that_goes_on_for_ever_the_old_ones_go(store: Store) -> None:
    first, worker = owned(store, "loop")
    runs = [first]
    for n in range(4):
        runs.append(goes_on(store, runs[-1], worker, 10 * n))
    assert prune(store, 15) == 2
    assert [store.has_run(id) for id in ("loop~1", "loop~2", "loop~3", "loop~4", "loop")] == [
        False, False, True, True, True
    ]  # fmt: skip
    assert store.first_generation(runs[-1]) == runs[2]
    goes_on(store, runs[-1], worker, 40)
    assert store.has_run("loop~5")
    one(store, row(runs[-1] + 1, worker, 2))


def test_what_was_retried_goes_with_a_run_that_went_on_after_it(store: Store) -> None:
    first, worker = owned(store, "loop")
    one(store, finish(first, worker, "failed", 1))
    again = one(store, ForkRun(first, "loop", 1, 2, replace=True)).run
    assert claim(store, worker, 2) == [again]
    assert ids(page(store, status="failed")) == []
    second = goes_on(store, again, worker, 5)
    assert page(store, 6).found == [Prunable(again, "loop~2", 5, (first,), 0)]
    assert prune(store, 6) == 2
    assert store.generation_after(second) is None


def test_a_key_arrives_once_while_a_run_of_its_id_is_there(store: Store) -> None:
    first, worker = owned(store, "loop")
    one(store, message("loop", key="k"))
    (taken,) = store.inbox(first, 0)
    rows: list[Event | Command] = [Event(2, "message", 0, name="channel", data=b"1")]
    one(store, Turn(first, worker, rows, 0, taken=[(taken.id, 2)]))
    last = goes_on(store, first, worker, 5)
    assert prune(store) == 1
    one(store, message("loop", key="k"))
    assert store.inbox(last, 0) == []
    one(store, finish(last, worker, "completed", 20))
    start(store, "newest")
    assert prune(store) == 1
    again = start(store, "loop").run
    one(store, message("loop", key="k"))
    assert len(store.inbox(again, 0)) == 1


def test_many_runs_before_one_go_in_pieces(store: Store) -> None:
    first, worker = owned(store, "loop")
    runs = [first]
    for n in range(6):
        runs.append(goes_on(store, runs[-1], worker, n))
    one(store, finish(runs[-1], worker, "failed", 50))
    start(store, "newest")
    asked = page(store, status="failed").found
    assert asked == [Prunable(runs[-1], "loop", 50, tuple(runs[:-1]), 0)]
    pruned = one(store, PruneRuns(asked, 200, at_once))
    assert (pruned.looked_at, pruned.runs, pruned.earlier) == (0, 1, 1)
    assert [store.has_run(id) for id in ("loop~1", "loop~2", "loop")] == [False, True, True]
    assert prune(store, status="failed") == 6


# --- pieces ---------------------------------------------------------------------------------------


def test_a_long_history_is_deleted_piece_by_piece(store: Store) -> None:
    run, worker = owned(store, "long")
    one(store, Append(run, worker, [Event(seq, STEP, 0, name="s") for seq in range(2, 502)]))
    one(store, finish(run, worker, "completed", 10))
    start(store, "newest")
    one(store, PruneRuns(page(store).found, 200, never))
    swept = one(store, SweepPruned(100, 200, 100, never))
    assert 100 <= swept.rows < 200
    assert not swept.done
    swept = one(store, SweepPruned(10**6, 200, 100, at_once))
    assert 0 < swept.rows < 100
    assert store.pruning().left == 1
    assert one(store, SweepPruned(10**6, 200, 100, never)).done
    assert store.history(run) == []


def test_enough_ends_a_write_after_a_small_step(store: Store) -> None:
    for n in range(5):
        ended(store, f"r{n}")
    start(store, "newest")
    found = page(store).found
    pruned = one(store, PruneRuns(found, 200, at_once))
    assert (pruned.looked_at, pruned.runs) == (1, 1)


def test_another_process_continues_what_one_has_begun(store: Store, other: Store) -> None:
    run = ended(store, "old")
    start(store, "newest")
    one(store, PruneRuns(page(store).found, 200, never))
    one(store, SweepPruned(1, 200, 100, at_once))
    assert not other.has_run("old")
    assert one(other, SweepPruned(10**6, 200, 100, never)).done
    assert left_of(other, run) == []
    assert one(store, SweepPruned(10**6, 200, 100, never)) == Swept(0, 0, True)


def test_two_that_prune_the_same_do_no_harm(store: Store, other: Store) -> None:
    for n in range(3):
        ended(store, f"r{n}")
    start(store, "newest")
    asked = page(store).found
    assert one(other, PruneRuns(asked, 200, never)).runs == 3
    assert one(store, PruneRuns(asked, 200, never)).runs == 0
    assert store.pruning().runs == 3


# --- the rest -------------------------------------------------------------------------------------


def test_workers_that_ended_long_ago_are_forgotten(store: Store) -> None:
    run, worker = owned(store)
    one(store, died(worker, now_ms=10))
    young = join(store, now_ms=50)
    one(store, died(young, now_ms=90))
    assert one(store, ForgetIdle(50, 10)) == 1
    assert one(store, ForgetIdle(50, 10)) == 0
    assert join(store) > young
    assert run


def test_space_is_given_back_until_some_is_kept(store: Store) -> None:
    for n in range(30):
        ended(store, f"r{n}")
    start(store, "newest")
    prune(store)
    before = one(store, GiveBackSpace(10**9, 0, never))
    assert before.done
    part = one(store, GiveBackSpace(0, 0, at_once))
    after = one(store, GiveBackSpace(5, 0.01, never))
    assert after.done
    assert after.free_bytes <= max(5 * 4096, after.file_bytes // 100)
    assert after.file_bytes <= part.file_bytes <= before.file_bytes
    assert store.held_ms >= 0


def test_one_process_at_a_time_prunes(store: Store, other: Store) -> None:
    assert one(store, HoldPruning("a", 60_000, 0))
    assert not one(other, HoldPruning("b", 60_000, 1))
    assert one(store, HoldPruning("a", 70_000, 10_000))
    assert one(other, HoldPruning("b", 130_000, 70_000))
    assert one(other, HoldPruning("b", None, 70_000))
    assert one(store, HoldPruning("a", 10**12, 70_000))
    assert one(other, HoldPruning("b", 90_000, 70_000))  # the clock was set back since


def test_the_state_of_the_archive_is_kept(store: Store) -> None:
    assert store.pruning().archive is None
    one(store, NoteArchive("file:///a", None, "full", 5))
    one(store, NoteArchive("file:///a", None, "full", 9))
    assert (store.pruning().error, store.pruning().error_ms) == ("full", 5)
    one(store, NoteArchive("file:///a", 12, None, 12))
    state = store.pruning()
    assert (state.archive, state.archived_ms, state.error, state.error_ms) == (
        "file:///a", 12, None, None
    )  # fmt: skip


def test_an_export_has_whole_runs(
    store: Store, backend: Backend, open_store: OpenStore, tmp_path: Path
) -> None:
    apart = store.reads_apart()
    if apart is None:
        return
    parent = ended(store, "p")
    child = ended(store, "c", parent=parent, parent_seq=2)
    ended(store, "other")
    with apart as reads:
        asked = [run for run in reads.prunable("completed", 100, (-1, 0), 9).found if run.id == "p"]
    path = str(tmp_path / "export.db")
    with store.export(path) as export:
        assert export.add(asked) > 0
        export.add(asked)
        export.close()
    copy = SqliteStore(path, limits=Limits())
    try:
        assert not copy.has_run("other")
        for run, id in ((parent, "p"), (child, "c")):
            assert copy.run_row(run) == store.run_row(run)
            assert copy.history_page(run, 0, None) == store.history_page(run, 0, None)
            assert copy.stream(run, "s", 0, 9) == store.stream(run, "s", 0, 9)
            assert copy.heartbeat(run, 2) == store.heartbeat(run, 2)
            tagged = {"of": id}
            found = copy.run_heads(RunFilter(tags=tagged, limit=9))
            assert [head.id for head in found] == [id]
    finally:
        copy.close()


def test_what_is_deleted_is_taken_off_the_checksum(store: Any, backend: Backend) -> None:
    if backend.begin_checksum is None or backend.checksum is None:
        return
    kept = ended(store, "kept", at_ms=500)
    backend.begin_checksum(store.store)
    rows, digest, _ = backend.checksum(store.store)
    ended(store, "old")
    start(store, "newest")
    more, other_digest, _ = backend.checksum(store.store)
    assert (more - rows, other_digest == digest) == (3, False)
    assert prune(store) == 1
    assert backend.checksum(store.store)[:2] == (more, digest)
    assert kept
