"""The loop and the kernel in small: order of callbacks, time, endings and errors that are not
`Exception`.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import sys
import warnings
from typing import Any

import pytest

from perdure import Nondeterminism, continue_as, now, receive, step, workflow
from perdure.codec.json_codec import JsonCodec
from perdure.core import events as ev
from perdure.core.events import Event, RunFacts
from perdure.core.replay import Kernel
from tests.core.support import AT_MS, Hand


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


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="asyncio begins eager tasks from Python 3.12 on"
)
def test_eager_tasks_begin_at_once() -> None:
    @workflow
    async def eager() -> list[str]:
        seen: list[str] = []

        async def task(name: str) -> None:
            seen.append(name)
            seen.append(f"{name} {await fetch(name)}")

        loop: Any = asyncio.get_running_loop()
        begun = loop.create_task(task("a"), eager_start=True)
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        also = asyncio.create_task(task("b"))
        seen.append("workflow")
        await asyncio.gather(begun, also)
        return seen

    hand = Hand(eager())
    hand.answer()
    hand.answer()
    assert result(hand) == b'["a","b","workflow","a 1","b 1"]'


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


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), GeneratorExit(), BaseException("base"), StopIteration(1)],
    ids=lambda e: type(e).__name__,
)
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
    assert sorted(hand.kernel.mail.leftovers()) == [("x", b"2"), ("y", b"7")]


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
    return [
        Event(
            r.seq,
            r.kind,
            r.at_ms,
            r.ref,
            r.name,
            Pieces(r.data) if isinstance(r.data, bytes) else None,
        )
        for r in rows
    ]


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


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The first lines of what was logged, but for the ends of runs that other tests have left in
    memory.
    """
    return [
        text.splitlines()[0]
        for record in caplog.records
        if "destroyed" not in (text := record.getMessage())
    ]


# --- as asyncio's own loop ------------------------------------------------------------------------


def test_an_error_in_a_callback_is_logged_and_the_run_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @workflow
    async def calls_back(error: str) -> int:
        task = asyncio.create_task(fetch("a"))
        kinds = {"zero": ZeroDivisionError, "cancelled": asyncio.CancelledError}

        def fails(_: object) -> None:
            raise kinds[error]("on purpose")

        task.add_done_callback(fails)
        asyncio.get_running_loop().call_soon(fails, None)
        asyncio.get_running_loop().call_later(0.5, fails, None)
        await asyncio.sleep(1)
        return await task

    for error in ("zero", "cancelled"):
        caplog.clear()
        hand = Hand(calls_back(error))
        hand.answer()
        fire_all(hand)
        assert result(hand) == b"1"
        assert [text.partition("<")[0] for text in messages(caplog)] == [
            "run r: Exception in callback "
        ] * 3
        caplog.clear()
        again = Hand(calls_back(error), hand.rows)
        assert again.kernel.outcome is not None
        assert messages(caplog) == []


def test_a_handler_of_exceptions_is_asked() -> None:
    @workflow
    async def handles() -> list[str]:
        heard: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(
            lambda _, context: heard.append(type(context["exception"]).__name__)
        )
        assert loop.get_exception_handler() is not None
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        return heard

    assert result(Hand(handles())) == b'["ZeroDivisionError"]'


def test_a_handler_of_exceptions_runs_in_the_context_of_what_failed_and_is_told_of_it() -> None:
    word = contextvars.ContextVar("word", default="none")

    @workflow
    async def handles() -> list[Any]:
        heard: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(
            lambda _, context: heard.append([word.get(), context["handle"] is handle])
        )
        word.set("of the callback")
        handle = loop.call_soon(lambda: 1 / 0)
        word.set("later")
        await asyncio.sleep(0)
        return heard

    assert result(Hand(handles())) == b'[["of the callback",true]]'


def test_a_handler_of_exceptions_that_fails_is_logged_and_the_run_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise ValueError("no text")

    @workflow
    async def handles() -> int:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "odd", "thing": Odd()})

        def fails(*_: Any) -> None:
            raise LookupError("on purpose")

        loop.set_exception_handler(fails)
        loop.call_soon(fails)
        await asyncio.sleep(0)
        return 1

    assert result(Hand(handles())) == b"1"
    said = "run r: Unhandled error in exception handler, for: "
    assert [text.partition("<")[0] for text in messages(caplog)] == [
        said + "odd",
        said + "Exception in callback ",
    ]


def test_what_cannot_be_called_is_no_handler_and_no_factory() -> None:
    @workflow
    async def sets(what: str) -> None:
        getattr(asyncio.get_running_loop(), what)("text")

    for what in ("set_exception_handler", "set_task_factory"):
        assert "TypeError" in Hand(sets(what)).error


def test_a_factory_of_tasks_need_not_know_of_names_and_its_tasks_end_with_the_run() -> None:
    ended: list[str] = []

    @workflow
    async def makes() -> list[str]:
        async def works() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("cancelled")

        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro: asyncio.Task(coro, loop=loop))
        made = [asyncio.create_task(works(), name="mine"), asyncio.create_task(works())]
        await asyncio.sleep(0)
        assert set(made) < asyncio.all_tasks()
        return [task.get_name() for task in made]

    for _ in range(2):
        assert result(Hand(makes())) == b'["mine","Task-3"]'
    assert ended == ["cancelled"] * 4


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="asyncio begins eager tasks from Python 3.12 on"
)
def test_eager_tasks_are_those_of_the_run() -> None:
    ended: list[str] = []

    @workflow
    async def eager(own: bool) -> list[str]:
        async def works() -> None:
            seen.append(asyncio.current_task() in asyncio.all_tasks())
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("cancelled")

        seen: list[bool] = []
        loop: Any = asyncio.get_running_loop()
        factory = (
            asyncio.create_eager_task_factory(asyncio.Task) if own else asyncio.eager_task_factory  # type: ignore[attr-defined]
        )
        loop.set_task_factory(factory)
        task = asyncio.create_task(works())
        assert seen == [True]
        return [task.get_name(), type(task).__module__]

    assert result(Hand(eager(False))) == b'["Task-2","perdure.core.loop"]'
    assert result(Hand(eager(True))) == b'["Task-2","_asyncio"]'
    assert ended == ["cancelled"] * 2


def test_the_error_of_a_forgotten_task_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def forgets() -> int:
        async def fails() -> None:
            raise ValueError("forgotten")

        asyncio.create_task(fails())  # noqa: RUF006
        return await fetch("a")

    hand = Hand(forgets())
    hand.answer()
    hand.kernel.discard()
    assert messages(caplog) == ["run r: Task exception was never retrieved"]
    assert "future: <Task finished name='Task-2'" in caplog.text
    assert (caplog.records[0].run_id, caplog.records[0].workflow) == ("r", "forgets")  # type: ignore[attr-defined]
    caplog.clear()
    Hand(forgets(), hand.rows).kernel.discard()
    assert messages(caplog) == []


def test_an_interrupt_of_the_process_goes_through() -> None:
    @workflow
    async def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Hand(interrupted())


def test_every_method_of_a_loop_is_there_or_refused_by_name() -> None:
    @workflow
    async def asks() -> list[str]:
        loop, base = asyncio.get_running_loop(), asyncio.AbstractEventLoop
        names = [name for name in dir(base) if not name.startswith("_")]
        missing = [name for name in names if getattr(type(loop), name) is getattr(base, name)]
        timer = loop.call_later(1, print)
        assert timer.when() == loop.time() + 1
        timer.cancel()
        await loop.shutdown_default_executor()
        return missing

    assert result(Hand(asks())) == b"[]"


def test_a_task_that_is_made_without_the_loop_ends_with_the_run() -> None:
    ended: list[str] = []

    @workflow
    async def makes() -> int:
        async def works() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("cancelled")

        task = asyncio.Task(works(), loop=asyncio.get_running_loop())
        await asyncio.sleep(0)
        assert task in asyncio.all_tasks()
        future: asyncio.Future[int] = asyncio.Future()
        asyncio.get_running_loop().call_soon(future.set_result, 5)
        return await future

    assert result(Hand(makes())) == b"5"
    assert ended == ["cancelled"]


def test_async_generators_are_closed_at_the_end_and_may_await_steps_for_it() -> None:
    ran: list[str] = []

    @workflow
    async def walks() -> int:
        async def rows() -> Any:
            try:
                yield 1
                yield 2
            finally:
                ran.append(f"closed {await fetch('close')}")

        async for row in rows():
            return int(row)
        return 0

    hand = Hand(walks())
    assert hand.kernel.outcome is None
    hand.answer()
    assert result(hand) == b"1"
    assert ran == ["closed 1"]


def test_delays_are_rounded_up_and_some_never_end() -> None:
    @workflow
    async def naps() -> None:
        loop = asyncio.get_running_loop()
        for delay in (0.07, 0.0011, 1.001, 10.0):
            loop.call_later(delay, print)
        loop.call_at(loop.time() + 0.07, print)
        loop.call_later(math.inf, print)
        async with asyncio.timeout(math.inf):
            await asyncio.sleep(sys.maxsize)

    hand = Hand(naps())
    times = sorted(timer.when_ms - AT_MS for timer in hand.kernel.timers.values())
    assert times[:5] == [2, 70, 70, 1001, 10_000]
    fire_all(hand)
    assert hand.kernel.due() is None
    assert hand.kernel.waiting_for()[0]["timer"] is None

    @workflow
    async def not_a_number() -> None:
        asyncio.get_running_loop().call_later(math.nan, print)

    assert "can't be NaN" in Hand(not_a_number()).error


@pytest.mark.parametrize(
    "change",
    [
        lambda pending, new: pending.update({new}),
        lambda pending, new: pending.__ior__({new}),
        lambda pending, new: pending.__ixor__({new}),
        lambda pending, new: pending.symmetric_difference_update([new]),
        lambda pending, new: pending.add(new),
    ],
)
@pytest.mark.parametrize(
    "derive",
    [
        lambda pending: pending,
        lambda pending: pending | set(),
        lambda pending: pending.copy(),
        lambda pending: pending.union([]),
        lambda pending: pending - {1},
        lambda pending: pending & set(pending),
        lambda pending: pending ^ set(),
    ],
)
def test_what_wait_gives_is_a_set_in_every_operation(change: Any, derive: Any) -> None:
    @workflow
    async def waits() -> list[int]:
        first = [asyncio.create_task(fetch(str(n))) for n in range(2)]
        done, pending = await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        pending = derive(pending)
        change(pending, asyncio.create_task(fetch("new")))
        assert len(pending) == len(list(pending)) == 2
        assert repr(pending) == f"{{{', '.join(map(repr, pending))}}}"
        found = [task.result() for task in done]
        while pending:
            done, pending = await asyncio.wait(pending)
            found += [task.result() for task in done]
        assert first[0] not in pending
        return found

    hand = Hand(waits())
    for n in range(3):
        hand.answer(str(n).encode())
    assert result(hand) == b"[0,1,2]"


# --- calls as coroutines --------------------------------------------------------------------------


def test_a_call_that_is_cancelled_before_its_turn_is_not_carried_out() -> None:
    @workflow
    async def work() -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fetch("never"))
                raise ValueError("wrong")
        except* ValueError:
            pass
        task = asyncio.create_task(fetch("never"))
        task.cancel()
        await asyncio.wait([task])
        return "done"

    hand = Hand(work())
    assert result(hand) == b'"done"'
    assert [row.kind for row in hand.rows] == [ev.START, ev.FINISH]


def test_a_call_is_awaited_once() -> None:
    @workflow
    async def work(how: str) -> str:
        call = fetch("a")
        try:
            if how == "twice":
                await call
                await call
            else:
                await asyncio.gather(asyncio.create_task(call), asyncio.create_task(call))
        except RuntimeError as error:
            return str(error)
        return "both"

    for how in ("twice", "by two tasks"):
        hand = Hand(work(how))
        if hand.kernel.open:
            hand.answer()
        assert b"awaited before" in result(hand)
        assert [row.kind for row in hand.rows].count(ev.STEP) == 1


def test_a_forgotten_await_is_said() -> None:
    @workflow
    async def forgets(again: bool) -> None:
        fetch("a")
        for call in (fetch("b"), fetch("c")):
            if again:
                await call
            else:
                call.close()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Hand(forgets(False))
    assert [str(one.message) for one in caught] == [
        "step fetch was called and never awaited: nothing is done"
    ]


def test_libraries_see_that_a_call_is_to_be_awaited() -> None:
    import inspect

    for definition in (fetch, fetch.options(timeout=3)):
        assert asyncio.iscoroutinefunction(definition)
        assert inspect.iscoroutinefunction(definition) or sys.version_info < (3, 12)
