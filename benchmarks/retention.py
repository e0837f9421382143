"""A month of runs with retention: how large the file is each day, and for how long a prune holds
the store.

    python benchmarks/retention.py --runs 10000 --days 30 --svg benchmarks/retention.svg

Dates are virtual: the runs of a day are written as fast as the disk takes them, then the clock is
set to the end of that day, and the engine's own pruner works while other writes go on. The rows are
those of a usual run: arguments, three steps with results, a message, a stream; one run in ten has a
large payload, one in twenty a child, two in a hundred fail and one is cancelled.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections.abc import Sequence
from datetime import timedelta
from html import escape
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from perdure import Limits, Retention
from perdure.core.events import COMPLETED, FINISH, START, STEP, Event
from perdure.process.clock import SystemClock
from perdure.runtime.pruning import Pruning
from perdure.runtime.read_executor import ReadExecutor
from perdure.runtime.writer import Writer
from perdure.store.retention_writes import GiveBackSpace, PruneRuns, SweepPruned
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.writes import (
    Append,
    Deliver,
    Emit,
    Finish,
    JoinWorker,
    RenewLease,
    StartRun,
    Turn,
    Write,
)

DAY_MS = 86_400_000
OF_A_PRUNE = (PruneRuns, SweepPruned, GiveBackSpace)
BATCH_RUNS = 100
FIRST_MS = 20_000 * DAY_MS
SAMPLE_S = 0.002


class VirtualClock(SystemClock):
    """A clock that is set."""

    at_ms = FIRST_MS

    def now_ms(self) -> int:
        return self.at_ms


class MeasuredStore(SqliteStore):
    """A store that notes for how long each write of a prune held it, its commit included, and how
    much of that this process computed: the rest is the disk's, or other processes had the core.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, limits=Limits())
        self.holds_ms: list[tuple[float, float]] = []

    def write(self, batch: Sequence[Write], wait_for_lock: bool) -> list[Any]:
        begin_s = time.thread_time()
        results = super().write(batch, wait_for_lock)
        if any(isinstance(write, OF_A_PRUNE) for write in batch):
            self.holds_ms.append((self.held_ms, (time.thread_time() - begin_s) * 1_000))
        return results


class Month:
    """A store that gets the runs of one day after the other."""

    def __init__(self, path: Path, runs_a_day: int, seed: int, archive: str | None) -> None:
        self.path, self.runs_a_day = path, runs_a_day
        self.store = MeasuredStore(str(path))
        self.reads, self.writer = ReadExecutor(self.store), Writer(self.store, 1_000)
        self.clock, self._random = VirtualClock(), random.Random(seed)
        self.retention = Retention(
            timedelta(days=7), timedelta(days=14), timedelta(days=7), archive=archive
        )
        self._number = 0
        self._worker: int = self._write(JoinWorker("w", "h", 1, "", FIRST_MS, 10**12))[0]

    def write_day(self, day: int) -> None:
        """Write the runs of a day."""
        begin_ms = FIRST_MS + day * DAY_MS
        for first in range(0, self.runs_a_day, BATCH_RUNS):
            at_ms = begin_ms + DAY_MS * first // self.runs_a_day
            runs = min(BATCH_RUNS, self.runs_a_day - first)
            starts = [self._start(at_ms) for _ in range(runs)]
            started = [one.run for one in self._write(*starts)]
            family = [
                self._start(at_ms, parent=run) for run in started if self._random.random() < 0.05
            ]
            started = [one.run for one in self._write(*family)] + started
            ids = [one.id for one in [*family, *starts]]
            pairs = zip(started, ids, strict=True)
            self._write(*(write for run, id in pairs for write in self._run(run, id, at_ms)))

    def _write(self, *writes: Any) -> list[Any]:
        return self.store.write(writes, True) if writes else []

    def _start(self, at_ms: int, parent: int | None = None) -> StartRun:
        self._number += 1
        large = self._random.random() < 0.1
        args = json.dumps({"text": "x" * (6_000 if large else 200), "n": self._number}).encode()
        start = StartRun(f"run-{self._number}", "flow", args, 1, at_ms, None, self._worker)
        start.parent, start.parent_seq = parent, None if parent is None else 2
        start.tags = {"customer": self._number % 1_000}
        start.first = [Event(1, START, at_ms)]
        return start

    def _run(self, run: int, id: str, at_ms: int) -> list[Any]:
        rows = [Deliver(id, "message", at_ms, "channel", None, None, b'"go"')]
        events: list[Any] = [
            event
            for seq in (2, 4, 6)
            for event in (
                Event(seq, STEP, at_ms, name="work", data=b'{"n":1,"text":"%s"}' % (b"y" * 120)),
                Event(seq + 1, COMPLETED, at_ms, ref=seq, data=b'"%s"' % (b"z" * 200), took_ms=5),
            )
        ]
        number = self._random.random()
        status = "failed" if number < 0.02 else "cancelled" if number < 0.03 else "completed"
        end = Turn(run, self._worker, [Event(8, FINISH, at_ms)], at_ms)
        end.finish = Finish(status, b'"%s"' % (b"r" * 100))
        emit = Emit(run, self._worker, 2, 1, [("progress", b'"half"')], at_ms)
        return [*rows, Append(run, self._worker, events), emit, end]

    async def prune(self, day: int) -> dict[str, Any]:
        """Prune at the end of a day, while other writes go on."""
        self.clock.at_ms = FIRST_MS + (day + 1) * DAY_MS
        self.store.holds_ms.clear()
        parts = (self.store, self.reads, self.writer, self.clock, self.retention)
        pruning = Pruning(*parts, whole_days=True, gentle=True)
        waits: list[float] = []
        sampler = asyncio.create_task(self._sample(waits))
        begin = time.perf_counter()
        report = await pruning.prune()
        took_s = time.perf_counter() - begin
        sampler.cancel()
        await asyncio.wait([sampler])
        await self.writer.drain()
        held, computed = ([one[n] for one in self.store.holds_ms] for n in (0, 1))
        return {
            "day": day + 1,
            "runs_pruned": report.runs,
            "rows_pruned": report.history_rows,
            "seconds": round(took_s, 2),
            "writes": len(held),
            "hold_ms_p50": _share(held, 0.5),
            "hold_ms_p99": _share(held, 0.99),
            "hold_ms_max": _share(held, 1),
            "hold_cpu_ms_max": _share(computed, 1),
            "given_back_bytes": report.space_given_back,
            "free_bytes": report.space_free,
            "other_write_ms_p50": _share(waits, 0.5),
            "other_write_ms_p99": _share(waits, 0.99),
            "files": report.files,
        }

    async def _sample(self, waits: list[float]) -> None:
        """Write small things as an engine does, and note how long each takes."""
        while True:
            begin = time.perf_counter()
            await self.writer.ask(RenewLease(self._worker, FIRST_MS))
            waits.append((time.perf_counter() - begin) * 1_000)
            await asyncio.sleep(SAMPLE_S)

    def size(self) -> int:
        """Bytes of the file, without its WAL, which has a size of its own."""
        self.store._db.wal_checkpoint()
        return os.path.getsize(self.path)


def _share(waits: list[float], share: float) -> float:
    return round(sorted(waits)[int((len(waits) - 1) * share)], 2) if waits else 0.0


async def month(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The days of a month."""
    days = []
    with TemporaryDirectory(dir=options.folder) as folder:
        archive = f"file://{folder}/archive" if options.archive else None
        one = Month(Path(folder) / "month.db", options.runs, options.seed, archive)
        for day in range(options.days):
            begin = time.perf_counter()
            one.write_day(day)
            wrote_s = time.perf_counter() - begin
            found = await one.prune(day)
            found |= {"file_bytes": one.size(), "wrote_seconds": round(wrote_s, 2)}
            days.append(found)
            print(json.dumps(found), flush=True)
        one.writer.close()
        one.store.close()
    return days


# --- the picture ----------------------------------------------------------------------------------

LEFT, TOP, WIDTH, HEIGHT = 70, 46, 560, 220
DASHED, AT_END = 'stroke-dasharray="4 4"', 'text-anchor="end"'


def picture(days: list[dict[str, Any]], runs_a_day: int) -> str:
    """The size of the file by day, and what it would be without retention, as an SVG."""
    sizes = [day["file_bytes"] / 1e6 for day in days]
    growth = statistics.median(after - before for before, after in pairwise(sizes[:7]))
    without = [sizes[0] + growth * day for day in range(len(days))]
    high = max(without)

    def points(values: list[float]) -> str:
        return " ".join(
            f"{LEFT + WIDTH * n / max(1, len(values) - 1):.1f},"
            f"{TOP + HEIGHT * (1 - value / high):.1f}"
            for n, value in enumerate(values)
        )

    title = f"Size of a file with {runs_a_day:,} runs a day, kept for 7 days (failed: 14)"
    right, end = LEFT + WIDTH - 4, TOP + HEIGHT * (1 - sizes[-1] / high) - 8
    last = f"with retention: {sizes[-1]:,.0f} MB"
    lines = [
        f'<text x="10" y="18" font-size="14">{escape(title)}</text>',
        f'<polyline points="{points(without)}" fill="none" stroke="#bbbbbb" {DASHED}/>',
        f'<polyline points="{points(sizes)}" fill="none" stroke="#4878a8" stroke-width="2"/>',
        f'<text x="{right}" y="{TOP - 6}" {AT_END} fill="#888888">without retention</text>',
        f'<text x="{right}" y="{end:.1f}" {AT_END} fill="#4878a8">{last}</text>',
    ]
    for part in range(5):
        y = TOP + HEIGHT * (1 - part / 4)
        lines += [
            f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>',
            f'<text x="{LEFT - 8}" y="{y + 4:.1f}" {AT_END}>{high * part / 4:,.0f} MB</text>',
        ]
    for day in range(0, len(days), 5):
        x = LEFT + WIDTH * day / max(1, len(days) - 1)
        lines.append(
            f'<text x="{x:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle" '
            f'fill="#666666">day {day + 1}</text>'
        )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" '
        f'height="{TOP + HEIGHT + 34}" font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *lines, "</svg>\n"])


def main() -> None:
    """Simulate a month, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="runs a day")
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--archive", action="store_true", help="archive the runs first")
    parser.add_argument("--folder", help="where the file is made")
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    days = asyncio.run(month(options))
    if options.svg:
        options.svg.write_text(picture(days, options.runs))
    flat = [day["file_bytes"] for day in days[14:]]
    if flat:
        print(f"from day 15 on: {min(flat) / 1e6:,.1f} to {max(flat) / 1e6:,.1f} MB")
    for what in ("hold_ms_p50", "hold_ms_p99", "hold_ms_max", "hold_cpu_ms_max"):
        print(f"{what}: {max(day[what] for day in days)}")


if __name__ == "__main__":
    main()
