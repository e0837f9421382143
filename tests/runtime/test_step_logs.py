"""What steps log is kept with their run: by attempt, bounded, and never in anything's way."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from perdure import (
    BadName,
    DefinitionError,
    Engine,
    Limits,
    Retry,
    Secret,
    current_step,
    emit,
    receive,
    step,
    workflow,
)
from perdure.runtime.observer import Observer
from perdure.runtime.step_logs import RECORDS
from tests.runtime.support import AT_ONCE, awaited, outside, reached, until

log = logging.getLogger("tests.steps")
alone = logging.Logger("tests.alone", logging.DEBUG)  # noqa: LOG001
"""Without a handler that makes text of a record: those of pytest raise what that raises."""


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    log.setLevel(logging.DEBUG)
    yield
    log.setLevel(logging.NOTSET)


def lines(db: str, columns: str = "message") -> list[Any]:
    found = outside(db, f"SELECT {columns} FROM perdure_logs ORDER BY position")
    rows = [tuple(row.values()) for row in found]
    return rows if "," in columns else [value for (value,) in rows]


@step
async def logs(text: str) -> None:
    log.info("%s in a step", text)
    await asyncio.to_thread(log.info, "%s in a thread of it", text)


@step
def logs_in_thread(text: str) -> None:
    log.warning("%s in a plain step", text)


@workflow
async def both(text: str) -> None:
    log.info("workflow code is no step")
    await logs(text)
    await logs_in_thread(text)


@awaited
async def test_lines_are_kept_with_the_step_that_logs_them(db: str) -> None:
    async with Engine(db, workflows=[both]) as engine:
        await engine.run(both("a"), id="r")
    assert lines(db, "run_id, seq, step, attempt, level, logger, message") == [
        ("r", 2, "logs", 1, "INFO", "tests.steps", "a in a step"),
        ("r", 2, "logs", 1, "INFO", "tests.steps", "a in a thread of it"),
        ("r", 4, "logs_in_thread", 1, "WARNING", "tests.steps", "a in a plain step"),
    ]
    assert outside(db, "SELECT * FROM perdure_streams") == []


@awaited
async def test_lines_of_runs_and_engines_do_not_mix(db: str, tmp_path: Any) -> None:
    other_db = str(tmp_path / "other.db")
    async with Engine(db, workflows=[both]) as one, Engine(other_db, workflows=[both]) as other:
        await asyncio.gather(
            one.run(both("a"), id="a"), other.run(both("b"), id="b"), one.run(both("c"), id="c")
        )
    found = lines(db, "run_id, substr(message, 1, 1)")
    assert sorted(found) == [("a", "a")] * 3 + [("c", "c")] * 3
    assert lines(other_db, "run_id, substr(message, 1, 1)") == [("b", "b")] * 3


@step(retry=AT_ONCE)
async def fails_once() -> None:
    attempt = current_step().attempt
    log.info("attempt %d", attempt)
    if attempt == 1:
        try:
            raise ValueError("not yet")
        except ValueError:
            log.exception("it failed")
            raise


@workflow
async def retrying() -> None:
    await fails_once()


@awaited
async def test_each_attempt_has_its_lines_and_errors_their_traceback(db: str) -> None:
    async with Engine(db, workflows=[retrying]) as engine:
        await engine.run(retrying())
    found = lines(db, "attempt, level, message, traceback")
    assert [one[:3] for one in found] == [
        (1, "INFO", "attempt 1"), (1, "ERROR", "it failed"), (2, "INFO", "attempt 2"),
    ]  # fmt: skip
    assert found[1][3].endswith("ValueError: not yet")


@step
async def many(count: int) -> None:
    for n in range(count):
        log.info("line %d", n)


@workflow
async def many_lines(count: int, steps: int = 1) -> None:
    for _ in range(steps):
        await many(count)


@awaited
async def test_what_an_attempt_logs_has_a_limit_and_the_rest_is_counted(db: str) -> None:
    limits = Limits(attempt_log_lines_max=3)
    async with Engine(db, workflows=[many_lines], limits=limits) as engine:
        await engine.run(many_lines(10))
    assert lines(db, "seq, attempt, message, dropped") == [
        *[(2, 1, f"line {n}", None) for n in range(3)], (2, 1, None, 7),
    ]  # fmt: skip


@awaited
async def test_what_a_run_logs_has_a_limit_also_where_it_goes_on_elsewhere(db: str) -> None:
    limits = Limits(run_log_lines_max=5)
    async with Engine(db, workflows=[held], limits=limits) as engine:
        await reached(await engine.start(held(3), id="r"), "waiting")
    async with Engine(db, workflows=[held], limits=limits) as engine:
        await engine.send("r", 1, channel="go")
        await (await engine.get("r")).result()
    found = lines(db, "message, dropped")
    assert [one[0] for one in found if one[0]] == ["line 0", "line 1", "line 2", "line 0", "line 1"]
    assert sum(one[1] or 0 for one in found) == 4


@workflow
async def held(count: int) -> None:
    await many(count)
    await receive("go", int)
    await many(count)
    await many(count)


class Commits(Observer):
    def __init__(self) -> None:
        self.number = 0

    def committed(self, writes: int, ms: float) -> None:
        self.number += 1


@awaited
async def test_lines_come_with_the_commits_that_there_are(db: str) -> None:
    counts = []
    for count in (0, 30):
        commits = Commits()
        async with Engine(db, workflows=[many_lines], observer=commits, lease_ttl=600) as engine:
            await engine.run(many_lines(0))  # the first one declares and joins
            before = commits.number
            await engine.run(many_lines(count, steps=5))
            counts.append(commits.number - before)
    assert len(lines(db)) == 150
    assert counts[1] <= counts[0] + 1  # the one for what is not written otherwise may be among them


@awaited
async def test_lines_are_there_while_the_step_runs(db: str) -> None:
    gate = asyncio.Event()

    @step
    async def slow() -> None:
        log.info("it has begun")
        await gate.wait()

    @workflow
    async def waits() -> None:
        await slow()

    async with Engine(db, workflows=[waits]) as engine:
        run = await engine.start(waits())
        assert await until(lambda: lines(db)) == ["it has begun"]
        gate.set()
        await run.result()


@awaited
async def test_levels_and_off(db: str) -> None:
    for level, wanted in (("WARNING", 1), (logging.DEBUG, 4), (None, 4)):
        async with Engine(db, workflows=[both], step_logs=level) as engine:
            await engine.run(both("a"))
        assert len(lines(db)) == wanted
    wrong: list[Any] = ["LOUD", 1.5, True, []]
    for bad in wrong:
        with pytest.raises(DefinitionError, match="step_logs is the lowest level"):
            Engine(db, step_logs=bad)


@awaited
async def test_records_are_watched_while_an_engine_is_open_that_keeps_them(db: str) -> None:
    before = RECORDS.watchers
    async with Engine(db):
        assert RECORDS.watchers == before + 1
        async with Engine(db, execute=False), Engine(db, step_logs=None):
            assert RECORDS.watchers == before + 1
    assert RECORDS.watchers == before


@awaited
async def test_what_is_logged_after_the_end_is_not_taken(db: str) -> None:
    said, goes_on = threading.Event(), threading.Event()

    @step(timeout=0.05, retry=Retry(attempts=1))
    def too_slow() -> None:
        log.info("in time")
        goes_on.wait(60)
        log.info("too late")
        said.set()

    @workflow
    async def waits() -> None:
        try:
            await too_slow()
        except Exception:
            await logs("after it")

    async with Engine(db, workflows=[waits]) as engine:
        await engine.run(waits())
        goes_on.set()
        await asyncio.to_thread(said.wait, 60)
        await logs("outside of any run")
        await engine.run(both("b"))
    assert "too late" not in lines(db)
    assert lines(db)[0] == "in time"
    assert len(lines(db)) == 1 + 2 + 3


class LogsAtItsEnd:
    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        alone.info("in __del__")


class LogsAsText:
    def __str__(self) -> str:
        alone.info("in __str__")
        return "text"


@awaited
async def test_lines_of_finalizers_and_of_texts(db: str) -> None:
    @step
    def odd() -> None:
        LogsAtItsEnd()
        gc.collect()
        alone.info("%s", LogsAsText())

    @workflow
    async def oddly() -> None:
        await odd()

    async with Engine(db, workflows=[oddly]) as engine:
        await engine.run(oddly())
    # what the text of a line logs is counted, and is no line
    assert lines(db, "message, dropped") == [("in __del__", None), ("text", None), (None, 1)]


@awaited
async def test_a_hostile_record_costs_its_line_at_most(db: str) -> None:
    @step
    async def hostile(secret: Secret) -> None:
        alone.info("%d", "x")
        alone.info("\ud800")
        alone.info("token %s", secret)
        alone.handle(logging.makeLogRecord({"msg": "made elsewhere", "levelno": 20}))
        logging.getLogger("perdure.run").warning("our own")

    @workflow
    async def attacked(secret: Secret) -> None:
        await hostile(secret)

    async with Engine(db, workflows=[attacked]) as engine:
        await engine.run(attacked(Secret("sk-123")))
    found = lines(db)
    assert found[0].startswith("'%d' % ('x',)")
    assert found[1:] == ["\\ud800", "token •••"]


@awaited
async def test_lines_of_a_transactional_step(db: str) -> None:
    @step(transactional=True, retry=AT_ONCE)
    def writes(connection: Any) -> None:
        log.info("attempt %d", current_step().attempt)
        if current_step().attempt == 1:
            raise ValueError("rolled back")

    @workflow
    async def writing() -> None:
        await writes()

    async with Engine(db, workflows=[writing]) as engine:
        await engine.run(writing())
    assert lines(db) == ["attempt 1", "attempt 2"]


@awaited
async def test_nobody_emits_to_the_stream_of_the_lines(db: str) -> None:
    @step
    async def emits() -> str:
        with pytest.raises(BadName, match="has the lines that steps log"):
            emit("perdure_logs", 1)
        return "refused"

    @workflow
    async def emitting() -> str:
        with pytest.raises(BadName):
            emit("perdure_logs", 1)
        return await emits()

    async with Engine(db, workflows=[emitting]) as engine:
        assert await engine.run(emitting()) == "refused"


@pytest.mark.parametrize(("limit", "most"), [("PENDING_MAX", 5), ("PENDING_BYTES_MAX", 250)])
@awaited
async def test_a_burst_is_bounded_while_the_store_takes_nothing(
    db: str, limit: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"perdure.runtime.step_logs.{limit}", most)
    async with Engine(db, workflows=[many_lines]) as engine:
        await engine.run(many_lines(9))
    assert lines(db, "message, dropped") == [
        *[(f"line {n}", None) for n in range(5)], (None, 4),
    ]  # fmt: skip
