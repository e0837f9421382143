"""The loop and the kernel in small: order of callbacks, time, endings and errors that are not `Exception`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.core.support import AT_MS, Hand

from perdure import Nondeterminism, continue_as, now, receive, step, workflow
from perdure.codec import JsonCodec
from perdure.core import events as ev
from perdure.core.events import Event, RunFacts
from perdure.core.replay import Kernel


@step
async def fetch(url: str) -> int:
    return 1


def fire_all(hand: Hand) -> None:
    while (due := hand.kernel.due()) is not None:
        hand.feed(ev.FIRED, ref=due[1])


def result(hand: Hand) -> bytes:
    outcome = hand.kernel.outcome
    assert isinstance(outcome, ev.Completed), outcome
    return outcome.result


# --- order ----------------------------------------------------------------------------------------


def test_callbacks_run_in_the_order_in_which_they_were_scheduled() -> None:
    @workflow
    async def orders() -> list[str]:
        seen: list[str] = []

        async def task(name: str) -> None:
            seen.append(f"{name} 1")
            await asyncio.sleep(0)
            seen.append(f"{name} 2")

        asyncio.get_running_loop().call_soon(seen.append, "callback")
        await asyncio.gather(task("a"), task("b"))
        return seen

    assert result(Hand(orders())) == b'["callback","a 1","b 1","a 2","b 2"]'


def test_eager_tasks_wait_for_their_turn() -> None:
    @workflow
    async def eager() -> list[str]:
        seen: list[str] = []

        async def task() -> None:
            seen.append("task")

        create_task: Any = asyncio.get_running_loop().create_task
        begun = create_task(task(), eager_start=True)
        seen.append("workflow")
        await begun
        return seen

    assert result(Hand(eager())) == b'["workflow","task"]'


def test_timers_are_due_by_deadline_and_not_when_cancelled() -> None:
    @workflow
    async def naps() -> None:
        asyncio.get_running_loop().call_later(1, print).cancel()
        await asyncio.gather(asyncio.sleep(30), asyncio.sleep(10), asyncio.sleep(20))

    hand = Hand(naps())
    deadlines = []
    while (due := hand.kernel.due()) is not None:
        deadlines.append(due[0] - AT_MS)
        hand.feed(ev.FIRED, ref=due[1])
    assert deadlines == [10_000, 20_000, 30_000]


@pytest.mark.parametrize("seconds", [0, -1, -0.5])
def test_a_sleep_of_no_time_sets_no_timer(seconds: float) -> None:
    @workflow
    async def naps() -> int:
        await asyncio.sleep(seconds)
        return 1

    assert [row.kind for row in Hand(naps()).rows] == [ev.START, ev.FINISH]


# --- time -----------------------------------------------------------------------------------------


def test_time_stands_still_between_inputs_and_never_goes_back() -> None:
    @workflow
    async def looks() -> list[bool]:
        first = now()
        await asyncio.sleep(0)
        second = now()
        await fetch("a")
        return [first == second, now() == second]

    hand = Hand(looks())
    late = hand.kernel.stamp(ev.COMPLETED, AT_MS - 5_000, ref=min(hand.kernel.open), data=b"1")
    assert late.at_ms == AT_MS
    hand.kernel.feed(late)
    assert result(hand) == b"[true,true]"


def test_a_run_has_a_time_limit_of_its_own() -> None:
    @workflow
    async def long() -> None:
        await fetch("a")

    kernel = Kernel(long.fn, long, RunFacts("r", "long", 1, timeout_ms=1_500), JsonCodec())
    kernel.feed(kernel.stamp(ev.START, AT_MS))
    due = kernel.due()
    assert due is not None and due[0] == AT_MS + 1_500
    kernel.feed(kernel.stamp(ev.FIRED, due[0], ref=due[1]))
    assert isinstance(kernel.outcome, ev.Failed) and b"TimeoutError" in kernel.outcome.error


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), BaseException("base"), StopIteration(1)], ids=lambda e: type(e).__name__)
def test_an_error_that_is_no_exception_fails_the_run(error: BaseException) -> None:
    @workflow
    async def leaves() -> None:
        raise error

    named = "RuntimeError" if isinstance(error, StopIteration) else type(error).__name__
    assert f'"type":"{named}"' in Hand(leaves()).error


def test_a_task_that_wants_to_exit_is_an_error_of_its_group() -> None:
    @workflow
    async def group() -> str:
        async def leaves() -> None:
            raise SystemExit(2)

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(leaves())
                await fetch("a")
        except SystemExit as error:
            return f"exit {error.code}"
        return "not reached"

    assert result(Hand(group())) == b'"exit 2"'


def test_all_errors_of_a_group_are_recorded() -> None:
    @workflow
    async def group() -> None:
        async def fails(n: int) -> None:
            raise ValueError(f"error {n}")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fails(1))
            tasks.create_task(fails(2))

    error = Hand(group()).error
    assert all(words in error for words in ("ExceptionGroup", "error 1", "error 2"))


def test_continue_as_goes_through_what_catches_exceptions() -> None:
    @workflow
    async def stubborn(n: int) -> int:
        try:
            continue_as(stubborn(n + 1))
        except Exception:
            pass
        return n

    hand = Hand(stubborn(1))
    assert isinstance(hand.kernel.outcome, ev.Continued)
    assert hand.rows[-1].data == b'{"workflow":"stubborn","args":{"n":2}}'


def test_messages_nobody_received_are_left_for_the_successor() -> None:
    @workflow
    async def one_of_three() -> int:
        return await receive("x", int)

    hand = Hand(one_of_three())
    hand.feed(ev.MESSAGE, name="y", data=b"7")
    hand.feed(ev.MESSAGE, name="x", data=b"1")
    hand.feed(ev.MESSAGE, name="x", data=b"2")
    assert result(hand) == b"1"
    assert sorted(hand.kernel.leftovers()) == [("x", b"2"), ("y", b"7")]


# --- matching -------------------------------------------------------------------------------------


class Pieces:
    """A payload that a store hands over in pieces."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self) -> bytes:
        return self.data

    def same_as(self, raw: bytes) -> bool:
        return self.data == raw


@workflow(name="w")
async def recorded(word: str) -> int:
    return await fetch(word)


def in_pieces(rows: list[Event]) -> list[Any]:
    return [Event(r.seq, r.kind, r.at_ms, r.ref, r.name, Pieces(r.data) if isinstance(r.data, bytes) else None) for r in rows]


def test_arguments_in_pieces_match_and_are_shown_where_they_differ() -> None:
    @workflow(name="w")
    async def changed(word: str) -> int:
        return await fetch(word.replace("old", "new"))

    rows = in_pieces(Hand(recorded("x" * 9000 + "old")).rows)
    assert Hand(recorded("x" * 9000 + "old"), rows).kernel.open
    with pytest.raises(Nondeterminism) as error:
        Hand(changed("x" * 9000 + "old"), rows)
    assert 'old"}' in str(error.value) and 'new"}' in str(error.value)
    assert len(str(error.value)) < 1_000


def test_a_history_that_goes_on_where_the_code_is_done_is_a_difference() -> None:
    @workflow(name="w")
    async def done(word: str) -> int:
        return 1

    with pytest.raises(Nondeterminism) as error:
        Hand(done("a"), Hand(recorded("a")).rows)
    assert "history, row 2: step fetch" in str(error.value)
    assert "code now asks for: finish completed" in str(error.value)


def test_a_difference_can_be_put_right() -> None:
    @workflow(name="w")
    async def changed(word: str) -> int:
        return await fetch(word * 2)

    hand = Hand(recorded("a"))
    with pytest.raises(Nondeterminism):
        Hand(changed("a"), hand.rows)
    again = Hand(recorded("a"), hand.rows)
    again.answer()
    assert result(again) == b"1"
