"""Laws of exports and imports, on random workflows: what is carried is the same in every store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest

from campaigns.corpus import child
from campaigns.random_workflows import program, walk
from perdure import Engine, PerdureError, Queue, connect, step, workflow
from tests.runtime.support import awaited

VIEWS = {
    "perdure_runs": "id, workflow, args, result, error, tags, priority, parent, forked_from, "
    "history_rows, created_at, ended_at, python, key, weight, scheduled_at",
    "perdure_events": "*",
    "perdure_steps": "*",
    "perdure_messages": "*",
    "perdure_streams": "run_id, stream, seq, attempt, item, at",
    "perdure_requests": "*",
    "perdure_exposed": "*",
    "perdure_logs": "run_id, seq, step, attempt, level, logger, message, traceback, at",
}
"""What people see of runs, without what an import says it changes."""


def seen(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows that people see, in an order that has nothing to do with keys."""
    with contextlib.closing(connect(path)) as db:
        return {
            view: sorted(db.execute(f"SELECT {columns} FROM {view}"), key=repr)
            for view, columns in VIEWS.items()
        }


def ids(path: Path) -> list[str]:
    with contextlib.closing(connect(path)) as db:
        return [run_id for (run_id,) in db.execute("SELECT id FROM run ORDER BY run")]


async def live(path: Path, dice: random.Random, while_it_runs: Path) -> None:
    """Some random runs, which are exported while they are executed, and left as they are then."""
    async with Engine(path, workflows=[walk, child], queues=[Queue("q", concurrency=2)]) as engine:
        sent = []
        for number in range(3):
            case = program(dice.randrange(10**6))
            more: dict[str, Any] = {"queue": "q", "key": f"k{number}"} if number else {}
            tags = {"n": number, "text": "x" * 2_000}
            await engine.start(case.call, id=f"r{number}", priority=number, tags=tags, **more)
            sent += [(f"r{number}", channel, data) for channel, data in case.messages]
            if case.cancelled:
                sent.append((f"r{number}", "", b""))
        dice.shuffle(sent)
        for run_id, channel, data in sent:
            with contextlib.suppress(PerdureError):  # it has ended
                if channel:
                    await engine.send(run_id, json.loads(data), channel=channel, key=channel)
                else:
                    await engine.cancel(run_id)
        await engine.export(["r0", "r1", "r2"], while_it_runs)


@pytest.mark.parametrize("number", range(6))
@awaited
async def test_what_is_carried_is_the_same_everywhere(tmp_path: Path, number: int) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    first, running = tmp_path / "first.db", tmp_path / "running.db"
    await live(first, random.Random(seed), running)
    async with Engine(first, execute=False) as engine:
        roots = ["r0", "r1", "r2"]
        for name in ("a.json", "b.json", "a.db"):
            await engine.export(roots, tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    everything = seen(first)
    assert seen(tmp_path / "a.db") == everything
    for name in ("a.json", "a.db"):
        second = tmp_path / f"of-{name}"
        async with Engine(second, execute=False) as engine:
            assert (await engine.import_(tmp_path / name)).ids == ids(first)
            again = await engine.import_(tmp_path / ("a.db" if name == "a.json" else "a.json"))
            assert (again.ids, again.already) == ([], ids(first))
            await engine.export(roots, tmp_path / f"again-{name}")
        assert seen(second) == everything
    assert seen(tmp_path / "again-a.db") == everything
    await goes_on(tmp_path / "on.db", running)


async def goes_on(path: Path, file: Path) -> None:
    """What was exported while it was executed replays, to its end or to a wait."""
    async with Engine(path, workflows=[walk, child]) as engine:
        await engine.import_(file, go_on=True)
        for one in await engine.runs():
            run = await engine.get(one.id)
            while (status := await run.status()) in ("pending", "running"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert status != "blocked", await engine.info(one.id)


@step
def twice(n: int) -> int:
    logging.getLogger("app").warning("twice %s", n)
    return 2 * n


@workflow
async def hides(password: str) -> dict[str, str]:
    await twice(1)
    return {"password": password, "other": "seen"}


@awaited
async def test_names_that_another_store_hides(tmp_path: Path) -> None:
    """What one store shows stays as it was; what it hid can't be continued, and says so."""
    async with Engine(tmp_path / "1.db", workflows=[hides], redact=["password"]) as engine:
        await engine.run(hides("the text"), id="a")
        await engine.export("a", tmp_path / "a.json")
        await engine.export("a", tmp_path / "a.db", secrets=True)
    assert "the text" not in (tmp_path / "a.json").read_text()
    async with Engine(tmp_path / "2.db", workflows=[hides], redact=["other"]) as engine:
        await engine.import_(tmp_path / "a.json")
        assert (await engine.info("a")).result == {"password": "•••", "other": "seen"}
    async with Engine(tmp_path / "3.db", workflows=[hides]) as engine:
        await engine.import_(tmp_path / "a.db")
        assert (await engine.info("a")).result == {"password": "•••", "other": "seen"}
        assert await (await engine.get("a")).result() == {"password": "the text", "other": "seen"}
        assert seen(tmp_path / "3.db")["perdure_logs"] == seen(tmp_path / "1.db")["perdure_logs"]
        assert [row[6] for row in seen(tmp_path / "3.db")["perdure_logs"]] == ["twice 1"]
        with contextlib.closing(connect(tmp_path / "3.db")) as db:
            assert "the text" not in repr(db.execute("SELECT * FROM perdure_events").fetchall())
