"""The kill campaign: processes on one file, killed by SIGKILL and frozen by SIGSTOP at work.

Rules: the seed chooses what happens to which process; the progress of the log chooses when. A
killed process is replaced at once. A frozen one is woken after it was reaped. A run that is
blocked because its process died three times is retried, as a person would, and counted.
Afterwards `kill_checks` reads the file and the log.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from campaigns import environment, kill_checks, kill_worker
from campaigns.forking import Forked
from campaigns.kill_worker import Job
from campaigns.main import Count
from perdure.core.lifecycle import FINAL
from perdure.errors import PerdureError, RunCancelled, RunFinished, StoreLocked
from perdure.runtime.engine import Engine
from perdure.runtime.info import RunInfo
from perdure.store.sqlite.connection import connect

LEASE_S = 1.0
FROZEN_S_MAX = 2.5 * LEASE_S
"""A process that is frozen within a transaction blocks all others, so none can reap it."""
CALM_S_MAX = 90.0
JOBS_OPEN_MAX = 24
STALL_S = 0.1
SECONDS = 8.0


@dataclass(slots=True)
class Killed:
    """What one campaign did and found. `broken` has a sentence for each place where an invariant
    did not hold.
    """

    seed: int
    kills: int = 0
    freezes: int = 0
    skews: int = 0
    buried_frozen: int = 0
    jobs: int = 0
    messages: int = 0
    cancels: int = 0
    retried: int = 0
    locked_out: int = 0
    runs: int = 0
    rows: int = 0
    begun: int = 0
    repeated: int = 0
    take_overs: int = 0
    late: int = 0
    lapsed: int = 0
    crash_notes: int = 0
    took_s: float = 0.0
    broken: list[str] = field(default_factory=list)


class Worker:
    """A process that executes; what it says goes to a file of its own."""

    def __init__(self, module: str, said: Path, *arguments: str) -> None:
        self.said = said
        self.frozen = False
        with said.open("wb") as stderr:
            self.process = Forked(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr, env=environment(),
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def end(self, *, kill: bool = False) -> int:
        """Wait for the end; without `kill` it is asked to end by itself."""
        assert self.process.stdin is not None
        if kill and not self.ended:
            self.process.kill()
        self.process.stdin.close()
        return self.process.wait()


class Campaign:
    """One seed's campaign on a file in a folder."""

    line_bytes = 30
    """Of the log, at least."""

    def __init__(self, seed: int, seconds: float, processes: int, folder: Path) -> None:
        self.rng, self.seconds, self.processes, self.folder = (
            random.Random(seed),
            seconds,
            processes,
            folder,
        )
        self.db, self.log = str(folder / "kill.db"), str(folder / "kill.log")
        self.done = Killed(seed)
        self._marks = kill_worker.open_log(self.log)
        self._jobs: dict[str, Job] = {}
        self._open: set[str] = set()  # as far as we know
        self._untold: list[tuple[Job, int]] = []
        self._told: list[tuple[Job, int]] = []
        self._to_cancel: list[Job] = []
        self._crew: list[Worker] = []
        self._spawned = 0
        self._thawing: set[asyncio.Task[None]] = set()
        self._number = 0

    async def conduct(self) -> None:
        """Everything but the invariants."""
        async with Engine(self.db, execute=False) as one, Engine(self.db, execute=False) as two:
            self._clients = (one, two)
            await self._prepare()
            self._crew = [self._spawn() for _ in range(self.processes)]
            try:
                await self._chaos()
                await self._calm()
                await self._let_go()
            finally:
                for worker in self._crew:
                    worker.end(kill=True)
                os.close(self._marks)

    async def _prepare(self) -> None:
        """What the store needs before the first worker."""

    def _spawn(self) -> Worker:
        return self._worker("campaigns.kill_worker", self.db, self.log, str(LEASE_S))

    def _worker(self, module: str, *arguments: str) -> Worker:
        self._spawned += 1
        return Worker(module, self.folder / f"said-{self._spawned}.txt", *arguments)

    # --- chaos ------------------------------------------------------------------------------------

    async def _chaos(self) -> None:
        until_s, acts = time.monotonic() + self.seconds, self._acts()
        while time.monotonic() < until_s:
            (act,) = self.rng.choices(list(acts), weights=list(acts.values()))
            await act()
            await self._progress(self.rng.choice([0, 0, 1, 2, 5, 10]))
        for victim in list(self._crew):  # at last all of them at once, as when a machine stops
            self._shoot(victim)

    def _acts(self) -> dict[Callable[[], Awaitable[None]], int]:
        """What may happen, and how often."""
        return {
            self._start: 60,
            self._tell: 30,
            self._cancel: 8,
            self._kill: 8,
            self._freeze: 5,
            self._retry: 2,
        }

    async def _progress(self, lines: int) -> None:
        """Until the log has grown by so many lines, or nothing has happened for a while."""
        size = os.path.getsize(self.log) + self.line_bytes * lines
        until_s = time.monotonic() + STALL_S
        while os.path.getsize(self.log) < size and time.monotonic() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(0.002)

    async def _start(self) -> None:
        if len(self._open) >= JOBS_OPEN_MAX:
            ended = [
                run_id
                for run_id in self._open
                if (await self._clients[0].info(run_id)).status in FINAL
            ]
            self._open.difference_update(ended)
            return
        self._number += 1
        for job in self._new_jobs():
            for _ in range(self.rng.choice([1, 1, 2])):  # starting again gives the same run
                await self._insist(
                    lambda engine, job=job: engine.start(job.call, id=job.id, **job.options)  # type: ignore[misc]
                )
            self._jobs[job.id] = job
            self._open.add(job.id)
            self._untold += [(job, value) for value in job.messages]
            self._to_cancel += [job] * (job.expected is None)

    def _new_jobs(self) -> list[Job]:
        return kill_worker.jobs(self.rng, self._number)

    async def _tell(self) -> None:
        """Messages have keys, so one that is sent again, at any time,
        arrives once.
        """
        if self._untold:
            self._told.append(self._untold.pop(self.rng.randrange(len(self._untold))))
            self.done.messages += 1
        for job, value in [
            *self._told[-1:],
            *self.rng.sample(self._told, min(len(self._told), self.rng.randrange(3))),
        ]:
            await self._insist(
                lambda engine, job=job, value=value: engine.send(  # type: ignore[misc]
                    job.id, value, channel="m", key=f"k{value}"
                )
            )

    async def _cancel(self) -> None:
        if self._to_cancel:
            job = self._to_cancel.pop(self.rng.randrange(len(self._to_cancel)))
            self.done.cancels += 1
            for _ in range(self.rng.choice([1, 2])):
                await self._insist(lambda engine: engine.cancel(job.id))

    async def _retry(self) -> None:
        """What a person does with a run that was blocked because its process died again
        and again.
        """
        for row in await self._clients[0].runs(status="blocked", limit=1000):
            if "the process died" not in (row.reason or ""):
                self.done.broken.append(f"run {row.id} is blocked: {row.reason}")
            self.done.retried += 1
            self._given_back(row.id)
            await self._insist(lambda engine, row=row: engine.retry(row.id))  # type: ignore[misc]

    def _given_back(self, run: str) -> None:
        """A run was blocked or is about to be paused."""

    async def _insist(self, verb: Callable[[Engine], Awaitable[Any]]) -> None:
        """Ask one of the engines, again while a frozen process holds the file."""
        while True:
            try:
                await verb(self.rng.choice(self._clients))
            except StoreLocked:
                self.done.locked_out += 1
            except RunFinished:
                return
            except PerdureError as error:
                self.done.broken.append(f"{type(error).__name__}: {error}")
                return
            else:
                return

    # --- processes --------------------------------------------------------------------------------

    def _mark(self, mark: str, worker: Worker) -> None:
        os.write(self._marks, f"{mark} {worker.pid} {time.time_ns() // 1_000_000}\n".encode())

    def _victim(self) -> Worker | None:
        """A worker to hit; one is always left that is neither frozen nor about to die."""
        living = [worker for worker in self._crew if not worker.frozen]
        victim = self.rng.choice(self._crew)
        return victim if victim.frozen or len(living) > 1 else None

    async def _kill(self) -> None:
        for _ in range(self.rng.choice([1, 1, 1, 1, 1, 2, self.processes])):
            victim = self.rng.choice(self._crew)
            if victim.frozen and self.rng.random() < 0.7:
                continue  # most of the frozen are to come back
            self._shoot(victim)

    def _shoot(self, victim: Worker) -> None:
        self._expect_alive(victim)
        self._mark(kill_checks.KILLED, victim)
        victim.end(kill=True)
        self.done.kills += 1
        self._crew[self._crew.index(victim)] = self._spawn()

    async def _freeze(self) -> None:
        victim = self._victim()
        if victim is None or victim.frozen:
            return
        self._expect_alive(victim)
        victim.frozen = True
        self.done.freezes += 1
        self._mark(kill_checks.FROZEN, victim)
        victim.process.send_signal(signal.SIGSTOP)
        task = asyncio.create_task(self._thaw(victim, self.rng.random() < 0.25))
        self._thawing.add(task)
        task.add_done_callback(self._thawing.discard)

    async def _thaw(self, victim: Worker, soon: bool) -> None:
        """Let it go on: soon, or when the others have reaped it."""
        reader = connect(self.db)
        until_s = time.monotonic() + (LEASE_S / 4 if soon else FROZEN_S_MAX)
        alive = joined = reader.execute(kill_worker.Q["alive"], (victim.pid,)).fetchall()
        while alive and time.monotonic() < until_s:
            await asyncio.sleep(0.02)
            alive = reader.execute(kill_worker.Q["alive"], (victim.pid,)).fetchall()
        reader.close()
        self.done.buried_frozen += bool(joined) and not alive and not victim.ended
        victim.process.send_signal(signal.SIGCONT)
        victim.frozen = False

    async def _skew(self) -> None:
        """Move the clock of one worker, forward or back."""
        victim = self.rng.choice(self._crew)
        if victim.frozen or await self._joined(victim):
            victim.process.send_signal(signal.SIGUSR2)
            self.done.skews += 1

    async def _joined(self, worker: Worker) -> bool:
        """Whether it has come so far that it answers signals."""
        reader = connect(self.db)
        try:
            return bool(reader.execute(kill_worker.Q["alive"], (worker.pid,)).fetchall())
        finally:
            reader.close()

    def _succeed(self, worker: Worker) -> Worker:
        self._expect_alive(worker)
        return self._spawn() if worker.ended else worker

    def _expect_alive(self, worker: Worker) -> None:
        """A worker ends only when it is killed."""
        if worker.ended:
            self.done.broken.append(
                f"a worker ended by itself with {worker.process.returncode}: "
                f"{worker.said.read_text()[-600:]}"
            )

    # --- calm -------------------------------------------------------------------------------------

    async def _calm(self) -> None:
        """Hits are over; what was asked for is asked for to the end, and every run has to
        come to its own.
        """
        await asyncio.gather(*self._thawing)
        while self._untold:
            await self._tell()
        while self._to_cancel:
            await self._cancel()
        waiting = asyncio.gather(*(self._outcome(job) for job in self._jobs.values()))
        try:
            async with asyncio.timeout(CALM_S_MAX):
                while not waiting.done() or await self._unfinished():
                    await self._retry()
                    self._crew = [self._succeed(worker) for worker in self._crew]
                    await asyncio.wait([waiting], timeout=STALL_S)
                    await asyncio.sleep(0.01)
        except TimeoutError:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await self._where()
        for row in await self._unfinished():
            self.done.broken.append(f"run {row.id} did not end: it is {row.status}; {row.reason}")
        self.done.jobs = len(self._jobs)

    async def _where(self) -> None:
        """Where the processes hang: their stacks are among what they said, and which files they
        have open.
        """
        for worker in self._crew:
            worker.process.send_signal(signal.SIGUSR1)
            folder = Path(f"/proc/{worker.pid}")
            files = (
                [os.readlink(link) for link in (folder / "fd").iterdir()] if folder.exists() else []
            )
            state = (
                [
                    text
                    for text in (folder / "status").read_text().splitlines()
                    if text.startswith(("State", "SigQ"))
                ]
                if files
                else []
            )
            self.done.broken.append(f"{worker.said.name}: pid {worker.pid} {state} has {files}")

    async def _unfinished(self) -> list[RunInfo]:
        """Also children: a parent that is cancelled does not wait for them."""
        return [
            row
            for status in ("pending", "running", "waiting", "blocked")
            for row in await self._clients[1].runs(status=status)
        ]

    async def _outcome(self, job: Job) -> None:
        """The outcome of a run, from an engine that does not execute it."""
        found: Any = None
        while True:
            run = await self.rng.choice(self._clients).get(job.id)
            try:
                found = await run.result()
            except RunCancelled:
                found = None
            except Exception as error:
                if await run.status() != "failed":
                    await asyncio.sleep(STALL_S)  # blocked: it is being retried
                    continue
                found = error
            break
        if found != job.expected:
            self.done.broken.append(f"run {job.id} gave {found!r} instead of {job.expected!r}")

    async def _let_go(self) -> None:
        """The processes end by themselves, and have nothing to complain about; the
        doctor neither.
        """
        for worker in self._crew:
            self._expect_alive(worker)
            code = await asyncio.to_thread(worker.end)
            if code:
                self.done.broken.append(
                    f"a worker ended with {code}: {worker.said.read_text()[-600:]}"
                )
        for said in sorted(self.folder.glob("said-*.txt")):
            if "Traceback" in (text := said.read_text()):
                self.done.broken.append(f"a worker said: {text[-600:]}")
        facts = await self._clients[0].doctor()
        if facts["integrity"] != "ok" or facts["stuck"]:
            self.done.broken.append(
                f"the doctor says {facts['integrity']}, stuck: {facts['stuck']}"
            )

    def _booked(self) -> Iterator[str]:
        """Transactional steps: each exactly once."""
        asked = {
            (job.id, n): 1
            for job in self._jobs.values()
            if job.call.definition is kill_worker.books
            for n in range(job.expected or 0)
        }
        reader = connect(self.db)
        found = (
            {(run, n): times for run, n, times in reader.execute(kill_worker.Q["booked"])}
            if asked
            else {}
        )
        reader.close()
        yield from (
            f"{one} was booked {found.get(one, 0)} times instead of {asked.get(one, 0)}"
            for one in asked | found
            if asked.get(one) != found.get(one)
        )

    def check(self) -> Killed:
        """The invariants, when everybody is gone."""
        seen = asdict(kill_checks.check(self.db, self.log))
        self.done.broken += [*seen.pop("broken"), *self._booked()]
        for name, count in seen.items():
            setattr(self.done, name, count)
        return self.done


def kill_campaign(
    seed: int, seconds: float = SECONDS, *, processes: int = 4, folder: Path | None = None
) -> Killed:
    """Processes on one file, killed and frozen for so many seconds; then everything has to end as
    it should, and is counted.

    With a `folder` its file, log and what the processes said are left there.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="perdure-kill-") as made:
            return kill_campaign(seed, seconds, processes=processes, folder=Path(made))
    campaign, began = Campaign(seed, seconds, processes, folder), time.monotonic()
    asyncio.run(campaign.conduct())
    done = campaign.check()
    done.took_s = round(time.monotonic() - began, 1)
    return done


def kill(seeds: range) -> Iterator[Count]:
    """Four processes on one file, killed with SIGKILL and frozen with SIGSTOP at random, on a real
    disk.
    """
    for seed in seeds:
        done = kill_campaign(seed)
        found = Count(
            f"kill, seed {seed}", checks=done.begun + done.rows, crashes=done.kills + done.freezes
        )
        found.broken = "; ".join(done.broken) or None
        yield found
