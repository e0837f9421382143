"""`/metrics`: what it counts, in a form that Prometheus reads."""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from perdure import Engine, Queue, Retry, receive, step, workflow
from perdure.http.counters import NAMES_MAX, Counters
from tests.http.support import Serve, Served
from tests.runtime.support import awaited, reached

SAMPLE = re.compile(r'(perdure_\w+)(\{(?:\w+="(?:[^"\\\n]|\\.)*",?)+\})? (\S+)')


@step(retry=Retry(attempts=2, delay=0))
async def shaky(tries: list[int]) -> str:
    raise ValueError("no")


@step
async def fine() -> str:
    return "yes"


@workflow
async def order(good: bool) -> str:
    return await fine() if good else await shaky([])


@workflow
async def waits() -> None:
    await receive("paid", bool)


def samples(text: str) -> dict[str, float]:
    """The samples of a page of metrics, each of which has its HELP and TYPE above it."""
    found, typed = {}, set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            typed.add(line.split()[2])
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match is not None and match[1] in typed, line
            found[f"{match[1]}{match[2] or ''}"] = float(match[3])
    return found


def test_the_store_is_counted_without_an_observer(serve: Serve) -> None:
    served: Served = serve(workflows=[waits], queues=[Queue('a "b"\\c', concurrency=1)])

    async def parked(engine):
        for name in ("one", "two"):
            await engine.start(waits(), id=name, queue='a "b"\\c')
        await reached(await engine.get("one"), "waiting")

    served.do(parked)
    answer = served.client().get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples(answer.text)
    assert found["perdure_workers"] == 1 and found["perdure_inbox_items"] == 1
    assert found['perdure_queue_running{queue="a \\"b\\"\\\\c"}'] == 1
    assert found['perdure_queue_waiting{queue="a \\"b\\"\\\\c"}'] == 1
    assert found['perdure_store_bytes{file="main"}'] > 0
    assert "perdure_commits_total" not in found


@awaited
async def test_an_engine_whose_application_was_made_first_is_counted(tmp_path: Path) -> None:
    engine = Engine(str(tmp_path / "o.db"), workflows=[order])
    transport = httpx.ASGITransport(engine.asgi())
    engine.asgi()  # a second one counts no event twice
    async with engine, httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        await engine.run(order(True))
        failed = await engine.start(order(False), id="bad")
        await reached(failed, "failed")
        found = samples((await http.get("/metrics")).text)
    assert found['perdure_attempts_total{step="fine",outcome="succeeded"}'] == 1
    assert found['perdure_attempts_total{step="shaky",outcome="retried"}'] == 1
    assert found['perdure_attempts_total{step="shaky",outcome="failed"}'] == 1
    assert found['perdure_runs_ended_total{workflow="order",status="failed"}'] == 1
    assert found['perdure_runs{status="completed"}'] == 1
    assert found["perdure_attempts_running"] == 0
    assert 0 < found["perdure_commits_total"] <= found["perdure_writes_total"]


def test_names_are_bounded() -> None:
    counters = Counters()
    for number in range(NAMES_MAX + 5):
        counters.run_started("r", f"w{number}", resumed=False)
    assert len(counters.started) == NAMES_MAX + 1 and counters.started["other"] == 5


def test_the_last_minute_has_sixty_seconds() -> None:
    counters = Counters()
    counters.committed(3, 0.2)
    recent = counters.recent()
    assert len(recent.commits) == len(recent.writes) == 60
