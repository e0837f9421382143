"""Decisions on steps whose outcome is unknown: each is for one question, and none begins anything
that was not decided about.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure import Engine
from perdure.runtime import recovery
from perdure.runtime.control import Resolution
from tests.runtime import decision_victim, victim
from tests.runtime.support import Victim, awaited, outside, reached, until


def killed(db: str, folder: Path, *names: str) -> None:
    """A process that dies while it attempts a step of each of these names."""
    with Victim(db, folder, *names, script=Path(decision_victim.__file__)) as process:
        for _ in names:
            process.says("HANGING")
        process.kill()


def tries(folder: Path, name: str) -> int:
    return victim.effects(folder).count(name)


@awaited
async def test_steps_that_ask_at_once_are_decided_one_after_the_other(
    db: str, tmp_path: Path
) -> None:
    killed(db, tmp_path, "a", "b")
    decision_victim.let_pass(tmp_path, "a", "b")
    async with Engine(db, workflows=decision_victim.WORKFLOWS) as engine:
        run = await engine.get("o")
        for seq in (2, 3):
            await reached(run, "blocked")
            await engine.resolve("o", seq=seq, retry=True)
            if seq == 2:
                while "row 3" not in ((await run.info()).reason or ""):  # noqa: ASYNC110
                    await asyncio.sleep(0.003)
        assert await reached(run, "completed", "blocked") == "completed"
        assert await run.result() == ["a", "b"]
    assert [tries(tmp_path, name) for name in "ab"] == [2, 2]


RETRY = Resolution(b'{"retry":true}', None, True)
RESULT = Resolution(b'{"result":"bob"}', b'"bob"', False)
ERROR = Resolution(b'{"error":"x"}', None, False)
UNREAD = "SELECT 1 FROM perdure_messages WHERE kind = 'resolve' AND history_row IS NULL"


async def question(engine: Engine) -> bytes:
    """The name of the question that the run asks now, as a client reads it."""
    await reached(await engine.get("o"), "blocked")
    row = await engine._control._row("o")
    rows = await engine._control._history(row)
    return b'{"question":%d,' % recovery.question_of(rows, 2)


async def decide(engine: Engine, about: bytes, given: Resolution) -> None:
    """Decide as a client does that has read the question before, and is slow."""
    await engine._control._decide("o", 2, about, given, "bob", "resolve")


@awaited
@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("late", [RETRY, RESULT, ERROR], ids=["retry", "result", "error"])
async def test_a_decision_that_comes_behind_the_attempt_is_for_no_later_question(
    db: str, tmp_path: Path, late: Resolution, dead: bool
) -> None:
    """It arrives while the attempt is under way, or when that process has died, too."""
    killed(db, tmp_path, "a")
    async with Engine(db, workflows=decision_victim.WORKFLOWS) as engine:
        first = await question(engine)
    with Victim(db, tmp_path, script=Path(decision_victim.__file__)) as owner:
        async with Engine(db, execute=False) as client:
            await client.resolve("o", retry=True, sender="ada")
            owner.says("HANGING")
            if not dead:
                await decide(client, first, late)
                await until(lambda: not outside(db, UNREAD))
            owner.kill()
            if dead:
                await decide(client, first, late)
    decision_victim.let_pass(tmp_path, "a")
    async with Engine(db, workflows=decision_victim.WORKFLOWS) as engine:
        assert await question(engine) != first
        await until(lambda: not outside(db, UNREAD))
        assert tries(tmp_path, "a") == 2, "nobody has decided about the second attempt"
        await engine.resolve("o", retry=True)
        run = await engine.get("o")
        assert await run.result() == ["a"]
    assert tries(tmp_path, "a") == 3


@awaited
async def test_decisions_of_two_clients_before_the_attempt(db: str, tmp_path: Path) -> None:
    """Nothing has begun yet, so the one that knows the result counts."""
    killed(db, tmp_path, "a")
    async with Engine(db, workflows=decision_victim.WORKFLOWS) as engine:
        first = await question(engine)
    async with Engine(db, execute=False) as client:
        await client.resolve("o", retry=True)
        await decide(client, first, RESULT)
    async with Engine(db, workflows=decision_victim.WORKFLOWS) as engine:
        assert await (await engine.get("o")).result() == ["bob"]
    assert tries(tmp_path, "a") == 1
