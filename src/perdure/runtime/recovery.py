"""What an active run does with what it finds after a restart: open commands, and people's words
about them.

Rules: a step without an outcome may have begun, unless a note says that it had not; what is done
then is the step's `on_crash`; a crash does not count against the retry policy, but its attempt is
noted.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.codec.error_encoder import encode_error, failure_of_step
from perdure.core import events as ev
from perdure.core.events import Command, Event
from perdure.errors import DefinitionError, NotSerializable, ProcessDied
from perdure.runtime import log, outbox
from perdure.runtime.naming import TAKEN_BACK, Cut, cut_of
from perdure.store.rows import InboxRow

if TYPE_CHECKING:
    from perdure.runtime.run import ActiveRun


RELEASED = b'{"released":true}'
"""A note about a whole run: it was let go while none of its steps was under way."""

HELD = b'{"resolved":"held"}'
"""A note about one step: it had not begun when its run was let go."""


def recover(
    active: ActiveRun, rows: list[Event], fresh: list[Command], inbox: list[InboxRow]
) -> None:
    """Go on from replayed history: `fresh` commands have no row yet, open ones that have one may
    have begun.
    """
    outbox.check_names(active, fresh)
    if active.names is not None:
        active.names.add_all(rows)
    cut = _cut(rows)
    released = cut is not None
    if cut is not None and rows[-1].data != RELEASED:
        _move_timers(active, fresh)
    active.new_commands(fresh)
    last_seq = rows[-1].seq  # what comes of the inbox is behind it, and begins after its own commit
    active.released_seq = last_seq if released else 0
    active.take(inbox)
    notes = _notes([*rows, *active.rows])
    deaths = [row.seq for row in rows if is_crash(row)]
    steps = [
        command
        for command in active.kernel.open.values()
        if command.kind == ev.STEP and command.seq <= last_seq
    ]
    begun = (
        []
        if released
        else [
            step
            for step in steps
            if _may_have_begun(step, notes.get(step.seq, []), active.clock.now_ms())
        ]
    )
    if begun:
        log.run_taken_over(
            active, [(step, _attempt(step, notes.get(step.seq, []), deaths)) for step in begun]
        )
        # One note for all of them: which had begun is not known, and a wide fan-out must not grow
        # with every crash.
        active.note_event(None, {"crash": True, "steps": len(steps), "error": _death()})
        deaths.append(active.kernel.seq)
    for command in [c for c in active.kernel.open.values() if c.seq <= last_seq]:
        match command.kind:
            case ev.STEP:
                found = notes.get(command.seq, [])
                _recover_step(active, command, found, _attempt(command, found, deaths), released)
            case ev.SEND | ev.SPAWN:
                active.todo.append(command)
            case ev.CHILD if active.names is not None:
                active.adopting.add(command.seq)
                active.todo.append(command)
    active.touch()


@functools.cache
def _death() -> Any:
    """How the death of a process is noted. Made once: it is the same for each of the runs that died
    together.
    """
    return msgspec.json.decode(encode_error(ProcessDied()))


def _cut(rows: list[Event]) -> Cut | None:
    """The note of a release, a retry or a fork behind which no process has begun a step."""
    note = next((row for row in reversed(rows) if row.kind == ev.ATTEMPT), None)
    cut = None if note is None else cut_of(note)
    return cut if cut is not None and cut.upto == rows[-1].seq else None


def _move_timers(active: ActiveRun, fresh: list[Command]) -> None:
    """What the code asks for in a turn that is of the time before the cut counts from now."""
    for command in fresh:
        if command.kind == ev.TIMER:
            until_ms = msgspec.json.decode(command.data or b"{}")["until_ms"] + max(
                0, active.clock.now_ms() - command.at_ms
            )
            command.data, command.edited = b'{"until_ms":%d}' % until_ms, True
            active.kernel.move_timer(command.seq, until_ms)


def is_crash(row: Event) -> bool:
    """Whether a row notes that the process died."""
    return (
        row.kind == ev.ATTEMPT
        and row.ref is None
        and row.data != TAKEN_BACK
        and cut_of(row) is None
    )


def _notes(rows: list[Any]) -> dict[int, list[dict[str, Any]]]:
    """The notes on attempts, by the row of their step. A retry begins the policy of each anew."""
    notes: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if (
            row.kind == ev.ATTEMPT
            and row.ref is None
            and row.data != RELEASED
            and cut_of(row) is not None
        ):
            for found in notes.values():
                found.append({"resolved": "retry"})
        if row.kind == ev.ATTEMPT and row.ref is not None and row.data is not None:
            raw = row.data if isinstance(row.data, bytes) else row.data.read()
            notes.setdefault(row.ref, []).append(msgspec.json.decode(raw))
    return notes


def _may_have_begun(command: Command, notes: list[dict[str, Any]], now_ms: int) -> bool:
    last = notes[-1] if notes else {}
    unbegun = "resolved" in last or "refused" in last or last.get("again_ms", 0) > now_ms
    return not unbegun and not command.call.options.transactional


def _again_ms(notes: list[dict[str, Any]]) -> int:
    """When the next attempt is due: as noted with the last failed one, unless a person has said
    since that it is to be tried.
    """
    for note in reversed(notes):
        if note.get("resolved") == "retry":
            return 0
        if "again_ms" in note:
            return int(note["again_ms"])
    return 0


def _attempt(command: Command, notes: list[dict[str, Any]], deaths: list[int]) -> int:
    """The number of the attempt that comes after those that failed and those that a process died
    over.
    """
    return 1 + sum(seq > command.seq for seq in deaths) + sum("error" in note for note in notes)


def _recover_step(
    active: ActiveRun, command: Command, notes: list[dict[str, Any]], attempt: int, released: bool
) -> None:
    since = max(
        (i + 1 for i, note in enumerate(notes) if note.get("resolved") == "retry"), default=0
    )
    failures = sum("error" in note for note in notes[since:])
    last = notes[-1] if notes else {}
    now_ms, again_ms = active.clock.now_ms(), _again_ms(notes)
    careful = command.call.options.on_crash != "retry"
    begun = not released and _may_have_begun(command, notes, now_ms)
    if begun and careful:
        _unknown_outcome(active, command, failures)
    elif "refused" in last:  # it asks again: nothing has begun since
        _ask(active, command, f". What was given was not taken: {last['refused']}")
    elif again_ms > now_ms:
        active.back_off(command, attempt, failures, again_ms)
    elif careful and ("resolved" in last or released):
        # Should the process die again, this is how the next one knows that there is something to
        # ask.
        active.note_event(command.seq, {"attempt": attempt, "began": True})
        active.begin_after_commit(command, attempt, failures)
    elif begun:  # should the process die over it at once, the note of this death is not lost
        active.begin_after_commit(command, attempt, failures)
    else:
        active.begin(command, attempt, failures)


def _unknown_outcome(active: ActiveRun, command: Command, failures: int) -> None:
    if command.call.options.on_crash == "fail":
        crashes, active.crashes = active.crashes, 0  # that it died is nothing that it has done
        active.input(
            ev.FAILED, ref=command.seq, data=active.host.steps.failure(ProcessDied(), failures + 1)
        )
        active.crashes = crashes
        return
    _ask(active, command, "")


def _ask(active: ActiveRun, command: Command, more: str) -> None:
    active.block(
        "unknown_outcome",
        f"the process died while step {command.name} (row {command.seq}) was being attempted, "
        f"and it is not known whether its effect "
        f"happened{more}. Find out, then: perdure resolve {active.run_id} --seq {command.seq} "
        f"--result JSON | --error TEXT | --retry",
    )


def resolve(active: ActiveRun, row: InboxRow) -> None:
    """A person's word on a step whose outcome is unknown."""
    word = msgspec.json.decode(row.data or b"{}")
    if row.ref not in active.kernel.open:
        active.note_event(row.ref or 0, {"resolved": "too late"}, row.id)
    elif "result" in word:
        _given_result(active, row, msgspec.json.encode(word["result"]))
    elif "error" in word:
        error = msgspec.json.encode({"type": "Resolved", "module": None, "message": word["error"]})
        active.input(ev.FAILED, ref=row.ref, data=failure_of_step(error, 1, False), taken=row.id)
    else:
        active.note_event(row.ref or 0, {"resolved": "retry"}, row.id)


def _given_result(active: ActiveRun, row: InboxRow, data: bytes) -> None:
    """A result that is not of the step's type would block the run for good, so it is refused."""
    command = active.kernel.open[row.ref or 0]
    try:
        active.kernel.codec.decode_result(command.call, data)
    except NotSerializable as error:
        active.note_event(command.seq, {"refused": str(error)}, row.id)
    else:
        active.input(ev.COMPLETED, ref=row.ref, data=data, taken=row.id)


def asked_step(rows: list[Event], seq: int | None, run_id: str) -> int:
    """The row of the step that a person decides about."""
    answered = {event.ref for event in rows if event.kind in (ev.COMPLETED, ev.FAILED, ev.ABANDON)}
    asked = [event.seq for event in rows if event.kind == ev.STEP and event.seq not in answered]
    if seq is None and len(asked) == 1:
        return asked[0]
    if seq not in asked:
        rows_text = ", ".join(map(str, asked)) or "none"
        raise DefinitionError(
            f"Which step of run {run_id!r}? Open ones stand in rows {rows_text}: give one as --seq."
        )
    return seq
