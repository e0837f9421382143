"""The steps of one run that wait for their next attempt: for its time, or in line in a queue.

Rules: nothing here holds capacity, a task or a thread; the time is a date in the history's note, so
a restart changes nothing; one timer of the run is enough for all of them.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

from perdure.runtime.plans import PendingAttempt


class Backoff:
    """See the module's text. `steps` has the attempts by the row of their step."""

    __slots__ = ("_deadlines", "_in_line", "steps")

    def __init__(self) -> None:
        self.steps: dict[int, PendingAttempt] = {}
        self._deadlines: list[tuple[int, int]] = []
        self._in_line: set[int] = set()

    def add(self, attempt: PendingAttempt) -> None:
        """Let an attempt wait until it is due."""
        self.steps[attempt.command.seq] = attempt
        heappush(self._deadlines, (attempt.again_ms, attempt.command.seq))

    def add_in_line(self, attempt: PendingAttempt) -> None:
        """Let an attempt wait until its queue admits it."""
        self.steps[attempt.command.seq] = attempt
        self._in_line.add(attempt.command.seq)

    def take(self, seq: int) -> PendingAttempt | None:
        """Remove and return the attempt of the step in row `seq`, if it waits."""
        self._in_line.discard(seq)
        return self.steps.pop(seq, None)

    def take_wait(self, seq: int, again_ms: int) -> PendingAttempt | None:
        """Remove and return the attempt of the step in row `seq`, if it waits until this time."""
        attempt = self.steps.get(seq)
        if attempt is None or seq in self._in_line or attempt.again_ms != again_ms:
            return None
        return self.take(seq)

    def due_ms(self) -> int | None:
        """When the next attempt is due."""
        deadlines = self._deadlines
        while deadlines and (
            (step := self.steps.get(deadlines[0][1])) is None
            or step.again_ms != deadlines[0][0]
            or deadlines[0][1] in self._in_line
        ):
            heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def take_due(self, now_ms: int) -> list[PendingAttempt]:
        """Remove and return the attempts that are due, the earliest first."""
        due: list[PendingAttempt] = []
        while (at_ms := self.due_ms()) is not None and at_ms <= now_ms:
            due.append(self.steps.pop(heappop(self._deadlines)[1]))
        return due

    def waiting_for(self, limit: int) -> list[dict[str, Any]]:
        """What is waited for, human-readable: the step, which attempt of how many, and when; of
        one in line its queue.
        """
        soonest = sorted(self.steps.values(), key=lambda step: step.again_ms)[:limit]
        return [
            {
                "step": step.command.name,
                "seq": step.command.seq,
                "queue": step.command.call.options.queue,
            }
            if step.command.seq in self._in_line
            else {
                "step": step.command.name,
                "seq": step.command.seq,
                "attempt": step.attempt,
                "attempts": step.command.call.options.retry.attempts
                + step.attempt
                - step.failures
                - 1,
                "again_ms": step.again_ms,
            }
            for step in soonest
        ]
