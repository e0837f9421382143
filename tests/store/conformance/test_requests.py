"""Requests get one reply, whatever run goes on under the id; exposed values are of the history."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perdure.core.events import EXPOSE, REFUSE, REPLY, REQUEST, Event
from perdure.core.limits import INLINE_BYTES_MAX, Limits
from perdure.errors import (
    InboxFull,
    LeaseLost,
    RequestKeyUsed,
    RunExists,
    RunFinished,
    RunNotFound,
)
from perdure.store.base import Store
from perdure.store.request_writes import Ask, Expose, Reply
from perdure.store.retention_writes import PruneRuns, SweepPruned
from perdure.store.rows import Asked, Replied, ReplyRow, Woken
from perdure.store.writes import Finish, ForkRun, StartAnd, StartRun, Turn
from tests.store.conformance.support import (
    OpenStore,
    claim,
    finish,
    join,
    message,
    one,
    owned,
    request,
    start,
    suspend,
)

LARGE = b'{"text":"' + b"x" * INLINE_BYTES_MAX * 3 + b'"}'


def envelope(value: Any = 1, key: str = "once") -> bytes:
    return msgspec.json.encode({"key": key, "sender": "me", "value": value})


def received(store: Store, run: int, worker: int, seq: int = 2, place: int = -1) -> Event:
    """A request in an inbox, the newest, is in the history at a row."""
    arrived = store.inbox(run, 0)[place]
    row = Event(seq, REQUEST, 0, name=arrived.name, data=arrived.data)
    one(store, Turn(run, worker, [row], 0, taken=[(arrived.id, seq)]))
    return row


def reply(
    store: Store, run: int, worker: int, seq: int = 3, data: bytes = b"42", **more: Any
) -> Any:
    """A reply with its row, as a turn writes it."""
    row = Event(seq, REFUSE if more.get("refused") else REPLY, 0, ref=2, name="channel", data=data)
    given: dict[str, Any] = {"to": 2, "refused": False, "at_ms": 7} | more
    effect = Reply(run, worker, seq, **given)
    return one(store, Turn(run, worker, [row], 7, effects=[effect])).effects[0]


def continue_as(store: Store, run: int, worker: int, **more: Any) -> int:
    successor = StartRun("r", "flow", b"{}", 1, 10, None, owner=worker)
    end = Turn(run, worker, [], 10, finish=Finish("completed", successor=successor, **more))
    return int(one(store, end).woken[-1])


def retried(store: Store, run: int, **more: Any) -> int:
    made = ForkRun(run, "r", 2, 20, replace=True, **more)
    return int(one(store, made).run)


def requests_in(store: Store, run: int) -> list[tuple[str, bytes | None]]:
    return [(row.kind, row.data) for row in store.inbox(run, 0)]


# --- asking ---------------------------------------------------------------------------------------


def test_a_request_is_in_the_inbox_with_its_key_and_its_sender(store: Store, other: Store) -> None:
    run = start(store).run
    asked = one(store, request(at_ms=3))
    assert (asked.run, asked.new) == (run, True)
    (arrived,) = other.inbox(run, 0)
    assert (arrived.kind, arrived.name, arrived.data) == ("request", "channel", envelope())
    (waits,) = other.open_requests(run, 10)
    assert (waits.request, waits.key, waits.sender) == (asked.request, "once", "me")
    assert (waits.channel, waits.at_ms) == ("channel", 3)
    assert other.reply(asked.request) is None
    assert other.have_reply([asked.request]) == []


def test_a_key_is_one_request_and_messages_have_keys_of_their_own(store: Store) -> None:
    run = start(store).run
    assert one(store, message(key="once")) == Woken(run)
    first = one(store, request(value=b'{"a":1,"b":2}'))
    again = one(store, request(value=b'{"b":2,"a":1}'))
    assert again == Asked(run, first.request, False)
    assert [row.kind for row in store.inbox(run, 0)] == ["message", "request"]
    assert one(store, request(key="two")).new


def test_a_key_with_another_value_or_channel_is_refused(store: Store) -> None:
    run = start(store).run
    one(store, request())
    other_value = one(store, request(value=b"2"))
    other_channel = one(store, Ask("r", "elsewhere", "once", "me", b"1", 0))
    assert isinstance(other_value, RequestKeyUsed)
    assert "another value" in str(other_value)
    assert isinstance(other_channel, RequestKeyUsed)
    assert "'channel'" in str(other_channel)
    assert len(store.inbox(run, 0)) == 1


def test_requests_count_for_the_limit_of_an_inbox(open_store: OpenStore) -> None:
    store = open_store(Limits(inbox_rows_max=2))
    run, worker = owned(store)
    one(store, message())
    one(store, request())
    assert isinstance(one(store, request(key="two")), InboxFull)
    assert isinstance(one(store, message()), InboxFull)
    assert one(store, request()).new is False, "it is there already"
    one(store, Turn(run, worker, [], 0, unread=1))
    assert len(store.open_requests(run, 10)) == 1


def test_a_request_wakes_a_run_that_waits_and_no_other(store: Store) -> None:
    run, worker = owned(store)
    one(store, suspend(run, worker, "waiting", due_ms=500, release=True))
    one(store, request(at_ms=20))
    assert store.run_row(run).due_ms == 20
    later = start(store, "later", due_ms=500).run
    one(store, request("later"))
    assert store.run_row(later).due_ms == 500


def test_nothing_is_asked_of_a_run_that_is_not_there_or_has_ended(store: Store) -> None:
    assert isinstance(one(store, request("nobody")), RunNotFound)
    run, worker = owned(store)
    one(store, request())
    one(store, finish(run, worker, "failed"))
    assert isinstance(one(store, request(key="new")), RunFinished)
    assert one(store, request()) == Asked(run, store.open_requests(run, 10)[0].request, False)


def test_requests_without_a_reply_are_found_by_their_age(store: Store) -> None:
    run, worker = owned(store)
    one(store, request(at_ms=20))
    one(store, request(key="later", at_ms=30))
    start(store, "other")
    one(store, request("other", at_ms=10))
    assert [row.run_id for row in store.unanswered(30, 10)] == ["other", "r"]
    assert [(row.key, row.at_ms) for row in store.unanswered(31, 10)][1:] == [
        ("once", 20),
        ("later", 30),
    ]
    assert len(store.unanswered(31, 1)) == 1
    one(store, finish(run, worker, "failed"))
    assert [row.run_id for row in store.unanswered(31, 10)] == ["other"]


# --- replies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"42", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("refused", [False, True])
def test_a_reply_is_a_row_and_ends_the_request(store: Store, data: bytes, refused: bool) -> None:
    run, worker = owned(store)
    asked = one(store, request())
    received(store, run, worker)
    assert reply(store, run, worker, data=data, refused=refused) == Replied(asked.request)
    assert store.reply(asked.request) == ReplyRow(refused, data)
    assert store.have_reply([asked.request]) == [asked.request]
    assert store.open_requests(run, 10) == []
    one(store, finish(run, worker, "completed"))
    assert one(store, request()).request == asked.request
    assert store.reply(asked.request) == ReplyRow(refused, data), "also after the run has ended"


def test_the_first_reply_stands(store: Store) -> None:
    run, worker = owned(store)
    asked = one(store, request())
    received(store, run, worker)
    reply(store, run, worker, data=b"1")
    assert reply(store, run, worker, seq=4, data=b"2") is None
    assert store.reply(asked.request) == ReplyRow(False, b"1")


def test_a_reply_to_nothing_is_nothing(store: Store) -> None:
    run, worker = owned(store)
    assert reply(store, run, worker, to=9) is None
    assert store.reply(77) is None
    assert store.have_reply([77]) == [77], "nothing is to be waited for"


def test_only_the_owner_replies_and_exposes(store: Store) -> None:
    run, worker = owned(store)
    asked = one(store, request())
    received(store, run, worker)
    thief = join(store)
    assert isinstance(one(store, Reply(run, thief, 3, 2, False, 7)), LeaseLost)
    assert isinstance(one(store, Expose(run, thief, 3, "stage")), LeaseLost)
    assert store.reply(asked.request) is None
    assert store.exposed(run) == []
    assert reply(store, run, worker) == Replied(asked.request)


# --- runs that go on under the id -----------------------------------------------------------------


def test_requests_without_a_reply_go_on_with_a_successor(store: Store) -> None:
    run, worker = owned(store)
    asked = [one(store, request(key=key)) for key in ("replied", "received", "unread")]
    taken = [received(store, run, worker, seq, place=0) for seq in (2, 3)]
    reply(store, run, worker, seq=4)
    later = continue_as(store, run, worker, requests=[taken[1]])
    assert requests_in(store, later) == [
        ("request", envelope(key="received")),
        ("request", envelope(key="unread")),
    ]
    assert [row.key for row in store.open_requests(later, 10)] == ["received", "unread"]
    received(store, later, worker, place=0)
    assert reply(store, later, worker, data=b"2") == Replied(asked[1].request)
    last = continue_as(store, later, worker)
    received(store, last, worker)
    assert reply(store, last, worker, data=b"3") == Replied(asked[2].request)
    assert [store.reply(one.request) for one in asked] == [
        ReplyRow(False, data) for data in (b"42", b"2", b"3")
    ]
    assert one(store, request(key="replied")).new is False


def test_a_retry_takes_requests_along_and_replies_stand(store: Store) -> None:
    run, worker = owned(store)
    asked = [one(store, request(key=key)) for key in ("replied", "received", "unread")]
    taken = [received(store, run, worker, seq, place=0) for seq in (2, 3)]
    reply(store, run, worker, seq=4)
    one(store, finish(run, worker, "failed"))
    again = retried(store, run, returned=taken)
    assert [data for _, data in requests_in(store, again)] == [
        envelope(key=key) for key in ("replied", "received", "unread")
    ]
    new = join(store)
    assert again in claim(store, new, 30)
    for seq in (2, 3, 4):
        received(store, again, new, seq, place=0)
    assert reply(store, again, new, seq=5, data=b"other") is None
    assert reply(store, again, new, seq=6, to=4) == Replied(asked[2].request)
    assert store.reply(asked[0].request) == ReplyRow(False, b"42")
    assert [row.key for row in store.open_requests(again, 10)] == ["received"]


def test_a_fork_replies_to_nobody(store: Store) -> None:
    run, worker = owned(store)
    asked = one(store, request())
    taken = received(store, run, worker)
    fork = one(store, ForkRun(run, "fork", 3, 9)).run
    new = join(store)
    assert claim(store, new, 10) == [fork]
    own = one(store, request("fork"))
    assert own.new, "a fork has requests of its own"
    assert reply(store, fork, new) is None
    assert store.reply(asked.request) is store.reply(own.request) is None
    later = StartRun("fork", "flow", b"{}", 1, 10, None, owner=new)
    end = Finish("completed", successor=later, requests=[taken])
    successor = one(store, Turn(fork, new, [], 10, finish=end)).woken[-1]
    assert requests_in(store, successor) == [("request", envelope())] * 2
    received(store, successor, new, 2, place=0)
    received(store, successor, new, 3, place=0)
    assert reply(store, successor, new, seq=4) is None
    assert reply(store, successor, new, seq=5, to=3) == Replied(own.request)
    assert reply(store, run, worker) == Replied(asked.request)


# --- starting with a message or a request ---------------------------------------------------------


def begin(id: str = "r", workflow: str = "flow", args: bytes = b"{}") -> StartRun:
    return StartRun(id, workflow, args, 1, 0, 0)


def test_a_run_is_started_with_what_it_is_sent(store: Store, other: Store) -> None:
    asked = one(store, StartAnd(begin(), request()))
    assert asked.new
    assert one(store, StartAnd(begin("m"), message("m"))) == Woken(other.run_key("m"))
    assert requests_in(other, asked.run) == [("request", envelope())]
    assert requests_in(other, other.run_key("m")) == [("message", b"1")]
    assert sorted(claim(store, join(store))) == [asked.run, other.run_key("m")]


def test_a_run_that_is_there_is_sent_to_whatever_its_arguments_are(store: Store) -> None:
    run, worker = owned(store)
    assert one(store, StartAnd(begin(args=b"[2]"), request())).run == run
    later = StartRun("r", "next", b"{}", 1, 10, None, owner=worker)
    end = Turn(run, worker, [], 10, finish=Finish("completed", successor=later))
    later_run = one(store, end).woken[-1]
    for workflow in ("flow", "next"):
        assert one(store, StartAnd(begin(workflow=workflow), message())) == Woken(later_run)
    refused = one(store, StartAnd(begin(workflow="other"), message()))
    assert isinstance(refused, RunExists)
    assert "'other'" in str(refused)


def test_a_run_that_has_ended_is_not_started_again(store: Store) -> None:
    run, worker = owned(store)
    asked = one(store, request())
    one(store, finish(run, worker, "completed"))
    assert isinstance(one(store, StartAnd(begin(), message())), RunFinished)
    assert isinstance(one(store, StartAnd(begin(), request(key="new"))), RunFinished)
    assert one(store, StartAnd(begin(), request())).request == asked.request


# --- exposed values -------------------------------------------------------------------------------


def expose(store: Store, run: int, worker: int, seq: int, name: str, data: bytes) -> None:
    row = Event(seq, EXPOSE, seq, name=name, data=data)
    one(store, Turn(run, worker, [row], 0, effects=[Expose(run, worker, seq, name)]))


def shown(store: Store, run: int) -> dict[str, bytes]:
    return {row.name: row.data for row in store.exposed(run)}


def test_the_last_value_of_a_name_is_exposed(store: Store, other: Store) -> None:
    run, worker = owned(store)
    assert other.exposed(run) == []
    expose(store, run, worker, 2, "stage", b'"begin"')
    expose(store, run, worker, 3, "text", LARGE)
    expose(store, run, worker, 4, "stage", b"null")
    assert shown(other, run) == {"text": LARGE, "stage": b"null"}
    assert [(row.seq, row.at_ms) for row in other.exposed(run)] == [(3, 3), (4, 4)]
    assert other.exposed_value(run, "stage") == b"null"
    assert other.exposed_value(run, "text") == LARGE
    assert other.exposed_value(run, "none") is None


def test_a_fork_and_a_retry_expose_what_their_rows_say(store: Store) -> None:
    run, worker = owned(store)
    expose(store, run, worker, 2, "stage", b"1")
    expose(store, run, worker, 3, "stage", b"2")
    expose(store, run, worker, 4, "other", b"3")
    fork = one(store, ForkRun(run, "fork", 3, 9)).run
    assert shown(store, fork) == {"stage": b"1"}
    one(store, finish(run, worker, "failed"))
    again = one(store, ForkRun(run, "r", 4, 9, replace=True)).run
    assert shown(store, again) == {"stage": b"2"}
    assert shown(store, run) == {"stage": b"2", "other": b"3"}


def test_a_successor_exposes_nothing_before_it_says_so(store: Store) -> None:
    run, worker = owned(store)
    expose(store, run, worker, 2, "stage", b"1")
    later = continue_as(store, run, worker)
    assert store.exposed(later) == []
    assert shown(store, run) == {"stage": b"1"}


# --- pruned runs ----------------------------------------------------------------------------------


def prune(store: Store, before_ms: int) -> None:
    found = store.prunable("completed", before_ms, (-1, 0), 100).found
    one(store, PruneRuns(found, 200, lambda: False))
    assert one(store, SweepPruned(10**6, 200, before_ms, lambda: False)).done


def test_requests_and_exposed_values_go_with_their_run(store: Store) -> None:
    run, worker = owned(store)
    asked = one(store, request())
    received(store, run, worker)
    reply(store, run, worker)
    expose(store, run, worker, 4, "stage", b"1")
    one(store, finish(run, worker, "completed", 5))
    owned(store, "newest")
    prune(store, 100)
    assert not store.has_run("r")
    assert store.exposed(run) == []
    assert store.reply(asked.request) is None
    assert store.have_reply([asked.request]) == [asked.request]
    start(store)
    again = one(store, request())
    assert again.new
    assert again.request > asked.request, "the number of a request is not given again"


def test_a_reply_goes_with_the_generation_that_gave_it(store: Store) -> None:
    run, worker = owned(store)
    asked = one(store, request())
    received(store, run, worker)
    reply(store, run, worker)
    later = continue_as(store, run, worker)
    prune(store, 100)
    refused = one(store, request())
    assert isinstance(refused, RequestKeyUsed)
    assert "pruned" in str(refused)
    assert store.reply(asked.request) is None
    assert one(store, request(key="new")).run == later
