"""Transactional steps: the user's writes and the step's own row in one transaction of the store.

Rules: the number of the row is taken before the writer gets the attempt, so the run's other plans
wait until it is done; an attempt that fails leaves nothing but its note.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any, Protocol

from perdure.api import verbs
from perdure.codec.signature import signature_of
from perdure.core import events as ev
from perdure.core.events import Command, Event
from perdure.core.replay import Kernel
from perdure.errors import PerdureError
from perdure.runtime import log
from perdure.runtime.attempts import Attempts
from perdure.runtime.plans import Begin, PendingAttempt, Plan
from perdure.runtime.run_host import RunHost
from perdure.runtime.step_attempt import StepAttempt, StepHost
from perdure.runtime.steps import Again, Ended, Steps, context_of
from perdure.store.writes import Transact


class TransactionalAttempt:
    """One attempt. `row` becomes the row of its outcome in the writer's thread; `outcome` tells
    what followed from it, when the write is answered.
    """

    __slots__ = ("_attempt", "_current", "_error", "_host", "_row", "_steps", "outcome")

    def __init__(self, host: StepHost, steps: Steps, attempt: PendingAttempt, row: Event) -> None:
        self._host, self._steps, self._attempt, self._row = host, steps, attempt, row
        self.outcome: Again | Ended | None = None
        self._error: BaseException | None = None
        self._current: StepAttempt | None = None

    def write(self) -> Transact:
        """The attempt as a write."""
        return Transact(self._host.run, self._host.owner, self._work, self._conclude)

    def report_start(self) -> None:
        """Tell the observers that the writer has got the attempt."""
        if (observer := self._steps.observer) is not None:
            attempt = self._attempt
            name = attempt.command.name or ""
            observer.attempt_started(self._host.run_id, attempt.command.seq, name, attempt.attempt)

    def report_end(self) -> None:
        """Tell the observers what became of it."""
        attempt, error, self._error = self._attempt, self._error, None
        self._steps.report_end(
            self._host.run_id, attempt.command, attempt.attempt, self._row.took_ms or 0, error,
            self.outcome,
        )  # fmt: skip

    def _work(self, db: Any) -> bytes:
        command = self._attempt.command
        signature = signature_of(command.call.definition)
        args, kwargs = signature.decode_args(command.data or b"{}")
        self._current = current = StepAttempt(
            self._host, self._steps, command.seq, self._attempt.attempt, command.name or ""
        )
        context = context_of(command)
        context.run(verbs._attempt.set, current)
        value = context.run(command.call.definition.fn, db, *args, **kwargs)
        return signature.encode_result(value, limit_bytes=self._steps.limits.payload_bytes_max)

    def _conclude(self, value: bytes, error: BaseException | None) -> Event:
        """The row for what happened: the result, the failure, or the note of an attempt that
        another one follows.
        """
        row, self._error = self._row, error
        if self._current is not None:
            self._current.end()
        took_ms = max(0, self._steps.clock.now_ms() - row.at_ms)
        if error is None:
            self.outcome = Ended(ev.COMPLETED, value, took_ms)
        else:
            self.outcome = self._steps.after_failure(
                self._host.run_id,
                self._attempt.command,
                self._attempt.attempt,
                self._attempt.failures + 1,
                error,
                row.at_ms,
            )
        row.took_ms = took_ms
        match self.outcome:
            case Again(note=note):
                row.kind, row.data = ev.ATTEMPT, note
            case Ended(kind=kind, data=data):
                row.kind, row.data = kind, data
        return row


class RunOfTransactions(log.Subject, Protocol):
    """What a transactional step needs of its run."""

    gone: bool
    host: RunHost
    kernel: Kernel
    attempts: Attempts

    def do(self, plan: Plan) -> None: ...

    def collect(self) -> None: ...

    def touch(self) -> None: ...

    def note_progress(self) -> None: ...

    def absorb(self, event: Event) -> None: ...

    def refused(self, error: PerdureError) -> None: ...


class Transactions:
    """The transactional steps of one run, one at a time. `waiting` are the plans that wait for the
    one that the writer has; None: it has none.
    """

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: deque[Plan] | None = None

    def begin(self, run: RunOfTransactions, attempt: PendingAttempt) -> None:
        """Give an attempt to the writer, behind everything that has happened by now.

        The number of its row is taken, so everything else waits.
        """
        run.collect()
        if run.gone:
            return
        self.waiting = deque()
        host, command = run.host, attempt.command
        row = run.kernel.stamp(ev.COMPLETED, host.steps.clock.now_ms(), ref=command.seq)
        made = TransactionalAttempt(run.attempts, host.steps, attempt, row)
        made.report_start()
        host.writer.put_transact(made.write(), partial(self._done, run, attempt, made))

    def _done(
        self, run: RunOfTransactions, attempt: PendingAttempt, made: TransactionalAttempt,
        result: Event | PerdureError,
    ) -> None:  # fmt: skip
        if isinstance(result, PerdureError):
            run.refused(result)
            return
        made.report_end()
        waiting, self.waiting = self.waiting or deque(), None
        command: Command = attempt.command
        match made.outcome:
            case Again() as again:
                log.attempt_failed(run, command, again, run.host.steps.clock.now_ms())
                run.note_progress()
                after = PendingAttempt(command, again.attempt, again.failures, again.again_ms)
                waiting.append(Begin(after))
            case Ended(kind=kind, data=data):
                if kind == ev.FAILED:
                    log.step_failed(run, command, attempt.attempt, data)
                if not run.gone:
                    run.absorb(result)
        for plan in waiting:
            run.do(plan)
        run.touch()
