"""Writes that follow from a run's commands, and plans for their answers: functions of values."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perdure import RunNotFound, workflow
from perdure.core import events as ev
from perdure.core.events import Command, Event
from perdure.runtime.naming import Names
from perdure.runtime.outbox import Outbox, args_of, may_exist, tags_of
from perdure.runtime.plans import AwaitChild, ChildSettled, Feed, RetryChild
from perdure.store.rows import RunRow, Started, new_run_row
from perdure.store.writes import Deliver, Emit, Finish, StartRun

NOW_MS = 1_000


@workflow
async def other(n: int) -> int:
    return n


def outbox(names: Names | None = None, durability: str | None = None) -> Outbox:
    return Outbox(5, "r", 5, None, durability, names)


def start(kind: str = "child", data: bytes = b'{"args":[1]}', **options: Any) -> Command:
    call = other.options(**options)(1)
    return Command(3, kind, NOW_MS, name="other", data=data, call=call)


def row(**changes: Any) -> RunRow:
    found = new_run_row(StartRun("c", "other", b"[1]", 0, NOW_MS, NOW_MS), 9)
    return msgspec.structs.replace(found, **changes)


# --- writes ---------------------------------------------------------------------------------------


def test_a_message_has_a_key_of_its_row_unless_it_has_its_own() -> None:
    data = b'{"channel":"c","value":[1]}'
    send = Command(3, "send", NOW_MS, name="x", data=data)
    assert outbox().effect(send, 1, NOW_MS) == Deliver(
        "x", "message", NOW_MS, "c", None, "run:5:3", b"[1]"
    )
    send.key = "k"
    write = outbox().effect(send, 1, NOW_MS)
    assert isinstance(write, Deliver)
    assert write.key == "k"


def test_a_child_has_an_id_of_our_key_and_knows_its_parent() -> None:
    write = outbox(durability="replica").effect(start(), 1, NOW_MS)
    assert isinstance(write, StartRun)
    assert (write.id, write.workflow, write.args) == ("r.5.3", "other", b"[1]")
    assert (write.parent, write.parent_seq, write.root, write.durability) == (5, 3, 5, "replica")


def test_a_spawned_run_has_no_parent_and_the_id_that_was_chosen() -> None:
    command = start("spawn", b'{"args":[1],"id":"mine","tags":{"a":1}}')
    write = outbox().effect(command, 1, NOW_MS)
    assert isinstance(write, StartRun)
    assert (write.id, write.parent, write.tags) == ("mine", None, {"a": 1})
    assert may_exist(command)
    assert not may_exist(start())
    assert args_of(command) == b"[1]"


def test_a_child_that_is_abandoned_is_cancelled_and_a_step_is_not() -> None:
    abandon = Command(4, "abandon", NOW_MS, ref=3, call=start())
    assert outbox().effect(abandon, 1, NOW_MS) == Deliver("r.5.3", "cancel", NOW_MS, verb="cancel")
    abandon.call = Command(3, "step")
    assert outbox().effect(abandon, 1, NOW_MS) is None


def test_an_item_of_a_stream_points_to_its_row() -> None:
    emit = Command(3, "emit", NOW_MS, name="s", data=b"1")
    assert outbox().effect(emit, 2, NOW_MS) == Emit(5, 2, 3, 0, [("s", b"null")], NOW_MS)


def test_the_last_tag_of_a_name_counts() -> None:
    tags = [Command(n, "tag", data=b'{"a":%d,"b%d":0}' % (n, n)) for n in (3, 4)]
    assert tags_of([*tags, start()]) == {"a": 4, "b3": 0, "b4": 0}
    assert tags_of([start()]) is None


# --- answers --------------------------------------------------------------------------------------


def test_what_was_refused_fails_where_it_was_asked() -> None:
    for kind in ("send", "spawn", "child"):
        plan = outbox().answered(Command(3, kind), RunNotFound("x"))
        assert isinstance(plan, Feed)
        assert (plan.kind, plan.ref) == ("failed", 3)
        assert b"RunNotFound" in (plan.data or b"")


def test_what_was_taken_is_answered() -> None:
    answered = outbox().answered
    assert answered(Command(3, "send"), None) == Feed("completed", 3, data=b"null")
    assert answered(start("spawn"), Started(9, "c", True)) == Feed("completed", 3, data=b'"c"')
    assert answered(start(), Started(9, "c", True)) == ChildSettled(3)
    assert answered(Command(3, "emit"), None) is None
    assert answered(Command(3, "abandon"), RunNotFound("x")) is None


def test_a_child_of_ours_answers_through_the_inbox() -> None:
    child = row(parent=5, parent_seq=3, status="completed", result=b"1")
    assert outbox().found(start(), child, None) == ChildSettled(3)


def test_the_outcome_of_another_run_is_borrowed() -> None:
    found = outbox().found
    assert found(start(), row(status="completed", result=b"7"), None) == Feed(
        "completed", 3, data=b"7"
    )
    failed = found(start(), row(status="failed", error=b'{"type":"E","message":"m"}'), None)
    assert isinstance(failed, Feed)
    assert failed.kind == "failed"
    assert b'"status":"failed"' in (failed.data or b"")


def test_another_run_that_has_not_ended_is_no_child() -> None:
    plan = outbox().found(start(), row(status="running"), None)
    assert isinstance(plan, Feed)
    assert b"it is not a child of this run" in (plan.data or b"")


@pytest.mark.parametrize("chosen", [False, True])
def test_a_child_of_an_earlier_generation_is_retried_or_awaited(chosen: bool) -> None:
    data = b'{"args":[1],"id":"mine"}' if chosen else b'{"args":[1]}'
    parent = row(run=8, origin=5) if chosen else None
    ours = outbox(Names(5))
    failed, running = row(status="failed", parent=8), row(status="running", parent=8)
    command = start(data=data)
    assert ours.found(command, failed, parent) == RetryChild(command, failed)
    assert ours.found(command, running, parent) == AwaitChild(command, running)


def test_a_chosen_id_of_another_family_is_not_taken_over() -> None:
    command = start(data=b'{"args":[1],"id":"mine"}')
    plan = outbox(Names(5)).found(command, row(status="failed", parent=8), row(run=8, origin=7))
    assert isinstance(plan, Feed)


# --- the end --------------------------------------------------------------------------------------


def test_outcomes_are_ends() -> None:
    finish = outbox().finish
    assert finish(ev.Completed(b"1"), NOW_MS) == Finish("completed", b"1")
    assert finish(ev.Failed(b"{}"), NOW_MS) == Finish("failed", error=b"{}")
    assert finish(ev.Cancelled(), NOW_MS) == Finish("cancelled")


def test_a_run_that_continues_keeps_its_id_and_the_level_that_was_promised() -> None:
    end = ev.Continued(other.options(durability="disk", timeout=2)(1), "other", b"[1]")
    finish = outbox(durability="replica").finish(end, NOW_MS)
    assert finish.status == "completed"
    successor = finish.successor
    assert successor is not None
    assert (successor.id, successor.workflow, successor.args) == ("r", "other", b"[1]")
    assert (successor.durability, successor.timeout_ms) == ("replica", 2_000)


def test_a_fork_sends_under_the_names_of_its_source() -> None:
    note = b'{"released":true,"upto":3,"sent":{"3":"run:4:3"}}'
    names = Names(5, [Event(4, "attempt", NOW_MS, None, "source", note)])
    send = Command(3, "send", NOW_MS, name="x", data=b'{"channel":"c","value":1}')
    write = outbox(names).effect(send, 1, NOW_MS)
    assert isinstance(write, Deliver)
    assert write.key == "run:4:3"
