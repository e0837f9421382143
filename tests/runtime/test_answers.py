"""Answers of people: one for each wait, checked before they are sent, also by a link."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest

from perdure import (
    DefinitionError,
    Engine,
    LinkExpired,
    LinkUnknown,
    LinkUsed,
    NotAwaited,
    Run,
    connect,
    receive,
    workflow,
)
from perdure.errors import DoesNotFit
from perdure.runtime.engine_answers import digest_of
from tests.runtime.support import awaited, kinds, reached

VERDICT: Any = Literal["yes", "no"]


@workflow
async def asks(times: int) -> list[str]:
    """Asks a person again and again."""
    return [await receive("verdict", VERDICT, prompt=f"Round {n}?") for n in range(times)]


@workflow
async def asks_two() -> list[Any]:
    return list(await asyncio.gather(receive("a", int), receive("b", bool)))


async def waits_anew(run: Run[Any], before: Any) -> None:
    """Wait until a run waits for something else."""
    while (await run.info()).waiting_for[:1] in ([], [before]):  # noqa: ASYNC110
        await asyncio.sleep(0.003)


async def recorded(run: Run[Any], kind: str) -> None:
    """Wait until a run has a row of a kind and waits."""
    while kind not in kinds(await run.history()):  # noqa: ASYNC110
        await asyncio.sleep(0.003)
    await reached(run, "waiting")


@awaited
async def test_what_is_awaited_is_recorded_and_an_answer_is_for_that_wait(db: str) -> None:
    async with Engine(db, workflows=[asks]) as engine:
        run = await engine.start(asks(2), id="r")
        await reached(run, "waiting")
        (item,) = (await run.info()).waiting_for
        assert (item["prompt"], item["schema"]) == ("Round 0?", {"enum": ["yes", "no"]})
        with pytest.raises(DoesNotFit, match='is one of "yes", "no"'):
            await engine.answer("r", "perhaps", channel="verdict", seq=item["seq"])
        await engine.answer("r", "yes", channel="verdict", seq=item["seq"], sender="ada")
        with pytest.raises(NotAwaited, match="ada answered at"):
            await engine.answer("r", "no", channel="verdict", seq=item["seq"], sender="bob")
        await waits_anew(run, item)
        await engine.answer("r", "no")
        assert await run.result() == ["yes", "no"]
        assert [row.sender for row in await run.history() if row.kind == "message"] == ["ada", None]
        with pytest.raises(NotAwaited, match="it is completed"):
            await engine.answer("r", "no")
    rows = connect(db).execute("SELECT sender, data, history_row FROM perdure_messages").fetchall()
    assert rows == [("ada", '"yes"', 2), (None, '"no"', 3)]


@awaited
async def test_a_wait_is_the_same_after_a_restart_and_a_rejected_message_does_not_end_it(
    db: str,
) -> None:
    async with Engine(db, workflows=[asks]) as engine:
        await reached(await engine.start(asks(1), id="r"), "waiting")
        link = await engine.answer_link("r")
    async with Engine(db, workflows=[asks]) as engine:
        run = await engine.get("r")
        await engine.send("r", "nonsense", channel="verdict")
        await recorded(run, "reject")
        await engine.answer_by_link(link.token, "yes")
        assert await run.result() == ["yes"]


@awaited
async def test_a_link_answers_once_and_its_token_is_nowhere_in_the_file(db: str) -> None:
    async with Engine(db, workflows=[asks]) as engine:
        run = await engine.start(asks(1), id="r")
        await reached(run, "waiting")
        link, late = [await engine.answer_link("r", recipient="ada") for _ in range(2)]
        with pytest.raises(DoesNotFit):
            await engine.answer_by_link(link.token, True)
        assert await engine.answer_by_link(link.token, "yes") == "r"
        assert await run.result() == ["yes"]
        with pytest.raises(LinkUsed):
            await engine.answer_by_link(link.token, "yes")
        with pytest.raises(NotAwaited, match="ada answered at"):
            await engine.answer_by_link(late.token, "yes")
        with pytest.raises(LinkUnknown):
            await engine.answer_by_link(link.token[:-1], "yes")
        assert [one.used_at is None for one in await engine.links("r")] == [True, False]
        dump = str(connect(db).execute("SELECT * FROM perdure_link").fetchall())
        assert link.token not in dump
        assert digest_of(link.token) in dump


@awaited
async def test_a_link_expires(db: str) -> None:
    async with Engine(db, workflows=[asks]) as engine:
        await reached(await engine.start(asks(1), id="r"), "waiting")
        link = await engine.answer_link("r", expires=0.001)
        await asyncio.sleep(0.002)
        with pytest.raises(LinkExpired, match="was good until"):
            await engine.answer_by_link(link.token, "yes")


@awaited
async def test_a_run_that_waits_on_several_channels_is_asked_by_name(db: str) -> None:
    async with Engine(db, workflows=[asks_two]) as engine:
        run = await engine.start(asks_two(), id="r")
        await reached(run, "waiting")
        with pytest.raises(DefinitionError, match="several channels \\(a, b\\)"):
            await engine.answer("r", 1)
        await engine.answer("r", 1, channel="a")
        await engine.send("r", True, channel="b", sender="bob")
        assert await run.result() == [1, True]


@awaited
async def test_names_of_senders_are_checked(db: str) -> None:
    async with Engine(db, workflows=[asks]) as engine:
        for sender in ("", "\0", 5):
            with pytest.raises(DefinitionError):
                await engine.send("r", 1, channel="c", sender=sender)  # type: ignore[arg-type]


@awaited
async def test_a_process_with_the_code_declares_what_forms_are_made_from(db: str) -> None:
    async with Engine(db, workflows=[asks]) as engine:
        await reached(await engine.start(asks_two(), id="r"), "waiting")
    async with Engine(db, execute=False) as client:
        found = await client.reader().declared()
    assert found["asks"].about == "Asks a person again and again."
    assert found["asks"].schema["required"] == ["times"]
    assert found["asks_two"].schema["properties"] == {}
