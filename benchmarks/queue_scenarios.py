"""What is measured of queues and schedules. Each scenario takes the bench and the slowness of the
disk, and gives back its tables, as in `scenarios.py`.

Rules: DBOS is on Postgres here, where its queues are meant to be, once with the polling interval
that it comes with and once with a hundredth of it. Rounds take turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from admitting import Admitting
from driving import Driver, Failed, Kind, driven
from queue_kinds import OURS, dbos, queueing
from queueing import EXECUTES, LIMIT
from scenarios import Bench
from tables import Row, Table

from campaigns import queue_log

POLLS_S = (1.0, 0.01)


@dataclass(frozen=True)
class QueueSizes:
    """How much of everything."""

    starts: int = 40
    gap_ms_max: int = 200
    limit: int = 100
    admitted: int = 5_000
    waiting: tuple[int, int] = (1_000, 1_000_000)
    peer_admitted: int = 1_000
    crowd: tuple[int, int] = (100, 20)
    schedules: int = 10_000
    idle_s: float = 20.0


TINY = QueueSizes(3, 5, 2, 10, (10, 50), 10, (3, 2), 5, 0.1)


def sizes(bench: Bench) -> QueueSizes:
    """Those of this call of the command."""
    return QueueSizes() if bench.sizes.sequential > 20 else TINY


def peer(bench: Bench) -> list[Kind]:
    """DBOS, where it is wanted."""
    return [kind for kind in bench.peers if kind.name == "DBOS"]


# From enqueuing to the start ----------------------------------------------------------------------


def starts(bench: Bench, slow_ms: int) -> list[Table]:
    """From the call that enqueues a run to the beginning of its first step; a gap of 200 ms between
    two on average, or of 10 ms, at which a watched file counts as written all the time.
    """
    if slow_ms:
        return []
    return [
        _starts(bench, "in one process", across=False, gap_ms=200),
        _starts(bench, "across two processes", across=True, gap_ms=200),
        _starts(bench, "across, each 10 ms", across=True, gap_ms=10),
    ]


def _starts(bench: Bench, where: str, *, across: bool, gap_ms: int) -> Table:
    table = Table(f"starts {where}", f"Enqueue to start, {where}", "ms", [])
    gap_ms = min(gap_ms, sizes(bench).gap_ms_max)
    count = sizes(bench).starts
    with ExitStack() as stack:
        pairs: list[tuple[Row, Driver, Path]] = []
        for number, begin in enumerate(_systems(bench)):
            row = Row("", f"median of {count}")
            table.rows.append(row)
            log = bench.folder / f"starts-{len(pairs)}-{gap_ms}-{across}-{number}.log"
            try:
                kind = stack.enter_context(begin(log))
                row.system = kind.name
                folder = bench.fresh(kind)
                both = replace(kind, settings={**kind.settings, EXECUTES: "1"})
                driver = stack.enter_context(driven(both, folder))
                if across:
                    driver = stack.enter_context(driven(kind, folder))
            except Failed as error:
                row.system, row.failed = row.system or "DBOS", str(error)
            else:
                pairs.append((row, driver, log))
        for number in range(bench.sizes.rounds + 1):
            table.disk_us += bench.disk_us(0)
            for row, driver, log in pairs:
                try:
                    found = _latencies_ms(driver, log, f"{number}", count, gap_ms)
                except Failed as error:
                    row.failed = str(error)
                    continue
                if number:  # the first round warms
                    row.values.append(statistics.median(found))
                    row.more["worst, ms"] = f"{max(found):.1f}"
    return table


def _systems(bench: Bench) -> Iterator[Callable[[Path], AbstractContextManager[Kind]]]:
    yield lambda log: nullcontext(queueing(OURS, log))
    for kind in peer(bench):
        for poll_s in POLLS_S:
            yield partial(dbos, kind, poll_s)


def _latencies_ms(driver: Driver, log: Path, prefix: str, count: int, gap_ms: int) -> list[float]:
    asked = driver.ask("offer", prefix, count, 1, gap_ms, 0)["asked_ns"]
    until_s = time.monotonic() + 60
    begun: dict[str, int] = {}
    while not asked.keys() <= begun.keys():
        if time.monotonic() > until_s:
            raise Failed("runs have not begun within a minute")
        time.sleep(0.05)
        lines = queue_log.read_log(log) if log.exists() else []
        begun = {line.holder: line.at_ns for line in lines if line.mark == queue_log.BEGUN}
    return [(begun[run] - at_ns) / 1e6 for run, at_ns in asked.items()]


# Admissions ---------------------------------------------------------------------------------------


def admissions(bench: Bench, slow_ms: int) -> list[Table]:
    """Runs that do nothing, through one queue with a limit, while so many more of them wait: by an
    engine, and by the store alone, which claims runs and ends them in one transaction.
    """
    if slow_ms:
        return []
    size = sizes(bench)
    what = f"a queue with a limit of {size.limit}"
    engine = Table("admissions", f"Admissions through {what}", "runs/s", [], more_is_better=True)
    alone = Table("store-admissions", f"The store alone, {what}", "runs/s", [], more_is_better=True)
    for waiting in size.waiting:
        name = "the same" if engine.rows else "Perdure"
        rows = [Row(name, f"{waiting:,} waiting") for _ in range(2)]
        engine.rows.append(rows[0])
        alone.rows.append(rows[1])
        _ours(bench, size, waiting, *rows)
    for kind in peer(bench):
        row = Row("DBOS, polls each 0.01 s", f"{size.peer_admitted:,} waiting")
        engine.rows.append(row)
        try:
            with dbos(kind, 0.01, bench.folder / "no.log") as ready:
                _theirs(bench, ready, row, size)
        except Failed as error:
            row.failed = str(error)
    return [engine, alone]


def _ours(bench: Bench, size: QueueSizes, waiting: int, by_engine: Row, by_store: Row) -> None:
    """One filling for both, and a round each for a part of what was filled in."""
    kind = queueing(OURS, bench.folder / "no.log", **{LIMIT: str(size.limit)})
    folder, rounds = bench.fresh(kind), bench.sizes.rounds
    with driven(kind, folder) as driver:  # the queue is declared
        driver.ask("close")
    more = 2 * rounds * size.admitted
    begin = time.monotonic()
    store = Admitting(folder / "bench.db", waiting + more, size.limit)
    by_engine.more["filled in, s"] = f"{time.monotonic() - begin:.0f}"
    by_store.values = [size.admitted / store.admit(size.admitted) for _ in range(rounds)]
    store.close()
    _admit(bench, kind, folder, by_engine, size.admitted)


def _theirs(bench: Bench, kind: Kind, row: Row, size: QueueSizes) -> None:
    kind = replace(kind, settings={**kind.settings, LIMIT: str(size.limit)})
    folder = bench.fresh(kind)
    with driven(kind, folder) as driver:
        driver.ask("fill", bench.sizes.rounds * size.peer_admitted, seconds_max=900)
        driver.ask("close")
    _admit(bench, kind, folder, row, size.peer_admitted)


def _admit(bench: Bench, kind: Kind, folder: Path, row: Row, admitted: int) -> None:
    kind = replace(kind, settings={**kind.settings, EXECUTES: "1"})
    with driven(kind, folder) as driver:
        for _ in range(bench.sizes.rounds):
            answer = driver.ask("admissions", admitted)
            row.values.append(admitted / answer["seconds"])
            row.cpu_us.append(answer["cpu_s"] / admitted * 1e6)


# Steps with a place -------------------------------------------------------------------------------


def queued_steps(bench: Bench, slow_ms: int) -> list[Table]:
    """No-op steps without a queue, with one that is not full, and with one that has every limit."""
    runs, steps = sizes(bench).crowd
    return [
        _queued(bench, slow_ms, "sequential", 1, bench.sizes.sequential),
        _queued(bench, slow_ms, "crowd", runs, steps),
    ]


def _queued(bench: Bench, slow_ms: int, name: str, runs: int, steps: int) -> Table:
    size = f"{runs} × {steps}"
    kinds = {"": "Perdure", "roomy": "with a queue", "keys": "with every limit and a key"}
    rows = {kind: Row(shown, size) for kind, shown in kinds.items()}
    table = Table(
        f"queued {name}",
        f"Steps with a place in a queue that is not full, {name}",
        "µs/step",
        list(rows.values()),
        slow_ms=slow_ms,
    )
    ready = queueing(OURS, bench.folder / "no.log", **{EXECUTES: "1"})
    with driven(ready, bench.fresh(ready), slow_us=slow_ms * 1000) as driver:
        for kind in rows:
            driver.ask("steps", 1, min(steps * runs, 1_500), kind)
        for _ in range(bench.sizes.rounds * 2):
            for kind, row in rows.items():
                answer = driver.ask("steps", runs, steps, kind)
                row.values.append(answer["seconds"] / (runs * steps) * 1e6)
                row.cpu_us.append(answer["cpu_s"] / (runs * steps) * 1e6)
    for kind in ("roomy", "keys"):
        for what in ("values", "cpu_us"):
            mine, bare = getattr(rows[kind], what), getattr(rows[""], what)
            ratios = [one / other for one, other in zip(mine, bare, strict=True)]
            table.notes.append(
                f"{kinds[kind]}, {'time' if what == 'values' else 'CPU'}: "
                f"{statistics.median(ratios):.2f} × a step without one "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )
    return table


# Schedules ----------------------------------------------------------------------------------------


def schedules(bench: Bench, slow_ms: int) -> list[Table]:
    """The CPU of an engine whose schedules have nothing to do."""
    if slow_ms:
        return []
    size = sizes(bench)
    table = Table("schedules", "An idle engine with schedules", "% of a core", [])
    for count in (0, size.schedules):
        row = Row(f"{count:,} schedules", f"{size.idle_s:g} s")
        table.rows.append(row)
        ready = queueing(OURS, bench.folder / "no.log", **{EXECUTES: "1"})
        with driven(ready, bench.fresh(ready)) as driver:
            made = driver.ask("schedule", count, seconds_max=900)
            row.more["made, s"] = f"{made['seconds']:.1f}"
            driver.ask("idle", min(2.0, size.idle_s))
            for _ in range(bench.sizes.rounds):
                answer = driver.ask("idle", size.idle_s)
                row.values.append(answer["cpu_s"] / answer["seconds"] * 100)
    return [table]


QUEUE_SCENARIOS: dict[str, Callable[[Bench, int], list[Table]]] = {
    "starts": starts,
    "admissions": admissions,
    "queued": queued_steps,
    "schedules": schedules,
}
