"""A transactional step: the user's writes and the step's own row in one transaction of the store.

Rules: the row's number is taken before the writer gets the work, so the run's other inputs wait
until it is done; an attempt that fails leaves nothing but its note.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from perdure.api import verbs
from perdure.codec.signature import signature_of
from perdure.core import events as ev
from perdure.core.events import Command, Event
from perdure.errors import PerdureError
from perdure.runtime import log
from perdure.runtime.steps import Again, Ended, StepAttempt, context_of
from perdure.store.writes import Transact

if TYPE_CHECKING:
    from perdure.runtime.run import ActiveRun


class Transaction:
    """One transactional step of an active run, over all its attempts."""

    def __init__(self, active: ActiveRun, command: Command, attempt: int, failures: int) -> None:
        self._active, self._command = active, command
        self._attempt, self._failures = attempt, failures
        self._steps = active.host.steps
        self._again: Again | None = None

    def begin(self) -> None:
        """Hand the attempt to the writer, when no other one is in its hands."""
        active = self._active
        if active.held is not None:
            active.held.append(self.begin)
        elif not active.gone and self._command.seq in active.kernel.open:
            active.hold()
            if not active.gone:
                event = active.kernel.stamp(
                    ev.COMPLETED, self._steps.clock.now_ms(), ref=self._command.seq
                )
                work = Transact(
                    active.run,
                    active.host.owner,
                    self._work,
                    lambda value, error: self._conclude(event, value, error),
                )
                active.host.writer.put_transact(work, self._done)

    def _work(self, db: Any) -> bytes:
        signature = signature_of(self._command.call.definition)
        args, kwargs = signature.decode_args(self._command.data or b"{}")
        context = context_of(self._command)
        context.run(
            verbs._attempt.set,
            StepAttempt(
                self._active,
                self._steps,
                self._command.seq,
                self._attempt,
                self._command.name or "",
            ),
        )
        value = context.run(self._command.call.definition.fn, db, *args, **kwargs)
        return signature.encode_result(value, limit_bytes=self._steps.limits.payload_bytes_max)

    def _conclude(self, event: Event, value: bytes, error: BaseException | None) -> Event:
        """The row for what happened: the result, the failure, or a note that there will be another
        attempt.
        """
        began_ms = event.at_ms
        event.took_ms = max(0, self._steps.clock.now_ms() - began_ms)
        if error is None:
            event.kind, event.data = ev.COMPLETED, value
            return event
        match self._steps.after_failure(
            self._active.run_id, self._command, self._attempt, self._failures + 1, error, began_ms
        ):
            case Again() as again:
                self._again, event.kind, event.data = again, ev.ATTEMPT, again.note
            case Ended() as ended:
                event.kind, event.data = ev.FAILED, ended.data
        return event

    def _done(self, event: Event | PerdureError) -> None:
        active = self._active
        if isinstance(event, PerdureError):
            active.refused(event)
        elif self._again is not None:
            again = self._again
            log.attempt_failed(active, self._command, again, self._steps.clock.now_ms())
            active.got_on()
            active.unhold(None)
            active.begin(self._command, again.attempt, again.failures, again.again_ms)
        else:
            if event.kind == ev.FAILED:
                log.step_failed(active, self._command, self._attempt, cast("bytes", event.data))
            active.unhold(event)
