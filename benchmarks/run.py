"""One command for the first measurements: ratios within one run, alternating, on the disk that the store is on.

    python benchmarks/run.py [--folder DIR] [--rounds N] [--plot FILE] [--only NAME]

Rules: nothing is compared across runs, because machines differ and change their speed; medians are printed; the
raw commit uses the same SQLite, the same settings and a recycled WAL; the plot shows what the table says.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import statistics
import tempfile
import time
from pathlib import Path

import apsw
from plot import bars
from polling import polling

from perdure import Engine, step, workflow

WARM_COMMITS = 1500
SEQUENTIAL_STEPS = 200


@step
async def noop(n: int) -> int:
    return n


@workflow
async def sequence(steps: int) -> int:
    for n in range(steps):
        await noop(n)
    return steps


class RawCommits:
    """One-row durable commits through apsw: the floor under every durable step."""

    def __init__(self, path: Path) -> None:
        self._db = apsw.Connection(str(path))
        for pragma in ("page_size=4096", "journal_mode=wal", "synchronous=full"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT) STRICT")

    def run(self, commits: int) -> float:
        """Seconds for so many commits."""
        execute = self._db.execute
        begin = time.perf_counter()
        for _ in range(commits):
            execute("BEGIN IMMEDIATE")
            execute("INSERT INTO t (body) VALUES (?)", ("x" * 100,))
            execute("COMMIT")
        return time.perf_counter() - begin


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def sequential(folder: Path, rounds: int) -> list[tuple[str, float, str]]:
    """A sequential no-op step against a raw one-row commit, in turn."""
    raw = RawCommits(folder / "raw.db")
    steps_us, raw_us, cpu_us = [], [], []
    async with Engine(folder / "sequential.db", workflows=[sequence]) as engine:
        await engine.run(sequence(WARM_COMMITS))
        raw.run(WARM_COMMITS)
        for _ in range(rounds):
            raw_us.append(raw.run(SEQUENTIAL_STEPS) / SEQUENTIAL_STEPS * 1e6)
            begin, cpu = time.perf_counter(), cpu_seconds()
            await engine.run(sequence(SEQUENTIAL_STEPS))
            steps_us.append((time.perf_counter() - begin) / SEQUENTIAL_STEPS * 1e6)
            cpu_us.append((cpu_seconds() - cpu) / SEQUENTIAL_STEPS * 1e6)
    ratio = statistics.median(one / other for one, other in zip(steps_us, raw_us, strict=True))
    return [
        ("raw one-row durable commit", statistics.median(raw_us), "µs"),
        ("sequential no-op step", statistics.median(steps_us), "µs"),
        ("step / raw commit", ratio, "x"),
        ("CPU per sequential step", statistics.median(cpu_us), "µs"),
    ]


async def crowd(folder: Path, runs: int, steps: int, rounds: int) -> list[tuple[str, float, str]]:
    """Many runs at once: steps per second, and CPU per step."""
    rates, cpu_us = [], []
    async with Engine(folder / f"crowd-{runs}.db", workflows=[sequence]) as engine:
        await engine.run(sequence(WARM_COMMITS))
        for _ in range(rounds):
            begin, cpu = time.perf_counter(), cpu_seconds()
            await asyncio.gather(*(engine.run(sequence(steps)) for _ in range(runs)))
            rates.append(runs * steps / (time.perf_counter() - begin))
            cpu_us.append((cpu_seconds() - cpu) / (runs * steps) * 1e6)
    return [
        (f"{runs} runs x {steps} steps", statistics.median(rates), "steps/s"),
        (f"CPU per step, {runs} x {steps}", statistics.median(cpu_us), "µs"),
    ]


async def start_to_result(folder: Path, rounds: int) -> list[tuple[str, float, str]]:
    """A run of one step, from `start` to its result."""
    times = []
    async with Engine(folder / "latency.db", workflows=[sequence]) as engine:
        await engine.run(sequence(WARM_COMMITS))
        for _ in range(rounds * 20):
            begin = time.perf_counter()
            await engine.run(sequence(1))
            times.append((time.perf_counter() - begin) * 1e3)
    return [("start to result, one step", statistics.median(times), "ms")]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, help="where the stores are made (default: a temporary folder)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--plot", type=Path, help="write the table as an SVG file")
    parser.add_argument("--only", choices=["sequential", "crowd", "latency", "polling"])
    options = parser.parse_args()
    gc.freeze()  # as `perdure worker` does: what was imported need not be looked through again and again
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        rows: list[tuple[str, float, str]] = []
        if options.only in (None, "sequential"):
            rows += await sequential(folder, options.rounds)
        if options.only in (None, "crowd"):
            for runs, steps in ((10, 100), (100, 20), (1000, 5)):
                rows += await crowd(folder, runs, steps, max(3, options.rounds // 3))
        if options.only in (None, "latency"):
            rows += await start_to_result(folder, options.rounds)
        if options.only in (None, "polling"):
            rows += polling(folder)
    for label, value, unit in rows:
        print(f"{label:40} {value:12,.2f} {unit}")
    if options.plot:
        options.plot.write_text(bars(rows))


if __name__ == "__main__":
    asyncio.run(main())
