"""One run: why it does not go on, its relatives, its past, and what differs from another."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure import BadPosition, DefinitionError, Engine, RunNotFound, step, workflow
from perdure.process.clock import SystemClock
from perdure.reader import StoreReader
from perdure.reader.values import RunQuery
from perdure.runtime.workers import NO_WORKER
from perdure.views import moment as moments
from perdure.views import tree
from tests.reader.conftest import Read
from tests.runtime.support import awaited

begun, goes_on = asyncio.Event(), asyncio.Event()


@step
async def take_long() -> None:
    begun.set()
    await goes_on.wait()


@workflow
async def works() -> None:
    await take_long()


@step
async def add(a: int) -> int:
    return a + 1


@workflow
async def counts(until: int) -> int:
    a = 0
    while a < until:
        a = await add(a)
    return a


def test_a_sentence_for_what_does_not_go_on(read: Read) -> None:
    ids = ["asks", "answers", "pays", "in-2", "stopped", "plain-1", "breaks"]
    found = read("whys", ids)
    assert found["asks"] == "Waits for a message on approval (bool). Nobody has sent one."
    assert found["answers"] == "Waits for a message on never (str). Nobody has sent one."
    assert found["pays"].startswith("Step charge failed: ValueError: no money for 5. Attempt 2 of")
    assert found["in-2"] == (
        "1st in queue slow; all places are taken. All its places are held by runs that wait "
        "themselves: in-1 waits for a message on 'approval'."
    )
    assert found["stopped"].startswith("Somebody has paused it")
    assert found.keys() == set(ids) - {"plain-1", "breaks"}
    assert read("why", "asks") == found["asks"]
    assert read("whys", ["pruned meanwhile"]) == {}


def test_a_family_is_a_tree_from_its_top(read: Read) -> None:
    page = read("runs", RunQuery(parent="family"))
    third, second, first = (run.id for run in page.runs)
    family = read("family", second)
    assert tree.lines(family) == [
        "family  completed  family",
        f"├ {first}  completed  plain",
        f"├ {second}  completed  plain  (this run)",
        f"└ {third}  completed  plain",
    ]
    assert not family.more
    assert tree.lines(read("family", "fork")) == [
        "plain-1  completed  plain",
        "└ fork  completed  plain  fork of plain-1  (this run)",
    ]
    cut = read("family", "family", limit=2)
    assert (len(cut.relatives), cut.more) == (2, True)


def test_a_moment_knows_what_the_workflow_knew(read: Read) -> None:
    history = read("history", "plain-1")
    asked = next(row.seq for row in history if row.kind == "step")
    found = read("at", "plain-1", asked)
    assert [(one.kind, one.name) for one in found.pending] == [("step", "double")]
    assert (found.exposed, found.tags, found.emitted) == (
        {"stage": "first"},
        {"parity": "odd"},
        {"log": 1},
    )
    assert (found.known, found.answers, found.row.args) == ([], 0, {"n": 1})
    assert found.args is not None and found.args["n"] == 1
    then = read("at", "plain-1", asked + 3)
    assert [one.name for one in then.known] == ["double"]
    assert (then.pending, then.exposed) == ([], {"stage": "second", "result": 2})
    assert found.stops == [1, asked + 1, len(history)]
    for seq in (0, 99):
        with pytest.raises(DefinitionError):
            read("at", "plain-1", seq)


@awaited
async def test_a_slider_has_stops_over_a_whole_long_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "a.db")
    async with Engine(path, workflows=[counts]) as engine:
        run = await engine.start(counts(30), id="long")
        await run.result()
    async with StoreReader(path) as reader:
        rows = (await reader.summary("long")).history_rows
        every = (await reader.at("long", 1)).stops
        monkeypatch.setattr(moments, "STOPS_MAX", 5)
        seen = [await reader.at("long", seq) for seq in range(1, rows + 1)]
    for seq, found in enumerate(seen, 1):
        here = max(stop for stop in every if stop <= seq)
        assert {every[0], here, every[-1]} <= set(found.stops) <= set(every)
        assert found.stops == sorted(set(found.stops))
        assert (4 <= len(found.stops) <= 5, found.stops_more) == (True, True)
        assert found.stop_before == max((one for one in every if one < seq), default=None)
        assert found.stop_behind == min((one for one in every if one > seq), default=None)


def test_two_runs_side_by_side(read: Read) -> None:
    found = read("compare", "plain-1", "plain-2")
    assert (found.same, found.same_args, found.same_until) == (False, False, 2)
    states = [(pair.state, pair.differs) for pair in found.pairs]
    assert states[:4] == [("same", []), ("same", []), ("differs", ["data"]), ("differs", ["data"])]
    assert ("differs", ["args"]) in states
    assert found.totals_a.steps == 1
    assert read("compare", "plain-1", "plain-1").same
    fork = read("compare", "plain-1", "fork")
    assert fork.same_until == fork.totals_a.rows
    short = read("compare", "plain-1", "asks", limit=2)
    assert (len(short.pairs), short.more) == (2, True)


def test_what_a_run_shows(read: Read) -> None:
    exposed = read("exposed", "plain-1")
    assert {one.name: one.value for one in exposed} == {"stage": "second", "result": 2}
    (stream,) = read("streams", "plain-1")
    assert (stream.name, stream.items.number) == ("log", 1)
    items, over = read("stream_on", "plain-1", "log")
    assert ([one.item for one in items], over) == ([{"n": 1}], False)
    behind = items[-1].position
    assert read("stream_on", "plain-1", "log", behind) == ([], True)
    with pytest.raises(BadPosition):
        read("stream_on", "plain-2", "log", behind)
    (request,) = read("requests", "answers")
    assert (request.channel, request.key) == ("quote", "k")


@pytest.mark.parametrize("name", ["run", "summary", "history", "waterfall", "why", "family"])
def test_an_unknown_run_is_said(read: Read, name: str) -> None:
    for odd in ("nobody", "a/../b", "\ud800", ""):
        with pytest.raises(RunNotFound):
            read(name, odd)


@awaited
async def test_a_worker_whose_lease_has_run_out_is_none(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    async with Engine(path, workflows=[works]) as engine:
        run = await engine.start(works(), id="left")
        await begun.wait()
        ahead_ms = 0
        async with StoreReader(path, now_ms=lambda: SystemClock().now_ms() + ahead_ms) as reader:
            assert (await reader.why("left"), (await reader.system()).workers) == (None, 1)
            assert (await reader.doctor())["stuck"] == []
            ahead_ms = 3_600_000
            why, system, doctor = (
                await reader.why("left"),
                await reader.system(),
                await reader.doctor(),
            )
            assert why is not None and why.endswith(NO_WORKER)
            assert (system.workers, system.no_worker, doctor["no_worker"]) == (
                0,
                NO_WORKER,
                NO_WORKER,
            )
            assert [one["id"] for one in doctor["stuck"]] == ["left"]
            assert NO_WORKER in doctor["stuck"][0]["reason"]
        goes_on.set()
        await run.result()
