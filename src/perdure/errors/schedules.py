"""Errors of schedules: a definition that can't work, a name that there is not."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.errors.base import DefinitionError, PerdureError


class BadSchedule(DefinitionError, ValueError):
    """A schedule that can't work: `field` names what is wrong with it, such as "minute" or "tz"."""

    def __init__(self, field: str, detail: str, name: str | None = None) -> None:
        self.field, self.detail, self.name = field, detail, name
        of = "" if name is None else f"Schedule {name!r}: "
        super().__init__(f"{of}{field}: {detail}")

    def of(self, name: str) -> BadSchedule:
        """The same error with the name of the schedule."""
        return BadSchedule(self.field, self.detail, name)


class ScheduleNotFound(PerdureError, LookupError):
    """No schedule has this name. `known` are some of those that there are."""

    KNOWN_MAX = 10

    def __init__(self, name: str, known: Sequence[str] = ()) -> None:
        self.name, self.known = name, tuple(known)
        more = ", …" if len(known) > self.KNOWN_MAX else ""
        there = (
            f"There are: {', '.join(known[: self.KNOWN_MAX])}{more}."
            if known
            else ("There are none; `perdure schedule add` makes one.")
        )
        super().__init__(f"There is no schedule {name!r} in this store. {there}")
