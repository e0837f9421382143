"""Reads of schedules: when the next tick is due, which are due, and what is stored.

Rules: every read is one query and has a bound; a file of an earlier schema has no schedules.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import msgspec

from perdure.errors import ScheduleNotFound
from perdure.store.schedule_writes import DueSchedule, ScheduleRow


class ScheduleReads:
    """The reads of `base.Store` about schedules, over `_all`, which a database implements."""

    @abstractmethod
    def _all(self, query: str, *bindings: Any) -> list[Any]:
        """The rows of a named query."""

    @property
    def _has_schedules(self) -> bool:
        """Whether the schema has them."""
        return True

    def next_fire_ms(self) -> int | None:
        """See `base.Store`, also for what follows."""
        ((fire_ms,),) = self._all("next_fire")
        return None if fire_ms is None else int(fire_ms)

    def any_held(self) -> bool:
        return bool(self._all("any_held"))

    def due_schedules(self, now_ms: int, limit: int) -> list[DueSchedule]:
        return [_due(row) for row in self._all("due_schedules", now_ms, limit)]

    def schedules_ahead(self, now_ms: int, limit: int) -> list[DueSchedule]:
        return [_due(row) for row in self._all("schedules_ahead", now_ms, limit)]

    def schedule_row(self, name: str) -> ScheduleRow:
        found = self._schedule_rows(name, "", 1)
        if not found:
            known = [row.name for row in self.schedule_rows("", ScheduleNotFound.KNOWN_MAX + 1)]
            raise ScheduleNotFound(name, known)
        return found[0]

    def schedule_rows(self, after: str, limit: int) -> list[ScheduleRow]:
        return self._schedule_rows(None, after, limit)

    def _schedule_rows(self, name: str | None, after: str, limit: int) -> list[ScheduleRow]:
        if not self._has_schedules:
            return []
        return [_schedule_row(row) for row in self._all("schedule_rows", name, after, limit)]


def _due(row: tuple[Any, ...]) -> DueSchedule:
    found = DueSchedule(*row)
    found.held = _held(row[-1])
    return found


def _schedule_row(row: tuple[Any, ...]) -> ScheduleRow:
    found = ScheduleRow(*row)
    found.held = _held(row[18])
    found.paused, found.manual = bool(found.paused), bool(found.manual)
    found.is_declared, found.has_worker = bool(found.is_declared), bool(found.has_worker)
    return found


def _held(text: str | None) -> list[int]:
    return msgspec.json.decode(text, type=list[int]) if text else []
