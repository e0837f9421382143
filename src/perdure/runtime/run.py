"""One run in memory: feeds its kernel, starts what it asks for, and turns what happened into
writes.

Rules: commands with effects start only after the turn that asked for them is committed, readonly
steps at once; inputs are stamped in the order in which they are fed; a failed attempt is written
before the next one starts, and until that is due the step holds nothing; a run whose lease is lost
is dropped without a word; while a transactional step is in the writer's hands, other inputs of the
run wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from time import perf_counter
from typing import Any

import msgspec

from perdure.core import events as ev
from perdure.core.events import Command, Event
from perdure.core.replay import Kernel
from perdure.errors import HistoryTooLong, LeaseLost, Nondeterminism, PerdureError, RunBlocked
from perdure.process.interpreter import PYTHON, with_python
from perdure.process.slices import SLICE_S
from perdure.runtime import log, outbox, recovery
from perdure.runtime.backoff import Backoff
from perdure.runtime.naming import Names
from perdure.runtime.run_host import RunHost
from perdure.runtime.run_steps import StepsOfRun
from perdure.runtime.steps import Running
from perdure.store.rows import INBOX_ROWS_MAX, InboxRow, RunRow, Started
from perdure.store.writes import Append, Finish, Suspend, Turn

TEXT_CHARS_MAX = 2_000
_encode = msgspec.json.Encoder().encode


class ActiveRun(StepsOfRun):
    """See the module's text. Made by the scheduler from a row and its history."""

    __slots__ = (
        "_attempts",
        "_blocked",
        "_read_again",
        "_reading",
        "_releasing",
        "_resting",
        "_taken",
        "_timer",
        "_touched",
        "_unread",
        "adopting",
        "backoff",
        "child",
        "clock",
        "durability",
        "gone",
        "held",
        "host",
        "inflight",
        "kernel",
        "last_inbox_id",
        "names",
        "origin",
        "paused",
        "python",
        "released_seq",
        "root",
        "rows",
        "run",
        "run_id",
        "status",
        "stopping",
        "todo",
    )  # not a dict: with more than 30 attributes it would be a slow one

    def __init__(self, host: RunHost, row: RunRow, kernel: Kernel) -> None:
        self.host, self.kernel = host, kernel
        self.run, self.run_id, self.origin, self.root = (
            row.run,
            row.id,
            row.origin or row.run,
            row.root,
        )
        self.names = None if row.forked_from is None and row.origin is None else Names(self.origin)
        self.clock = host.steps.clock
        self.status = "running"
        self.crashes, self.durability, self.child, self.python = (
            row.crashes,
            row.durability,
            row.parent is not None,
            row.python,
        )
        self.paused = row.status == "paused"
        self.gone = False
        self.last_inbox_id = 0
        self._reading = self._read_again = False  # of the inbox
        self._unread = (
            -1 if row.history_rows else 0
        )  # as the file has it; what it says of a loaded run is written anew
        self.inflight: dict[int, Running] = {}
        self.rows: list[Event | Command] = []
        self.adopting: set[int] = (
            set()
        )  # children of a retried run that may be of an earlier generation
        self.backoff = Backoff()
        self._resting = self.backoff.steps
        self.released_seq = 0  # of the note that it was let go, if nothing has happened since
        self._attempts: dict[int, tuple[int, int, int]] = {}
        self._taken: list[tuple[int, int]] = []
        self.todo: list[Command] = []
        self._blocked: tuple[str, str] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._touched = self._settled = self._releasing = False
        self._more = True  # whether the next turn has more in it than outcomes and new steps
        self.stopping = False
        self.held: deque[Callable[[], None]] | None = None

    @property
    def owner(self) -> int:
        return self.host.owner

    def name_of(self, seq: int) -> str:
        """The name by which a command of this run is known outside."""
        return f"{self.origin}/{seq}" if self.names is None else self.names.of(seq)

    def adopted(self, seq: int) -> None:
        """What becomes of a child is in the file by now: it wakes this run when it ends."""
        self.adopting.discard(seq)
        self.touch()

    def sent(self, seq: int) -> str | None:
        """The key or the id under which the source of this fork has sent or started what the row
        asks for.
        """
        return None if self.names is None else self.names.sent(seq)

    # --- in: what happened ------------------------------------------------------------------------

    def input(
        self,
        kind: str,
        *,
        ref: int | None = None,
        name: str | None = None,
        data: bytes | None = None,
        took_ms: int | None = None,
        taken: int | None = None,
    ) -> None:
        """Record an input and let the workflow react. Call it from a plain callback."""
        if self.gone or self.kernel.outcome is not None or self.kernel.diverged:
            self.touch()
            # nothing stands behind the end of a history, nor behind the place where code and
            # history part
            return
        if self.held is not None:
            self.held.append(
                lambda: self.input(
                    kind, ref=ref, name=name, data=data, took_ms=took_ms, taken=taken
                )
            )
            return
        event = self.kernel.stamp(
            kind, self.clock.now_ms(), ref=ref, name=name, data=data, took_ms=took_ms
        )
        self.rows.append(event)
        if self._resting:
            self.backoff.drop(ref or 0)
        if taken is not None:
            self._taken.append((taken, event.seq))
            self._more = True
        self.absorb(event)

    def first_rows(self) -> list[Event | Command] | None:
        """Execute a run that is still to be written up to its first wait: the rows to write with
        it, if it asks for steps only.
        """
        self._touched = True  # nothing else may be collected before the run has its key
        self.input(ev.START)
        if not self._goes_on_as_it_was() or any(command.kind != ev.STEP for command in self.todo):
            return None
        return self.rows

    def written(self, run: int, first: list[Event | Command] | None) -> None:
        """The run is in the file under this key, and so are its first rows, if there were any."""
        self.run = self.origin = run
        self._touched = False
        if first is None:
            self.touch()
        else:
            todo, self.rows, self.todo, self._more = self.todo, [], [], False
            self._start_all(todo)

    def absorb(self, event: Event) -> None:
        """Feed an event whose row is in the file, or among those to be written."""
        kernel = self.kernel
        try:
            commands = kernel.feed(event)
            if len(commands) != 1 or commands[0].kind != ev.STEP:  # the usual case saves the call
                outbox.check_names(self, commands)
        except (
            Exception,
            asyncio.CancelledError,
        ) as error:  # of one run: the others must not suffer for it
            self.block_by(error)
            return
        except (
            BaseException
        ):  # Ctrl-C in workflow code: this turn never was, and replay does it again
            self.drop()
            raise
        if kernel.seq > self.host.history_rows_max and kernel.outcome is None:
            self.block_by_length(self.kernel.seq)
        if self.crashes and event.kind in _PROGRESS:
            self.got_on()
        if kernel.outcome is not None and self._too_long:
            commands = [
                command for command in commands if command.kind != ev.FINISH
            ]  # a blocked run does not end: it does when retried
        self.new_commands(commands)

    def new_commands(self, commands: list[Command]) -> None:
        """Queue commands for their rows, and start at once what may run ahead of them."""
        self.rows += commands
        for command in commands:
            if self.names is not None:
                self.names.add(command)
            if command.kind == ev.STEP:
                if command.call.options.readonly and self.run:
                    self.begin(command, 1, 0)
                else:
                    self.todo.append(command)
            elif command.kind in _EXECUTED:
                if command.kind == ev.ABANDON:
                    self._stop_step(command.ref or 0)
                elif command.kind == ev.CHILD and self.names is not None:
                    self.adopting.add(command.seq)
                self.todo.append(command)
                self._more = True
        if not self._touched:
            self.touch()

    def block_by(self, error: BaseException) -> None:
        """Stop because the code and the history have parted, or the code can't be executed at all.

        What the code asked for and no row records is lost, and the numbers that it got mean
        nothing.
        """
        self.kernel.diverged = True
        if isinstance(error, Nondeterminism):
            self.block("nondeterminism", with_python(error.reason, self.python))
        elif isinstance(error, RunBlocked):
            self.block("code", error.reason)
        else:
            self.block("code", as_text(error), error)

    def block(self, by: str, reason: str, error: BaseException | None = None) -> None:
        """Stop here for a person; what is under way may still end and is recorded."""
        if self._blocked is None:
            log.run_blocked(self, reason, error)
            self._blocked = (by, reason)
        self.touch()

    @property
    def _too_long(self) -> bool:
        return self._blocked is not None and self._blocked[0] == "history"

    def block_by_length(self, rows: int) -> None:
        """Stop because the history has this many rows, more than it may have."""
        self.block(
            "history", HistoryTooLong.describe(rows, self.host.history_rows_max, self.run_id)
        )

    def take_inbox(self) -> None:
        """Feed what has arrived since the last look."""
        if self.gone or self.paused or self._blocked:
            return
        if self._reading:
            self._read_again = True
            return
        self._reading, self._read_again = True, False
        self.host.reads.then(self._inbox_read, self.host.store.inbox, self.run, self.last_inbox_id)

    def _inbox_read(self, rows: list[InboxRow]) -> None:
        self._reading = False
        self.take(rows)
        if self._read_again:
            self.take_inbox()

    def take(self, rows: list[InboxRow]) -> None:
        """Feed what was read from the inbox. What does not fit into a slice is read again later."""
        if self.gone or self.paused or self._blocked:
            return  # read again when it is resumed or retried
        until_s = perf_counter() + SLICE_S
        for row in rows:
            self.last_inbox_id = row.id
            self._take(row)
            if perf_counter() > until_s:  # the event loop gets its turn
                self.host.woken([self.run])
                return
        if len(rows) >= INBOX_ROWS_MAX:
            self.host.woken([self.run])

    def _take(self, row: InboxRow) -> None:
        match row.kind:
            case "message":
                self.input(ev.MESSAGE, name=row.name, data=row.data, taken=row.id)
            case "cancel":
                self.input(ev.CANCEL, taken=row.id)
            case "completed":
                self.input(ev.COMPLETED, ref=row.ref, data=row.data, taken=row.id)
            case "failed":
                self.input(ev.FAILED, ref=row.ref, data=row.data, taken=row.id)
            case "resolve":
                recovery.resolve(self, row)

    # --- out: what to write -----------------------------------------------------------------------

    def touch(self) -> None:
        if not self._touched and not self.gone:
            self._touched = True
            self.host.writer.touch(self)

    def collect(self) -> None:
        """Make one turn of all that has happened since the last one, and queue it."""
        self._touched = False
        if self.gone:
            return
        if self.rows and not self._more and self._goes_on_as_it_was():
            grow = Append(self.run, self.host.owner, self.rows)
            todo, self.rows, self.todo = self.todo, [], []
            self.host.writer.put(grow, partial(self._grown, todo), keep=True)
        else:
            self._collect_all()

    def _collect_all(self) -> None:
        turn = Turn(
            self.run,
            self.host.owner,
            self.rows,
            self.clock.now_ms(),
            self._taken,
            settled=self._settled,
        )
        todo = self.todo
        self.rows, self._taken, self.todo, self._settled, self._more = [], [], [], False, False
        origins = [
            command
            for command in todo
            if command.kind != ev.STEP and outbox.add_effect(self, command, turn)
        ]
        if self.kernel.unread != self._unread and not self.kernel.diverged:
            turn.unread = self._unread = self.kernel.unread
        if self.python != PYTHON and not self.kernel.diverged and not self.kernel.facts.old:
            turn.python = self.python = PYTHON
        if not self._goes_on_as_it_was():
            self._stand(turn)
        last = turn.finish or self._releasing
        if (
            turn.rows
            or turn.suspend
            or turn.finish
            or turn.effects
            or turn.taken
            or turn.unread is not None
        ):
            self.host.writer.put(turn, partial(self._committed, origins, todo, last), keep=True)
        else:
            self._start_all(todo)
        if last:
            self._leave()

    def _goes_on_as_it_was(self) -> bool:
        """The usual case: at work before and after, no timer to see to, and no step that waits for
        its next attempt.
        """
        kernel = self.kernel
        return (
            kernel.local > 0
            and self.status == "running"
            and kernel.outcome is None
            and self._blocked is None
            and not self.paused
            and self._timer is None
            and not kernel.timers
            and kernel.unread == self._unread
            and not self._resting
        )

    def _stand(self, turn: Turn) -> None:
        """Where the run stands now: at its end, blocked, at work, or waiting for something from
        outside.
        """
        outcome = self.kernel.outcome
        if (
            outcome is not None and not self.kernel.diverged and not self._too_long
        ):  # an end that the history does not know is none
            turn.finish = outbox.finish_of(self, outcome, turn.at_ms)
        elif self._blocked is not None and not self.inflight and self.held is None:
            turn.suspend = Suspend(
                "blocked", blocked_by=self._blocked[0], reason=self._blocked[1], release=True
            )
            self._releasing = True
            if self._blocked[0] != "unknown_outcome":  # a step that is asked about may have begun
                self._let_go(turn)
        elif self.paused and not self.inflight and self.held is None:
            turn.suspend = Suspend(
                None, release=True
            )  # the row says paused, or resumed again by now
            self._let_go(turn)
        else:
            self._stand_open(turn)

    def _stand_open(self, turn: Turn) -> None:
        if self._timer is not None or self.kernel.timers or self.backoff.steps:
            self.set_timer()
        if (
            self.kernel.local > len(self._resting)
            or self.adopting
            or self.held is not None
            or self._blocked is not None
        ):
            if self.status != "running":
                turn.suspend = Suspend("running")
                self.host.unparked(self)
            self.status = "running"
        else:
            turn.suspend = Suspend("waiting", self._waiting(), self._due_ms())
            self.status = "waiting"
            self.host.parked(self)

    def _let_go(self, turn: Turn) -> None:
        """Say what has not begun, so that after a restart nobody has to ask what became of it."""
        self._releasing = True
        if self.kernel.diverged:
            return
        steps = [command for command in self.kernel.open.values() if command.kind == ev.STEP]
        held = [
            step
            for step in steps
            if (running := self.inflight.get(step.seq)) is None or not running.begun
        ]
        if steps and len(held) == len(steps):
            if self.kernel.seq != self.released_seq:
                turn.rows.append(self.kernel.stamp(ev.ATTEMPT, turn.at_ms, data=recovery.RELEASED))
            return
        for step in held:
            if step.call.options.on_crash != "retry":
                turn.rows.append(
                    self.kernel.stamp(ev.ATTEMPT, turn.at_ms, ref=step.seq, data=recovery.HELD)
                )

    def evict(self) -> None:
        """Leave memory, unless there is something to do by now: then the run parks again after its
        next turn.
        """
        due_ms = self._due_ms()
        if (
            self.status == "waiting"
            and not self._touched
            and (due_ms is None or due_ms > self.clock.now_ms())
        ):
            self.release()

    def release(self) -> None:
        """Let go of the run: it comes back by replay when it is due."""
        if self.gone:
            return
        if self.held is not None:
            self.held.append(
                self.release
            )  # the number of a transactional step's row is given out already
            return
        if self._touched:
            self.collect()
        if not self.gone:
            turn = Turn(self.run, self.host.owner, [], self.clock.now_ms())
            idle = self.status == "waiting"
            turn.suspend = Suspend(
                "waiting" if idle else "pending",
                self._waiting(),
                self._due_ms() if idle else turn.at_ms,
                release=True,
            )
            self._let_go(turn)
            self.host.writer.put(turn, lambda _: self.host.ended(self), keep=True)
            self._leave()

    def _waiting(self) -> bytes:
        """What the run waits for, for people; of a step that is tried again, which attempt and
        when.
        """
        resting = self.backoff.steps
        items = self.kernel.waiting_for()
        return _encode(
            self.backoff.waiting_for(20)
            + [item for item in items if "step" not in item or item["seq"] not in resting]
        )

    def _due_ms(self) -> int | None:
        """When the next durable timer or the next attempt of a step is due."""
        due, again_ms = self.kernel.due(), self.backoff.due_ms()
        if due is None or again_ms is None:
            return again_ms if due is None else due[0]
        return min(due[0], again_ms)

    # --- after the commit -------------------------------------------------------------------------

    def _grown(self, todo: list[Command], refused: PerdureError | None) -> None:
        if refused is not None:
            self.refused(refused)
            return
        try:
            self._start_all(todo)
        except Exception as error:
            self.failed(error)

    def _committed(
        self, origins: list[Command], todo: list[Command], last: Finish | bool, result: Any
    ) -> None:  # fmt: skip
        if isinstance(result, PerdureError):
            self.refused(result)
            return
        try:
            if origins:
                for command, answer in zip(origins, result.effects, strict=True):
                    outbox.answer(self, command, answer)
                self.host.emitted()
                result.woken += [
                    answer.run
                    for answer in result.effects
                    if isinstance(answer, Started) and answer.created
                ]
            self._start_all(todo)
        except Exception as error:
            self.failed(error)
        if result.woken:
            self.host.woken(result.woken)
        # not an earlier turn, although the run has come to its end since: that is not in the file
        # yet
        if last:
            self.host.ended(self, last)

    def refused(self, error: PerdureError) -> None:
        """Nothing of the turn is in the file: somebody else owns the run, or it can't go on as it
        is.
        """
        if not self.gone:
            log.run_refused(self, error)
            self._leave()
        if isinstance(error, LeaseLost):
            self.host.lease_lost(self)
        else:
            self._block_in_file(f"its history could not be written: {error}")

    def failed(self, error: BaseException) -> None:
        """An error of ours in the middle of a turn: what is in the file stays, and the run is
        blocked there.
        """
        if not self.gone:
            log.run_stopped(self, error)
            self._leave()
            if self.run:
                self._block_in_file(f"Perdure failed in the middle of a turn: {as_text(error)}")

    def _block_in_file(self, reason: str) -> None:
        park = Suspend("blocked", blocked_by="store", reason=reason, release=True)
        turn = Turn(self.run, self.host.owner, [], self.clock.now_ms(), suspend=park)
        self.host.writer.put(turn, lambda _: self.host.ended(self), keep=True)

    def _start_all(self, commands: list[Command]) -> None:
        for command in commands:
            if command.kind == ev.STEP and command.seq in self.kernel.open:
                attempt, failures, again_ms = (
                    self._attempts.pop(command.seq, (1, 0, 0)) if self._attempts else (1, 0, 0)
                )
                self.begin(command, attempt, failures, again_ms)

    # --- holding back inputs ----------------------------------------------------------------------

    def hold(self) -> None:
        """From here on inputs wait: the next row number belongs to a transactional step."""
        self.collect()
        self.held = deque()

    def unhold(self, event: Event | None) -> None:
        """Feed the step's outcome, if it is one, then what has waited."""
        held, self.held = self.held or deque(), None
        if event is not None and not self.gone:
            self.absorb(event)
        for action in held:
            action()
        self.touch()

    # --- time, pause, end -------------------------------------------------------------------------

    def set_timer(self) -> None:
        """Have the event loop call when the next durable timer or the next attempt of a step is
        due.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_ms = self._due_ms()
        if due_ms is not None and not self.paused and not self.kernel.diverged:
            wait_ms = max(0, due_ms - self.clock.now_ms())
            self._timer = self.host.steps.loop.call_later(
                min(wait_ms / 1000, 86_400), self._timer_due, context=Context()
            )

    def _timer_due(self) -> None:
        if (
            self.gone
            or self.paused
            or self.held is not None
            or self.kernel.diverged
            or self._too_long
        ):
            return  # the next turn sets it anew
        now_ms = self.clock.now_ms()
        again = self.backoff.take_due(now_ms)
        # after a commit that says that the run is at work: a process that dies over it is then
        # counted
        for step in again:
            if (
                step.command.call.options.on_crash != "retry"
                or self.kernel.seq == self.released_seq
            ):
                self.note_event(
                    step.command.seq, {"attempt": step.attempt, "began": True}
                )  # no note says any longer that it has not
            self.begin_after_commit(step.command, step.attempt, step.failures)
        if (due := self.kernel.due()) is not None and due[0] <= now_ms:
            self.input(ev.FIRED, ref=due[1])
        elif again:
            self.touch()
        else:
            self.set_timer()

    def pause(self) -> None:
        self.paused = True
        self.touch()

    def resume(self) -> None:
        self.paused = False
        self.take_inbox()
        self.status = "paused"  # whatever it is now, the row has to be told
        self.touch()

    def _leave(self) -> None:
        """Out of memory, without a trace in user code."""
        self.gone = True
        for running in list(self.inflight.values()):
            running.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self.kernel.discard()

    def drop(self) -> None:
        """Leave at once: the lease is lost, or the engine closes."""
        if not self.gone:
            self._leave()


_PROGRESS = frozenset(
    {ev.COMPLETED, ev.FAILED, ev.FIRED}
)  # not a message: it comes from outside, whatever the run does
_EXECUTED = frozenset({ev.CHILD, ev.SPAWN, ev.SEND, ev.EMIT, ev.TAG, ev.ABANDON})


def as_text(error: BaseException) -> str:
    """An error in a line, also where its class can't say what it is or says what is no
    valid text.
    """
    try:
        text = str(error) if isinstance(error, PerdureError) else f"{type(error).__name__}: {error}"
    except Exception as broken:
        text = f"{type(error).__name__}, whose text raised {type(broken).__name__}"
    return text.encode(errors="backslashreplace").decode()[:TEXT_CHARS_MAX].replace("\0", "\\0")
