"""Imports into a store that a worker executes, killed with -9 at many queries of theirs."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import apsw
import pytest

from campaigns import forking
from perdure import Engine, connect
from tests.cli.carried import FAMILIES, below, busy, carried, family_of
from tests.cli.conftest import Terminal

KILLS = 8
QUERIES_MAX = 80
"""An import of the file takes some 300, and fewer when a part is there: each kill gets further."""
VICTIM = Path(__file__).with_name("import_victim.py")
TABLES = {
    "event": "t.key >> 24",
    "stream": "t.run",
    "chunk": "t.run",
    "inbox": "t.run",
    "perdure_exposed_value": "t.run",
    "heartbeat": "t.run",
}


TWICE = """
    SELECT key >> 24, ref FROM event WHERE kind = 'completed' GROUP BY 1, 2 HAVING count(*) > 1
"""


def rows(db: apsw.Connection) -> dict[str, dict[str, int]]:
    """How many rows each table has, by the id of a run; those of no run under "gone"."""
    return {
        table: dict(
            db.execute(
                f"SELECT coalesce(r.id, 'gone'), count(*) FROM {table} AS t "
                f"LEFT JOIN run AS r ON r.run = {key} GROUP BY 1"
            )
        )
        for table, key in TABLES.items()
    }


def families(there: dict[str, int]) -> Counter[int]:
    """How many runs each family has."""
    return Counter(family_of(run) for run in there if run[0] == "f")


def judged(path: Path, file: Path) -> set[int]:
    """The families that are there. Raises where one is there in part, or something of none."""
    with contextlib.closing(connect(path)) as db, contextlib.closing(connect(file)) as of:
        assert db.pragma("quick_check") == "ok"
        db.execute("BEGIN")
        ids = {id for (id,) in db.execute("SELECT id FROM run")}
        found, wanted = rows(db), rows(of)
        whole = families(dict(of.execute("SELECT id, 1 FROM run")))
        there = families(dict.fromkeys(ids, 1))
        assert {one: whole[one] for one in there} == dict(there)
        for table, counts in wanted.items():
            assert found[table].get("gone", 0) == 0, table
            for run, count in counts.items():
                if family_of(run) in there:
                    assert found[table].get(run, 0) >= count, (table, run)
        return set(there)


async def made(folder: Path) -> None:
    """A file with families that wait, and a store with a run of its own."""
    async with Engine(folder / "first.db", workflows=[carried, below]) as engine:
        for n in range(FAMILIES):
            await engine.start(carried(n), id=f"f{n}")
        for n in range(FAMILIES):
            while (await engine.info(f"f{n}")).status != "waiting":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await engine.export([f"f{n}" for n in range(FAMILIES)], folder / "file.db")


async def ended(folder: Path) -> dict[str, Any]:
    async with Engine(folder / "perdure.db", execute=False) as engine:
        for n in range(FAMILIES):
            await engine.send(f"f{n}", n, channel="go")
        results = {f"f{n}": await (await engine.get(f"f{n}")).result(60) for n in range(FAMILIES)}
        return results | {"busy": await (await engine.get("busy")).status()}


def test_a_killed_import_leaves_whole_families_and_the_next_one_goes_on(
    terminal: Terminal,
) -> None:
    folder = terminal.folder
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    asyncio.run(made(folder))
    (folder / "carried.py").write_text(Path(__file__).with_name("carried.py").read_text())

    async def begin() -> None:
        async with Engine(folder / "perdure.db", execute=False) as engine:
            await engine.start(busy(), id="busy")

    asyncio.run(begin())
    worker = terminal.start("worker", "carried.py")
    terminal.until(lambda: terminal.status("busy") in ("running", "waiting"))
    killed, there = 0, set[int]()
    for _ in range(KILLS):
        number = str(dice.randrange(1, QUERIES_MAX))
        words = [str(VICTIM), number, "file.db", "--go-on"]
        done = forking.run([sys.executable, *words], cwd=folder, timeout=120)
        assert done.returncode in (-signal.SIGKILL, 0), done.stderr
        killed += done.returncode != 0
        before, there = there, judged(folder / "perdure.db", folder / "file.db")
        assert before <= there
    said = terminal("import", "file.db", "--go-on", "--json")
    assert said.code == 0, said.err
    assert len(said.json["ids"]) == 2 * (FAMILIES - len(there))
    assert judged(folder / "perdure.db", folder / "file.db") == set(range(FAMILIES))
    assert killed > KILLS // 4
    results = asyncio.run(ended(folder))
    assert results.pop("busy") in ("running", "waiting")
    assert results == {f"f{n}": [n, 2 * n] for n in range(FAMILIES)}
    terminal.stop(worker)
    with contextlib.closing(connect(folder / "perdure.db")) as db:
        assert db.execute(TWICE).fetchall() == []


@pytest.mark.parametrize("number", [1, 40])
def test_the_victim_dies(terminal: Terminal, number: int) -> None:
    asyncio.run(made(terminal.folder))
    words = [sys.executable, str(VICTIM), str(number), "file.db"]
    assert forking.run(words, cwd=terminal.folder, timeout=120).returncode == -signal.SIGKILL
