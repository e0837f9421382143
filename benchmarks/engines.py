"""What many idle engines in one process cost: CPU, memory, descriptors, and the time to open one.

    python benchmarks/engines.py              # 100 and 1,000 engines, on new and on warm files
    python benchmarks/engines.py --engines 100 --idle 20
    python benchmarks/engines.py --observer   # CPU of a step with and without an observer

Each number of engines has a process of its own. CPU is the time of that process over `--idle`
seconds without work, from ten seconds after the last engine has opened. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from perdure import Engine, step, workflow

SETTLE_S = 10.0
STEPS, ROUNDS = 300, 9


@step
async def add(n: int) -> int:
    return n + 1


@workflow
async def counts(steps: int) -> int:
    total = 0
    for _ in range(steps):
        total = await add(total)
    return total


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("there is no VmRSS in /proc/self/status")


async def measured(folder: str, engines: int, idle_s: float) -> list[dict[str, Any]]:
    """A row for new files, and one for the same files opened again."""
    rows = []
    for files in ("new", "warm"):
        opened = [Engine(f"{folder}/{number}.db", workflows=[counts]) for number in range(engines)]
        each_ms: list[float] = []
        cpu_s = time.process_time()
        for engine in opened:
            begin = time.perf_counter()
            await engine.__aenter__()
            each_ms.append((time.perf_counter() - begin) * 1000)
        open_cpu_ms = (time.process_time() - cpu_s) / engines * 1000
        await asyncio.sleep(SETTLE_S)
        cpu_s = time.process_time()
        await asyncio.sleep(idle_s)
        cpu_s = time.process_time() - cpu_s
        rows.append(
            {
                "engines": engines,
                "files": files,
                "cpu_percent": 100 * cpu_s / idle_s,
                "resident_mb": resident_mb(),
                "descriptors": len(os.listdir("/proc/self/fd")),
                "threads": threading.active_count(),
                "open_ms": statistics.median(each_ms),
                "open_cpu_ms": open_cpu_ms,
            }
        )
        for engine in opened:
            await engine.__aexit__()
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        (
            "| engines | files | CPU, % of a core | resident, MB | descriptors | threads "
            "| open, ms (median) | of it CPU, ms (mean) |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['engines']:,} | {row['files']} | {row['cpu_percent']:.2f} "
        f"| {row['resident_mb']:.0f} | {row['descriptors']:,} | {row['threads']} "
        f"| {row['open_ms']:.1f} | {row['open_cpu_ms']:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


async def step_us(observer: Any) -> float:
    """CPU of a step of a run, with this observer or without one."""
    with tempfile.TemporaryDirectory() as folder:
        options = {} if observer is None else {"observer": observer}
        async with Engine(f"{folder}/a.db", **options) as engine:
            await engine.run(counts(STEPS))
            begin = time.process_time()
            await engine.run(counts(STEPS))
            return (time.process_time() - begin) / STEPS * 1e6


def observers() -> str:
    """Alternating, medians: without an observer, and with one that does nothing."""
    from perdure import Observer

    figures: dict[str, list[float]] = {"none": [], "one that does nothing": []}
    for _ in range(ROUNDS):
        for name, observer in zip(figures, (None, Observer()), strict=True):
            figures[name].append(asyncio.run(step_us(observer)))
    rows = [f"| {name} | {statistics.median(each):.1f} |" for name, each in figures.items()]
    return "\n".join(["| observer | CPU of a step, µs |", "|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--engines", type=int, action="append")
    parser.add_argument("--idle", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("--folder", default=None, help="the disk to measure on")
    parser.add_argument("--json", dest="json_path", default=None)
    parser.add_argument("--observer", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.observer:
        print(observers())
        return
    if options.one:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            print(json.dumps(asyncio.run(measured(folder, options.one, options.idle))))
        return
    rows: list[dict[str, Any]] = []
    for engines in options.engines or (100, 1_000):
        command = [sys.executable, __file__, "--one", str(engines), "--idle", str(options.idle)]
        folder_option = ["--folder", options.folder] if options.folder else []
        done = subprocess.run([*command, *folder_option], stdout=subprocess.PIPE, check=True)
        rows += json.loads(done.stdout)
    print(table(rows))
    if options.json_path:
        Path(options.json_path).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
