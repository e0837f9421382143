"""Plans for a run that returns from its history: functions of rows, open commands and the time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure import DefinitionError, step
from perdure.codec.json_codec import JsonCodec
from perdure.core.events import Command, Event
from perdure.runtime import recovery
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

NOW_MS = 1_000_000
CODEC = JsonCodec()


@step
async def again() -> int:
    return 1


@step(on_crash="ask")
async def careful() -> int:
    return 1


@step(on_crash="fail")
async def fragile() -> int:
    return 1


@step(transactional=True)
def saved(db: object) -> int:
    return 1


def asked(definition: Any, seq: int = 2) -> Command:
    call = definition()
    return Command(seq, "step", NOW_MS, name=definition.name, data=b"{}", call=call)


def attempt(ref: int | None, seq: int = 3, **note: Any) -> Event:
    return Event(seq, "attempt", NOW_MS, ref, None, json.dumps(note).encode())


def history(*notes: Event, steps: int = 1) -> list[Event]:
    rows = [Event(1, "start", NOW_MS)]
    rows += [Event(2 + n, "step", NOW_MS, name="s", data=b"{}") for n in range(steps)]
    return [*rows, *notes]


def recovered(
    rows: list[Event], *commands: Command, since: Any = (), adopts: bool = False
) -> recovery.Recovery:
    released = recovery.released_at(rows) > 0
    return recovery.recover("r", rows, since, commands, NOW_MS, released=released, adopts=adopts)


def plans(
    rows: list[Event], *commands: Command, since: Any = (), adopts: bool = False
) -> list[Plan]:
    return recovered(rows, *commands, since=since, adopts=adopts).plans


def released(seq: int = 3) -> Event:
    return Event(seq, "attempt", NOW_MS, None, None, recovery.RELEASED)


def test_a_step_that_may_have_begun_is_tried_again_after_a_note_of_the_death() -> None:
    command = asked(again)
    found = recovered(history(), command)
    assert found.died == [(command, 1)]
    note, begin = found.plans
    assert isinstance(note, Note)
    assert note.ref is None
    assert json.loads(note.data)["crash"] is True
    assert json.loads(note.data)["steps"] == 1
    assert begin == BeginAfterCommit(PendingAttempt(command, 2, 0))


def test_one_note_is_enough_for_all_steps_that_a_process_died_over() -> None:
    commands = [asked(again, 2), asked(again, 3)]
    found = plans(history(steps=2), *commands)
    assert [type(plan) for plan in found] == [Note, BeginAfterCommit, BeginAfterCommit]


def test_a_step_behind_a_release_has_not_begun() -> None:
    command = asked(again)
    found = recovered(history(released()), command)
    assert found.died == []
    assert found.plans == [Begin(PendingAttempt(command, 1, 0))]


def test_a_careful_step_behind_a_release_notes_that_it_begins() -> None:
    command = asked(careful)
    note, begin = plans(history(released()), command)
    assert note == Note(2, b'{"attempt":1,"began":true}')
    assert begin == BeginAfterCommit(PendingAttempt(command, 1, 0))


def test_a_careful_step_that_may_have_begun_is_asked_about() -> None:
    _, block = plans(history(), asked(careful))
    assert isinstance(block, Block)
    assert block.by == "unknown_outcome"
    assert "perdure resolve r --seq 2" in block.reason


def test_a_fragile_step_that_may_have_begun_fails_and_that_is_no_progress() -> None:
    _, feed = plans(history(), asked(fragile))
    assert isinstance(feed, Feed)
    assert (feed.kind, feed.ref, feed.progress) == ("failed", 2, False)
    assert b"the process ended" in (feed.data or b"")


def test_a_transactional_step_without_an_outcome_has_not_happened() -> None:
    command = asked(saved)
    assert plans(history(), command) == [Begin(PendingAttempt(command, 1, 0))]


def test_an_attempt_that_is_not_due_rests() -> None:
    command = asked(again)
    failed = attempt(2, attempt=1, error={}, again_ms=NOW_MS + 5)
    assert plans(history(failed), command) == [BackOff(PendingAttempt(command, 2, 1, NOW_MS + 5))]


def test_failures_count_and_deaths_only_number_attempts() -> None:
    command = asked(again)
    rows = history(
        attempt(2, 3, attempt=1, error={}, again_ms=NOW_MS - 9),
        attempt(None, 4, crash=True, error={}),
    )
    *_, begin = plans(rows, command)
    assert begin == BeginAfterCommit(PendingAttempt(command, 4, 1, NOW_MS - 9))


def test_a_decision_to_retry_begins_the_policy_anew() -> None:
    command = asked(careful)
    failed = attempt(2, 3, attempt=1, error={}, again_ms=NOW_MS + 99)
    decided = attempt(2, 4, resolved="retry")
    note, begin = plans(history(failed), command, since=[decided])
    assert isinstance(note, Note)
    assert begin == BeginAfterCommit(PendingAttempt(command, 2, 0))


def test_a_result_that_was_refused_is_asked_for_again() -> None:
    *_, block = plans(history(attempt(2, refused="no int")), asked(careful))
    assert isinstance(block, Block)
    assert "What was given was not taken: no int" in block.reason


def test_what_was_asked_for_behind_the_history_is_not_recovered() -> None:
    assert plans(history(), asked(again, 7)) == []


def test_effects_whose_answer_is_not_known_are_issued_again() -> None:
    send = Command(2, "send", name="x", data=b"{}")
    chosen = Command(2, "child", name="w", data=b'{"args":[],"id":"mine"}')
    ours = Command(2, "child", name="w", data=b'{"args":[]}')
    assert plans(history(), send) == [Reissue(send)]
    assert plans(history(), chosen) == [Reissue(chosen)]
    assert plans(history(), ours) == []
    assert plans(history(), ours, adopts=True) == [Reissue(ours)]


# --- leaving memory -------------------------------------------------------------------------------


def test_a_run_without_a_begun_step_notes_that_once() -> None:
    steps = [asked(again, 2), asked(careful, 3)]
    assert recovery.release_notes(steps, set(), noted=False) == [Note(None, recovery.RELEASED)]
    assert recovery.release_notes(steps, set(), noted=True) == []


def test_beside_a_begun_step_only_careful_ones_are_noted() -> None:
    steps = [asked(again, 2), asked(careful, 3), asked(again, 4)]
    assert recovery.release_notes(steps, {2}, noted=False) == [Note(3, recovery.HELD)]


def test_a_run_without_steps_notes_nothing() -> None:
    assert recovery.release_notes([Command(2, "child")], set(), noted=False) == []


def test_attempts_that_are_due_lift_the_note_of_the_release_once() -> None:
    first, second = PendingAttempt(asked(again, 2), 2, 1), PendingAttempt(asked(again, 3), 2, 1)
    found = recovery.due_attempts([first, second], noted=True)
    assert found == [recovery.began_note(first), BeginAfterCommit(first), BeginAfterCommit(second)]
    assert recovery.due_attempts([first], noted=False) == [BeginAfterCommit(first)]


def test_a_careful_attempt_that_is_due_is_always_noted() -> None:
    due = PendingAttempt(asked(careful), 3, 2)
    assert recovery.due_attempts([due], noted=False) == [
        Note(2, b'{"attempt":3,"began":true}'),
        BeginAfterCommit(due),
    ]


def test_timers_of_a_turn_before_a_cut_count_from_now() -> None:
    timer = Command(3, "timer", NOW_MS - 100, data=b'{"until_ms":%d}' % (NOW_MS + 50))
    cut = [*history(), Event(3, "attempt", NOW_MS, None, None, b'{"released":true,"upto":3}')]
    assert recovery.moved_timers(cut, [timer], NOW_MS) == [(timer, NOW_MS + 150)]
    assert recovery.moved_timers(history(released()), [timer], NOW_MS) == []
    assert recovery.moved_timers(history(), [timer], NOW_MS) == []


# --- decisions ------------------------------------------------------------------------------------


def decision(ref: int = 2, **what: Any) -> InboxRow:
    return InboxRow(7, 1, "resolve", None, ref, json.dumps(what).encode(), NOW_MS)


def test_a_decision_is_an_outcome_or_another_attempt() -> None:
    command = asked(careful)
    assert recovery.resolve(decision(result=3), command, CODEC, 2) == Feed(
        "completed", 2, data=b"3", taken=7
    )
    failed = recovery.resolve(decision(error="no"), command, CODEC, 2)
    assert isinstance(failed, Feed)
    assert (failed.kind, failed.taken) == ("failed", 7)
    assert b'"message":"no"' in (failed.data or b"")
    assert recovery.resolve(decision(retry=True), command, CODEC, 2) == Note(
        2, b'{"resolved":"retry"}', 7
    )


def test_a_result_of_another_type_is_refused() -> None:
    refused = recovery.resolve(decision(result="three"), asked(careful), CODEC, 2)
    assert isinstance(refused, Note)
    assert b"refused" in refused.data


def test_a_decision_on_a_step_with_an_outcome_is_too_late() -> None:
    assert recovery.resolve(decision(), None, CODEC, 2) == Drop(7)


def test_a_decision_is_for_the_question_that_it_names() -> None:
    began = attempt(2, 4, began=True)
    rows = history(attempt(2, 3, resolved="retry"), began, attempt(None, 5, crash=True))
    assert [recovery.question_of(rows[:n], 2) for n in (2, 3, 4, 5)] == [2, 3, 4, 4]
    old, new = (decision(question=question, retry=True) for question in (2, 4))
    on_a_wait, of_an_older_version = decision(wait=NOW_MS, retry=True), decision(retry=True)
    for row in (new, of_an_older_version):
        (note,) = recovery.decide(rows, [on_a_wait, row], {2: asked(careful)}, CODEC)
        assert note == Note(2, b'{"resolved":"retry"}', 7)
    assert recovery.decide(rows, [old], {2: asked(careful)}, CODEC) == [Drop(7)]


def test_a_run_that_asks_begins_nothing_and_notes_no_attempt() -> None:
    commands = [asked(careful, 2), asked(again, 3), asked(careful, 4), asked(saved, 5)]
    decided = attempt(4, 7, resolved="retry")
    crash, block = plans(history(steps=4), *commands, since=[decided])
    assert isinstance(block, Block)
    assert isinstance(crash, Note)
    assert b"crash" in crash.data


def test_the_death_that_a_question_is_about_is_noted_once() -> None:
    rows = history(attempt(None, 3, crash=True))
    assert [type(plan) for plan in plans(rows, asked(careful))] == [Block]
    rows += [attempt(2, 4, resolved="retry"), attempt(2, 5, began=True)]
    assert [type(plan) for plan in plans(rows, asked(careful))] == [Note, Block]


def test_the_step_that_is_decided_about_is_the_open_one() -> None:
    rows = history(Event(4, "completed", NOW_MS, 2), steps=2)
    assert recovery.asked_step(rows, None, "r") == 3
    with pytest.raises(DefinitionError, match="Open ones are in rows 3"):
        recovery.asked_step(rows, 2, "r")
