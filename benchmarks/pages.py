"""Lists and filters at 1,000 and at 1,000,000 runs: how long the server takes, as ratios; and what
an open list costs a run.

    python benchmarks/pages.py --svg benchmarks/pages.svg

Both stores are filled with rows, as an engine writes them: each run has arguments, a step with its
result, and an end; one in 500 waits, one in 500 has failed, one in 5,000 is blocked, one in 1,000
is of another workflow. Each query is asked of both stores in turn, `--rounds` times. `page /` is
the whole page of runs, through the ASGI application: filters, counts, activity and HTML.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from perdure import Engine, step, workflow
from perdure.http.app import application
from perdure.http.site import Site
from perdure.reader import StoreReader
from perdure.reader.values import RunQuery
from perdure.store.sqlite import connection

SIZES = (1_000, 1_000_000)
LIMIT_MS = 150.0
STEPS = 400
OPEN_EVERY_S = 0.1

RUNS = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
INSERT INTO run (run, id, workflow, status, args, result, error, waiting, tags, seed, created_ms,
                 started_ms, ended_ms)
SELECT i, 'agent-' || i, CASE WHEN i % 1000 = 0 THEN 'rare' ELSE 'agent' END,
       CASE i % 500 WHEN 1 THEN 'failed' WHEN 2 THEN 'waiting'
                    ELSE CASE i % 5000 WHEN 3 THEN 'blocked' ELSE 'completed' END END,
       '{"order":' || i || ',"text":"' || hex(randomblob(60)) || '"}', '{"ok":true}',
       CASE i % 500 WHEN 1 THEN '{"type":"ValueError","message":"declined ' || i || '"}' END,
       CASE i % 500 WHEN 2 THEN '[{"message":"approval","type":"bool"}]' END,
       CASE i % 100 WHEN 0 THEN '{"tenant":"t' || (i % 10000) || '"}' END,
       i, ?2 - (?1 - i) * 100, ?2 - (?1 - i) * 100,
       CASE WHEN i % 500 = 2 OR i % 5000 = 3 THEN NULL ELSE ?2 - (?1 - i) * 100 + 500 END
FROM n
"""
ROWS = """
INSERT INTO tag SELECT 'tenant', '"t' || (run % 10000) || '"', run FROM run WHERE run % 100 = 0;
INSERT INTO event (key, kind, at_ms) SELECT run << 24 | 1, 'start', created_ms FROM run;
INSERT INTO event (key, kind, at_ms, name, data)
SELECT run << 24 | 2, 'step', created_ms + 1, 'charge', '{"amount":' || run || '}' FROM run;
INSERT INTO event (key, kind, at_ms, ref, data, took_ms)
SELECT run << 24 | 3, 'completed', created_ms + 400, 2, '"receipt ' || run || '"', 399 FROM run;
INSERT INTO event (key, kind, at_ms, name)
SELECT run << 24 | 4, 'finish', ended_ms, status FROM run WHERE ended_ms IS NOT NULL;
"""


def fill(path: str, runs: int) -> None:
    """A store with so many runs, the newest of which was started now."""
    db = connection.open_writer(path)
    db.execute("PRAGMA synchronous = off; BEGIN")
    db.execute(RUNS, (runs, time.time_ns() // 1_000_000))
    db.execute(ROWS)
    db.execute("COMMIT; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA optimize")
    db.close()


def questions() -> dict[str, RunQuery]:
    """Queries by name."""
    hour = datetime.now(UTC) - timedelta(hours=1)
    return {
        "list": RunQuery(),
        "status failed": RunQuery(status=("failed",)),
        "status completed": RunQuery(status=("completed",)),
        "status waiting, blocked": RunQuery(status=("waiting", "blocked")),
        "workflow, a rare one": RunQuery(workflow="rare"),
        "tag": RunQuery(tags={"tenant": "t100"}),
        "since an hour": RunQuery(since=hour),
        "until an hour ago": RunQuery(until=hour),
        "failed since an hour, by workflow": RunQuery(
            status=("failed",), workflow="agent", since=hour
        ),
        "queue that no run has": RunQuery(queue="q"),
        "id": RunQuery(text="agent-500"),
        "text in errors": RunQuery(text="declined 501", in_=("error",)),
        "text that no run has": RunQuery(text="not to be found"),
    }


Ask = Callable[[], Awaitable[Any]]


class Store:
    """A store that is asked."""

    def __init__(self, path: str) -> None:
        self.reader = StoreReader(path)
        app = application(Site("benchmark", self.reader))
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    def asks(self) -> dict[str, Ask]:
        """What is asked, by name."""
        reader = self.reader
        found: dict[str, Ask] = {}
        for name, asked in questions().items():
            found[name] = lambda asked=asked: reader.runs(asked)  # type: ignore[misc]
        found["counts"] = reader.counts
        found["counts of a workflow"] = lambda: reader.counts(RunQuery(workflow="agent"))
        found["inbox"] = reader.inbox
        found["activity of an hour"] = reader.activity
        found["system"] = reader.system
        found["page /"] = self._page
        return found

    async def _page(self) -> None:
        (await self.client.get("/")).raise_for_status()


async def measure(paths: list[str], rounds: int) -> list[tuple[str, list[float], Any]]:
    """For each question the times of each store in milliseconds, and how many runs were looked
    at.
    """
    stores = [Store(path) for path in paths]
    rows = []
    for name in stores[0].asks():
        times: list[list[float]] = [[] for _ in stores]
        looked = None
        for _ in range(rounds + 1):
            for store, found in zip(stores, times, strict=True):
                begin = time.perf_counter()
                answer = await store.asks()[name]()
                found.append((time.perf_counter() - begin) * 1_000)
                looked = getattr(answer, "searched", None)
        rows.append((name, [statistics.median(found[1:]) for found in times], looked))
    for store in stores:
        await store.reader.__aexit__()
    return rows


# --- what an open list costs ----------------------------------------------------------------------


@step
async def nothing(n: int) -> int:
    return n


@workflow
async def steps(many: int) -> None:
    for n in range(many):
        await nothing(n)


async def cost(folder: str, rounds: int) -> list[float]:
    """Sequential steps a second, alone and while a list is read ten times a second."""
    found: list[list[float]] = [[], []]
    async with Engine(f"{folder}/steps.db", workflows=[steps]) as engine:
        reader = engine.reader()
        await engine.run(steps(STEPS))
        for number in range(2 * rounds):
            opened = asyncio.create_task(_looking(reader)) if number % 2 else None
            begin = time.perf_counter()
            await engine.run(steps(STEPS))
            found[number % 2].append(STEPS / (time.perf_counter() - begin))
            if opened is not None:
                opened.cancel()
    return [statistics.median(one) for one in found]


async def _looking(reader: StoreReader) -> None:
    while True:
        await reader.runs(RunQuery())
        await reader.counts()
        await asyncio.sleep(OPEN_EVERY_S)


# --- output ---------------------------------------------------------------------------------------


def table(rows: list[tuple[str, list[float], Any]], sizes: tuple[int, ...]) -> list[str]:
    """The figures as Markdown."""
    heads = " | ".join(f"{size:,} runs, ms" for size in sizes)
    lines = [f"| | {heads} | ratio | runs looked at |", "|---|---|---|---|---|"]
    for name, (small, large), looked in rows:
        many = "" if looked is None else f"{looked:,}"
        lines.append(f"| {name} | {small:.2f} | {large:.2f} | {large / small:.2f} | {many} |")
    return lines


def svg(rows: list[tuple[str, list[float], Any]], sizes: tuple[int, ...]) -> str:
    """Times as bars on a scale of tens, with the limit of 150 ms."""
    import math

    left, width, row = 240, 420, 30
    low, high = -1.0, 3.0

    def x(ms: float) -> float:
        return left + width * (math.log10(max(ms, 0.1)) - low) / (high - low)

    height = 50 + row * len(rows)
    lines = [
        f'<text x="10" y="20">ms for {" and ".join(f"{size:,}" for size in sizes)} runs</text>'
    ]
    for power in range(int(low), int(high) + 1):
        at = x(10**power)
        lines.append(f'<line x1="{at}" x2="{at}" y1="34" y2="{height}" stroke="#ddd"/>')
        lines.append(f'<text x="{at}" y="30" text-anchor="middle">{10**power:g}</text>')
    for place, (name, times, _) in enumerate(rows):
        top = 40 + place * row
        lines.append(f'<text x="{left - 8}" y="{top + 16}" text-anchor="end">{escape(name)}</text>')
        for number, (ms, colour) in enumerate(zip(times, ("#9ab", "#36c"), strict=True)):
            y = top + number * 11
            lines.append(
                f'<rect x="{left}" y="{y}" height="10" width="{max(x(ms) - left, 1):.1f}" '
                f'fill="{colour}"/>'
            )
    at = x(LIMIT_MS)
    lines.append(f'<line x1="{at}" x2="{at}" y1="34" y2="{height}" stroke="#c33"/>')
    body = "\n".join(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {height}" '
        f'font-family="sans-serif" font-size="11">\n{body}\n</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--runs", type=int, default=SIZES[1], help="in the large store")
    parser.add_argument("--folder", help="the disk to measure on")
    parser.add_argument("--svg", type=Path)
    given = parser.parse_args()
    sizes = (min(SIZES[0], given.runs), given.runs)
    with TemporaryDirectory(dir=given.folder) as folder:
        paths = [f"{folder}/{size}.db" for size in sizes]
        for path, size in zip(paths, sizes, strict=True):
            fill(path, size)
        rows = asyncio.run(measure(paths, given.rounds))
        print("\n".join(table(rows, sizes)))
        alone, beside = asyncio.run(cost(folder, given.rounds))
    print(f"\nSteps a second: {alone:,.0f} alone, {beside:,.0f} beside an open list, "
          f"ratio {beside / alone:.2f}")  # fmt: skip
    if given.svg:
        given.svg.write_text(svg(rows, sizes))


if __name__ == "__main__":
    main()
