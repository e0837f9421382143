"""Recovery: plans for a run that returns from its history, and for decisions on its open steps.

Rules: functions from rows, open commands and the time to plans; nothing here is written or begun. A
step without an outcome may have begun, unless a note says that it had not; its `on_crash` decides
what follows; a crash does not count against the retry policy, but its attempt is noted.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from perdure.codec.error_encoder import encode_error, failure_of_step
from perdure.core import events as ev
from perdure.core.events import Codec, Command, Event
from perdure.errors import DefinitionError, NotSerializable, ProcessDied
from perdure.runtime.naming import TAKEN_BACK, Cut, cut_of
from perdure.runtime.outbox import may_exist
from perdure.runtime.plans import (
    BackOff,
    Begin,
    BeginAfterCommit,
    Block,
    Drop,
    Feed,
    Note,
    PendingAttempt,
    Plan,
    Reissue,
)
from perdure.store.rows import InboxRow

RELEASED = b'{"released":true}'
"""A note about a whole run: none of its steps was under way when it left memory."""

HELD = b'{"resolved":"held"}'
"""A note about one step: it had not begun when its run left memory."""

_encode = msgspec.json.Encoder().encode
_Notes = list[dict[str, Any]]


class Recovery(msgspec.Struct, frozen=True):
    """How a run continues: `died` are the steps with the number of the attempt that a process died
    during, for the log.
    """

    died: list[tuple[Command, int]]
    plans: list[Plan]


# --- the end of the history -----------------------------------------------------------------------


def last_cut(rows: Sequence[Event]) -> Cut | None:
    """The note of a release, a retry or a fork at the end of a history, if one stands there.

    No process has begun a step behind it.
    """
    note = next((row for row in reversed(rows) if row.kind == ev.ATTEMPT), None)
    cut = None if note is None else cut_of(note)
    return cut if cut is not None and cut.upto == rows[-1].seq else None


def released_at(rows: Sequence[Event]) -> int:
    """The number of the last row, if it is followed by no step that has begun; else 0."""
    return rows[-1].seq if last_cut(rows) is not None else 0


def moved_timers(
    rows: Sequence[Event], asked: Iterable[Command], now_ms: int
) -> list[tuple[Command, int]]:
    """New deadlines of timers that no row records yet, where a retry or a fork ends the history.

    The code asks for them in a turn that is of the time before the cut, and they count from now.
    """
    timers = [command for command in asked if command.kind == ev.TIMER]
    if not timers or rows[-1].data == RELEASED or last_cut(rows) is None:
        return []
    return [(timer, _until_ms(timer) + max(0, now_ms - timer.at_ms)) for timer in timers]


def _until_ms(timer: Command) -> int:
    return int(msgspec.json.decode(timer.data or b"{}")["until_ms"])


def release_notes(
    open_commands: Iterable[Command], begun: Collection[int], *, noted: bool
) -> list[Note]:
    """What a run notes when it leaves memory, so that its next process knows what has not begun.

    `begun` are the rows of steps whose attempt has begun; `noted` says that nothing has happened
    since the last such note.
    """
    steps = [command for command in open_commands if command.kind == ev.STEP]
    unbegun = [step for step in steps if step.seq not in begun]
    if steps and len(unbegun) == len(steps):
        return [] if noted else [Note(None, RELEASED)]
    return [Note(step.seq, HELD) for step in unbegun if step.call.options.on_crash != "retry"]


# --- open commands --------------------------------------------------------------------------------


def recover(
    run_id: str,
    history: Sequence[Event],
    since: Sequence[Event | Command],
    open_commands: Iterable[Command],
    now_ms: int,
    *,
    released: bool,
    adopts: bool,
    in_line: Collection[int] = (),
) -> Recovery:
    """The plans for what is open at the end of a `history`, after the run has read its inbox.

    `since` are the rows that are not written yet: they may hold decisions on open steps. `released`
    says that no open step has begun, as `released_at` finds; `adopts` that the run was retried, so
    that a child may be of an earlier generation. `in_line` are the rows of steps that have places
    in queues, which those of a process that died have no more: they have not begun.
    """
    last_seq = history[-1].seq
    notes = _notes([*history, *since])
    deaths = [row.seq for row in history if is_crash(row)]
    found = [command for command in open_commands if command.seq <= last_seq]
    steps = [command for command in found if command.kind == ev.STEP]
    died = []
    plans: list[Plan] = []
    if not released:
        begun = [
            step for step in steps
            if step.seq not in in_line and _may_have_begun(step, notes.get(step.seq, []), now_ms)
            and not _is_asked(step, history, deaths)
        ]  # fmt: skip
        died = [(step, _number(step, notes.get(step.seq, []), deaths)) for step in begun]
    if died:
        # One note for all of them: which had begun is not known, and a wide fan-out must not grow
        # with every crash.
        note = {"crash": True, "steps": len(steps), "error": _death()}
        plans.append(Note(None, _encode(note)))
        deaths.append(last_seq + 1)
    for command in found:
        match command.kind:
            case ev.STEP:
                of_step = notes.get(command.seq, [])
                number = _number(command, of_step, deaths)
                unbegun = released or command.seq in in_line
                plans += _step(run_id, command, of_step, number, now_ms, released=unbegun)
            case ev.SEND | ev.SPAWN:
                plans.append(Reissue(command))
            case ev.CHILD if adopts or may_exist(command):
                plans.append(Reissue(command))
    return Recovery(died, _begin_nothing(plans) if _asks(plans) else plans)


def _asks(plans: Iterable[Plan]) -> bool:
    return any(isinstance(plan, Block) for plan in plans)


def _begin_nothing(plans: Iterable[Plan]) -> list[Plan]:
    """The plans without attempts and the notes that these begin: a run that asks begins none, and
    such a note would have the next process ask about what had not begun.
    """
    return [
        plan
        for plan in plans
        if not isinstance(plan, Begin | BeginAfterCommit)
        and not (isinstance(plan, Note) and plan.ref is not None)
    ]


def _is_asked(step: Command, history: Sequence[Event], deaths: Sequence[int]) -> bool:
    """Whether a person has been asked about a step, whose death is noted, and not decided yet."""
    if step.call.options.on_crash != "ask" or not deaths:
        return False
    return deaths[-1] > question_of(history, step.seq)


@functools.cache
def _death() -> Any:
    """The recorded error of a process that died: the same for all runs that died together."""
    return msgspec.json.decode(encode_error(ProcessDied()))


def is_crash(row: Event) -> bool:
    """Whether a row notes that the process died."""
    return (
        row.kind == ev.ATTEMPT
        and row.ref is None
        and row.data != TAKEN_BACK
        and cut_of(row) is None
    )


def _notes(rows: Iterable[Event | Command]) -> dict[int, _Notes]:
    """The notes on attempts, by the row of their step. A retry begins the policy of each anew."""
    notes: dict[int, _Notes] = {}
    for row in rows:
        if row.kind != ev.ATTEMPT:
            continue
        if row.ref is not None and row.data is not None:
            raw = row.data if isinstance(row.data, bytes) else row.data.read()
            note = msgspec.json.decode(raw)
            if "declined" not in note:  # which says nothing of an attempt
                notes.setdefault(row.ref, []).append(note)
        elif row.data != RELEASED and cut_of(row) is not None:
            for found in notes.values():
                found.append({"resolved": "retry"})
    return notes


def _may_have_begun(step: Command, notes: _Notes, now_ms: int) -> bool:
    last = notes[-1] if notes else {}
    unbegun = "resolved" in last or "refused" in last or last.get("again_ms", 0) > now_ms
    return not unbegun and not step.call.options.transactional


def _again_ms(notes: _Notes) -> int:
    """When the next attempt is due: as noted with the last failed one, or 0 where it has begun
    since, or a person has decided that it is to be tried.
    """
    for note in reversed(notes):
        if note.get("resolved") == "retry" or note.get("began"):
            return 0
        if "again_ms" in note:
            return int(note["again_ms"])
    return 0


def _number(step: Command, notes: _Notes, deaths: Sequence[int]) -> int:
    """The number of the attempt after those that failed and those that a process died during."""
    return 1 + sum(seq > step.seq for seq in deaths) + sum("error" in note for note in notes)


def _step(
    run_id: str, step: Command, notes: _Notes, number: int, now_ms: int, *, released: bool
) -> list[Plan]:
    """The plans for one open step."""
    decided = (i + 1 for i, note in enumerate(notes) if note.get("resolved") == "retry")
    since = notes[max(decided, default=0) :]
    failures = sum("error" in note and "held" not in note for note in since)
    last = notes[-1] if notes else {}
    attempt = PendingAttempt(step, number, failures, _again_ms(notes))
    careful = step.call.options.on_crash != "retry"
    begun = not released and _may_have_begun(step, notes, now_ms)
    if begun and careful:
        return [_unknown_outcome(run_id, step, failures)]
    if "refused" in last:  # ask again: nothing has begun since
        return [_ask(run_id, step, f". What was given was not taken: {last['refused']}")]
    if attempt.again_ms > now_ms:
        return [BackOff(attempt)]
    if careful and ("resolved" in last or released):
        return [began_note(attempt), BeginAfterCommit(attempt)]
    if begun:  # should the process die over it at once, the note of this death is not lost
        return [BeginAfterCommit(attempt)]
    return [Begin(attempt)]


def due_attempts(attempts: Iterable[PendingAttempt], *, noted: bool) -> list[Plan]:
    """The plans for attempts whose time has come: they begin after a commit that says that the run
    is at work, so that a process that dies during them is counted.

    `noted` says that the last row notes that none of them has begun.
    """
    plans: list[Plan] = []
    for attempt in attempts:
        if noted or attempt.command.call.options.on_crash != "retry":
            plans.append(began_note(attempt))
            noted = False  # another row stands behind that note now
        plans.append(BeginAfterCommit(attempt))
    return plans


def began_note(attempt: PendingAttempt) -> Note:
    """The note that an attempt begins: without it, the next process would not know that the
    outcome may be unknown.
    """
    return Note(attempt.command.seq, _encode({"attempt": attempt.attempt, "began": True}))


def _unknown_outcome(run_id: str, step: Command, failures: int) -> Plan:
    if step.call.options.on_crash == "fail":
        failure = failure_of_step(encode_error(ProcessDied()), failures + 1, False)
        return Feed(ev.FAILED, step.seq, data=failure, progress=False)
    return _ask(run_id, step, "")


def _ask(run_id: str, step: Command, more: str) -> Block:
    return Block(
        "unknown_outcome",
        f"the process died while step {step.name} (row {step.seq}) was being attempted, and it is "
        f"not known whether its effect happened{more}. Find out, then: perdure resolve {run_id} "
        f"--seq {step.seq} --result JSON | --error TEXT | --retry",
    )


# --- decisions ------------------------------------------------------------------------------------


def question_of(rows: Iterable[Event], seq: int) -> int:
    """What names the question what became of the step in row `seq`: the row of the last note on it,
    or its own. An attempt that begins after a decision is noted, so it has another question.
    """
    return max((row.seq for row in rows if row.kind == ev.ATTEMPT and row.ref == seq), default=seq)


def decide(
    history: Sequence[Event],
    inbox: Iterable[InboxRow],
    open_commands: Mapping[int, Command],
    codec: Codec,
) -> list[Plan]:
    """The plans for the decisions in an inbox on steps whose outcome is unknown, before `recover`
    asks about them. Decisions on waits are left out.
    """
    rows = [row for row in inbox if row.kind == "resolve" and wait_of(row) is None]
    return [
        resolve(row, open_commands.get(row.ref or 0), codec, question_of(history, row.ref or 0))
        for row in rows
    ]


def resolve(row: InboxRow, step: Command | None, codec: Codec, question: int) -> Plan:
    """The plan for a decision on a step whose outcome is unknown; `step` is None if it has one.

    A decision for another question than this one is void. (Those of older versions name none.)
    """
    decision = msgspec.json.decode(row.data or b"{}")
    if step is None or decision.get("question", question) != question:
        return Drop(row.id)
    if "result" in decision:
        return _given_result(row, step, _encode(decision["result"]), codec)
    if "error" in decision:
        return Feed(ev.FAILED, step.seq, data=_given_error(decision["error"], 1), taken=row.id)
    return Note(step.seq, b'{"resolved":"retry"}', row.id)


def _given_error(message: str, attempts: int) -> bytes:
    error = _encode({"type": "Resolved", "module": None, "message": message})
    return failure_of_step(error, attempts, False)


def _given_result(row: InboxRow, step: Command, data: bytes, codec: Codec) -> Plan:
    """A result that is not of the step's type would block the run for good, so it is refused."""
    try:
        codec.decode_result(step.call, data)
    except NotSerializable as error:
        return Note(step.seq, _encode({"refused": str(error)}), row.id)
    return Feed(ev.COMPLETED, step.seq, data=data, taken=row.id)


def wait_of(row: InboxRow) -> int | None:
    """The date that names the wait of a step which a row of the inbox decides about; None where it
    is about something else.
    """
    if row.kind != "resolve" or row.data is None or b'"wait"' not in row.data:
        return None
    wait = msgspec.json.decode(row.data).get("wait")
    return wait if type(wait) is int else None


def end_wait(row: InboxRow, attempt: PendingAttempt | None, codec: Codec) -> list[Plan]:
    """The plans for a decision on a step that waits for this attempt; None: it does not any more.

    An attempt that begins early has the number, and what follows its failure, that it would have
    had. One note takes the decision and says that it has begun, so neither is lost or done twice.
    """
    if attempt is None:
        return [Drop(row.id)]
    decision, step = msgspec.json.decode(row.data or b"{}"), attempt.command
    if "result" in decision:
        data = _encode(decision["result"])
        try:
            codec.decode_result(step.call, data)
        except NotSerializable as error:
            return [Note(step.seq, _encode({"declined": str(error)}), row.id), BackOff(attempt)]
        return [Feed(ev.COMPLETED, step.seq, data=data, taken=row.id)]
    if "error" in decision:
        failure = _given_error(decision["error"], attempt.attempt - 1)
        return [Feed(ev.FAILED, step.seq, data=failure, taken=row.id)]
    note = {"attempt": attempt.attempt, "began": True, "now": True}
    now = msgspec.structs.replace(attempt, again_ms=0)
    return [Note(step.seq, _encode(note), row.id), BeginAfterCommit(now)]


def open_steps(rows: Iterable[Event]) -> list[int]:
    """The rows of the steps that have no outcome."""
    rows = list(rows)
    answered = {event.ref for event in rows if event.kind in (ev.COMPLETED, ev.FAILED, ev.ABANDON)}
    return [event.seq for event in rows if event.kind == ev.STEP and event.seq not in answered]


def waits_of_steps(rows: Sequence[Event], now_ms: int) -> dict[int, int]:
    """The rows of the steps that wait for their next attempt, and until when (ms UTC)."""
    notes = _notes(rows)
    found = {seq: _again_ms(notes.get(seq, [])) for seq in open_steps(rows)}
    return {seq: again_ms for seq, again_ms in found.items() if again_ms > now_ms}


def asked_step(rows: list[Event], seq: int | None, run_id: str) -> int:
    """The row of the step that a person decides about."""
    asked = open_steps(rows)
    if seq is None and len(asked) == 1:
        return asked[0]
    if seq not in asked:
        rows_text = ", ".join(map(str, asked)) or "none"
        raise DefinitionError(
            f"Which step of run {run_id!r}? Open ones are in rows {rows_text}: give one as --seq."
        )
    return seq
