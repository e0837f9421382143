"""Guarantees 8 and 10: the standard library's sqlite3, in another process, shows everything in
full; files stay small.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure import Engine, Retry, RunFailed, connect, emit, receive, step, workflow
from tests.runtime.support import awaited, outside, reached
from tests.store.support import make_older

LARGE = {"text": "x" * 20_000, "list": [{"n": n, "words": "abc" * 50} for n in range(60)]}


@step
async def echo(value: Any) -> Any:
    emit("progress", "in step")
    return value


@workflow
async def shown(value: Any) -> Any:
    await echo(1)
    emit("progress", {"from": "workflow"})
    large = await echo(value)
    await receive("more", Any)
    return large


@workflow
async def bad() -> None:
    raise ValueError("y" * 5000)


@awaited
async def test_views_show_everything_in_full(db: str) -> None:
    async with Engine(db, workflows=[shown, bad]) as engine:
        run = await engine.start(shown(LARGE), id="s", tags={"team": "red"})
        await reached(run, "waiting")
        await run.send(LARGE, channel="more", key="k1")
        assert await run.result() == LARGE
    (row,) = outside(db, "SELECT * FROM perdure_runs")
    assert (row["id"], row["workflow"], row["status"], json.loads(row["tags"])) == (
        "s",
        "shown",
        "completed",
        {"team": "red"},
    )
    assert json.loads(row["args"]) == {"value": LARGE}
    assert json.loads(row["result"]) == LARGE
    steps = outside(db, "SELECT * FROM perdure_steps ORDER BY seq")
    assert [(s["step"], s["status"], s["attempts"]) for s in steps] == [
        ("echo", "completed", 1)
    ] * 2
    assert json.loads(steps[1]["args"]) == {"value": LARGE}
    assert json.loads(steps[1]["result"]) == LARGE
    kinds = [e["kind"] for e in outside(db, "SELECT kind FROM perdure_events ORDER BY seq")]
    assert kinds == ["start", "step", "completed", "emit", "step", "completed", "message", "finish"]
    (message,) = outside(db, "SELECT * FROM perdure_messages")
    assert (message["channel"], message["key"], json.loads(message["data"])) == (
        "more",
        "k1",
        LARGE,
    )
    items = [
        json.loads(item["item"])
        for item in outside(db, "SELECT item FROM perdure_streams ORDER BY position")
    ]
    assert items == ["in step", {"from": "workflow"}, "in step"]


@awaited
async def test_a_message_that_nobody_has_taken_is_shown(db: str) -> None:
    async with Engine(db, execute=False) as client:
        await client.start(shown(1), id="s")
        await client.send("s", LARGE, channel="more")
    (message,) = outside(db, "SELECT * FROM perdure_messages")
    assert json.loads(message["data"]) == LARGE
    assert message["history_row"] is None


@awaited
async def test_a_large_error_is_shown_in_full(db: str) -> None:
    async with Engine(db, workflows=[bad]) as engine:
        with pytest.raises(RunFailed):
            await engine.run(bad(), id="b")
        info = await engine.info("b")
    (row,) = outside(db, "SELECT error FROM perdure_runs")
    assert json.loads(row["error"]) == info.error


@step(retry=Retry(attempts=3, delay=0))
async def refuse() -> None:
    raise ValueError("y" * 5000)


@workflow
async def refused() -> None:
    await refuse()


@awaited
async def test_attempts_with_large_errors_are_counted(db: str) -> None:
    async with Engine(db, workflows=[refused]) as engine:
        with pytest.raises(RunFailed):
            await engine.run(refused(), id="r")
    (row,) = outside(db, "SELECT step, status, attempts FROM perdure_steps")
    assert (row["step"], row["status"], row["attempts"]) == ("refuse", "failed", 3)


@awaited
async def test_a_file_of_version_5_gets_the_view_that_counts_them(db: str) -> None:
    async with Engine(db, workflows=[refused]) as engine:
        with pytest.raises(RunFailed):
            await engine.run(refused(), id="r")
    make_older(db, 5)
    async with Engine(db, execute=False):
        pass
    (row,) = outside(db, "SELECT step, attempts FROM perdure_steps")
    assert (row["step"], row["attempts"]) == ("refuse", 3)


TURNS, TURN_BYTES = 300, 5_000


@step
async def model(messages: list[dict[str, str]]) -> dict[str, str]:
    n = len(messages)
    return {"role": "assistant", "content": f"{n:05}" + chr(97 + n % 26) * (TURN_BYTES - 5)}


@workflow
async def agent() -> int:
    messages: list[dict[str, str]] = [{"role": "user", "content": "go"}]
    for _ in range(TURNS):
        messages.append(await model(messages))
    return len(messages)


@awaited
async def test_a_conversation_of_300_calls_stays_small_and_readable(db: str) -> None:
    async with Engine(db, workflows=[agent]) as engine:
        assert await engine.run(agent(), id="a") == TURNS + 1
        asked = [event for event in await engine.history("a") if event.kind == "step"]
    size = sum(path.stat().st_size for path in (Path(db), Path(db + "-wal")) if path.exists())
    assert size < 4_000_000, size
    assert [len(event.args["messages"]) for event in asked if event.args] == list(
        range(1, TURNS + 1)
    )
    assert all(asked[-1].args["messages"][n] == asked[n].args["messages"][-1] for n in range(TURNS))  # type: ignore[index]
    for n in (0, 150, TURNS - 1):
        (row,) = outside(db, f"SELECT args FROM perdure_steps ORDER BY seq LIMIT 1 OFFSET {n}")
        assert json.loads(row["args"]) == asked[n].args


@awaited
async def test_the_reference_has_the_columns_of_every_view(db: str) -> None:
    async with Engine(db):
        reader = connect(db)
    rows = reader.execute("SELECT name FROM sqlite_schema WHERE type = 'view'").fetchall()
    views = {str(name): columns_of(reader, str(name)) for (name,) in rows}
    page = (Path(__file__).parents[3] / "docs" / "reference" / "views.md").read_text()
    told = {
        name: re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", columns.partition(". ")[0]))
        for name, columns in re.findall(r"^\| `(perdure_\w+)` \|[^|]*\|(.*)\|$", page, re.MULTILINE)
    }
    assert set(told) == set(views)
    for name, columns in views.items():
        assert set(told[name]) == set(columns), name


def columns_of(reader: apsw.Connection, view: str) -> list[str]:
    return [name for _, name, *_ in reader.execute(f"PRAGMA table_info({view})")]
