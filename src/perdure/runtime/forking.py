"""Where a run is cut when it is forked or retried: pure functions from histories to `ForkRun`.

Rules: a cut keeps whole rows only; steps that are open at the cut have not begun in the new run, and a note says so.
"""

from __future__ import annotations

from perdure.core import events as ev
from perdure.core.events import Event
from perdure.errors import DefinitionError
from perdure.runtime.recovery import HELD, RELEASED
from perdure.store.base import ForkRun, RunRow


def fork(row: RunRow, rows: list[Event], at: int, new_id: str, at_ms: int, result: bytes | None, args: bytes | None) -> ForkRun:
    """The fork of a run at row `at`: what that row asked for is done again, or given."""
    target = next((event for event in rows if event.seq == at), None)
    if target is None and not (at == 1 and not rows):
        raise DefinitionError(f"Run {row.id!r} has no row {at}; its history has {len(rows)} rows. `perdure show {row.id}` numbers them.")
    before = _before(rows, target) if target is not None else 1
    made = ForkRun(row.run, new_id, before, at_ms, row.seed)
    is_step = target is not None and target.kind in (ev.STEP, ev.CHILD)
    if result is not None and not is_step:
        raise DefinitionError(f"Row {at} of run {row.id!r} is no step, so its result can't be edited.")
    if args is not None and before > 1 and not (target is not None and target.kind == ev.STEP):
        raise DefinitionError(f"Arguments can be edited at a step's row, or at row 1 for the run's own; row {at} is neither.")
    if args is not None and before == 1:
        made.args = args
    elif args is not None:
        made.edit_step, made.edit_args = at, args
    made.extra = _notes(rows, before, at if result is not None else None, at_ms)
    if result is not None:
        made.extra.append(Event(before + len(made.extra), ev.COMPLETED, _time(rows, before), at, None, result))
    return made


def retry(row: RunRow, rows: list[Event], at_ms: int) -> ForkRun:
    """The same run again, cut before the input that made it fail, or before its end if its own code raised."""
    inputs = [event for event in rows if event.kind in ev.INPUTS]
    last = next((event for event in reversed(inputs) if event.kind == ev.CANCEL or event is inputs[-1]), None)
    finish = next((event.seq for event in rows if event.kind == ev.FINISH), len(rows) + 1)
    before = last.seq if last is not None and last.kind in (ev.FAILED, ev.CANCEL) else finish
    made = ForkRun(row.run, row.id, before, at_ms, row.seed, replace=True)
    made.extra = _notes(rows, before, None, at_ms)
    return made


def asked_step(rows: list[Event], seq: int | None, run_id: str) -> int:
    """The row of the step that a person decides about."""
    answered = {event.ref for event in rows if event.kind in (ev.COMPLETED, ev.FAILED, ev.ABANDON)}
    asked = [event.seq for event in rows if event.kind == ev.STEP and event.seq not in answered]
    if seq is None and len(asked) == 1:
        return asked[0]
    if seq not in asked:
        rows_text = ", ".join(map(str, asked)) or "none"
        raise DefinitionError(f"Which step of run {run_id!r}? Open ones stand in rows {rows_text}: give one as --seq.")
    return seq


def _before(rows: list[Event], target: Event) -> int:
    """The first row that the new run does not get: the target's answer, or the target if it is itself an input."""
    if target.kind in ev.INPUTS or target.kind in (ev.FINISH, ev.ATTEMPT):
        return target.seq
    answer = (e.seq for e in rows if e.ref == target.seq and e.kind in (ev.COMPLETED, ev.FAILED, ev.FIRED, ev.ABANDON))
    finish = (e.seq for e in rows if e.kind == ev.FINISH)
    return next(answer, None) or next(finish, len(rows) + 1)


def _notes(rows: list[Event], before: int, given: int | None, at_ms: int) -> list[Event]:
    """One note says it for all; where a result is given, the others are noted one by one behind which it stands."""
    kept = [event for event in rows if event.seq < before]
    answered = {event.ref for event in kept if event.kind in (ev.COMPLETED, ev.FAILED, ev.ABANDON)}
    held = [event.seq for event in kept if event.kind == ev.STEP and event.seq not in answered and event.seq != given]
    if given is None:
        return [Event(before, ev.ATTEMPT, at_ms, None, None, RELEASED)] if held else []
    return [Event(before + i, ev.ATTEMPT, at_ms, seq, None, HELD) for i, seq in enumerate(held)]


def _time(rows: list[Event], before: int) -> int:
    return max(event.at_ms for event in rows if event.seq < before)
