"""Code with other parameters or other defaults is deployed under runs in flight: they keep what was
recorded, or say what is missing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from perdure import (
    Engine,
    Nondeterminism,
    RunBlocked,
    RunExists,
    Workflow,
    emit,
    receive,
    send,
    start,
    step,
    workflow,
)
from perdure.check.replay import Checker
from perdure.codec.json_codec import JsonCodec
from perdure.core import events as ev
from perdure.core.replay import Kernel
from tests.runtime.support import awaited, executed_again, reached


async def _waits(db: str, definition: Workflow[..., Any], *args: Any) -> None:
    async with Engine(db, workflows=[definition]) as engine:
        await reached(await engine.start(definition(*args), id="r"), "waiting")


async def _goes_on(db: str, *workflows: Workflow[..., Any]) -> Any:
    async with Engine(db, workflows=workflows) as engine:
        await engine.send("r", True, channel="go")
        return await (await engine.get("r")).result()


def _checked(db: str, *workflows: Workflow[..., Any]) -> tuple[str, str | None]:
    checker = Checker(db, {one.name: one for one in workflows})
    (run,) = checker.unfinished()
    found = checker.check(run)
    checker.close()
    assert found is not None
    return found.verdict, found.reason


@workflow(name="order")
async def first(n: int) -> str:
    return f"{n} {await receive('go', bool)}"


@workflow(name="order")
async def one_more(n: int, rate: float) -> str:
    return f"{n} {rate} {await receive('go', bool)}"


@workflow(name="order")
async def by_name(n: int = 0, *, rate: float) -> str:
    return f"{n} {rate} {await receive('go', bool)}"


@workflow(name="order")
async def without_any() -> str:
    return f"nothing {await receive('go', bool)}"


@workflow(name="order")
async def with_default(n: int, rate: float = 0.5, *, note: str | None = None) -> str:
    return f"{n} {rate} {note} {await receive('go', bool)}"


@pytest.mark.parametrize(
    ("old", "new"),
    [(first, one_more), (first, by_name), (without_any, one_more), (with_default, without_any)],
)
@awaited
async def test_a_parameter_that_the_history_can_not_fill_blocks_and_check_says_so(
    db: str, old: Workflow[..., Any], new: Workflow[..., Any]
) -> None:
    """User code was given UNSET, and `check` said that nothing would block."""
    await _waits(db, old, *([] if old is without_any else [3]))
    verdict, reason = _checked(db, new)
    assert verdict == "does_not_fit"
    assert reason is not None
    with pytest.raises(RunBlocked) as caught:
        await _goes_on(db, new)
    assert caught.value.reason in f"DoesNotFit: {reason}"
    says = (
        "no parameter n any more"
        if new is without_any
        else "which the code has got since; give it a default"
    )
    assert says in caught.value.reason
    assert (await executed_again(db, [old], "r")).endswith("True"), (
        "nothing is lost: the old code goes on"
    )


@awaited
async def test_a_parameter_with_a_default_gets_it(db: str) -> None:
    await _waits(db, first, 3)
    assert _checked(db, with_default)[0] == "ok"
    assert await _goes_on(db, with_default) == "3 0.5 None True"


def _order(fee: int, name: str = "order") -> Workflow[..., Any]:
    @step
    async def charge(amount: int, fee: int = fee, *, currency: str = "EUR") -> str:
        return f"{amount + fee} {currency}"

    @workflow(name=name)
    async def order(amount: int, discount: int = fee) -> str:
        before = await charge(amount)
        await receive("go", bool)
        return f"{before}, {await charge(amount)}, {discount}"

    return order


@awaited
async def test_a_default_that_a_deploy_changes_holds_for_new_calls_only(db: str) -> None:
    """Defaults were not recorded: a run in flight paid what the new code says."""
    await _waits(db, _order(1), 10)
    assert _checked(db, _order(5)) == ("ok", None)
    assert await _goes_on(db, _order(5)) == "11 EUR, 15 EUR, 1"


@awaited
async def test_an_open_step_is_carried_out_with_the_default_that_was_recorded(db: str) -> None:
    began = asyncio.Event()

    def charging(fee: int) -> Workflow[..., Any]:
        @step
        async def charge(amount: int, fee: int = fee) -> int:
            began.set()
            if fee == 1 and not again:
                await asyncio.Event().wait()
            return amount + fee

        @workflow(name="order")
        async def order() -> int:
            return await charge(10)

        return order

    again = False
    async with Engine(db, workflows=[charging(1)], close_grace=0) as engine:
        await engine.start(charging(1)(), id="r")
        await began.wait()
    again = True
    assert await executed_again(db, [charging(5)], "r") == 11


@awaited
async def test_starting_again_after_a_default_has_changed_finds_the_run(db: str) -> None:
    await _waits(db, _order(1), 10)
    new = _order(5)
    async with Engine(db, workflows=[new]) as engine:
        assert (await engine.start(new(10), id="r")).id == "r"
        assert (await engine.start(new(10, 1), id="r")).id == "r"
        with pytest.raises(RunExists):
            await engine.start(new(10, 5), id="r")


@awaited
async def test_a_parameter_that_nobody_passed_may_go(db: str) -> None:
    await _waits(db, with_default, 3)
    assert await _goes_on(db, first) == "3 True"


def _calls(*args: Any, **kwargs: Any) -> Workflow[..., Any]:
    @step
    async def charge(amount: int, currency: str = "EUR") -> str:
        return currency

    @workflow(name="order")
    async def order() -> str:
        paid = await charge(*args, **kwargs)
        return paid if await receive("go", bool) else ""

    return order


@pytest.mark.parametrize(
    ("old", "new"),
    [(_calls(1, "USD"), _calls(1)), (_calls(1), _calls(1, "USD")), (_calls(1), _calls(2))],
)
@awaited
async def test_other_arguments_block_also_where_they_are_left_out(
    db: str, old: Workflow[..., Any], new: Workflow[..., Any]
) -> None:
    await _waits(db, old)
    with pytest.raises(Nondeterminism):
        await _goes_on(db, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [(_calls(1, "EUR"), _calls(1)), (_calls(1), _calls(1, "EUR")), (_calls(1), _calls(amount=1))],
)
@awaited
async def test_the_default_passed_or_left_out_is_the_same_call(
    db: str, old: Workflow[..., Any], new: Workflow[..., Any]
) -> None:
    await _waits(db, old)
    assert await _goes_on(db, new) == "EUR"


# --- what earlier versions have written -----------------------------------------------------------


@dataclass
class Note:
    text: str


NewNote: Any = dataclass(
    type(
        "Note",
        (),
        {"__annotations__": {"text": str, "tags": list}, "tags": field(default_factory=list)},
    )
)


@workflow
async def kid(n: int, k: int = 1) -> None: ...


def _sending(note: Any, k: int = 1) -> Workflow[..., Any]:
    @step
    async def keep(n: int, k: int = k) -> None: ...

    @workflow(name="sender")
    async def sender() -> None:
        send("other", note, channel="c")
        emit("notes", note)
        await keep(1)
        await start(kid(2), id="kid")
        await kid(3)

    return sender


def _rows_of(definition: Workflow[..., Any], rows: list[ev.Event]) -> list[ev.Command]:
    kernel = Kernel(
        lambda: definition.fn(), definition, ev.RunFacts("r", definition.name, 7), JsonCodec()
    )
    try:
        return kernel.replay(rows)
    finally:
        kernel.discard()


def test_histories_without_defaults_and_with_fewer_fields_still_replay() -> None:
    new: Any = NewNote
    rows = [ev.Event(1, ev.START, 1000)]
    data = [
        (ev.SEND, "other", b'{"channel":"c","value":{"text":"a"}}'),
        (ev.EMIT, "notes", b'{"text":"a"}'),
        (ev.STEP, "keep", b'{"n":1}'),
    ]
    rows += [
        ev.Event(2 + n, kind, 1000, None, name, raw) for n, (kind, name, raw) in enumerate(data)
    ]
    for note in (Note("a"), new("a")):
        _rows_of(_sending(note), rows)
        _rows_of(_sending(note, k=5), rows)
        with pytest.raises(Nondeterminism):
            _rows_of(_sending(type(note)("b")), rows)
    rows += [
        ev.Event(5, ev.COMPLETED, 1000, 4, None, b"null"),
        ev.Event(6, ev.SPAWN, 1000, None, "kid", b'{"args":{"n":2},"id":"kid"}'),
    ]
    rows += [
        ev.Event(7, ev.COMPLETED, 1000, 6, None, b'"kid"'),
        ev.Event(8, ev.CHILD, 1000, None, "kid", b'{"args":{"n":3}}'),
    ]
    assert _rows_of(_sending(Note("a")), rows) == []
