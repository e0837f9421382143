"""The crash harness: engines on one store file, one after another, in virtual time, killed at a
commit.

Rules: the store is a real file and the engine the real one. A crash leaves what is committed and
runs no clean-up, neither ours nor the user's. The next engine begins at the moment at which the
last one ended. Only `synchronous` is off, because what a process has written survives its end; on a
`Disk` that can lose its power it is on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Literal, Protocol, Self

import apsw

from perdure.api.definitions import Call
from perdure.core import discard
from perdure.core.events import Command, Event
from perdure.errors import DefinitionError, StoreError
from perdure.runtime.engine import Engine
from perdure.runtime.opening import OpenEngine
from perdure.runtime.steps import Running
from perdure.store.rows import Started, Written
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.writes import Append, EndWorker, StartRun, Transact, Turn, Write
from perdure.testing.virtual_time import BEGIN_MS, VirtualClock, VirtualLoop, anyio_threads

When = Literal["before", "after"]
LEASE_S = 100 * 366 * 86_400.0
CHECKPOINT_PAGES = 12  # on a `Disk`: a short run is to have checkpoints too
_DELAYS_MS = (1, 1, 2, 7, 40)


class Crashed(SystemExit):
    """The engine died at the commit that a test named. No `Exception`, so no handler takes it."""

    def __init__(self, when: When, commits: int) -> None:
        self.when, self.commits = when, commits
        super().__init__(f"the engine died {when} commit {commits}, as the test asked")


class PowerLost(SystemExit):
    """The machine is off. No `Exception`, so that nothing on it goes on."""


class Disk(Protocol):
    """An SQLite file layer (VFS) by its name, and whether its power is gone."""

    @property
    def name(self) -> str: ...
    @property
    def off(self) -> bool: ...


class NotReached(AssertionError):
    """There were fewer commits than the test named."""


class CrashHarness:
    """A store file whose engines run in virtual time and can be killed at any commit.

    `seed` chooses the order in which steps end, and `random()`. With a `disk`, engines open the
    file through it, and `run` ends with `PowerLost` when its power is gone.


    >>> from perdure import step, workflow
    >>> @step
    ... async def double(n: int) -> int:
    ...     return 2 * n
    >>> @workflow
    ... async def later(n: int) -> int:
    ...     await asyncio.sleep(3 * 24 * 3600)
    ...     return await double(n)
    >>> harness = CrashHarness("orders.db")
    >>> with harness.crash_after(3):
    ...     harness.run(later(4), id="four")
    >>> harness.run(later(4), id="four"), harness.elapsed_s
    (8, 259200.0)
    """

    def __init__(
        self, path: str | os.PathLike[str], *, seed: int = 0, disk: Disk | None = None
    ) -> None:
        self.path, self.seed, self.disk = os.fspath(path), seed, disk
        # On a disk, in the place of the engine's own: less than "full" has to lose something.
        self.synchronous: str | None = None
        self.refused = 0  # transactions that a failing disk did not take
        self._now_s = 0.0
        self.crash: tuple[When, int] | None = None
        self.commits = 0
        self.dead: list[int] = []  # workers that were killed
        # Steps with effects that this engine has begun: the run's key, and the row.
        self.begun: set[tuple[int, int]] = set()
        # On a disk: the rows that it has taken, by the run's key and number.
        self.recorded: dict[tuple[int, int], Event | Command] = {}
        self._engines: list[LivingEngine] = []
        self.stores: list[_MortalStore] = []  # open ones

    @property
    def elapsed_s(self) -> float:
        """Seconds of virtual time since the first engine began."""
        return self._now_s

    def engine(self, **options: Any) -> LivingEngine:
        """An engine on the file; takes what `Engine` takes. On another loop it has the machine's
        clock.
        """
        return LivingEngine(self, options)

    def run(
        self, work: Call[Any] | Coroutine[Any, Any, Any], *, id: str | None = None, **options: Any
    ) -> Any:
        """Run a coroutine that uses `engine`, or the call of a workflow, in virtual time.

        Returns its result. Raises `Crashed` at the commit that `crash_after` named, and
        `NothingLeftToWaitFor`.
        """
        if asyncio._get_running_loop() is not None:
            work.close()
            raise DefinitionError(IN_A_LOOP)
        loop = VirtualLoop(self._now_s)
        self.begun.clear()
        main = loop.create_task(self._called(work, id, options) if isinstance(work, Call) else work)
        try:
            result = loop.run_until_complete(main)
            loop.run_until_complete(loop.shutdown_asyncgens())
            return result
        finally:
            self._now_s = loop.time()
            self._abandon(loop)
            loop.close()

    async def _called(self, call: Call[Any], run_id: str | None, options: dict[str, Any]) -> Any:
        async with self.engine(**options) as engine:
            return await engine.run(call, id=run_id)

    @contextlib.contextmanager
    def crash_after(self, commits: int, when: When = "after") -> Iterator[None]:
        """The engine dies after (or before) this many commits. Fails if the block ends without
        that.
        """
        self.crash, self.commits = (when, commits), 0
        try:
            yield
        except Crashed:
            return
        finally:
            self.crash = None
        raise NotReached(
            f"There were only {self.commits} commits, so the engine did not die {when} "
            f"number {commits}."
        )

    # --- the end of an engine ---------------------------------------------------------------------

    def committing(self, when: When) -> None:
        """Die here, if this commit is the one that the test named."""
        self.commits += when == "before"
        if self.crash == (when, self.commits):
            raise Crashed(when, self.commits)

    def _abandon(self, loop: VirtualLoop) -> None:
        """Drop what is left without running a line of it, then close the files."""
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is dropped on purpose
        if discard.supported:
            discard.discard((task.get_coro() for task in tasks), loop)
        for thread in anyio_threads(loop):
            thread.stop()  # it waits for a task that does not end
        while self._engines:
            self._engines.pop().abandon()
        for store in list(self.stores):  # of engines that did not get to open
            store.abandon()

    def opened(self, engine: LivingEngine) -> None:
        self._engines.append(engine)

    def closed(self, engine: LivingEngine) -> None:
        self._engines.remove(engine)


IN_A_LOOP = (
    "Virtual time has an event loop of its own, which can't run inside another one. Call this "
    "in a plain test function; in an async "
    "one write `await asyncio.to_thread(...)`."
)


class LivingEngine(Engine):
    """An engine whose clock and store a test controls. Made by `CrashHarness.engine`."""

    def __init__(self, harness: CrashHarness, options: dict[str, Any]) -> None:
        self._harness = harness
        self._living: OpenEngine | None = None  # what a crash finds, also in the middle of closing
        super().__init__(harness.path, **{"lease_ttl": LEASE_S} | options)

    def _open_store(self) -> SqliteStore:
        store = _MortalStore(
            self.path, self._harness, limits=self.limits, create=self._options.create
        )
        for worker in self._harness.dead:  # of a real process the pid would be gone
            store.write(
                [EndWorker(worker, self._clock.now_ms(), True, self.limits.crashes_max)], True
            )
        self._harness.dead.clear()
        return store

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if isinstance(loop, VirtualLoop):
            self._clock = VirtualClock(loop)
        elif self._harness.crash:
            raise DefinitionError(f"An engine can die in virtual time only. {IN_A_LOOP}")
        await super().__aenter__()
        store, scheduler = self._store, self._scheduler
        if isinstance(loop, VirtualLoop):
            assert isinstance(store, _MortalStore)
            store.mortal = True
            scheduler.watcher.stop()  # other engines are watched when the loop is idle
            loop.before_jump.append(self._look)
            scheduler.steps.start = _shuffled(scheduler.steps.start, loop, self._harness)  # type: ignore[method-assign]
            scheduler.new_run = _seeded(scheduler.new_run, self._harness)
            self._living = self._open
            self._harness.opened(self)
        return self

    async def __aexit__(self, *error: object) -> None:
        loop = asyncio.get_running_loop()
        if self._living is not None and isinstance(loop, VirtualLoop):
            loop.before_jump.remove(self._look)  # closing may wait for steps, in virtual time
        await super().__aexit__(*error)
        if self._living is not None:
            self._living = None
            self._harness.closed(self)

    def _look(self) -> bool:
        found = self._store.changed_by_others()
        if found:
            self._scheduler.changed_by_others()
        return found

    def abandon(self) -> None:
        """Let the threads end, because nothing can kill them; their outcomes are dropped."""
        if self._living is None:
            return
        store, writer, scheduler = self._living.store, self._living.writer, self._living.scheduler
        self._open = self._living = None
        self._harness.dead.append(scheduler.owner)
        writer.close()
        scheduler.steps.threads.shutdown(wait=True)
        for active in [*scheduler.memory.active.values(), *scheduler.memory.unwritten]:
            active.kernel.discard()
        assert isinstance(store, _MortalStore)
        store.abandon()


class _MortalStore(SqliteStore):
    """The store, which reports each commit to the harness."""

    def __init__(self, path: str, harness: CrashHarness, **options: Any) -> None:
        self._harness, self._disk, self.mortal = harness, harness.disk, False
        super().__init__(path, vfs=None if self._disk is None else self._disk.name, **options)
        harness.stores.append(self)
        if self._disk is None:
            self._db.pragma("synchronous", "off")
        else:
            if harness.synchronous is not None:
                self._db.pragma("synchronous", harness.synchronous)
            self._db.set_wal_hook(_checkpoint)

    def write(self, batch: Sequence[Write], wait_for_lock: bool) -> list[Any]:
        if self.mortal:
            self._harness.committing("before")
        try:
            results = super().write(batch, wait_for_lock)
        except StoreError:
            self._harness.refused += self.mortal
            raise
        finally:
            if self._disk is not None and self._disk.off:
                raise PowerLost
        self.commit_ms = (
            0.0  # a fast disk: else the machine's load would decide what shares a commit
        )
        if self._disk is not None:
            for write, result in zip(batch, results, strict=True):
                self._harness.recorded.update(_rows(write, result))
        if self.mortal:
            self._harness.committing("after")
        return results

    def close(self) -> None:
        self._harness.stores.remove(self)
        with contextlib.suppress(apsw.IOError, apsw.FullError):  # as in `_checkpoint`
            super().close()

    def abandon(self) -> None:
        """Close as a killed process does: no checkpoint, no statistics."""
        self._harness.stores.remove(self)
        for connection in filter(None, (self._second, self._db)):
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close()


def _rows(write: Write, result: Any) -> list[tuple[tuple[int, int], Event | Command]]:
    """The rows of histories that a write has added."""
    match write, result:
        case Turn(run=run, rows=rows), Written():
            return [((run, row.seq), row) for row in rows]
        case Append(run=run, rows=rows), None:
            return [((run, row.seq), row) for row in rows]
        case StartRun(first=rows), Started(run=run, owned=True):
            return [((run, row.seq), row) for row in rows or ()]
        case Transact(run=run), Event():
            return [((run, result.seq), result)]
        case _:
            return []


def _seeded(new_run: Any, harness: CrashHarness) -> Any:
    """New runs whose random numbers come from the seed."""

    def seeded(start: StartRun, at_ms: int) -> StartRun:
        found: StartRun = new_run(start, at_ms)
        found.seed = random.Random(f"{harness.seed}/{found.id}").getrandbits(62)
        return found

    return seeded


def _checkpoint(connection: apsw.Connection, _: str, pages: int) -> int:
    """A checkpoint that ignores errors, as SQLite's own does; a file layer in Python would raise
    them.
    """
    if pages >= CHECKPOINT_PAGES:
        with contextlib.suppress(apsw.IOError, apsw.FullError):
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    return apsw.SQLITE_OK


def _shuffled(start: Any, loop: VirtualLoop, harness: CrashHarness) -> Any:
    """Delay each step by a time of its own; with seed 0 all begin at once.

    The time counts from when the step was asked for, so a step that a crash made begin anew keeps
    its place among the others. It ends in a part of a millisecond, so that no two steps end at one
    moment, and none when a timer fires.
    """

    def later(host: Any, command: Any, attempt: int, failures: int, done: Any) -> Any:
        if not command.call.options.readonly:
            harness.begun.add((host.run, command.seq))
        if not harness.seed or failures:
            return start(host, command, attempt, failures, done)
        # Without its row: a crash adds one.
        dice = random.Random(f"{harness.seed}/{host.run_id}/{command.name}/{command.data}")
        delay_ms = dice.choice(_DELAYS_MS) + 0.1 + dice.random() * 0.3 + command.seq / 1e6
        end_ms = command.at_ms - BEGIN_MS + delay_ms
        running = Running()
        begin = functools.partial(start, host, command, attempt, failures, done, running)
        loop.exact = True
        try:
            loop.call_later(max(1e-9, end_ms / 1000 - loop.time()), begin)
        finally:
            loop.exact = False
        return running

    return later
