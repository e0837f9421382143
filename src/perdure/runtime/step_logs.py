"""Lines that steps log: gathered while their attempts run, and written with what comes next.

Rules: a record goes to the engine whose step runs, by the context variable of `current_step()`, so
lines of other runs never mix in; it is taken in the thread that logs, without a lock and without
waiting; a line never makes a commit of its own, but for one each `FLUSH_S` that has all of them;
what is over a limit is counted, and the count is a line of its own at the attempt's end; what is
logged after the attempt's end is not taken, and neither are records of Perdure's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any

from perdure.api import verbs
from perdure.core.guard import inside
from perdure.core.limits import Limits
from perdure.process.clock import SystemClock
from perdure.process.log_records import LogRecords
from perdure.runtime import log_text
from perdure.runtime.step_attempt import StepAttempt, StepHost
from perdure.runtime.writer import Writer
from perdure.store.log_writes import AddLogLines, LogLinesAdded, NewLine
from perdure.store.writes import Write

FLUSH_S = 0.5
"""How long a line waits for a transaction that is written anyway."""
PENDING_MAX = 10_000
PENDING_BYTES_MAX = 16 << 20
"""Lines of an engine that wait to be written, and their JSON: many in a burst, and where the store
takes nothing.
"""

_Line = tuple[StepAttempt, bytes | None, int]
"""The attempt, the JSON, the time in ms. Without JSON: what the attempt has lost is to be said."""


class StepLogs:
    """The lines of one engine; see the module's text. `level` is the lowest that is kept."""

    def __init__(self, level: int, limits: Limits, clock: SystemClock, writer: Writer) -> None:
        self.level, self._limits, self._clock, self._writer = level, limits, clock, writer
        self._loop = asyncio.get_running_loop()
        self.pending: deque[_Line] = deque()
        self._pending_bytes = 0  # about, as threads add to it without a lock, until lines are taken
        self._unanswered = 0
        self._armed = False
        writer.carry(self)

    # --- in any thread ----------------------------------------------------------------------------

    def add(self, attempt: StepAttempt, record: logging.LogRecord) -> None:
        """An attempt has logged a record. Raises nothing."""
        data = None if self._is_over(attempt) else _as_json(record, self._limits.log_line_bytes_max)
        if data is None:
            attempt.dropped += 1
            return
        attempt.lines += 1
        self._pending_bytes += len(data)
        self._put(attempt, data)

    def end(self, attempt: StepAttempt) -> None:
        """An attempt has ended that has lost lines."""
        self._put(attempt, None)

    def _is_over(self, attempt: StepAttempt) -> bool:
        """Whether one more line is over a limit, as far as that is known here."""
        limits, of_run = self._limits, attempt.lines_of_run
        return (
            attempt.lines >= limits.attempt_log_lines_max
            or (of_run is not None and of_run >= limits.run_log_lines_max)
            or len(self.pending) >= PENDING_MAX
            or self._pending_bytes >= PENDING_BYTES_MAX
        )

    def _put(self, attempt: StepAttempt, data: bytes | None) -> None:
        self.pending.append((attempt, data, self._clock.now_ms()))
        if not self._armed:
            self._arm()

    def _arm(self) -> None:
        self._armed = True
        if asyncio._get_running_loop() is self._loop:
            self._loop.call_later(FLUSH_S, self._due, context=Context())
            return
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            later = partial(self._loop.call_later, FLUSH_S, self._due)
            self._loop.call_soon_threadsafe(later, context=Context())

    # --- on the event loop ------------------------------------------------------------------------

    def _due(self) -> None:
        self._armed = False  # before the look: a thread looks after it has added
        if self.pending:
            self._writer.hurry()

    def take(self) -> list[tuple[Write, Callable[[Any], None]]]:
        """See `Rider`. Nothing is taken while the store has not answered for what was."""
        if self._unanswered:
            return []
        self._pending_bytes = 0
        by_host: dict[StepHost, tuple[list[_Line], list[_Line]]] = {}
        for _ in range(len(self.pending)):
            attempt, data, at_ms = self.pending.popleft()
            lines, notices = by_host.setdefault(attempt._host, ([], []))
            if data is not None:
                lines.append((attempt, data, at_ms))
            elif attempt.dropped:
                notices.append((attempt, log_text.dropped(attempt.dropped), at_ms))
                attempt.dropped = 0
        return [self._write(host, *of_host) for host, of_host in by_host.items() if any(of_host)]

    def _write(
        self, host: StepHost, lines: list[_Line], notices: list[_Line]
    ) -> tuple[Write, Callable[[Any], None]]:
        self._unanswered += 1
        most = self._limits.run_log_lines_max
        add = AddLogLines(host.run, host.owner, _new(lines), _new(notices), most, host.log_lines)
        return add, partial(self._added, host, lines)

    def _added(self, host: StepHost, lines: list[_Line], result: object) -> None:
        """The answer to a write. Where the run belongs to another worker, its lines are lost."""
        self._unanswered -= 1
        if isinstance(result, LogLinesAdded):
            host.log_lines_added(result.total)
            for attempt, _, _ in lines[result.taken :]:
                attempt.lines, attempt.dropped = attempt.lines - 1, attempt.dropped + 1
                if attempt.ended:
                    self._put(attempt, None)
        if self.pending and not self._armed:
            self._arm()


def _new(lines: list[_Line]) -> list[NewLine]:
    return [(one.seq, one.attempt, data or b"{}", at_ms) for one, data, at_ms in lines]


class _Within(threading.local):
    """Whether this thread makes text of a record, which may log in its turn."""

    record = False


_within = _Within()


def _as_json(record: logging.LogRecord, bytes_max: int) -> bytes | None:
    """A record as JSON; None for one that is made while another one is made into text."""
    if _within.record:
        return None
    _within.record = True
    try:
        return log_text.line(record, bytes_max)
    except Exception:
        return None
    finally:
        _within.record = False


def _show(record: logging.LogRecord) -> None:
    """A record was made in this thread."""
    if inside.loop is None and isinstance(attempt := verbs._attempt.get(), StepAttempt):
        logs: StepLogs | None = attempt._steps.logs
        name = record.name
        if (
            logs is not None
            and name is not None  # by `makeLogRecord`, which fills it in later
            and record.levelno >= logs.level
            and not attempt.ended
            and not (name == "perdure" or name.startswith("perdure."))
        ):
            logs.add(attempt, record)


RECORDS = LogRecords(_show)
"""What the engines of this process watch while they are open."""
