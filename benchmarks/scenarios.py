"""What is measured. Each scenario takes the bench and the slowness of the disk, and gives back one
table.

Rules: systems take turns within each round, on the same disk, and the disk itself is measured
before each round; a peer that is very slow may get a smaller share of the work and fewer rounds,
and the table says so.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from answering import GATE_OPEN, HOLDS
from driving import PERDURE, RAW, Driver, Failed, Kind, driven
from polling import polling
from tables import Row, Table

# more than the 1,000 pages after which SQLite writes its WAL over from the start: growing files
# sync slower
WARM_STEPS = 1_500
DISK_SYNCS = 100
TIMES_SHARE = {
    "recovery": 0.5,
    "replay": 5.0,
    "parked": 0.05,
}  # recovery and parked begin with a start of every single run


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    rounds: int = 5
    sequential: int = 400
    crowds: tuple[tuple[int, int], ...] = ((10, 100), (100, 20), (1000, 5))
    latency: int = 40
    recovered: int = 10_000
    replayed_steps: int = 5_000
    parked: int = 100_000
    woken: int = 30
    finished: tuple[int, int] = (1_000, 1_000_000)
    imports: int = 10


QUICK = Sizes(
    rounds=1,
    sequential=20,
    crowds=((5, 4),),
    latency=3,
    recovered=20,
    replayed_steps=20,
    parked=50,
    woken=2,
    finished=(100, 1000),
    imports=1,
)


@dataclass
class Bench:
    """One call of the command."""

    folder: Path
    sizes: Sizes
    peers: list[Kind]
    peer_share: float
    peer_rounds: int
    _folders: int = 0

    def fresh(self, kind: Kind) -> Path:
        """A folder for one store."""
        self._folders += 1
        return self.folder / f"{self._folders}-{Path(kind.program).stem}"

    def share(self, kind: Kind, runs: int, scenario: str = "") -> int:
        """How many runs a system gets."""
        return (
            max(1, round(runs * min(1.0, self.peer_share * TIMES_SHARE.get(scenario, 1.0))))
            if kind.peer
            else runs
        )

    def alternate(
        self, table: Table, kinds: list[tuple[Kind, Row]], work: Callable[[Driver, Row], None]
    ) -> Table:
        """Open all, warm all, and let them take turns."""
        slow_us = table.slow_ms * 1000
        with ExitStack() as stack:
            disk = stack.enter_context(driven(RAW, self.fresh(RAW), slow_us=slow_us))
            drivers: list[tuple[Driver, Row]] = []
            for kind, row in kinds:
                try:
                    driver = stack.enter_context(driven(kind, self.fresh(kind), slow_us=slow_us))
                    driver.ask(
                        "crowd",
                        1,
                        self.share(kind, WARM_STEPS if self.sizes.sequential > 20 else 5),
                    )
                except Failed as error:
                    row.failed = str(error)
                else:
                    drivers.append((driver, row))
            for number in range(self.sizes.rounds):
                table.disk_us += disk.ask("syncs", DISK_SYNCS)["times_us"]
                for driver, row in drivers:
                    if row.failed or (driver.kind.peer and number >= self.peer_rounds):
                        continue
                    try:
                        work(driver, row)
                    except Failed as error:
                        row.failed = str(error)
        return table

    def each(self, table: Table, runs: int, work: Callable[[Kind, Row, int], None]) -> Table:
        """One system after the other, once, for what takes long and starts from nothing."""
        for kind in (PERDURE, *self.peers):
            count = self.share(kind, runs, table.scenario)
            row = Row(kind.name, f"{count:,} runs")
            table.rows.append(row)
            try:
                table.disk_us += self.disk_us(table.slow_ms)
                work(kind, row, count)
            except Failed as error:
                row.failed = str(error)
        return table

    def disk_us(self, slow_ms: int) -> list[float]:
        """The disk's own sync, now."""
        with driven(RAW, self.fresh(RAW), slow_us=slow_ms * 1000) as disk:
            times: list[float] = disk.ask("syncs", DISK_SYNCS)["times_us"]
            return times


# In turns -----------------------------------------------------------------------------------------


def sequential(bench: Bench, slow_ms: int) -> list[Table]:
    """One run of no-op steps, one after the other."""

    def work(driver: Driver, row: Row) -> None:
        answer = driver.ask("crowd", 1, steps[row.system])
        row.values.append(answer["seconds"] / steps[row.system] * 1e6)
        row.cpu_us.append(answer["cpu_s"] / steps[row.system] * 1e6)

    kinds = [RAW, PERDURE, *bench.peers]
    steps = {
        kind.name: bench.share(kind, bench.sizes.sequential) if slow_ms else bench.sizes.sequential
        for kind in kinds
    }
    rows = [Row(kind.name, f"{steps[kind.name]} steps") for kind in kinds]
    table = Table(
        "sequential", "A sequential workflow of no-op steps", "µs/step", rows, slow_ms=slow_ms
    )
    bench.alternate(table, list(zip(kinds, rows, strict=True)), work)
    if rows[0].values and rows[1].values:
        pairs = [ours / raw for raw, ours in zip(rows[0].values, rows[1].values, strict=True)]
        table.notes.append(
            f"a step is {statistics.median(pairs):.2f} × a raw one-row commit "
            f"({min(pairs):.2f} to {max(pairs):.2f})"
        )
    return [table]


def crowd(bench: Bench, slow_ms: int) -> list[Table]:
    """Many runs at the same time."""
    return [_crowd(bench, slow_ms, runs, steps) for runs, steps in bench.sizes.crowds]


def _crowd(bench: Bench, slow_ms: int, runs: int, steps: int) -> Table:
    def work(driver: Driver, row: Row) -> None:
        count = counts[row.system]
        answer = driver.ask("crowd", count, steps)
        row.values.append(count * steps / answer["seconds"])
        row.cpu_us.append(answer["cpu_s"] / (count * steps) * 1e6)

    kinds = [PERDURE, *bench.peers]
    counts = {kind.name: bench.share(kind, runs) for kind in kinds}
    rows = [Row(kind.name, f"{counts[kind.name]} × {steps}") for kind in kinds]
    table = Table(
        f"crowd {runs} x {steps}",
        f"{runs} runs × {steps} no-op steps",
        "steps/s",
        rows,
        more_is_better=True,
        slow_ms=slow_ms,
    )
    return bench.alternate(table, list(zip(kinds, rows, strict=True)), work)


def latency(bench: Bench, slow_ms: int) -> list[Table]:
    """From the start of a run of one step to its result."""

    def work(driver: Driver, row: Row) -> None:
        row.values.append(statistics.median(driver.ask("latency", counts[row.system])["times_ms"]))

    kinds = [PERDURE, *bench.peers]
    counts = {kind.name: bench.share(kind, bench.sizes.latency) for kind in kinds}
    rows = [Row(kind.name, f"median of {counts[kind.name]}") for kind in kinds]
    table = Table("latency", "Start to result of a run of one step", "ms", rows, slow_ms=slow_ms)
    return [bench.alternate(table, list(zip(kinds, rows, strict=True)), work)]


# One after the other ------------------------------------------------------------------------------


def recovery(bench: Bench, slow_ms: int) -> list[Table]:
    """Kill -9 with every run in the middle of its second step; a new process, until the last run
    has ended.
    """

    def work(kind: Kind, row: Row, runs: int) -> None:
        folder = bench.fresh(kind)
        with driven(kind, folder, setting=HOLDS) as driver:
            driver.ask("hold", runs)
        begin = time.perf_counter()
        with driven(kind, folder, slow_us=slow_ms * 1000, setting=GATE_OPEN) as driver:
            opened = time.perf_counter() - begin
            released = driver.ask("released", runs)
            seconds = time.perf_counter() - begin
        row.values.append(runs / seconds)
        row.cpu_us.append(released["cpu_s"] / runs * 1e6)
        row.more = {"seconds in all": f"{seconds:.2f}", "of these until open": f"{opened:.2f}"}

    title = "Recovery of runs in flight after kill -9, start of the new process included"
    table = Table(
        "recovery",
        title,
        "runs/s",
        [],
        more_is_better=True,
        slow_ms=slow_ms,
        notes=["CPU is per run here, after opening"],
    )
    return [bench.each(table, bench.sizes.recovered, work)]


def replay(bench: Bench, slow_ms: int) -> list[Table]:
    """A long history in a new process, beside the same with one step; the difference is
    the replay.
    """

    def work(kind: Kind, row: Row, steps: int) -> None:
        row.size = f"{steps:,} steps"
        short = woken(kind, 1)
        row.values.append(woken(kind, steps) * 1e3)
        row.more = {
            "with one step, ms": f"{short * 1e3:,.0f}",
            "µs/step": f"{(row.values[0] - short * 1e3) / steps * 1e3:,.1f}",
        }

    def woken(kind: Kind, steps: int) -> float:
        folder = bench.fresh(kind)
        with driven(kind, folder, slow_us=slow_ms * 1000) as driver:
            driver.ask("park", 1, steps)
        driver = Driver(kind, folder, slow_us=slow_ms * 1000)
        try:
            return (
                float(driver.ask("open")["seconds"])
                + float(driver.ask("wake", [0])["times_ms"][0]) / 1e3
            )
        finally:
            driver.kill()

    events = bench.sizes.replayed_steps * 2
    table = Table(
        "replay",
        f"A history of {events:,} events in a new process, from opening to the result",
        "ms",
        [],
        slow_ms=slow_ms,
    )
    return [bench.each(table, bench.sizes.replayed_steps, work)]


def parked(bench: Bench, slow_ms: int) -> list[Table]:
    """Runs that wait for a message: what they hold in memory, and how long one needs to wake and
    end.
    """

    def work(kind: Kind, row: Row, runs: int) -> None:
        with driven(kind, bench.fresh(kind), slow_us=slow_ms * 1000) as driver:
            answer = driver.ask("park", runs, 1)
            rss = driver.ask("settle", 2.0)["rss"]
            times = driver.ask(
                "wake", random.Random(1).sample(range(runs), min(runs, bench.sizes.woken))
            )["times_ms"]
        row.values = times
        row.more = {
            "memory, MB": f"{rss / 1e6:.0f}",
            "of these before, MB": f"{answer['rss_before'] / 1e6:.0f}",
            "per run, B": f"{(rss - answer['rss_before']) / runs:,.0f}",
            "parked, runs/s": f"{runs / answer['seconds']:,.0f}",
        }

    table = Table(
        "parked",
        "Parked runs: from a message to the result of its run, and memory",
        "ms",
        [],
        slow_ms=slow_ms,
    )
    return [bench.each(table, bench.sizes.parked, work)]


# Without a clock ----------------------------------------------------------------------------------


def syncs(bench: Bench, slow_ms: int) -> list[Table]:
    """What strace sees of one sequential run: syncs, and bytes written by file; and by how much the
    files grew.
    """
    table = Table(
        "syncs", "System calls and bytes of a sequential step", "syncs/step", [], slow_ms=slow_ms
    )
    if slow_ms or shutil.which("strace") is None:
        table.notes.append(
            "strace is not there" if not slow_ms else "the disk's speed changes nothing here"
        )
        return [table] if not slow_ms else []
    for kind in (RAW, PERDURE, *bench.peers):
        row = Row(kind.name, f"{bench.sizes.sequential} steps")
        table.rows.append(row)
        try:
            _traced(bench, kind, row)
        except Failed as error:
            row.failed = str(error)
    table.notes.append(
        "written: what went to write calls, by kind of file. grown: all files after "
        "closing, against before the run."
    )
    return [table]


def _traced(bench: Bench, kind: Kind, row: Row) -> None:
    folder, steps = bench.fresh(kind), bench.sizes.sequential
    trace = bench.folder / f"{folder.name}.trace"
    for traced in (
        trace,
        None,
    ):  # once watched; once not, because growth is to be seen after closing
        place = folder if traced else folder.with_name(folder.name + "-growth")
        with driven(kind, place, trace=traced) as driver:
            driver.ask("crowd", 1, 10)
            if traced is None:
                driver.ask("close")
                before = _bytes(place)
                driver.ask("open")
            driver.ask("mark")
            driver.ask("crowd", 1, steps)
            driver.ask("mark")
            driver.ask("close")
    calls = _between_marks(trace.read_text(errors="replace").splitlines())
    row.values.append(sum("sync(" in call for call in calls) / steps)
    for name, pattern in (
        ("WAL or log", r"-wal|/\d+\.log"),
        ("journal", r"-journal"),
        ("file", r"\.db>|\.sst|MANIFEST"),
    ):
        written = sum(
            _written(call) for call in calls if re.search(rf"write\w*\(\d+<[^>]*({pattern})", call)
        )
        if written:
            row.more[f"written to {name}, B/step"] = f"{written / steps:,.0f}"
    row.more["grown, B/step"] = f"{(_bytes(place) - before) / steps:,.0f}"


def _between_marks(lines: list[str]) -> list[str]:
    marks = [place for place, line in enumerate(lines) if "/mark>" in line and "write(" in line]
    if len(marks) < 2:
        raise Failed("the trace has no marks")
    return lines[marks[-2] : marks[-1]]


def _written(call: str) -> int:
    end = re.search(r"= (\d+)$", call)
    return int(end.group(1)) if end else 0


def _bytes(folder: Path) -> int:
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("log", "mark")
    )


def imports(bench: Bench, slow_ms: int) -> list[Table]:
    """A whole process that imports, against one that does nothing."""
    if slow_ms:
        return []
    ours = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    others = {kind.program: kind for kind in bench.peers if not kind.why_not}.values()
    programs: list[tuple[str, str, str, dict[str, str]]] = [
        ("an empty interpreter", sys.executable, "pass", {}),
        ("asyncio", sys.executable, "import asyncio", {}),
        ("Perdure", sys.executable, "import perdure", ours),
        *(
            (
                kind.name.partition(",")[0],
                kind.python,
                f"import {Path(kind.program).stem.rstrip('_')}",
                {},
            )
            for kind in others
        ),
    ]
    rows = [Row(name, "one process") for name, *_ in programs]
    for number in range(bench.sizes.imports + 1):
        for row, (_, python, program, environment) in zip(rows, programs, strict=True):
            begin = time.perf_counter()
            subprocess.run([python, "-c", program], env=environment, check=True)
            if number:  # the first one has written the .pyc files
                row.values.append((time.perf_counter() - begin) * 1e3)
    for row in rows[1:]:
        pairs = [value / empty for value, empty in zip(row.values, rows[0].values, strict=True)]
        own = [value - empty for value, empty in zip(row.values, rows[0].values, strict=True)]
        row.more = {
            "× an empty interpreter": f"{statistics.median(pairs):.2f}",
            "above it, ms": f"{statistics.median(own):.0f}",
        }
    return [Table("imports", "Import", "ms", rows)]


def polls(bench: Bench, slow_ms: int) -> list[Table]:
    """All that an idle engine asks its store again and again."""
    if slow_ms:
        return []
    few, many = bench.sizes.finished
    folder = bench.fresh(PERDURE)
    folder.mkdir()
    rows = [
        Row(f"{count:,} finished runs", "one poll", values)
        for count, values in zip((few, many), polling(folder, few, many), strict=True)
    ]
    pairs = zip(rows[0].values, rows[1].values, strict=True)
    note = f"ratio {statistics.median(large / small for small, large in pairs):.2f}"
    return [Table("polls", "What an idle engine asks its store", "µs", rows, notes=[note])]


SCENARIOS: dict[str, Callable[[Bench, int], list[Table]]] = {
    "sequential": sequential,
    "crowd": crowd,
    "latency": latency,
    "recovery": recovery,
    "replay": replay,
    "parked": parked,
    "syncs": syncs,
    "imports": imports,
    "polls": polls,
}
