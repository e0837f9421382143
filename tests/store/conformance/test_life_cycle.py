"""The table of `core.lifecycle`, driven: every verb on every status, with every fact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perdure.core import lifecycle
from perdure.core.lifecycle import (
    ADMITTED,
    BLOCKED,
    BY_CODE,
    CANCEL_WAITS,
    CANCELLED,
    CLIENT,
    COMPLETED,
    DUE,
    EXECUTED,
    FAILED,
    FULL,
    KEY_USED,
    LAST_CRASH,
    LINE_FULL,
    NEW,
    NO_QUEUE,
    NO_ROOM,
    NOT_STARTED,
    OTHER_KEY,
    OWNER,
    PAUSED,
    PENDING,
    RUNNING,
    SAME_CALL,
    STATUSES,
    VERBS,
    WAITING,
    WAS_BLOCKED,
    Move,
)
from perdure.core.limits import Limits
from perdure.errors import LeaseLost, PerdureError
from perdure.store.base import Store
from perdure.store.writes import (
    ClockMovedBack,
    ControlRun,
    Deliver,
    EndWorker,
    Finish,
    ForkRun,
    StartRun,
    Turn,
    WakeBlocked,
)
from tests.store.conformance.support import (
    OpenStore,
    claim,
    died,
    finish,
    join,
    message,
    one,
    owned,
    queue,
    request,
    row,
    start,
    suspend,
)

ID = "r"
CANCEL = Deliver(ID, "cancel", 0, verb="cancel")


class Case:
    """A run in some status, for a verb. `run` and `worker` are 0 where there is none."""

    def __init__(self, store: Store, facts: tuple[str, ...]) -> None:
        self.store, self.facts = store, facts
        self.run = self.worker = 0

    def put(self, status: str, verb: str) -> None:
        """Bring a run into a status, by writes alone."""
        by_owner = VERBS[verb].by == OWNER or verb.startswith("worker")
        if status == NEW:
            self.worker = join(self.store)
            self._fill_queue()
            return
        if self._in_queue(status):
            return
        if NOT_STARTED in self.facts:
            self.run = start(self.store, ID).run
        else:
            self.run, self.worker = owned(self.store, ID)
        if KEY_USED in self.facts:
            one(self.store, request() if verb == "ask" else message(key="once"))
        if OTHER_KEY in self.facts:
            one(self.store, request(value=b"2"))
        if FULL in self.facts:
            one(self.store, message())
        if CANCEL_WAITS in self.facts:
            one(self.store, CANCEL)
        self._bring(status, release=not by_owner)

    def _fill_queue(self) -> None:
        """A queue that admits nothing, and takes one more place or none."""
        if LINE_FULL in self.facts or NO_ROOM in self.facts:
            queue(self.store, paused=True, waiting_max=1 if LINE_FULL in self.facts else 2)
            start(self.store, "before", queue="q")

    def _in_queue(self, status: str) -> bool:
        """A run that waits for a queue, or that will have to; False where it is about none."""
        waits = status == WAITING and (ADMITTED in self.facts or NOT_STARTED in self.facts)
        if not waits and NO_ROOM not in self.facts:
            return False
        queue(self.store, per_worker=1, paused=waits)
        if waits:
            self.run = start(self.store, ID, queue="q").run
        elif status == PENDING:
            self.run = start(self.store, ID, queue="q", due_ms=1).run
        else:
            self.run, worker = owned(self.store, ID, queue="q")
            self._write(suspend(self.run, worker, WAITING, due_ms=0, release=True))
        assert self.store.status(ID) == status
        queue(self.store, paused=status == PENDING)
        return True

    def _bring(self, status: str, *, release: bool) -> None:
        due_ms = 0 if DUE in self.facts else None
        match status:
            case lifecycle.PAUSED:
                if WAS_BLOCKED in self.facts:
                    self._write(suspend(self.run, self.worker, BLOCKED, **self._why()))
                elif self.worker:
                    self._write(suspend(self.run, self.worker, WAITING, release=release))
                self._write(ControlRun(ID, "pause", 0))
            case lifecycle.BLOCKED:
                self._write(suspend(self.run, self.worker, BLOCKED, **self._why()))
            case lifecycle.PENDING | lifecycle.WAITING if self.worker:
                self._write(suspend(self.run, self.worker, status, due_ms=due_ms, release=release))
            case lifecycle.COMPLETED | lifecycle.FAILED | lifecycle.CANCELLED:
                self._write(finish(self.run, self.worker, status))
        assert self.store.status(ID) == status

    def _why(self) -> dict[str, Any]:
        by = "nondeterminism" if BY_CODE in self.facts else "unknown_outcome"
        return {"blocked_by": by, "reason": "why", "release": True}

    def _write(self, write: Any) -> None:
        assert not isinstance(one(self.store, write), PerdureError)


def _start(case: Case) -> Any:
    same = SAME_CALL in case.facts
    owner = case.worker if EXECUTED in case.facts else None
    name = "q" if {NO_QUEUE, LINE_FULL, NO_ROOM} & {*case.facts} else None
    return StartRun(ID, "flow", b"{}" if same else b"[1]", 1, 0, 0, owner=owner, queue=name)


def _fork(case: Case) -> Any:
    return ForkRun(case.run or start(case.store, "source").run, ID, 1, 0)


def _retry(case: Case) -> Any:
    """A client retries a run that has ended without success from its history."""
    if case.run and case.store.status(ID) in (FAILED, CANCELLED):
        return ForkRun(case.run, ID, 1, 0, replace=True)
    return ControlRun(ID, "retry", 0)


def _send(case: Case) -> Any:
    return message(key="once" if KEY_USED in case.facts else None)


def _ask(case: Case) -> Any:
    return request(key="once" if {KEY_USED, OTHER_KEY} & {*case.facts} else "new")


def _claim(case: Case) -> Any:
    worker = join(case.store)
    if NO_ROOM in case.facts and case.store.status(ID) == WAITING:
        start(case.store, "busy", owner=worker, queue="q")  # all that this worker may have of it
    claim(case.store, worker, 1, insists=True)


def _died(case: Case) -> Any:
    return died(case.worker, crashes_max=1 if LAST_CRASH in case.facts else 3)


def _continue(case: Case) -> Any:
    successor = StartRun(ID, "flow", b"[2]", 1, 0, 0)
    return Turn(case.run, case.worker, [], 0, finish=Finish(COMPLETED, successor=successor))


def _suspends(status: str) -> Callable[[Case], Any]:
    why: dict[str, Any] = {"blocked_by": "nondeterminism", "reason": "why", "release": True}
    more = why if status == BLOCKED else {}
    return lambda case: suspend(case.run, case.worker, status, **more)


def _ends(status: str) -> Callable[[Case], Any]:
    return lambda case: finish(case.run, case.worker, status)


WRITES: dict[str, Callable[[Case], Any]] = {
    "start": _start,
    "fork": _fork,
    "send": _send,
    "ask": _ask,
    "cancel": lambda case: CANCEL,
    "pause": lambda case: ControlRun(ID, "pause", 0),
    "resume": lambda case: ControlRun(ID, "resume", 0),
    "retry": _retry,
    "resolve": lambda case: Deliver(ID, "resolve", 0, ref=1, data=b"{}", verb="resolve"),
    "claim": _claim,
    "worker leaves": lambda case: EndWorker(case.worker, 0, crashed=False),
    "worker died": _died,
    "wake blocked": lambda case: WakeBlocked(("flow",), 0),
    "clock moved back": lambda case: ClockMovedBack(0),
    "append": lambda case: row(case.run, case.worker, 2),
    "work": _suspends(RUNNING),
    "wait": _suspends(WAITING),
    "put off": _suspends(PENDING),
    "block": _suspends(BLOCKED),
    "finish": _ends(COMPLETED),
    "fail": _ends(FAILED),
    "end cancelled": _ends(CANCELLED),
    "continue as": _continue,
}
"""The write that each verb of the table is; None where it was written already."""

MOVES = list(lifecycle.moves())


def _name(move: Move) -> str:
    return f"{move.verb}-{move.status}" + "".join(f"-{fact}" for fact in move.facts)


@pytest.mark.parametrize("move", MOVES, ids=_name)
def test_a_store_does_what_the_table_says(open_store: OpenStore, move: Move) -> None:
    store = open_store(Limits(inbox_rows_max=1) if FULL in move.facts else None)
    case = Case(store, move.facts)
    case.put(move.status, move.verb)
    key = case.run
    write = WRITES[move.verb](case)
    result = None if write is None else one(store, write)
    if not isinstance(move.outcome, str):
        assert isinstance(result, move.outcome)
        if move.status == NEW:
            assert not store.has_run(ID)
        else:
            assert store.run_row(key).status == move.status
        return
    assert not isinstance(result, PerdureError), result
    replaced = move.verb in ("retry", "continue as") and store.run_row(key).id != ID
    assert store.run_row(key).status == move.outcome if key and not replaced else True
    if move.verb == "continue as":
        assert store.run_row(key).status == COMPLETED
    else:
        assert store.status(ID) == move.outcome
    if move.status in lifecycle.FINAL:
        assert store.run_row(key).status == move.status, "a run that has ended never changes"


@pytest.mark.parametrize("verb", [name for name, verb in VERBS.items() if verb.by == OWNER])
@pytest.mark.parametrize("status", STATUSES)
def test_what_another_than_the_owner_writes_is_refused(
    store: Store, verb: str, status: str
) -> None:
    case = Case(store, ())
    case.put(status, verb)
    before = (store.run_row(case.run), store.history(case.run))
    case.worker = join(store)
    assert isinstance(one(store, WRITES[verb](case)), LeaseLost)
    assert (store.run_row(case.run), store.history(case.run)) == before


def test_every_verb_has_a_write_and_every_status_a_case() -> None:
    assert set(WRITES) == set(VERBS)
    assert {move.status for move in MOVES} == {NEW, *STATUSES}
    assert {verb.by for verb in VERBS.values()} == {CLIENT, lifecycle.ENGINE, OWNER}
    assert {PENDING, RUNNING, WAITING, PAUSED} == lifecycle.OWNABLE
