"""One store file and the engines that live on it, one after another, in virtual time; a life can
end as kill -9 ends one.

Rules: the store is a real file and the engine the real one; a crash leaves what is committed and
runs no clean-up, neither ours nor the user's; the next life begins at the moment at which the last
one ended. Only `synchronous` is off: what the process has written survives its end either way; on a
`Disk` that can lose its power it is as in real life.
"""

from __future__ import annotations

import asyncio
import contextlib
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
    """The engine died where a test wanted it to. Not an `Exception`: nothing in between may take it
    for an error of its own.
    """

    def __init__(self, when: When, commits: int) -> None:
        self.when, self.commits = when, commits
        super().__init__(f"the engine died {when} commit {commits}, as it was told to")


class PowerLost(SystemExit):
    """The machine is off. Not an `Exception`: nothing on it may go on."""


class Disk(Protocol):
    """An SQLite file layer (VFS) by its name, and whether its power is gone."""

    @property
    def name(self) -> str: ...
    @property
    def off(self) -> bool: ...


class NotReached(AssertionError):
    """There were too few commits for the crash that a test asked for."""


class CrashHarness:
    """A file, and what happens to the engines on it. `seed` chooses the order in which steps end,
    and `random()`.

    With a `disk` the next engines open the file through that, and a life ends with `PowerLost` when
    its power is gone.

    >>> from perdure import step, workflow
    >>> @step
    ... async def double(n: int) -> int:
    ...     return 2 * n
    >>> @workflow
    ... async def later(n: int) -> int:
    ...     await asyncio.sleep(3 * 24 * 3600)
    ...     return await double(n)
    >>> lives = CrashHarness("lives.db")
    >>> with lives.crash_after(3):
    ...     lives.run(later(4), id="four")
    >>> lives.run(later(4), id="four"), lives.elapsed_s
    (8, 259200.0)
    """

    def __init__(
        self, path: str | os.PathLike[str], *, seed: int = 0, disk: Disk | None = None
    ) -> None:
        self.path, self.seed, self.disk = os.fspath(path), seed, disk
        self.synchronous: str | None = (
            None  # on a disk, instead of the engine's own: less than "full" has to lose something
        )
        self.refused = 0  # transactions that a failing disk did not take
        self._now_s = 0.0
        self.crash: tuple[When, int] | None = None
        self.commits = 0
        self.dead: list[int] = []  # workers that died without a word
        self.begun: set[tuple[int, int]] = (
            set()
        )  # steps with effects that this life has begun: the run's key, and the row
        self.recorded: dict[
            tuple[int, int], Event | Command
        ] = {}  # on a disk: rows that it has taken, by the run's key and number
        self._engines: list[LivingEngine] = []
        self.stores: list[_MortalStore] = []  # open ones

    @property
    def elapsed_s(self) -> float:
        """Seconds of virtual time since the first life began."""
        return self._now_s

    def engine(self, **options: Any) -> LivingEngine:
        """An engine on the file; takes what `Engine` takes. On any other loop than ours it has the
        machine's clock.
        """
        return LivingEngine(self, options)

    def run(
        self, work: Call[Any] | Coroutine[Any, Any, Any], *, id: str | None = None, **options: Any
    ) -> Any:
        """Live: carry out a coroutine that uses `engine`, or the call of a workflow, and give its
        result.

        Raises `Crashed` where a crash was asked for, and `NothingLeftToWaitFor`.
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
        """The engine dies after (or before) this many commits from here on; fails if the block ends
        without that.
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

    # --- the end of a life ------------------------------------------------------------------------

    def committing(self, when: When) -> None:
        """A transaction is about to be committed, or is on disk: this may be the end."""
        self.commits += when == "before"
        if self.crash == (when, self.commits):
            raise Crashed(when, self.commits)

    def _abandon(self, loop: VirtualLoop) -> None:
        """Drop what is left without running a line of it, then let go of the files."""
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is dropped on purpose
        if discard.supported:
            discard.discard((task.get_coro() for task in tasks), loop)
        for thread in anyio_threads(loop):
            # the end of the task that it waits for does not come, and it would keep the interpreter
            # from ending
            thread.stop()
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

    def __init__(self, lives: CrashHarness, options: dict[str, Any]) -> None:
        self._lives = lives
        self._living: Any = None  # what a crash finds, also in the middle of closing
        super().__init__(lives.path, **{"lease_ttl": LEASE_S} | options)

    def _open_store(self) -> SqliteStore:
        store = _MortalStore(self.path, self._lives, limits=self.limits, create=self._create)
        for worker in self._lives.dead:  # a process would be known to be gone by its pid
            store.write(
                [EndWorker(worker, self._clock.now_ms(), True, self.limits.crashes_max)], True
            )
        self._lives.dead.clear()
        return store

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if isinstance(loop, VirtualLoop):
            self._clock = VirtualClock(loop)
        elif self._lives.crash:
            raise DefinitionError(f"An engine can die in virtual time only. {IN_A_LOOP}")
        await super().__aenter__()
        store, scheduler = self._store, self._scheduler
        if isinstance(loop, VirtualLoop):
            assert isinstance(store, _MortalStore)
            store.mortal = True
            scheduler.watcher.stop()  # other engines are watched when nothing else is to do
            loop.before_jump.append(self._look)
            scheduler.steps.start = _shuffled(scheduler.steps.start, loop, self._lives)  # type: ignore[method-assign]
            scheduler.new_run = _seeded(scheduler.new_run, self._lives)  # type: ignore[method-assign]
            self._living = self._open
            self._lives.opened(self)
        return self

    async def __aexit__(self, *error: object) -> None:
        loop = asyncio.get_running_loop()
        if self._living is not None and isinstance(loop, VirtualLoop):
            loop.before_jump.remove(
                self._look
            )  # closing may wait for steps, and time goes on meanwhile
        await super().__aexit__(*error)
        if self._living is not None:
            self._living = None
            self._lives.closed(self)

    def _look(self) -> bool:
        found = self._store.changed_by_others()
        if found:
            self._scheduler.changed_by_others()
        return found

    def abandon(self) -> None:
        """Let the threads end, because nothing can kill them; nobody hears what they say."""
        if self._living is None:
            return
        store, writer, scheduler = self._living[:3]
        self._open = self._living = None
        self._lives.dead.append(scheduler.owner)
        writer.close()
        scheduler.steps.threads.shutdown(wait=True)
        for active in [*scheduler.memory.active.values(), *scheduler.memory.unwritten]:
            active.kernel.discard()
        assert isinstance(store, _MortalStore)
        store.abandon()


class _MortalStore(SqliteStore):
    """The store, which tells of each commit."""

    def __init__(self, path: str, lives: CrashHarness, **options: Any) -> None:
        self._lives, self._disk, self.mortal = lives, lives.disk, False
        super().__init__(path, vfs=None if self._disk is None else self._disk.name, **options)
        lives.stores.append(self)
        if self._disk is None:
            self._db.pragma("synchronous", "off")
        else:
            if lives.synchronous is not None:
                self._db.pragma("synchronous", lives.synchronous)
            self._db.set_wal_hook(_checkpoint)

    def write(self, batch: Sequence[Write], wait_for_lock: bool) -> list[Any]:
        if self.mortal:
            self._lives.committing("before")
        try:
            results = super().write(batch, wait_for_lock)
        except StoreError:
            self._lives.refused += self.mortal
            raise
        finally:
            if self._disk is not None and self._disk.off:
                raise PowerLost
        self.commit_ms = (
            0.0  # as on a fast disk: else a noisy machine would decide what shares a commit
        )
        if self._disk is not None:
            self._lives.recorded.update(
                row
                for write, result in zip(batch, results, strict=True)
                for row in _rows(write, result)
            )
        if self.mortal:
            self._lives.committing("after")
        return results

    def close(self) -> None:
        self._lives.stores.remove(self)
        with contextlib.suppress(apsw.IOError, apsw.FullError):  # as in `_checkpoint`
            super().close()

    def abandon(self) -> None:
        """Close as a killed process does: no checkpoint, no statistics."""
        self._lives.stores.remove(self)
        for connection in {self._db, self._read}:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close()


def _rows(write: Write, result: Any) -> list[tuple[tuple[int, int], Event | Command]]:
    """The rows of histories that a write has brought."""
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


def _seeded(new_run: Any, lives: CrashHarness) -> Any:
    """New runs with numbers that the seed decides."""

    def seeded(start: StartRun, at_ms: int) -> StartRun:
        found: StartRun = new_run(start, at_ms)
        found.seed = random.Random(f"{lives.seed}/{found.id}").getrandbits(62)
        return found

    return seeded


def _checkpoint(connection: apsw.Connection, _: str, pages: int) -> int:
    """SQLite's own checkpoint after a commit ignores errors; with a file layer in Python they would
    come out of the commit.
    """
    if pages >= CHECKPOINT_PAGES:
        with contextlib.suppress(apsw.IOError, apsw.FullError):
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    return apsw.SQLITE_OK


def _shuffled(start: Any, loop: VirtualLoop, lives: CrashHarness) -> Any:
    """Steps that begin later, each by a time of its own; with seed 0 all begin at once.

    The time counts from when the step was asked for, so one that a crash made begin anew takes its
    old place among the others. It ends in a part of a millisecond, so that no two steps end at one
    moment, and none when a timer goes off.
    """

    def later(host: Any, command: Any, attempt: int, failures: int, done: Any) -> Any:
        if not command.call.options.readonly:
            lives.begun.add((host.run, command.seq))
        if not lives.seed or failures:
            return start(host, command, attempt, failures, done)
        dice = random.Random(
            f"{lives.seed}/{host.run_id}/{command.name}/{command.data}"
        )  # not its row: a crash adds one
        end_ms = (
            command.at_ms
            - BEGIN_MS
            + dice.choice(_DELAYS_MS)
            + 0.1
            + dice.random() * 0.3
            + command.seq / 1e6
        )
        running = Running()
        loop.exact = True
        try:
            loop.call_later(
                max(1e-9, end_ms / 1000 - loop.time()),
                start,
                host,
                command,
                attempt,
                failures,
                done,
                running,
            )
        finally:
            loop.exact = False
        return running

    return later
