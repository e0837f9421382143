"""What replay says of unfinished runs: each verdict, and that nothing is done or written on the way
to it.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from perdure import Engine, Retry, Workflow, continue_as, emit, patched, receive, step, workflow
from perdure.check.replay import Checked, Checker
from perdure.core import loop
from perdure.core.limits import Limits
from perdure.core.replay import Kernel
from perdure.errors import StoreNotFound, StoreUnavailable
from perdure.store.sqlite import connection
from tests.runtime.support import awaited, reached

done: list[str] = []


@step(retry=Retry(attempts=1))
def act(what: str) -> str:
    done.append(what)
    return what


@step(name="act", retry=Retry(attempts=1))
def act_with_a_number(what: str) -> int:
    raise AssertionError("a check executes nothing")


@step
def look() -> None:
    raise AssertionError("a check executes nothing")


@workflow(name="flow")
async def old(what: str) -> str:
    return await act(what) + await receive("word", str)


def new(*, name: str = "flow") -> Callable[[Any], Workflow[..., Any]]:
    return workflow(name=name)


@new()
async def unchanged(what: str) -> str:
    first = await act(what)
    second = await receive("word", str)
    return f"{first}, {second}"


@new()
async def guarded(what: str) -> str:
    if patched("look first"):
        await look()
    return await act(what) + await receive("word", str)


@new()
async def goes_further(what: str) -> str:
    text = await act(what)
    emit("steps", text)
    return text + await receive("word", str)


@new()
async def looks_first(what: str) -> str:
    await look()
    return await act(what) + await receive("word", str)


@new()
async def asks_with_more(what: str) -> str:
    return await act(what + "!") + await receive("word", str)


@new()
async def ends_at_once(what: str) -> str:
    return what


@new()
async def raises(what: str) -> str:
    await act(what)
    raise KeyError(what)


@new()
async def wants_a_file(what: str) -> str:
    text = await act(what)
    return Path(text).read_text()


@new()
async def takes_a_number(what: int) -> str:
    return await act(str(what)) + await receive("word", str)


@new()
async def gets_a_number(what: str) -> str:
    return f"{await act_with_a_number(what)}" + await receive("word", str)


@new()
async def goes_round(what: str) -> str:
    await act(what)
    while True:  # that is what is wrong with it  # noqa: ASYNC110
        await asyncio.sleep(0)


@new()
async def cleans_up(what: str) -> str:
    text = await act(what)
    try:
        return text + await receive("word", str)
    finally:
        done.append("cleaned up")


@new(name="renamed")
async def renamed(what: str) -> str:
    return await act(what) + await receive("word", str)


@dataclass
class Order:
    number: int
    note: str = "new field"


async def a_waiting_run(
    store: Path, code: Workflow[..., Any] = old, what: str = "a", id: str = "one"
) -> None:
    async with Engine(store, workflows=[code]) as engine:
        await reached(await engine.start(code(what), id=id), "waiting")


def judged(
    store: Path, *code: Workflow[..., Any], names: tuple[str, ...] = (), limit: int | None = None
) -> list[Checked]:
    checker = Checker(str(store), {one.name: one for one in code})
    try:
        return [
            found
            for run in checker.unfinished(names, limit)
            if (found := checker.check(run)) is not None
        ]
    finally:
        checker.close()


async def verdicts(*args: Any, **options: Any) -> list[Checked]:
    """In a thread, for a check is not made inside a task."""
    return await asyncio.to_thread(judged, *args, **options)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "perdure.db"


@pytest.mark.parametrize(
    ("code", "verdict", "says"),
    [
        (unchanged, "ok", ""),
        (guarded, "ok", ""),
        (goes_further, "ok", ""),
        (
            looks_first,
            "would_block",
            'history, row 2: step act {"what":"a"}\n  code now asks for: step look',
        ),
        (asks_with_more, "would_block", '{"what":"a!"}'),
        (ends_at_once, "would_block", "code now asks for: finish completed"),
        (raises, "would_fail", "the code raises KeyError: 'a'"),
        (wants_a_file, "would_fail", "Opening a file"),
        (
            takes_a_number,
            "does_not_fit",
            "argument 'what' of workflow flow does not fit: Expected `int`",
        ),
        (gets_a_number, "does_not_fit", "row 2, step act: the result of step act does not fit"),
        (renamed, "unknown_workflow", "no workflow is called 'flow' here"),
    ],
    ids=lambda one: getattr(one, "fn", one).__name__ if isinstance(one, Workflow) else "",
)
@awaited
async def test_each_verdict(store: Path, code: Workflow[..., Any], verdict: str, says: str) -> None:
    await a_waiting_run(store)
    before = hashlib.sha256(store.read_bytes()).digest()
    done.clear()
    (found,) = await verdicts(store, code)
    assert (found.id, found.workflow, found.status, found.rows) == ("one", "flow", "waiting", 3)
    assert found.verdict == verdict
    assert says in (found.reason or "")
    assert (found.reason is None) is (verdict == "ok") is found.ok
    assert done == []
    assert hashlib.sha256(store.read_bytes()).digest() == before


@awaited
async def test_the_verdict_is_what_a_worker_then_does(store: Path) -> None:
    await a_waiting_run(store)
    (found,) = await verdicts(store, looks_first)
    async with Engine(store, workflows=[looks_first]) as engine:
        run = await engine.get("one")
        await run.send("b", channel="word")
        assert await reached(run, "blocked") == "blocked"
        assert (await run.info()).reason == found.reason


@awaited
async def test_a_blocked_run_stays_blocked_or_would_go_on(store: Path) -> None:
    await test_the_verdict_is_what_a_worker_then_does.__wrapped__(store)  # type: ignore[attr-defined]
    (still,) = await verdicts(store, looks_first)
    assert (still.status, still.verdict, still.ok, still.unblocked) == (
        "blocked",
        "stays_blocked",
        True,
        False,
    )
    assert "code now asks for: step look" in (still.reason or "")
    (fixed,) = await verdicts(store, unchanged)
    assert (fixed.verdict, fixed.unblocked) == ("ok", True)


@awaited
async def test_a_blocked_run_that_would_fail_is_worse_than_blocked(store: Path) -> None:
    await test_the_verdict_is_what_a_worker_then_does.__wrapped__(store)  # type: ignore[attr-defined]
    (found,) = await verdicts(store, raises)
    assert (found.status, found.verdict, found.ok) == ("blocked", "would_fail", False)


@awaited
async def test_a_run_that_is_blocked_for_another_reason_is_checked_as_the_others(
    store: Path,
) -> None:
    async with Engine(store, workflows=[old], limits=Limits(history_rows_max=2)) as engine:
        await reached(await engine.start(old("a"), id="one"), "blocked")
    assert [(found.verdict, found.unblocked) for found in await verdicts(store, unchanged)] == [
        ("ok", False)
    ]
    assert [(found.status, found.verdict) for found in await verdicts(store, looks_first)] == [
        ("blocked", "would_block")
    ]


@awaited
async def test_nothing_of_a_workflow_is_unwound(store: Path) -> None:
    await a_waiting_run(store)
    done.clear()
    assert [found.verdict for found in await verdicts(store, cleans_up)] == ["ok"]
    gc.collect()
    assert done == []


@awaited
async def test_a_damaged_store_is_no_trouble_of_a_run(store: Path) -> None:
    @new()
    async def long(what: str) -> str:
        return await act(what * 5_000) + await receive("word", str)

    await a_waiting_run(store, long)
    writer = connection.open_writer(str(store))
    writer.execute("DROP TABLE chunk")
    writer.close()
    with pytest.raises(StoreUnavailable, match="no such table"):
        await verdicts(store, long)


@awaited
async def test_an_endless_loop_is_found(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await a_waiting_run(store)
    monkeypatch.setattr(loop, "TURN_CALLBACKS_MAX", 1_000)
    (found,) = await verdicts(store, goes_round)
    assert found.verdict == "would_block"
    assert "callbacks without waiting" in (found.reason or "")


@awaited
async def test_a_run_that_nobody_has_begun_is_checked_for_its_arguments(store: Path) -> None:
    async with Engine(store, execute=False) as client:
        await client.start(old("a"), id="one")
    assert [(found.rows, found.verdict) for found in await verdicts(store, looks_first)] == [
        (0, "ok")
    ]
    assert [found.verdict for found in await verdicts(store, takes_a_number)] == ["does_not_fit"]


@awaited
async def test_a_new_field_needs_a_default(store: Path) -> None:
    @workflow(name="order")
    async def before(order: dict[str, int]) -> None:
        await receive("word")

    @workflow(name="order")
    async def after(order: Order) -> None:
        await receive("word")

    async with Engine(store, workflows=[before]) as engine:
        await reached(await engine.start(before({"number": 1}), id="one"), "waiting")
        await reached(await engine.start(before({"numbers": 1}), id="two"), "waiting")
    assert [(found.id, found.verdict) for found in await verdicts(store, after)] == [
        ("two", "does_not_fit"),
        ("one", "ok"),
    ]


@awaited
async def test_only_what_has_not_ended_newest_first_and_by_name(store: Path) -> None:
    @workflow
    async def over() -> None: ...

    @workflow
    async def chain(left: int) -> str:
        if left:
            continue_as(chain(left - 1))
        return await receive("word", str)

    async with Engine(store, workflows=[old, over, chain]) as engine:
        await engine.run(over())
        for number in range(3):
            await reached(await engine.start(old("a"), id=f"run-{number}"), "waiting")
        await engine.pause("run-1")
        await reached(await engine.start(chain(2), id="chain"), "waiting")
        await engine.cancel("run-0")
        await reached(await engine.get("run-0"), "cancelled")
        # It is being executed by this very process, while it is checked.
        assert [found.id for found in await verdicts(store, unchanged, chain)] == [
            "chain",
            "run-2",
            "run-1",
        ]
        assert [found.verdict for found in await verdicts(store, unchanged, chain)] == ["ok"] * 3
        assert [found.status for found in await verdicts(store, unchanged, names=("flow",))] == [
            "waiting",
            "paused",
        ]
        await engine.send("run-2", "b", channel="word")
        assert await (await engine.get("run-2")).result() == "ab"
        assert [found.id for found in await verdicts(store, unchanged, chain, limit=1)] == ["chain"]


@awaited
async def test_a_run_that_ends_meanwhile_is_left_out(store: Path) -> None:
    await a_waiting_run(store)
    checker = Checker(str(store), {"flow": unchanged})
    runs = checker.unfinished()
    async with Engine(store, workflows=[old]) as engine:
        run = await engine.get("one")
        await run.send("b", channel="word")
        await run.result()
    assert [checker.check(run) for run in runs] == [None]
    checker.close()


@awaited
async def test_memory_holds_one_run_at_a_time(store: Path) -> None:
    async with Engine(store, workflows=[old]) as engine:
        for number in range(60):
            await engine.start(old("a"), id=f"run-{number}")
        for number in range(60):
            await reached(await engine.get(f"run-{number}"), "waiting")
    gc.collect()
    before = sum(isinstance(thing, Kernel) for thing in gc.get_objects())
    assert [found.verdict for found in await verdicts(store, unchanged)] == ["ok"] * 60
    gc.collect()
    assert sum(isinstance(thing, Kernel) for thing in gc.get_objects()) <= before


@awaited
async def test_a_read_only_copy_does_as_well(store: Path, tmp_path: Path) -> None:
    await a_waiting_run(store)
    copy = tmp_path / "copy" / "copy.db"
    copy.parent.mkdir()
    copy.write_bytes(store.read_bytes())
    copy.chmod(0o444)
    copy.parent.chmod(0o555)
    try:
        assert [found.verdict for found in await verdicts(copy, looks_first)] == ["would_block"]
        assert [path.name for path in copy.parent.iterdir()] == ["copy.db"]
    finally:
        copy.parent.chmod(0o755)


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound):
        Checker(str(tmp_path / "none.db"), {})
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_said_to_be_one_and_left_so(store: Path) -> None:
    store.touch()
    with pytest.raises(StoreUnavailable, match="it is empty"):
        judged(store, unchanged)
    assert store.stat().st_size == 0
