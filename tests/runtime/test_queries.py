"""Reads of runs: how many queries each takes, and which payloads it reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure import (
    Engine,
    HistoryEvent,
    Retry,
    RunFailed,
    RunNotFound,
    Workflow,
    receive,
    step,
    workflow,
)
from perdure.runtime.info import ErrorHead
from tests.runtime.support import awaited, reached
from tests.store.support import queries_of

LARGE = [f"{n:05}" + "x" * 2_000 for n in range(50)]


@step
async def echo(value: Any) -> Any:
    return value


@step(retry=Retry(attempts=2, delay=0.0))
async def refuse(value: Any) -> Any:
    raise ValueError(f"no {value}\nsecond line" + "y" * 3_000)


@workflow
async def holds(value: Any) -> Any:
    for n in range(3):
        await echo(n)
    await echo(value)
    await receive("go", bool)
    return value


@workflow
async def breaks(value: Any) -> Any:
    return await refuse(1)


@workflow
async def long(times: int) -> int:
    for n in range(times):
        await echo(n)
    return times


WORKFLOWS: list[Workflow[..., Any]] = [holds, breaks, long]


async def with_runs(engine: Engine, count: int) -> None:
    for n in range(count):
        await reached(await engine.start(holds(LARGE), id=f"h-{n}", tags={"n": n}), "waiting")
        with pytest.raises(RunFailed):
            await engine.run(breaks(LARGE), id=f"b-{n}", tags={"n": n})


def chunk_reads(queries: list[str]) -> list[str]:
    return [query for query in queries if "JOIN chunk" in query]


# --- lists ----------------------------------------------------------------------------------------


@awaited
async def test_lists_take_the_same_queries_however_long_they_are(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        await with_runs(engine, 6)
    async with Engine(db, execute=False) as client:
        await client.runs()  # asks once which version the schema has
        for limit in (1, 12):
            assert len(await queries_of(client._store, client.runs(limit=limit))) == 3
            assert len(await queries_of(client._store, client.summaries(limit=limit))) <= 3
            tagged = client.summaries(limit=limit, tags={"n": 1}, status="waiting", after="b-5")
            assert len(await queries_of(client._store, tagged)) == 3


@awaited
async def test_a_summary_has_all_of_info_but_the_payloads(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        await with_runs(engine, 1)
        infos, summaries = await engine.runs(), await engine.summaries()
        assert [one.id for one in summaries] == [one.id for one in infos] == ["b-0", "h-0"]
        for info, summary in zip(infos, summaries, strict=True):
            for name in set(info.__struct_fields__) - {"args", "result", "error"}:
                assert getattr(summary, name) == getattr(info, name), name
            assert await engine.summary(info.id) == summary
        assert summaries[1].error is None
        assert summaries[1].last == "echo"
        assert summaries[0].error is not None
        assert summaries[0].error.message.startswith("Step refuse failed after 2 attempts")
        assert infos[1].args == {"value": LARGE}


@awaited
async def test_a_list_reads_no_arguments_and_no_results(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        await reached(await engine.start(holds(LARGE), id="h"), "waiting")
        await engine.send("h", True, channel="go")
        assert await (await engine.get("h")).result() == LARGE
        assert chunk_reads(await queries_of(engine._store, engine.summaries())) == []
        assert len(chunk_reads(await queries_of(engine._store, engine.runs()))) == 1


@awaited
async def test_runs_are_counted_by_status_without_reading_them(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        assert await engine.counts() == {}
        await with_runs(engine, 2)
        await engine.run(long(1), id="l")
        assert await engine.counts() == {"waiting": 2, "failed": 2, "completed": 1}
        assert (await engine.doctor())["runs"] == await engine.counts()
        (query,) = await queries_of(engine._store, engine.counts())
        plan = [row[3] for row in engine._store._read.execute("EXPLAIN QUERY PLAN " + query)]
    scans = [line for line in plan if "run" in line.split() and "COVERING INDEX" not in line]
    assert plan
    assert scans == []


# --- one run --------------------------------------------------------------------------------------


@awaited
async def test_status_and_progress_read_no_payload(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        run = await engine.start(holds(LARGE), id="h")
        await reached(run, "waiting")
        assert len(await queries_of(engine._store, run.status())) == 1
        queries = await queries_of(engine._store, engine.progress("h"))
        assert len(queries) == 2
        assert chunk_reads(queries) == []
        assert chunk_reads(await queries_of(engine._store, engine.summary("h"))) == []


@awaited
async def test_progress_counts_steps_by_what_has_become_of_them(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        await reached(await engine.start(holds(1), id="h"), "waiting")
        progress = await engine.progress("h")
        assert (progress.steps_done, progress.steps_total, progress.steps_failed) == (4, 4, 0)
        (item,) = progress.waiting_for
        assert (progress.status, item["message"], item["type"]) == ("waiting", "go", "bool")
        assert progress.last_error is None
        with pytest.raises(RunFailed):
            await engine.run(breaks(1), id="b")
        progress = await engine.progress("b")
        assert (progress.steps_done, progress.steps_total, progress.steps_failed) == (1, 1, 1)
        error = progress.last_error
        assert isinstance(error, ErrorHead)
        assert (error.type, error.step, error.attempt) == ("ValueError", "refuse", 2)
        assert error.message.startswith("no 1\n")
        assert error.at is not None


@awaited
async def test_what_there_is_not_is_not_found(db: str) -> None:
    async with Engine(db, execute=False) as client:
        for ask in (client.summary, client.progress, client.history, client.info):
            with pytest.raises(RunNotFound):
                await ask("nobody")


# --- histories ------------------------------------------------------------------------------------


@awaited
async def test_pages_put_together_are_the_history(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        await engine.run(long(20), id="l")
        whole = await engine.history("l")
        run = await engine.get("l")
        assert [row.seq for row in whole] == list(range(1, 43))
        for limit in (1, 7, 42, 100):
            pages: list[HistoryEvent] = []
            while page := await run.history(after=pages[-1].seq if pages else None, limit=limit):
                assert len(page) <= limit
                pages += page
            assert pages == whole


@awaited
async def test_a_page_costs_the_page(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        await reached(await engine.start(holds(LARGE), id="h"), "waiting")
        for limit in (2, 6):
            queries = await queries_of(engine._store, engine.history("h", after=1, limit=limit))
            assert len(queries) <= 3
            assert chunk_reads(queries) == []
        assert len(await queries_of(engine._store, engine.history("h"))) <= 5


@awaited
async def test_an_outline_has_times_and_names_and_reads_no_payload(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        await reached(await engine.start(holds(LARGE), id="h"), "waiting")
        with pytest.raises(RunFailed):
            await engine.run(breaks(LARGE), id="b")
        for run_id in ("h", "b"):
            outline = await engine.history(run_id, payloads=False)
            for row, bare in zip(await engine.history(run_id), outline, strict=True):
                assert (bare.seq, bare.kind, bare.name, bare.at) == (
                    row.seq,
                    row.kind,
                    row.name,
                    row.at,
                )
                assert (bare.ref, bare.of, bare.took_ms) == (row.ref, row.of, row.took_ms)
                assert (bare.args, bare.result) == (None, None)
                assert (bare.error is not None) == (row.kind == "attempt")
            queries = await queries_of(engine._store, engine.history(run_id, payloads=False))
            assert len(queries) == 2
            assert chunk_reads(queries) == []


@awaited
async def test_an_answer_names_what_it_answers_also_where_that_is_on_another_page(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        await engine.run(long(3), id="l")
        (page,) = [await engine.history("l", after=2, limit=1)]
        assert [(row.kind, row.ref, row.of) for row in page] == [("completed", 2, "echo")]


@awaited
async def test_an_entry_is_a_row_with_what_answers_it(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        with pytest.raises(RunFailed):
            await engine.run(breaks(1), id="b")
        entry = await engine.entry("b", 2)
        assert [row.kind for row in entry] == ["step", "attempt", "failed"]
        assert entry == [row for row in await engine.history("b") if 2 in (row.seq, row.ref)]
        assert await engine.entry("b", 99) == []


@awaited
async def test_a_history_is_the_same_by_every_way(db: str) -> None:
    async with Engine(db, workflows=WORKFLOWS) as engine:
        with pytest.raises(RunFailed):
            await engine.run(breaks(LARGE), id="b")
        history = await engine.history("b")
        info = await engine.info("b")
        assert history[0].args == info.args == {"value": LARGE}
        assert history[-1].error == info.error
        assert json.dumps(info.error)
