"""Queues of several processes, some of which are killed: a place of a dead process comes back with
its lease and not before, and what waits is taken over.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from perdure import Engine, Run
from tests.runtime import queue_victim as flows
from tests.runtime.support import Victim, awaited, kinds, outside, reached, until
from tests.runtime.victim import effects

KILLS = 2
SCRIPT = Path(__file__).with_name("queue_victim.py")


def executing(db: str, **more: Any) -> Engine:
    return Engine(
        db, workflows=flows.WORKFLOWS, queues=[flows.QUEUE], lease_ttl=flows.LEASE_S, **more
    )


def hang(folder: Path, name: str) -> Path:
    """Have the attempts of a name hang until the file is gone."""
    (folder / f"hang-{name}").touch()
    return folder / f"hang-{name}"


def begun(folder: Path, name: str) -> bool:
    return f"B {name}" in effects(folder)


async def killed_in(db: str, folder: Path, call: Any, name: str, **options: Any) -> Run[Any]:
    """A run whose process was killed in its step."""
    with Victim(db, script=SCRIPT) as dies:
        dies.says("OPEN")
        async with Engine(db, execute=False) as client:
            gate = hang(folder, name)
            run = await client.start(call(str(folder), name), id=name, **options)
            await until(lambda: begun(folder, name))
            dies.kill()
            gate.unlink()
    return run


def worker_ended_ms(db: str) -> int:
    (row,) = outside(db, "SELECT min(ended_ms) AS ms FROM worker WHERE ended_ms IS NOT NULL")
    return int(row["ms"])


@awaited
async def test_the_place_of_a_dead_process_comes_back_with_its_lease(
    db: str, tmp_path: Path
) -> None:
    """Until then what waits in another process stays in line."""
    async with executing(db) as engine:
        with Victim(db, script=SCRIPT) as dies:
            dies.says("OPEN")
            gate = hang(tmp_path, "lost")
            while not begun(tmp_path, "lost"):  # whichever of the two takes it, only one may
                async with Engine(db, execute=False) as client:
                    await client.start(flows.works(str(tmp_path), "lost"), id="lost")
                await asyncio.sleep(0.02)
            (row,) = outside(db, "SELECT worker FROM perdure_place WHERE admitted_ms IS NOT NULL")
            of_victim = row["worker"] != engine._scheduler.owner
            waits = await engine.start(flows.works(str(tmp_path), "waits"), id="waits")
            await reached(waits, "waiting")
            dies.kill()
        gate.unlink()
        assert await waits.result() == "waits"
        assert await (await engine.get("lost")).result() == "lost"
        if of_victim:
            (place,) = outside(db, "SELECT min(at_ms) AS ms FROM event WHERE kind = 'completed'")
            assert place["ms"] >= worker_ended_ms(db)
    assert outside(db, "SELECT * FROM perdure_place") == []
    assert outside(db, "SELECT * FROM perdure_line") == []


@awaited
async def test_a_step_in_line_has_not_begun_when_its_process_dies(db: str, tmp_path: Path) -> None:
    """Nobody is asked what became of it, and no attempt is counted."""
    with Victim(db, script=SCRIPT) as dies:
        dies.says("OPEN")
        async with Engine(db, execute=False) as client:
            hang(tmp_path, "first")
            await client.start(flows.works(str(tmp_path), "first"), id="first")
            await until(lambda: begun(tmp_path, "first"))
            second = await client.start(flows.carefully(str(tmp_path), "second"), id="second")
            await reached(second, "waiting")
            dies.kill()
    (tmp_path / "hang-first").unlink()
    async with executing(db) as engine:
        again = await engine.get("second")
        assert await again.result() == "second"
        assert await (await engine.get("first")).result() == "first"
        rows = kinds(await again.history())
        assert rows.count("step") == 1
    assert [line for line in effects(tmp_path) if "second" in line] == ["B second", "E second"]


@awaited
async def test_a_step_that_may_have_begun_is_asked_about_and_holds_no_place(
    db: str, tmp_path: Path
) -> None:
    run = await killed_in(db, tmp_path, flows.carefully, "asked")
    async with executing(db) as engine:
        asked = await engine.get(run.id)
        await reached(asked, "blocked")
        assert await engine.run(flows.works(str(tmp_path), "next")) == "next"
        await engine.resolve(run.id, retry=True)
        assert await asked.result() == "asked"
    assert outside(db, "SELECT * FROM perdure_place") == []


@awaited
async def test_a_step_that_kills_its_process_is_counted_also_when_it_was_in_line(
    db: str, tmp_path: Path
) -> None:
    """Each time it had waited for its place: what begins is in the file before it begins."""
    (tmp_path / "kill").touch()
    async with Engine(db, execute=False, queues=[flows.QUEUE]) as client:
        await client.queue("q", paused=True)
        run = await client.start(flows.deadly(str(tmp_path)), id="deadly")
        lives = 0
        while await run.status() != "blocked":
            with Victim(db, script=SCRIPT) as dies:
                dies.says("OPEN")
                lives += 1
                if await reached(run, "waiting", "blocked") == "blocked":
                    break
                await client.queue("q", paused=False)
                await asyncio.to_thread(dies.process.wait)
                await client.queue("q", paused=True)
        info = await run.info()
        assert "3 times" in (info.reason or "")
    assert [line for line in effects(tmp_path) if line == "B deadly"] == ["B deadly"] * 3


@awaited
async def test_a_run_that_dies_with_its_process_keeps_its_place(db: str, tmp_path: Path) -> None:
    """It goes on elsewhere, and only then the next one begins."""
    run = await killed_in(db, tmp_path, flows.freely, "held", queue="q")
    async with Engine(db, execute=False) as client:
        waits = await client.start(flows.freely(str(tmp_path), "waits"), id="waits", queue="q")
        assert await waits.status() == "waiting"
    async with executing(db) as engine:
        assert await (await engine.get(run.id)).result() == "held"
        assert await (await engine.get("waits")).result() == "waits"
    assert effects(tmp_path) == ["B held", "B held", "E held", "B waits", "E waits"]


@awaited
@pytest.mark.parametrize("of_runs", [False, True], ids=["steps", "runs"])
async def test_nothing_overlaps_and_nothing_is_left_while_processes_are_killed(
    db: str, tmp_path: Path, of_runs: bool
) -> None:
    """Two processes work and are killed in turn; what they had begun ends when their lease has."""
    seed = random.randrange(10**6)
    print("seed", seed)
    draw = random.Random(seed)
    flow: Any = flows.freely if of_runs else flows.works
    async with Engine(db, execute=False) as client:
        victims = [Victim(db, script=SCRIPT) for _ in range(2)]
        runs = []
        for n in range(40):
            options: dict[str, Any] = {"queue": "q"} if of_runs else {}
            if n == 0:  # the queue is declared when one has opened
                victims[0].says("OPEN")
            call = flow(str(tmp_path), str(n))
            runs.append(await client.start(call, id=str(n), priority=draw.randrange(3), **options))
            if n in range(10, 40, 10)[:KILLS]:
                place = draw.randrange(2)
                victims[place].__exit__()
                victims[place] = Victim(db, script=SCRIPT)
        for run in runs:
            await run.result()
        for victim in victims:
            victim.__exit__()
    unfinished: set[str] = set()
    for line in effects(tmp_path):
        kind, name = line.split()
        if kind == "E":
            unfinished.remove(name)
            continue
        # A run keeps its place through the death of its process, a step's is free after that.
        others = unfinished - {name}
        assert len(others) <= (0 if of_runs else KILLS), f"seed {seed}: {line} amid {others}"
        unfinished.add(name)
    assert outside(db, "SELECT * FROM perdure_place WHERE line IS NOT NULL") == []
