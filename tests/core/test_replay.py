"""The kernel by hand: matching, diffs, patches, messages, timers and endings."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from perdure import Nondeterminism, patched, receive, step, workflow
from perdure.api.definitions import Call
from perdure.core import events as ev
from perdure.core.events import Event
from perdure.errors import EndlessTurn
from tests.core.support import Hand


@step
async def fetch(url: str) -> int:
    return 1


@step
async def other(url: str) -> int:
    return 1


@workflow
async def recorded() -> int:
    await fetch("a")
    return await fetch("b")


@workflow(name="recorded")
async def renamed() -> int:
    await fetch("a")
    return await other("b")


@workflow(name="recorded")
async def changed() -> int:
    await fetch("a")
    return await fetch("c")


@workflow(name="recorded")
async def shorter() -> int:
    return await fetch("a")


@workflow(name="recorded")
async def longer() -> int:
    await asyncio.gather(fetch("a"), other("x"))
    return 1


DIFFS: list[tuple[Call[Any], list[str]]] = [
    (renamed(), ["history, row 4: step fetch", "code now asks for: step other", '{"url":"b"}']),
    (changed(), ["history, row 4: step fetch", '{"url":"b"}', '{"url":"c"}']),
    (shorter(), ["history, row 4: step fetch", "code now asks for: finish completed"]),
    (longer(), ["history, row 3: completed", "code now asks for: step other"]),
]


@pytest.mark.parametrize(
    ("call", "says"), DIFFS, ids=["other step", "other arguments", "less", "more"]
)
def test_a_difference_is_told_in_words(call: Call[Any], says: list[str]) -> None:
    hand = Hand(recorded())
    hand.answer()
    with pytest.raises(Nondeterminism) as error:
        Hand(call, hand.rows)
    for words in [*says, "Nothing was changed", "patched()"]:
        assert words in str(error.value)


def test_long_arguments_are_shown_where_they_differ() -> None:
    @workflow(name="w")
    async def before() -> int:
        return await fetch("x" * 5000 + "old")

    @workflow(name="w")
    async def after() -> int:
        return await fetch("x" * 5000 + "new")

    with pytest.raises(Nondeterminism) as error:
        Hand(after(), Hand(before()).rows)
    assert "old" in str(error.value)
    assert "new" in str(error.value)
    assert len(str(error.value)) < 1000


def test_a_patch_is_off_for_old_runs_and_on_for_new_ones() -> None:
    @workflow(name="w")
    async def before() -> list[int]:
        return [await fetch("a"), await fetch("b")]

    @workflow(name="w")
    async def after() -> list[int]:
        found = [await fetch("a")]
        if patched("twice"):
            found.append(await other("a"))
        return [*found, await fetch("b")]

    old = Hand(before())
    old.answer()
    assert [command.name for command in Hand(after(), old.rows).kernel.open.values()] == ["fetch"]
    new = Hand(after())
    new.answer()
    again = Hand(after(), new.rows)
    assert [command.name for command in again.kernel.open.values()] == ["other"]
    again.answer()
    again.answer()
    assert again.kernel.outcome == ev.Completed(b"[1,1,1]")


@workflow(name="w")
async def alone() -> list[int]:
    return [await fetch("a")]


@workflow(name="w")
async def in_company() -> list[int]:
    return list(await asyncio.gather(fetch("a"), other("b"), other("c")))


@workflow(name="w")
async def in_company_if_new() -> list[int]:
    first = asyncio.create_task(fetch("a"))
    await asyncio.sleep(0)  # it is asked for before the patch is
    return [await first] if not patched("more") else list(await asyncio.gather(first, other("b")))


@workflow(name="w")
async def ends_at_once() -> list[int]:
    asyncio.ensure_future(fetch("a"))  # noqa: RUF006
    await asyncio.sleep(0)
    return [0]


def noted(hand: Hand, notes: int) -> list[Event]:
    """The rows, and as many notes behind them as a step that fails again and again leaves."""
    return hand.rows + [
        hand.kernel.stamp(ev.ATTEMPT, 0, ref=2, data=b'{"error":{}}') for _ in range(notes)
    ]


@pytest.mark.parametrize(
    "call", [in_company(), in_company_if_new(), ends_at_once()], ids=["steps", "patched", "finish"]
)
@pytest.mark.parametrize("notes", [1, 3])
def test_what_new_code_asks_for_is_numbered_behind_the_notes_and_replays(
    call: Call[Any], notes: int
) -> None:
    """A command that no row recorded got the number of the note that stood there."""
    rows = noted(Hand(alone()), notes)
    hand = Hand(call, rows)
    assert len(hand.rows) > len(rows)
    assert [row.seq for row in hand.rows] == list(range(1, len(hand.rows) + 1))
    if hand.kernel.outcome is not None:
        return
    later = Hand(call, noted(hand, 1))
    assert later.kernel.open.keys() == hand.kernel.open.keys()
    while later.kernel.outcome is None:
        later.answer()
    assert [row.seq for row in later.rows] == list(range(1, len(later.rows) + 1))
    assert isinstance(Hand(call, later.rows).kernel.outcome, ev.Completed)


def test_a_patch_in_a_turn_that_is_not_the_last_is_off_although_a_note_follows() -> None:
    old = Hand(alone())
    rows = noted(old, 1)
    old.rows = rows
    old.answer()
    assert Hand(in_company_if_new(), old.rows).kernel.outcome == ev.Completed(b"[1]")


def test_a_loop_that_never_waits_is_stopped() -> None:
    @workflow
    async def spins() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with pytest.raises(EndlessTurn, match="without waiting"):
        Hand(spins())


def test_timers_of_one_moment_fire_in_the_order_in_which_they_were_set() -> None:
    order: list[int] = []

    async def nap(n: int) -> None:
        await asyncio.sleep(5)
        order.append(n)

    @workflow
    async def naps() -> None:
        await asyncio.sleep(-1)
        await asyncio.gather(*(nap(n) for n in range(4)))

    hand = Hand(naps())
    while (due := hand.kernel.due()) is not None:
        hand.feed(ev.FIRED, ref=due[1])
    assert order == [0, 1, 2, 3]


def test_a_message_goes_to_the_next_receiver_when_the_first_has_given_up() -> None:
    @workflow
    async def two() -> list[str]:
        async def first() -> str:
            try:
                async with asyncio.timeout(1):
                    return await receive("x", str)
            except TimeoutError:
                return "gave up"

        return list(await asyncio.gather(first(), receive("x", str)))

    hand = Hand(two())
    due = hand.kernel.due()
    assert due is not None
    hand.feed(ev.FIRED, ref=due[1])
    hand.feed(ev.MESSAGE, name="x", data=b'"mail"')
    assert hand.kernel.outcome == ev.Completed(b'["gave up","mail"]')


def test_a_message_of_another_type_is_noted_and_passed_over() -> None:
    @workflow
    async def wants() -> int:
        return await receive("x", int)

    hand = Hand(wants())
    (rejected,) = hand.feed(ev.MESSAGE, name="x", data=b'"word"')
    assert rejected.kind == ev.REJECT
    hand.feed(ev.MESSAGE, name="x", data=b"5")
    assert hand.kernel.outcome == ev.Completed(b"5")


def test_sys_exit_in_a_workflow_fails_the_run_only() -> None:
    @workflow
    async def leaves() -> None:
        raise SystemExit(3)

    assert "SystemExit" in Hand(leaves()).error


def test_what_is_left_behind_is_cancelled_and_may_clean_up() -> None:
    @workflow
    async def leaves() -> int:
        async def background() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await other("cleaning")

        task = asyncio.create_task(background())
        await asyncio.sleep(0)
        assert not task.done()
        return 1

    hand = Hand(leaves())
    assert hand.kernel.outcome is None
    assert [command.name for command in hand.kernel.open.values()] == ["other"]
    hand.answer()
    assert hand.kernel.outcome == ev.Completed(b"1")


def test_sets_of_asyncio_are_plain_outside_of_workflows() -> None:
    async def main() -> None:
        tasks = [asyncio.ensure_future(asyncio.sleep(0)) for _ in range(3)]
        done, pending = await asyncio.wait(tasks)
        assert (type(done), type(pending), len(done)) == (set, set, 3)

    asyncio.run(main())


def test_wait_keeps_the_order_in_which_things_were_given() -> None:
    @workflow
    async def waits() -> list[str]:
        tasks = [asyncio.create_task(fetch(name), name=name) for name in "dbca"]
        done, _ = await asyncio.wait(tasks)
        return [task.get_name() for task in done]

    hand = Hand(waits())
    for _ in range(4):
        hand.answer()
    assert hand.kernel.outcome == ev.Completed(b'["d","b","c","a"]')


def _sells(*fields: Any) -> Any:
    """The workflow of one version of a program, whose `Order` has these fields."""
    order_class: Any = dataclasses.make_dataclass("Order", [("id", str), *fields])

    @step(name="load")
    async def load(id: str) -> order_class: ...

    @step(name="reserve")
    async def reserve(order: order_class) -> int: ...

    @workflow(name="sell")
    async def sell(id: str) -> int:
        order = await load(id)
        return await reserve(order)

    return sell


def test_a_new_field_with_a_default_is_no_other_call() -> None:
    old = Hand(_sells()("o-1"))
    old.answer(b'{"id":"o-1"}')
    new = Hand(
        _sells(("notes", list[str], dataclasses.field(default_factory=list)))("o-1"), old.rows
    )
    new.answer()
    assert new.kernel.outcome == ev.Completed(b"1")
