"""The side of the measured process: a system under test, asked line by line over stdin for one
scenario after another.

Rules: nothing but the standard library, because it also runs in the virtual environments of the
peers; what a library prints goes to stderr, answers alone to stdout; the time of a scenario is
taken here, next to the work.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

# in the environment of the process after the crash: the step that never ended ends now
GATE_OPEN = "BENCH_GATE_OPEN"
# in the environment of the process before it, which lifts its limit of steps under way
HOLDS = "BENCH_HOLDS"
GATE_FILE = "BENCH_GATE_FILE"  # one byte for every run that has come so far
SLOW_SYNC_US = "BENCH_SLOW_SYNC_US"


class System(ABC):
    """What each system does for the scenarios. Every method comes back when the work is done and
    durable.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    async def open(self) -> None: ...

    async def close(self) -> None:  # noqa: B027
        pass

    def pids(self) -> list[int]:
        """The processes whose CPU and memory count."""
        return [os.getpid()]

    @abstractmethod
    async def crowd(self, runs: int, steps: int) -> None:
        """So many runs at once, each of so many no-op steps one after the other."""

    async def hold(self, runs: int) -> None:
        """Start runs that have one step on record and are in the middle of a second one."""
        raise NotImplementedError

    async def released(self, runs: int) -> None:
        """Wait until the runs of an earlier process's `hold` have all ended."""
        raise NotImplementedError

    async def park(self, runs: int, steps: int) -> None:
        """Start runs that do so many steps and then wait for a message."""
        raise NotImplementedError

    async def wake(self, run: int) -> None:
        """Send the message to one parked run, and wait for its result."""
        raise NotImplementedError


def reached() -> None:
    """Says that one more run is where the scenario wants it."""
    with open(os.environ[GATE_FILE], "ab") as file:
        file.write(b"x")


async def gate() -> None:
    """The body of the second step of `hold`: does not end before the crash."""
    reached()
    if GATE_OPEN not in os.environ:
        await asyncio.Event().wait()


async def begun(runs: int) -> None:
    """Back when so many runs have come there."""
    file = Path(os.environ[GATE_FILE])
    while not file.exists() or file.stat().st_size < runs:
        await asyncio.sleep(0.01)


def cpu_seconds(pids: list[int]) -> float:
    """CPU time of these processes and of the children that they still have, in the kernel's own
    nanoseconds.
    """
    total = 0.0
    for pid in with_children(pids):
        try:
            total += time.clock_gettime(
                (~pid << 3) | 2
            )  # what clock_getcpuclockid(3) makes of a pid
        except OSError:  # it has ended meanwhile, or this is no Linux
            continue
    return total


def rss_bytes(pids: list[int]) -> int:
    """Resident memory of these processes and their children."""
    total = 0
    for pid in with_children(pids):
        status = Path(f"/proc/{pid}/status")
        if status.exists():
            total += next(
                (
                    int(line.split()[1]) * 1024
                    for line in status.read_text().splitlines()
                    if line.startswith("VmRSS")
                ),
                0,
            )
    return total


def with_children(pids: list[int]) -> list[int]:
    """These processes and everything below them."""
    found: list[int] = []
    todo = list(pids)
    while todo:
        pid = todo.pop()
        if pid in found:
            continue
        found.append(pid)
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


class Answers:
    """One verb a method; each gives back plain JSON."""

    def __init__(self, system: System) -> None:
        self.system = system

    async def open(self) -> dict[str, Any]:
        answer = await self._timed(self.system.open)
        gc.collect()
        # as `perdure worker` does, and for every system alike: what was imported need not be looked
        # through again,
        gc.freeze()
        gc.set_threshold(
            20_000, 20, 20
        )  # and with many runs in memory the default is a sixth of the time
        return answer

    async def crowd(self, runs: int, steps: int) -> dict[str, Any]:
        return await self._timed(self.system.crowd, runs, steps)

    async def latency(self, runs: int) -> dict[str, Any]:
        """Milliseconds of so many one-step runs, one after the other."""
        return {
            "times_ms": [
                (await self._timed(self.system.crowd, 1, 1))["seconds"] * 1e3 for _ in range(runs)
            ]
        }

    async def hold(self, runs: int) -> dict[str, Any]:
        return await self._timed(self.system.hold, runs)

    async def released(self, runs: int) -> dict[str, Any]:
        return await self._timed(self.system.released, runs)

    async def park(self, runs: int, steps: int) -> dict[str, Any]:
        before = rss_bytes(self.system.pids())
        answer = await self._timed(self.system.park, runs, steps)
        return {**answer, "rss_before": before, "rss_after": rss_bytes(self.system.pids())}

    async def wake(self, runs: list[int]) -> dict[str, Any]:
        return {
            "times_ms": [
                (await self._timed(self.system.wake, run))["seconds"] * 1e3 for run in runs
            ]
        }

    async def settle(self, seconds: float) -> dict[str, Any]:
        """Memory after a while of rest."""
        await asyncio.sleep(seconds)
        return {"rss": rss_bytes(self.system.pids())}

    async def commits(self, commits: int) -> dict[str, Any]:
        """Raw one-row commits; only the raw system has them."""
        return await self._timed(self.system.commits, commits)  # type: ignore[attr-defined]

    async def syncs(self, syncs: int) -> dict[str, Any]:
        """Microseconds of each 4 KB pwrite with fdatasync, on the disk that the store is on."""
        with open(
            self.system.folder / "sync.bin", "w+b", buffering=0
        ) as file:  # this is what is measured
            os.pwrite(file.fileno(), bytes(4096 * 64), 0)
            os.fsync(file.fileno())
            times = []
            for n in range(syncs):
                begin = time.perf_counter()
                os.pwrite(file.fileno(), bytes(4096), n % 64 * 4096)
                os.fdatasync(file.fileno())
                times.append((time.perf_counter() - begin) * 1e6)
        return {"times_us": times}

    async def mark(self) -> dict[str, Any]:
        """A line in a trace of the system calls: before and after what is to be counted."""
        with open(self.system.folder / "mark", "ab") as file:  # one byte
            file.write(b"x")
        return {}

    async def close(self) -> dict[str, Any]:
        return await self._timed(self.system.close)

    async def _timed(self, work: Callable[..., Any], *args: Any) -> dict[str, Any]:
        cpu, begin = cpu_seconds(self.system.pids()), time.perf_counter()
        await work(*args)
        seconds = time.perf_counter() - begin
        return {"seconds": seconds, "cpu_s": max(0.0, cpu_seconds(self.system.pids()) - cpu)}


def serve(make: Callable[[Path], Any], verbs: type[Answers] = Answers) -> None:
    """Answer until stdin ends. The folder of the store is the first argument of the process."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    asyncio.run(_serve(verbs(make(Path(sys.argv[1]))), answers))


async def _serve(verbs: Answers, answers: Any) -> None:
    questions = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(questions), sys.stdin
    )
    while line := await questions.readline():
        verb, *args = json.loads(line)
        try:
            answer = await getattr(verbs, verb)(*args)
        except NotImplementedError:
            answer = {"error": "not offered"}
        except Exception as error:  # the command prints it in the table and goes on
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer), file=answers)
