"""Schedules in a transaction: definitions, declarations, and the ticks that become runs.

Rules: a tick is started in the transaction that stores the next one, where the row is still what
the plan was made from; its id names one run, so a tick that was started is not started again; what
overlaps is decided from runs that have not ended; a schedule that no worker's code declares, and
that no caller has set, starts nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from perdure.core.limits import NEVER_MS
from perdure.errors import NotSerializable, PerdureError, RunExists, ScheduleNotFound
from perdure.store.inboxes import Inboxes
from perdure.store.rows import Started, Woken
from perdure.store.schedule_writes import (
    ControlSchedule,
    DeclareSchedules,
    Fired,
    FireSchedule,
    RemoveSchedule,
    ScheduleDefinition,
    SetSchedule,
    StartTicks,
    TickRun,
)
from perdure.store.transaction import Transaction
from perdure.store.writes import Deliver, StartRun

_encode, _decode = msgspec.json.encode, msgspec.json.decode

NO_SECRETS = (
    "everybody who reads the store sees them, so no secret can be there; give a name, and look the "
    "secret up in a step"
)
OPEN_TICKS_MAX = 1_000
"""How many runs of a schedule one tick cancels."""
FIELDS, NEXT_MS = slice(6, 19), 19
"""Where the query `schedule_state` has the definition and the next tick."""


class _What(msgspec.Struct):
    """What the runs of a schedule are started with."""

    workflow: str
    args: str
    queue: str | None
    key: str | None
    weight: int
    timeout_ms: int | None
    durability: str | None


class Schedules:
    """What writes about schedules do in the transaction `db`. `start` starts a run, `refusal` says
    why a queue takes none, `is_plain` whether arguments are without secrets.
    """

    def __init__(
        self,
        db: Transaction,
        start: Callable[[StartRun], Started | PerdureError],
        inboxes: Inboxes,
        is_alive: Callable[[int], bool],
        refusal: Callable[[str, int], object],
        is_plain: Callable[[bytes], bool],
    ) -> None:
        self._db, self._start_run, self._inboxes = db, start, inboxes
        self._is_alive, self._refusal, self._is_plain = is_alive, refusal, is_plain
        self.apply: dict[type, Callable[[Any], Any]] = {
            DeclareSchedules: self.declare,
            SetSchedule: self.set,
            FireSchedule: self.fire,
            StartTicks: self.start,
            ControlSchedule: self.control,
            RemoveSchedule: self.remove,
        }

    # --- definitions ------------------------------------------------------------------------------

    def declare(self, declare: DeclareSchedules) -> list[str] | PerdureError:
        """See `DeclareSchedules`."""
        if not self._is_alive(declare.worker):
            return []
        if not declare.again and (refused := self._refused(declare.definitions)) is not None:
            return refused
        changed = []
        for definition in declare.definitions:
            schedule, did_change = self._declared(definition, declare)
            if did_change:
                changed.append(definition.name)
            self._db.do("declare_schedule", (declare.worker, schedule))
            self._db.do("revive_schedule", (schedule, NEVER_MS))
        return changed

    def _refused(self, given: list[ScheduleDefinition]) -> PerdureError | None:
        """Why the queue of one of these definitions would take no run of it, or its arguments can't
        be stored.
        """
        for one in given:
            if not self._is_plain(one.args):
                return NotSerializable(f"the arguments of schedule {one.name!r}", NO_SECRETS)
            if one.queue is not None:
                refused = self._refusal(one.queue, one.weight)
                if isinstance(refused, PerdureError):
                    return refused
        return None

    def _declared(self, given: ScheduleDefinition, declare: DeclareSchedules) -> tuple[int, bool]:
        """The schedule of a definition, stored where the code has changed it."""
        is_now, found = _digest(given), self._db.row("schedule_state", (given.name,))
        if found is None:
            declared = (is_now, int(given.paused))
            fields = (*_fields(given), int(given.paused), 0, *declared, *_next(given, given.paused))
            return self._inserted(given, fields, declare.at_ms), True
        schedule, _, paused, _, declared_before, paused_before = found[:6]
        if declare.again or is_now == declared_before:
            return int(schedule), False
        if paused_before is None or bool(paused_before) != given.paused:
            paused = int(given.paused)
        self._change(given, found, paused=paused, manual=0, declared=(is_now, int(given.paused)))
        return int(schedule), True

    def set(self, write: SetSchedule) -> bool | PerdureError:
        """See `SetSchedule`."""
        given = write.definition
        if (refused := self._refused([given])) is not None:
            return refused
        found = self._db.row("schedule_state", (given.name,))
        if found is None:
            fields = (*_fields(given), int(given.paused), 1, None, None)
            self._inserted(given, (*fields, *_next(given, given.paused)), write.at_ms)
            return True
        paused = int(given.paused or found[2])
        if tuple(found[FIELDS]) == _fields(given) and found[3] and paused == found[2]:
            return False
        self._change(given, found, paused=paused, manual=1, declared=(found[4], found[5]))
        return True

    def _inserted(self, given: ScheduleDefinition, fields: tuple[Any, ...], at_ms: int) -> int:
        ((schedule,),) = self._db.rows("insert_schedule", (*fields, given.name, at_ms))
        return int(schedule)

    def _change(
        self,
        given: ScheduleDefinition,
        found: tuple[Any, ...],
        *,
        paused: int,
        manual: int,
        declared: tuple[Any, Any],
    ) -> None:
        """Store another definition. Other times count from now on; the same ones go on."""
        if (found[6], found[7]) == (given.expression, given.tz) and not found[2]:
            given.next_ms = found[NEXT_MS]
        fields = (*_fields(given), paused, manual, *declared, *_next(given, bool(paused)))
        self._db.do("change_schedule", (*fields, found[0]))

    def control(self, control: ControlSchedule) -> bool | ScheduleNotFound:
        """See `ControlSchedule`."""
        found = self._db.row("schedule_state", (control.name,))
        if found is None:
            return ScheduleNotFound(control.name)
        schedule, version, paused = found[:3]
        if version != control.version or bool(paused) == (control.verb == "pause"):
            return False
        if control.verb == "pause":
            self._db.do("pause_schedule", (schedule,))
        else:
            self._db.do("resume_schedule", (control.next_ms, control.at_ms, schedule))
        return True

    def remove(self, remove: RemoveSchedule) -> ScheduleNotFound | None:
        """See `RemoveSchedule`."""
        found = self._db.row("remove_schedule", (remove.name,))
        if found is None:
            return ScheduleNotFound(remove.name)
        self._db.do("remove_declarations", found)
        self._db.do("remove_open_ticks", found)
        return None

    # --- ticks ------------------------------------------------------------------------------------

    def fire(self, fire: FireSchedule) -> Fired | None:
        """See `FireSchedule`."""
        found = self._db.row("fire_state", (fire.schedule,))
        if found is None or found[0] != fire.version or found[1] is None:
            return None
        overlap, hold_max, held = found[2], found[3], _decode(found[4]) if found[4] else []
        ticks = [tick for tick in fire.ticks if not self._exists(tick)]  # by a backfill, say
        begin, hold, skipped, cancel = _by_overlap(
            overlap, ticks, hold_max, is_open=self._open(fire.schedule, 1) != []
        )
        fired = Fired([], [])
        if cancel and not held:  # once: a second cancel would interrupt its cleaning up
            fired.woken = self._cancel(fire.schedule, fire.at_ms)
            if not self._open(fire.schedule, 1):  # none had begun
                begin, hold = hold, []
        what, last_run = _What(*found[5:]), None
        for tick in begin:
            started = self._started(fire.schedule, what, tick, fire.at_ms)
            if isinstance(started, PerdureError):
                fired.refused = started
                self._db.do("refuse_tick", (fire.retry_ms, str(started), fire.schedule))
                return fired
            last_run = tick.id
            if started.created:
                fired.started.append(tick.id)
        self._advance(fire, last_run, hold, len(ticks) - len(begin) - len(hold), skipped)
        return fired

    def _advance(
        self, fire: FireSchedule, last_run: str | None, hold: list[TickRun], left: int, skipped: int
    ) -> None:
        """Store the next tick. Of `left` ticks without a run, `skipped` are skipped ones."""
        held = _encode([tick.ms for tick in hold]).decode() if hold else None
        fire_ms = NEVER_MS if fire.fire_ms is None and hold else fire.fire_ms
        missed = fire.missed + left - skipped
        fields = (fire.next_ms, fire_ms, fire.last_ms, last_run, held, missed, skipped)
        self._db.do("advance_schedule", (*fields, fire.schedule))

    def _started(
        self, schedule: int, what: _What, tick: TickRun, at_ms: int
    ) -> Started | PerdureError:
        """Start the run of a tick; one that exists under its id is that run, whatever it was
        started with.
        """
        start = StartRun(
            tick.id, what.workflow, what.args.encode(), tick.seed, at_ms, at_ms, queue=what.queue,
            key=what.key, weight=what.weight, timeout_ms=what.timeout_ms,
            durability=what.durability, scheduled_ms=tick.ms,
        )  # fmt: skip
        started = self._start_run(start)
        if isinstance(started, RunExists):
            return Started(started.run, tick.id, False)
        if isinstance(started, Started) and started.created:
            self._db.do("note_tick", (tick.id, schedule))
        return started

    def _exists(self, tick: TickRun) -> bool:
        return self._db.row("existing_run", (tick.id,)) is not None

    def _open(self, schedule: int, limit: int) -> list[str]:
        """Ids of runs of a schedule that have not ended."""
        return [run_id for (run_id,) in self._db.rows("open_ticks", (schedule, limit))]

    def _cancel(self, schedule: int, at_ms: int) -> list[int]:
        """Cancel the runs of a schedule. Returns those to wake."""
        woken: list[int] = []
        for run_id in self._open(schedule, OPEN_TICKS_MAX):
            result = self._inboxes.deliver(Deliver(run_id, "cancel", at_ms, verb="cancel"))
            if isinstance(result, Woken):
                woken += [result.run, *result.others]
        return woken

    def start(self, write: StartTicks) -> list[Started | PerdureError] | ScheduleNotFound:
        """See `StartTicks`."""
        found = self._db.row("schedule_state", (write.name,))
        if found is None:
            return ScheduleNotFound(write.name)
        schedule, what = int(found[0]), _What(found[8], found[9], *found[14:19])
        results = [self._started(schedule, what, tick, write.at_ms) for tick in write.ticks]
        if write.is_last and isinstance(results[-1], Started):
            self._db.do("set_last_run", (results[-1].id, schedule))
        return results


def _by_overlap(
    overlap: str, ticks: list[TickRun], hold_max: int, *, is_open: bool
) -> tuple[list[TickRun], list[TickRun], int, bool]:
    """Ticks to begin and to hold, how many others are skipped, and whether to cancel what runs."""
    match overlap:
        case "allow":
            return ticks, [], 0, False
        case "wait":
            begin = [] if is_open else ticks[:1]
            return begin, ticks[len(begin) :][-hold_max:], 0, False
        case "cancel" if is_open:
            return [], ticks[-1:], max(0, len(ticks) - 1), bool(ticks)
        case "skip" if is_open:
            return [], [], len(ticks), False
        case _:
            return ticks[-1:], [], max(0, len(ticks) - 1), False


def _fields(given: ScheduleDefinition) -> tuple[Any, ...]:
    """A definition as columns, without its name and its state."""
    return (
        given.expression, given.tz, given.workflow, given.args.decode(), given.overlap,
        given.catch_up_ms, given.catch_up_max, given.jitter_ms, given.queue, given.key,
        given.weight, given.timeout_ms, given.durability,
    )  # fmt: skip


def _next(given: ScheduleDefinition, paused: bool) -> tuple[int | None, int | None]:
    """The next tick, and when to look at it: the plan adds the jitter."""
    return given.next_ms, None if paused else given.next_ms


def _digest(given: ScheduleDefinition) -> str:
    """What a definition is known by, to see whether the code has changed."""
    import hashlib

    parts = _encode([*_fields(given), given.paused])
    return hashlib.blake2b(parts, digest_size=16).hexdigest()
