"""`gather_limited` and `poll_until`: what they give, where they stop, and that no crash or cancel
leaves anything under way.
"""

from __future__ import annotations

import asyncio
import math
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from perdure import (
    DefinitionError,
    Engine,
    PerdureError,
    PollTimeout,
    Queue,
    Rate,
    Retry,
    RetryAfter,
    RunFailed,
    StepFailed,
    StepTimeout,
    TooManyFailures,
    continue_as,
    gather_limited,
    poll_until,
    step,
    workflow,
)
from perdure.testing import assert_survives_every_crash
from tests.runtime.support import awaited, kinds

HERE_ONLY: tuple[int, ...] = ()


@step
async def double(n: int) -> int:
    await asyncio.sleep(1)
    return 2 * n


@step(retry=None)
async def odd(n: int) -> int:
    if n % 2 == 0:
        raise ValueError(f"{n} is even")
    return n


def shown(outcomes: list[Any]) -> list[str]:
    """Results and classes of errors."""
    return [type(one).__name__ if isinstance(one, BaseException) else str(one) for one in outcomes]


class Gauge:
    """How many of its calls are under way, and how many were at once."""

    def __init__(self) -> None:
        self.now = self.most = self.begun = 0

    async def call(self, result: Any = None, turns: int = 1) -> Any:
        self.begun += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
        finally:
            self.now -= 1
        if isinstance(result, BaseException):
            raise result
        return result


# --- results --------------------------------------------------------------------------------------


@awaited
async def test_results_stand_in_the_order_of_the_calls_whichever_ends_first() -> None:
    gauge = Gauge()
    calls = [gauge.call(n, turns=9 - n) for n in range(9)]
    assert await gather_limited(calls, limit=4) == list(range(9))
    assert (gauge.most, gauge.begun) == (4, 9)


@awaited
async def test_nothing_gives_nothing() -> None:
    assert await gather_limited([], limit=1) == []
    assert await gather_limited(iter(()), limit=1, tolerate=1.0) == []


@awaited
async def test_calls_are_drawn_when_there_is_a_place() -> None:
    gauge, drawn = Gauge(), []

    def calls() -> Iterator[Any]:
        for n in range(5):
            drawn.append((n, gauge.now))
            yield gauge.call(n, turns=3)

    assert await gather_limited(calls(), limit=2) == list(range(5))
    assert all(under_way < 2 for _, under_way in drawn)


@awaited
async def test_an_endless_generator_ends_with_enough() -> None:
    gauge = Gauge()

    def calls() -> Iterator[Any]:
        while True:
            yield gauge.call("yes", turns=1 + gauge.begun % 3)

    found = await gather_limited(calls(), limit=3, enough=4)
    assert shown(found).count("yes") >= 4
    assert set(shown(found)) <= {"yes", "CancelledError"}
    assert gauge.now == 0


@pytest.mark.parametrize(
    ("tolerate", "total", "fail", "ends_well"),
    [
        (0, 4, 0, True),
        (0, 4, 1, False),
        (2, 4, 2, True),
        (2, 4, 3, False),
        (0.5, 4, 2, True),
        (0.5, 4, 3, False),
        (0.29, 100, 29, True),
        (0.29, 100, 30, False),
        (0.0, 4, 1, False),
        (1.0, 4, 4, True),
    ],
)
def test_as_many_may_fail_as_are_tolerated(
    tolerate: float, total: int, fail: int, ends_well: bool
) -> None:
    gauge = Gauge()

    async def main() -> list[Any]:
        calls = [gauge.call(ValueError(str(n)) if n < fail else n) for n in range(total)]
        return await gather_limited(calls, limit=3, tolerate=tolerate)

    if ends_well:
        found = asyncio.run(main())
        assert shown(found) == ["ValueError"] * fail + [str(n) for n in range(fail, total)]
        return
    with pytest.raises(TooManyFailures) as raised:
        asyncio.run(main())
    assert [str(one) for one in raised.value.exceptions] == [str(n) for n in range(fail)]
    assert gauge.now == 0
    not_begun = len(raised.value.outcomes) - gauge.begun  # stopped before their first turn
    assert shown([*raised.value.outcomes][-not_begun or 9**9 :]) == ["CancelledError"] * not_begun


@pytest.mark.parametrize(
    ("results", "options", "allowed"),
    [
        ("xxab", {"enough": 2}, None),
        ("xxxa", {"enough": 2}, "2 have to succeed"),
        ("xaxb", {"enough": 2, "tolerate": 1}, "at most 1 may"),
        ("xxab", {"enough": 2, "tolerate": 2}, None),
    ],
)
def test_with_enough_as_many_may_fail_as_leave_it_within_reach(
    results: str, options: dict[str, Any], allowed: str | None
) -> None:
    for lazy in (False, True):
        made = (Gauge().call(OSError(one) if one == "x" else one) for one in results)
        calls = made if lazy else [*made]
        if allowed is None:
            found = asyncio.run(gather_limited(calls, limit=1, **options))
            assert [one for one in found if isinstance(one, str)] == ["a", "b"]
            continue
        with pytest.raises(TooManyFailures, match=allowed):
            asyncio.run(gather_limited(calls, limit=1, **options))


@awaited
async def test_it_ends_early_when_enough_is_out_of_reach() -> None:
    gauge = Gauge()
    calls = [gauge.call(OSError("x")) for _ in range(9)]
    with pytest.raises(TooManyFailures, match="8 have to succeed"):
        await gather_limited(calls, limit=1, enough=8)
    assert gauge.begun == 2


@awaited
async def test_calls_under_way_are_cancelled_and_awaited_before_it_raises() -> None:
    cleaned = []

    async def slow() -> None:
        try:
            await asyncio.sleep(math.inf)
        finally:
            await asyncio.sleep(0)
            cleaned.append("slow")

    with pytest.raises(TooManyFailures) as raised:
        await gather_limited([slow(), slow(), Gauge().call(KeyError("a"))], limit=3)
    assert cleaned == ["slow", "slow"]
    assert shown([*raised.value.outcomes]) == ["CancelledError", "CancelledError", "KeyError"]


@awaited
async def test_a_cancel_from_outside_ends_what_is_under_way_also_when_it_comes_twice() -> None:
    cleaned, began, cleaning = [], asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        try:
            began.set()
            await asyncio.sleep(math.inf)
        finally:
            cleaning.set()
            await asyncio.sleep(0.01)
            cleaned.append("slow")

    task = asyncio.create_task(gather_limited([slow(), slow()], limit=2))
    await began.wait()
    task.cancel()
    await cleaning.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == ["slow", "slow"]


@awaited
async def test_a_call_that_is_cancelled_by_itself_has_failed() -> None:
    calls = [Gauge().call(asyncio.CancelledError()), Gauge().call(1)]
    with pytest.raises(TooManyFailures) as raised:
        await gather_limited(calls, limit=2)
    assert "Call 1 was cancelled by other code" in str(raised.value.exceptions[0])
    calls = [Gauge().call(asyncio.CancelledError()), Gauge().call(1)]
    assert shown(await gather_limited(calls, limit=2, tolerate=1)) == ["CancelledError", "1"]


@awaited
async def test_an_error_of_the_generator_ends_the_others() -> None:
    gauge = Gauge()

    def calls() -> Iterator[Any]:
        yield gauge.call(1, turns=5)
        raise LookupError("no more")

    with pytest.raises(LookupError):
        await gather_limited(calls(), limit=2)
    assert gauge.now == 0


@awaited
async def test_parts_of_the_group_keep_its_outcomes() -> None:
    seen: list[Any] = []
    try:
        await gather_limited([Gauge().call(KeyError("a")), Gauge().call(OSError("b"))], limit=2,
                             tolerate=1)  # fmt: skip
    except* KeyError as part:
        seen.append(part)
    except* OSError as part:
        seen.append(part)
    assert [type(part) for part in seen] == [TooManyFailures, TooManyFailures]
    assert all(shown(part.outcomes) == ["KeyError", "OSError"] for part in seen)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calls", "options", "says"),
    [
        (7, {"limit": 1}, "calls is an iterable of calls"),
        ([], {"limit": 0}, "limit is a whole number"),
        ([], {"limit": True}, "limit is a whole number"),
        ([], {"limit": 1, "tolerate": -1}, "tolerate is a whole number"),
        ([], {"limit": 1, "tolerate": 1.5}, r"fraction of them from 0\.0 to 1\.0"),
        ([], {"limit": 1, "tolerate": math.nan}, "not nan"),
        ([], {"limit": 1, "tolerate": "2"}, "not '2'"),
        (iter(()), {"limit": 1, "tolerate": 0.5}, "needs calls with a length"),
        ([], {"limit": 1, "enough": 0}, "enough is a whole number"),
        ([], {"limit": 1, "enough": 1}, "enough=1 is more than the 0 calls"),
        (iter(()), {"limit": 1, "enough": 1}, "enough=1 is more than the 0 calls"),
        ([len], {"limit": 1}, "takes calls and coroutines"),
    ],
)
def test_what_can_not_be_is_refused(calls: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        asyncio.run(gather_limited(calls, **options))


@awaited
async def test_a_task_is_refused_because_it_runs_already() -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    with pytest.raises(DefinitionError, match="run already, without its limit"):
        await gather_limited([task], limit=1)  # type: ignore[arg-type]
    await task


@pytest.mark.parametrize("options", [{"limit": 1}, {"limit": 0}, {"limit": 1, "enough": 1}])
def test_calls_that_are_not_begun_are_closed_without_a_warning(options: Any) -> None:
    @workflow
    async def stops() -> str:
        made = [odd(1), odd(2), odd(3), odd(5)] if "enough" in options else [odd(2), odd(3)]
        try:
            await gather_limited([*made, Gauge().call()], **options)
        except PerdureError as error:
            return type(error).__name__
        return "enough"

    async def main() -> str:
        async with Engine(":memory:") as engine:
            return await engine.run(stops())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asyncio.run(main()) in ("TooManyFailures", "DefinitionError", "enough")


# --- in workflows ---------------------------------------------------------------------------------


@workflow
async def six_doubles() -> list[int]:
    return await gather_limited(map(double, range(6)), limit=2)


@workflow
async def some_odd(tolerate: float) -> list[str]:
    calls = [odd(n) for n in range(6)]
    return shown(await gather_limited(calls, limit=3, tolerate=tolerate))


@workflow
async def first_two() -> list[str]:
    return shown(await gather_limited(map(odd, range(99)), limit=3, enough=2))


@workflow
async def goes_on(left: int) -> int:
    async def leave() -> None:
        if left:
            continue_as(goes_on(left - 1))

    await gather_limited([double(1), leave()], limit=2)
    return left


@awaited
async def test_a_history_never_has_more_than_the_limit_under_way() -> None:
    async with Engine(":memory:") as engine:
        run = await engine.start(six_doubles())
        assert await run.result() == [0, 2, 4, 6, 8, 10]
        under_way, most = 0, 0
        for kind in kinds(await run.history()):
            under_way += {"step": 1, "completed": -1}.get(kind, 0)
            most = max(most, under_way)
    assert most == 2


@awaited
async def test_a_run_that_fails_of_it_is_retried_by_its_failures() -> None:
    broken = {2}

    @step(retry=None)
    async def work(n: int) -> int:
        if n in broken:
            raise ValueError("broken")
        return n

    @workflow
    async def works() -> list[int]:
        return await gather_limited(map(work, range(4)), limit=2)

    async with Engine(":memory:", workflows=[works]) as engine:
        run = await engine.start(works(), id="works")
        with pytest.raises(RunFailed) as failed:
            await run.result()
        assert isinstance(failed.value.__cause__, TooManyFailures)
        assert isinstance(failed.value.__cause__.exceptions[0], StepFailed)
        broken.clear()
        await engine.retry("works")
        assert await (await engine.get("works")).result() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("call", "options"),
    [
        (six_doubles(), {"seeds": range(2)}),
        (six_doubles(), {"timeout": 2.5}),
        (some_odd(3), {"seeds": range(2)}),
        (some_odd(0.1), {"seeds": range(2)}),
        (first_two(), {}),
        (goes_on(2), {}),
    ],
    ids=lambda value: value.definition.name if hasattr(value, "definition") else None,
)
def test_it_survives_every_crash(call: Any, options: dict[str, Any]) -> None:
    assert assert_survives_every_crash(call, hash_seeds=HERE_ONLY, **options).crashes >= 6


@pytest.mark.parametrize("after_s", [0, 0.5, 1, 1.5, 2, 2.5])
def test_it_survives_a_cancel_at_any_time_and_every_crash_around_it(after_s: float) -> None:
    assert assert_survives_every_crash(
        six_doubles(), cancel_after=after_s, hash_seeds=HERE_ONLY
    ).crashes


@step(queue="model", key=lambda n: str(n % 2))
async def ask_model(n: int) -> int:
    await asyncio.sleep(1)
    return n


@workflow
async def asks_model() -> list[int]:
    return await gather_limited(map(ask_model, range(5)), limit=4)


MODEL = Queue("model", concurrency=2, key_concurrency=1)


SLOW = Queue("model", concurrency=2, rate=Rate(2, per=10))
BUSY: list[float] = []


@step(queue="model")
async def is_refused(n: int) -> int:
    if BUSY:
        raise RetryAfter(BUSY.pop())
    return n


@workflow
async def asks_busy_model() -> list[int]:
    return await gather_limited(map(is_refused, range(3)), limit=3)


@pytest.mark.parametrize("queue", [MODEL, SLOW], ids=["keys", "rate"])
@pytest.mark.parametrize("after_s", [None, 0.5, 2.5, 11])
def test_with_a_queue_in_its_way_it_survives_every_crash(
    queue: Queue, after_s: float | None
) -> None:
    found = assert_survives_every_crash(
        asks_model(), queues=[queue], cancel_after=after_s, hash_seeds=HERE_ONLY
    )
    assert found.crashes >= 6


def test_steps_go_on_when_tokens_are_back_or_a_hold_is_over(perdure_time: Any) -> None:
    """To the second: nothing else happens meanwhile that could wake the engine."""
    assert perdure_time.run(asks_model(), queues=[SLOW]) == [*range(5)]
    assert perdure_time.elapsed_s == 16
    BUSY[:] = [3600]
    assert perdure_time.run(asks_busy_model(), queues=[Queue("model", concurrency=1)]) == [0, 1, 2]
    assert perdure_time.elapsed_s == 3616


# --- polls ----------------------------------------------------------------------------------------


STATES: list[str] = []


@step
async def state(job: str) -> str:
    return STATES.pop(0) if len(STATES) > 1 else STATES[0]


@step
async def hour(epoch: int = 0) -> int:
    """Whole hours of virtual time since the loop's beginning."""
    return int(asyncio.get_running_loop().time() // 3600)


@workflow
async def waits_for_done(timeout: float | None) -> str:
    return await poll_until(
        state("j"), until=lambda found: found == "done", every=60, timeout=timeout
    )


@workflow
async def waits_for_hour(at_least: int) -> int:
    return await poll_until(hour(), until=lambda n: n >= at_least, every=timedelta(minutes=50))


def test_it_polls_until_the_result_will_do(perdure_time: Any) -> None:
    STATES[:] = ["queued", "running", "running", "done"]
    assert perdure_time.run(waits_for_done(None)) == "done"
    assert perdure_time.elapsed_s == 180


def test_each_poll_takes_four_rows(perdure_engine: Any, perdure_time: Any) -> None:
    async def main() -> list[str]:
        async with perdure_engine(workflows=[waits_for_done]) as engine:
            run = await engine.start(waits_for_done(None))
            assert await run.result() == "done"
            return kinds(await run.history())

    STATES[:] = ["queued", "running", "done"]
    poll = ["step", "completed", "timer", "fired"]
    assert perdure_time.run(main()) == ["start", *poll, *poll, *poll[:2], "finish"]


def test_it_gives_up_after_its_timeout_and_says_what_it_saw_last(perdure_time: Any) -> None:
    STATES[:] = ["queued", "running"]
    with pytest.raises(RunFailed) as failed:
        perdure_time.run(waits_for_done(150.0))
    error = failed.value.__cause__
    assert isinstance(error, PollTimeout)
    assert (error.call, error.polls, error.last) == ("state", 3, "running")
    assert "timeout=150 s; its last result was 'running'" in str(error)
    assert perdure_time.elapsed_s == 150


def test_a_poll_over_a_week_backs_off(perdure_time: Any) -> None:
    """The default waits grow to a minute; others may grow further."""
    waits = Retry(delay=60, factor=2, max_delay=6 * 3600, jitter=False)

    @workflow
    async def a_week() -> int:
        return await poll_until(hour(), until=lambda n: n >= 7 * 24, every=waits)

    assert perdure_time.run(a_week()) >= 7 * 24


@pytest.mark.parametrize(("options", "total_s"), [({"timeout": 150}, 240), ({"polls_max": 3}, 180)])
def test_a_retry_of_a_run_that_gave_up_polls_on(
    options: dict[str, Any], total_s: float, perdure_time: Any, perdure_engine: Any
) -> None:
    """With the whole timeout again; where the number of polls ended it, once more."""

    @workflow
    async def polls() -> str:
        return await poll_until(state("j"), until=lambda one: one == "done", every=60, **options)

    async def main() -> str:
        async with perdure_engine(workflows=[polls]) as engine:
            run = await engine.start(polls(), id="polls")
            with pytest.raises(RunFailed):
                await run.result()
            STATES[:] = ["running", "done"] if "timeout" in options else ["done"]
            await engine.retry("polls")
            return str(await (await engine.get("polls")).result())

    STATES[:] = ["queued"]
    assert perdure_time.run(main()) == "done"
    assert perdure_time.elapsed_s == total_s


@awaited
async def test_polls_are_bounded() -> None:
    STATES[:] = ["queued"]
    every = Retry(delay=0)
    with pytest.raises(PollTimeout, match=r"state was polled 3 times .* within polls_max=3;"):
        await poll_until(state("j"), until=lambda _: False, every=every, polls_max=3)


@awaited
async def test_a_timeout_of_the_step_is_not_one_of_the_poll() -> None:
    @step(timeout=0.01, retry=None)
    async def hangs() -> int:
        await asyncio.sleep(math.inf)
        return 1

    @workflow
    async def polls() -> int:
        return await poll_until(hangs(), until=bool, timeout=60)

    async with Engine(":memory:") as engine:
        with pytest.raises(RunFailed) as failed:
            await engine.run(polls())
    assert isinstance(failed.value.__cause__, StepTimeout)


def test_a_poll_that_hangs_is_cancelled_by_the_timeout(perdure_time: Any) -> None:
    @step
    async def hangs() -> int:
        await asyncio.sleep(24 * 3600)
        return 1

    @workflow
    async def polls() -> str:
        try:
            await poll_until(hangs(), until=bool, timeout=60)
        except PollTimeout as error:
            return str(error)
        return ""

    assert "hangs was polled 0 times" in perdure_time.run(polls())
    assert perdure_time.elapsed_s == 60


@pytest.mark.parametrize(
    ("call", "options", "says"),
    [
        (len, {"until": bool}, "takes the call of a step"),
        (waits_for_hour(1), {"until": bool}, "takes the call of a step"),
        (odd(1), {"until": 7}, "until is a plain function"),
        (odd(1), {"until": asyncio.sleep}, "until is a plain function"),
        (odd(1), {"until": lambda n: asyncio.sleep(n)}, "this one is to be awaited"),
        (odd(1), {"until": lambda n: odd(n)}, "this one is to be awaited"),
        (odd(1), {"until": bool, "every": 0}, "every must be a positive number"),
        (odd(1), {"until": bool, "every": "5"}, "every must be a positive number"),
        (odd(1), {"until": bool, "timeout": -1}, "timeout must be a positive number"),
        (odd(1), {"until": bool, "polls_max": 0}, "polls_max is a whole number"),
    ],
)
def test_a_poll_that_can_not_be_is_refused(call: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        asyncio.run(poll_until(call, **options))


@pytest.mark.parametrize("cancel_after", [None, 0, 3600, 4 * 3600])
def test_a_poll_survives_every_crash(cancel_after: float | None) -> None:
    survived = assert_survives_every_crash(
        waits_for_hour(4), cancel_after=cancel_after, hash_seeds=HERE_ONLY
    )
    assert survived.crashes >= 6
