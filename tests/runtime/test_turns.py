"""What a turn says of its run, and transactional attempts: decided by values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from perdure import Limits, Retry, step, workflow
from perdure.codec.json_codec import JsonCodec
from perdure.core.events import Command, Event
from perdure.process.clock import SystemClock
from perdure.process.interpreter import PYTHON
from perdure.runtime.attempts import Attempts
from perdure.runtime.kernels import kernel_of
from perdure.runtime.outbox import Outbox
from perdure.runtime.plans import Block, PendingAttempt, Plan
from perdure.runtime.recovery import RELEASED
from perdure.runtime.steps import Again, Ended, Running, Steps
from perdure.runtime.transactional import TransactionalAttempt
from perdure.runtime.turns import Standing, Turns
from perdure.store.rows import new_run_row
from perdure.store.writes import StartRun, Suspend, Turn
from tests.runtime.support import awaited

AT_WORK = Standing(at_work=True, paused=False, blocked=None, held=False, unsettled=False)


@step
async def one() -> int:
    return 1


@workflow
async def asks() -> int:
    return await one()


@workflow
async def ends() -> int:
    return 7


class Clock(SystemClock):
    def now_ms(self) -> int:
        return 1_000


@dataclass
class Host:
    """What turns need of a scheduler, and nothing else."""

    owner: int = 3
    steps: Any = None
    gate: None = None

    def new_run(self, start: StartRun, at_ms: int) -> StartRun:
        start.seed = 1
        return start


@dataclass
class Case:
    """A run that has been started, up to its first wait."""

    definition: Any
    host: Any = field(default_factory=lambda: Host(steps=type("S", (), {"clock": Clock()})))

    def __post_init__(self) -> None:
        row = new_run_row(StartRun("r", self.definition.name, b"{}", 0, 1, 1), 5)
        row.python = PYTHON
        self.kernel = kernel_of(row, self.definition, JsonCodec())
        outbox = Outbox(5, "r", 5, None, None, None)
        self.attempts = Attempts(self.host, self, self.kernel, outbox, paused=False)
        self.turns = Turns(self.host, row, self.kernel, outbox, self.attempts)
        start = self.kernel.stamp("start", 1)
        self.turns.add(start, None)
        self.turns.rows += self.kernel.feed(start)

    def do(self, plan: Plan) -> None: ...

    def touch(self) -> None: ...

    def attempt_ended(self, command: Command, ended: Ended | Again | None) -> None: ...

    def conclude(self, **standing: Any) -> Turn:
        turn, _, _ = self.turns.turn()
        values = {
            **{name: getattr(AT_WORK, name) for name in AT_WORK.__struct_fields__},
            **standing,
        }
        self.turns.conclude(turn, Standing(**values))
        self.kernel.discard()
        return turn


def test_a_run_at_work_says_so_only_where_its_row_does_not() -> None:
    assert Case(asks).conclude().suspend is None
    assert Case(asks).conclude(at_work=False).suspend == Suspend("running")


def test_an_outcome_is_the_end() -> None:
    turn = Case(ends).conclude()
    assert turn.finish is not None
    assert (turn.finish.status, turn.finish.result) == ("completed", b"7")


def test_a_blocked_run_leaves_and_notes_that_its_step_has_not_begun() -> None:
    turn = Case(asks).conclude(blocked=Block("code", "no"))
    assert turn.suspend == Suspend("blocked", blocked_by="code", reason="no", release=True)
    assert turn.rows[-1].data == RELEASED


def test_a_run_that_is_asked_about_notes_nothing() -> None:
    turn = Case(asks).conclude(blocked=Block("unknown_outcome", "what?"))
    assert turn.suspend is not None
    assert [row.kind for row in turn.rows] == ["start", "step"]


@pytest.mark.parametrize("standing", [{"paused": True}, {"blocked": Block("code", "no")}])
def test_a_run_stays_while_an_attempt_of_it_is_under_way(standing: dict[str, Any]) -> None:
    case = Case(asks)
    case.attempts.under_way[2] = Running()
    assert case.conclude(**standing).suspend is None
    assert Case(asks).conclude(held=True, **standing).suspend is None


def test_a_paused_run_leaves_as_its_row_says() -> None:
    assert Case(asks).conclude(paused=True).suspend == Suspend(None, release=True)


def test_a_history_that_is_too_long_has_no_end() -> None:
    turn = Case(ends).conclude(blocked=Block("history", "long"))
    assert turn.finish is None
    assert turn.suspend is not None


def test_a_run_whose_only_step_rests_waits_until_that_is_due() -> None:
    case = Case(asks)
    command = case.kernel.open[2]
    case.attempts.back_off(PendingAttempt(command, 2, 1, 5_000))
    suspend = case.conclude().suspend
    assert suspend is not None
    assert (suspend.status, suspend.due_ms) == ("waiting", 5_000)
    assert b'"again_ms":5000' in (suspend.waiting or b"")
    assert Case(asks).conclude(unsettled=True).suspend is None


# --- transactional --------------------------------------------------------------------------------


@step(transactional=True, retry=Retry(attempts=2, delay=0))
def saved(db: Any, n: int) -> int:
    return 10 // n


def tried(n: int, attempt: int = 1, failures: int = 0) -> tuple[TransactionalAttempt, Event]:
    call = saved(n)
    command = Command(2, "step", 1, name="saved", data=b'{"n":%d}' % n, call=call)
    steps = Steps(JsonCodec(), Clock(), Limits(), lambda _: None)
    row = Event(3, "completed", 400, 2)
    case = Case(ends)
    case.kernel.discard()
    pending = PendingAttempt(command, attempt, failures)
    return TransactionalAttempt(case.attempts, steps, pending, row), row


@awaited
async def test_a_transactional_attempt_makes_its_row() -> None:
    made, row = tried(5)
    write = made.write()
    assert (write.run, write.owner) == (5, 3)
    assert write.conclude(write.work(None), None) is row
    assert (row.kind, row.data, row.took_ms) == ("completed", b"2", 600)
    assert made.outcome == Ended("completed", b"2", 600)


@awaited
async def test_an_attempt_that_fails_is_noted_until_it_was_the_last() -> None:
    made, row = tried(0)
    made.write().conclude(None, ZeroDivisionError("no"))
    assert (row.kind, type(made.outcome)) == ("attempt", Again)
    made, row = tried(0, attempt=2, failures=1)
    made.write().conclude(None, ZeroDivisionError("no"))
    assert (row.kind, type(made.outcome)) == ("failed", Ended)


@awaited
async def test_an_attempt_that_is_made_anew_is_judged_by_its_last_try() -> None:
    """The store rolls a batch back, and applies its writes once more, one by one."""
    made, row = tried(5)
    made.write().conclude(None, ZeroDivisionError("at first"))
    made.write().conclude(b"2", None)
    assert (row.kind, row.data, type(made.outcome)) == ("completed", b"2", Ended)
