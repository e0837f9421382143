"""A transactional step: the user's writes and the step's own row in one transaction of the store.

Rules: the row's number is taken before the writer gets the work, so the run's other inputs wait until it is
done; an attempt that fails leaves nothing but its note.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from perdure.codec import signature_of
from perdure.core import events as ev
from perdure.core.events import Command, Event
from perdure.core.retry import Retry
from perdure.errors import PerdureError
from perdure.store.base import Transact

if TYPE_CHECKING:
    from perdure.runtime.active import ActiveRun


class Transaction:
    """One transactional step of an active run, over all its attempts."""

    def __init__(self, active: ActiveRun, command: Command, attempt: int, failures: int) -> None:
        self._active, self._command = active, command
        self._attempt, self._failures = attempt, failures
        self._steps = active.host.steps
        self._again_ms = 0

    def begin(self, wait_ms: int) -> None:
        """Hand the next attempt to the writer, when its time has come and no other one is in its hands."""
        active = self._active
        if wait_ms > 0:
            self._steps.loop.call_later(wait_ms / 1000, self.begin, 0)
        elif active.held is not None:
            active.held.append(lambda: self.begin(0))
        elif not active.gone and self._command.seq in active.kernel.open:
            active.hold()
            if not active.gone:
                event = active.kernel.stamp(ev.COMPLETED, self._steps.clock.now_ms(), ref=self._command.seq)
                work = Transact(active.run, active.host.owner, self._work, lambda value, error: self._conclude(event, value, error))
                active.host.writer.hand_over(work, self._done)

    def _work(self, db: Any) -> bytes:
        signature = signature_of(self._command.call.definition)
        args, kwargs = signature.decode_args(self._command.data or b"{}")
        value = self._command.call.definition.fn(db, *args, **kwargs)
        return signature.encode_result(value, limit_bytes=self._steps.limits.payload_bytes_max)

    def _conclude(self, event: Event, value: bytes, error: BaseException | None) -> Event:
        """The row for what happened: the result, the failure, or a note that there will be another attempt."""
        retry = self._command.call.options.retry
        event.took_ms = max(0, self._steps.clock.now_ms() - event.at_ms)
        error = self._steps.as_error(error)
        if error is None:
            event.kind, event.data = ev.COMPLETED, value
        elif self._steps.goes_on(retry, self._failures + 1, error):
            self._again_ms = self._steps.clock.now_ms() + self._wait_ms()
            note = {"attempt": self._attempt, "error": msgspec.Raw(self._steps.codec.encode_error(error)), "again_ms": self._again_ms}
            event.kind, event.data = ev.ATTEMPT, msgspec.json.encode(note)
        else:
            event.kind, event.data = ev.FAILED, self._steps.failure(error, self._failures + 1)
        return event

    def _wait_ms(self) -> int:
        retry: Retry = self._command.call.options.retry
        return retry.wait_ms(self._failures + 1, f"{self._active.run_id}/{self._command.seq}")

    def _done(self, event: Event | PerdureError) -> None:
        active = self._active
        if isinstance(event, PerdureError):
            active.refused(event)
        elif event.kind == ev.ATTEMPT:
            self._failures, self._attempt = self._failures + 1, self._attempt + 1
            wait_ms = max(0, self._again_ms - self._steps.clock.now_ms())
            active.unhold(None)
            self.begin(wait_ms)
        else:
            active.unhold(event)
