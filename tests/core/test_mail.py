"""Requests and exposed values in the kernel: queues of their own, one reply, the same on replay."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from perdure import AlreadyReplied, BadName, expose, receive, receive_request, workflow
from perdure.api.requests import Request
from perdure.core import events as ev
from perdure.core.limits import EXPOSED_NAMES_MAX
from perdure.errors import Nondeterminism, NotSerializable
from tests.core.support import Hand


def ask(hand: Hand, value: Any, key: str = "k", channel: str = "c") -> list[ev.Command]:
    data = msgspec.json.encode({"key": key, "sender": "me", "value": value})
    return hand.feed(ev.REQUEST, name=channel, data=data)


def said(commands: list[ev.Command]) -> list[tuple[Any, ...]]:
    return [(one.kind, one.name, one.ref, one.data) for one in commands]


@workflow
async def echo(times: int) -> None:
    for _ in range(times):
        request = await receive_request("c", int)
        request.reply([request.value, request.sender, request.key, request.channel])


def test_a_reply_refers_to_its_request() -> None:
    hand = Hand(echo(2))
    assert said(ask(hand, 5)) == [("reply", "c", 2, b'[5,"me","k","c"]')]
    assert hand.kernel.mail.unread == 0
    assert hand.kernel.mail.open_requests() == []
    again = Hand(echo(2), hand.rows)
    assert again.rows == hand.rows
    assert ask(again, 6)[0].kind == "reply"


def test_messages_and_requests_of_one_channel_are_two_queues() -> None:
    @workflow
    async def both() -> list[Any]:
        message, request = await asyncio.gather(receive("c", int), receive_request("c", int))
        request.reply(None)
        return [message, request.value]

    hand = Hand(both())
    assert hand.kernel.waiting_for() == [
        {"message": "c", "type": "int", "seq": 1, "since_ms": hand.rows[0].at_ms},
        {"request": "c", "type": "int", "seq": 1, "since_ms": hand.rows[0].at_ms},
    ]
    ask(hand, 1)
    ask(hand, 2)
    assert hand.kernel.outcome is None
    hand.feed(ev.MESSAGE, name="c", data=b"3")
    assert hand.kernel.outcome == ev.Completed(b"[3,1]")


def test_a_request_that_does_not_fit_is_refused_and_the_next_one_is_taken() -> None:
    hand = Hand(echo(1))
    (refusal,) = ask(hand, "five", key="bad")
    assert (refusal.kind, refusal.ref) == ("reject", 2)
    assert b"Expected `int`" in (refusal.data or b"")
    assert ask(hand, 5)[0].kind == "reply"
    assert Hand(echo(1), hand.rows).rows == hand.rows
    assert hand.kernel.mail.unread == 0


@pytest.mark.parametrize("first", ["reply", "refuse"])
@pytest.mark.parametrize("second", ["reply", "refuse"])
def test_a_second_reply_is_an_error_at_its_line(first: str, second: str) -> None:
    caught: list[Exception] = []

    @workflow
    async def twice() -> None:
        request = await receive_request("c")
        getattr(request, first)("one")
        try:
            getattr(request, second)("two")
        except AlreadyReplied as error:
            caught.append(error)

    hand = Hand(twice())
    assert [one.kind for one in ask(hand, 1, key="k7")] == [first, "finish"]
    assert "'k7'" in str(caught[0])
    assert "'c'" in str(caught[0])


def test_a_reply_that_cant_be_encoded_leaves_the_request_open() -> None:
    @workflow
    async def odd() -> None:
        request = await receive_request("c")
        with pytest.raises(NotSerializable, match="the reply on channel 'c'"):
            request.reply(object())
        request.reply("after all")

    hand = Hand(odd())
    assert said(ask(hand, 1))[0] == ("reply", "c", 2, b'"after all"')


def test_what_is_open_goes_on_received_or_not() -> None:
    kept: list[Request[Any]] = []

    @workflow
    async def keeps() -> None:
        for _ in range(2):
            kept.append(await receive_request("c"))  # noqa: PERF401
        kept[-2].reply(1)
        await receive("never")

    hand = Hand(keeps())
    for number in range(4):
        ask(hand, number, key=f"k{number}")
    assert [row.seq for row in hand.kernel.mail.open_requests()] == [3, 5, 6]
    assert hand.kernel.mail.leftovers() == []
    assert hand.kernel.mail.unread == 2


def test_a_receiver_that_gives_up_passes_its_turn_on() -> None:
    @workflow
    async def impatient() -> int:
        first = asyncio.ensure_future(receive_request("c", int))
        second = asyncio.ensure_future(receive_request("c", int))
        await receive("go")
        first.cancel()
        return (await second).value

    hand = Hand(impatient())
    hand.feed(ev.MESSAGE, name="go", data=b"1")
    ask(hand, 8)
    assert hand.kernel.outcome == ev.Completed(b"8")


def test_another_reply_on_replay_is_found() -> None:
    @workflow(name="echo")
    async def changed(times: int) -> None:
        (await receive_request("c", int)).reply("something else")

    hand = Hand(echo(2))
    ask(hand, 5)
    with pytest.raises(Nondeterminism, match="reply c"):
        Hand(changed(2), hand.rows)


# --- exposed values -------------------------------------------------------------------------------


def test_each_exposed_value_is_a_row() -> None:
    @workflow
    async def shows() -> None:
        expose(stage="begin", n=1)
        await receive("go")
        expose(n=None)

    hand = Hand(shows())
    hand.feed(ev.MESSAGE, name="go", data=b"1")
    rows = [(row.name, row.data) for row in hand.rows if row.kind == ev.EXPOSE]
    assert rows == [("stage", b'"begin"'), ("n", b"1"), ("n", b"null")]
    assert Hand(shows(), hand.rows).rows == hand.rows


def test_of_values_that_cant_all_be_exposed_none_is() -> None:
    @workflow
    async def odd() -> None:
        with pytest.raises(NotSerializable, match="the exposed value 'second'"):
            expose(first=1, second=object())
        with pytest.raises(BadName, match="at most 1,000"):
            expose(**{f"n{number}": number for number in range(EXPOSED_NAMES_MAX + 1)})
        with pytest.raises(BadName):
            expose(**{"nul\0": 1})
        expose(**{f"n{number}": number for number in range(EXPOSED_NAMES_MAX)})
        expose(n7="again")
        with pytest.raises(BadName, match="at most 1,000"):
            expose(more=1)

    hand = Hand(odd())
    assert hand.kernel.outcome == ev.Completed(b"null")
    names = [row.name for row in hand.rows if row.kind == ev.EXPOSE]
    assert names == [*(f"n{number}" for number in range(EXPOSED_NAMES_MAX)), "n7"]
