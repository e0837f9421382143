"""Public engine: opens a store, executes its runs, and offers the verbs that control them.

Rules: every verb returns after its commit; errors are Perdure's own; closing releases everything,
so that the next engine goes on at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Never, ParamSpec, Self, TypeVar, Unpack, cast

from perdure.api.definitions import Call, Workflow, workflow_call
from perdure.api.options import Durability, StartOptions
from perdure.codec.json_codec import JsonCodec
from perdure.core import names, numbers
from perdure.core.limits import Limits
from perdure.errors import (
    EngineClosed,
    StoreError,
    UsedAfterFork,
)
from perdure.process.clock import SystemClock
from perdure.process.periodic import to_its_end
from perdure.replica.options import Replica
from perdure.runtime import facts, options, validation
from perdure.runtime.control import Control, resolution
from perdure.runtime.info import Blocked, HistoryEvent, Progress, RunInfo, RunSummary
from perdure.runtime.observer import Observer
from perdure.runtime.opening import OpenEngine, open_engine
from perdure.runtime.queries import Filter, Queries, RunFilters
from perdure.runtime.registry import add_workflow
from perdure.runtime.results import Results
from perdure.runtime.run_handle import Run
from perdure.runtime.scheduler import Scheduler
from perdure.store.sqlite import forked
from perdure.store.sqlite.driver import SqliteStore

if TYPE_CHECKING:
    from perdure.replica.replicate import Replication

P = ParamSpec("P")
T = TypeVar("T")
UNSET: Any = object()


class Engine:
    """Opens a store and executes its runs while the `async with` block lasts.

    `store` is a path or `sqlite:///path`; `workflows` are those that this process executes (what
    they call as children is found by itself); `lease_ttl` is the time, at least a second, after
    which others take over the runs of a process that went silent; `execute=False` makes a client
    that starts, sends and looks without executing; `create=False` refuses to make a new file;
    `execute="asked"` executes only the runs that are started or waited for through this engine,
    with what they start, and leaves the others in the file to workers; `limits` is a `Limits`;
    `observer` is an `Observer`, or several, that are notified of runs, attempts, commits and
    leases; `close_grace` the seconds that steps under way get to end when the engine closes.

    `durability` is "disk", where an answer means that it is fsynced, or "replica", where it means
    that the copy in `replica` has it, so that the loss of the whole machine takes nothing that was
    acknowledged. `replica` is a `Replica`, or its address alone: `s3://bucket/prefix` or
    `file:///folder`. With it the file is restored where there is none, and the engine works while
    it holds the replica's lease. `replica_timeout` is for how many seconds a verb waits for the
    replica; `engine.replica.status()` has the lag. A client of a replicated store is answered when
    the engine that holds the replica has confirmed it.

    Raises `StoreNotFound`, `StoreCorrupt`, `StoreTooNew`, `StoreReadOnly`, `StoreLocked` on
    entering, and for a replica `ReplicaUnavailable` and `ReplicaRefused`, before anything is
    written.

    >>> from perdure import workflow
    >>> @workflow
    ... async def hello(name: str) -> str:
    ...     return f"hello {name}"
    >>> async def main():
    ...     async with Engine(":memory:", workflows=[hello]) as engine:
    ...         return await engine.run(hello("you"))
    >>> asyncio.run(main())
    'hello you'
    """

    def __init__(
        self,
        /,
        store: str | os.PathLike[str],
        *,
        workflows: Iterable[Workflow[..., Any]] = (),
        durability: str = "disk",
        replica: str | Replica | None = None,
        lease_ttl: float | timedelta = 10.0,
        execute: bool | Literal["asked"] = True,
        create: bool = True,
        replica_timeout: float = 30.0,
        limits: Limits | None = None,
        observer: Observer | Iterable[Observer] | None = None,
        close_grace: float = 2.0,
        name: str | None = None,
        **moved: Never,
    ) -> None:
        self._options = options.checked(
            store,
            workflows=workflows,
            durability=durability,
            replica=replica,
            lease_ttl=lease_ttl,
            execute=execute,
            create=create,
            replica_timeout=replica_timeout,
            limits=limits,
            observer=observer,
            close_grace=close_grace,
            name=name,
            moved=moved,
        )
        self.path, self.durability = self._options.path, self._options.durability
        self.limits = self._options.limits
        self.workflows: dict[str, Workflow[..., Any]] = {}
        for definition in workflows:
            add_workflow(self.workflows, definition)
        self._clock = SystemClock()
        self._codec = JsonCodec(payload_bytes_max=self.limits.payload_bytes_max)
        self._open: OpenEngine | None = None
        self._parent: int | None = None  # in a child: the process that has it open
        self._closing = contextlib.AsyncExitStack()
        self.replica: Replication | None = None

    # --- life -------------------------------------------------------------------------------------

    def _open_store(self) -> SqliteStore:
        return SqliteStore(self.path, limits=self.limits, create=self._options.create)

    async def __aenter__(self) -> Self:
        if self._parent is not None:
            raise UsedAfterFork(self._parent)
        stack = contextlib.AsyncExitStack()
        try:
            self._open = await self._opened(stack)
        except UsedAfterFork:  # a child has nothing to take back, and maybe no event loop
            raise
        except BaseException:  # undone from its end, also when it is cancelled again meanwhile
            await to_its_end(stack.aclose(), lambda: None)
            raise
        self._closing, self.replica = stack, self._open.replica
        forked.watch(self)
        return self

    async def _opened(self, stack: contextlib.AsyncExitStack) -> OpenEngine:
        options, clock, workflows = self._options, self._clock, self.workflows
        return await open_engine(options, self._open_store, self._codec, clock, workflows, stack)

    def in_child(self) -> None:
        """See `store.forked`: an engine that was entered before a fork is not the child's."""
        self._open, self._parent = None, os.getppid()

    async def __aexit__(self, *error: object) -> None:
        if self._open is None:
            return  # it is closed already
        scheduler, self._open = self._open.scheduler, None
        forked.unwatch(self)
        await to_its_end(self._closing.aclose(), scheduler.hurry)

    @property
    def _store(self) -> SqliteStore:
        return self._parts().store

    @property
    def _scheduler(self) -> Scheduler:
        return self._parts().scheduler

    def _parts(self) -> OpenEngine:
        if self._open is None:
            raise EngineClosed if self._parent is None else UsedAfterFork(self._parent)
        return self._open

    async def _read(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a read of the store, inline or from a thread as the store is."""
        return await self._scheduler.reads.get(read, *args, **kwargs)

    # --- starting ---------------------------------------------------------------------------------

    async def start(
        self,
        call: Call[T],
        *,
        id: str | None = None,
        queue: str | None = None,
        priority: int = 0,
        at: datetime | None = None,
        tags: dict[str, Any] | None = None,
        timeout: float | timedelta | None = None,
        durability: Durability | None = None,
    ) -> Run[T]:
        """Start a run and return when that is on disk.

        With an `id` that exists, the existing run is returned when workflow and arguments are
        equal, however they are written (a default left out, by name, `1` or `1.0`); `RunExists` is
        raised when they differ. `at` (aware) starts it later; `timeout` (seconds or a timedelta)
        limits the whole run; `tags` find it again; of those that are due, higher `priority` begins
        first; `durability` is this run's own. With "replica" it returns when the start is in the
        replica, or raises `ReplicaUnavailable` after `replica_timeout`: the run is on this disk
        then, and the same start finds it.
        Raises `NotSerializable`, `PayloadTooLarge`, `BadName` and `DefinitionError` before anything
        is written.

        >>> from perdure import workflow
        >>> @workflow
        ... async def double(n: int) -> int:
        ...     return n * 2
        >>> async def main():
        ...     async with Engine(":memory:", workflows=[double]) as engine:
        ...         await engine.start(double(4), id="four", tags={"of": "me"})
        ...         run = await engine.start(double(4), id="four", tags={"of": "me"})
        ...         found = await engine.runs(tags={"of": "me"})
        ...         return await run.result(), [info.id for info in found]
        >>> asyncio.run(main())
        (8, ['four'])
        """
        confirmed = self._control.confirmed
        run, level = await self._begin(
            call, id=id, queue=queue, priority=priority, at=at, tags=tags, timeout=timeout,
            durability=durability,
        )  # fmt: skip
        await confirmed(run.id, level)
        return run

    async def _begin(
        self, call: Call[T], **options: Unpack[StartOptions]
    ) -> tuple[Run[T], str | None]:
        """A run that is on disk, and the durability that it asks for."""
        definition = cast("Workflow[..., Any]", workflow_call(call, "start()").definition)
        control = self._parts().control
        start = control.new_run(call, **options)
        started = await control.start(start, definition)
        return Run(self, start.id, started.run), start.durability

    async def run(self, call: Call[T], **options: Unpack[StartOptions]) -> T:
        """Start a run and wait for its result: takes and raises what `start` does, and raises what
        `Run.result` does.
        """
        run, level = await self._begin(call, **options)
        # The confirmation of the result is also that of the start.
        return cast("T", await self._result(run.id, run._key, level))

    async def get(self, id: str) -> Run[Any]:
        """The run with this id; raises `RunNotFound`."""
        await self._read(self._queries.key, id)
        return Run(self, id)

    async def find(self, prefix: str) -> str:
        """The full id that `prefix` is or begins; raises `RunNotFound`, with candidates if there
        are several.

        A run stands for its children and its earlier generations: `rep` is `report`, also where
        there are `report.2` and `report~1`.
        """
        return await self._read(self._queries.find, prefix)

    async def store_lost(self) -> StoreError:
        """Return when the store is lost for good: its file was deleted or replaced, or a newer
        Perdure has taken it over.
        """
        return await asyncio.shield(self._scheduler.lost)

    # --- control ----------------------------------------------------------------------------------

    async def send(self, id: str, value: Any, *, channel: str, key: str | None = None) -> None:
        """Send a message and return when it is on disk. With a `key` it arrives once, however often
        it is sent.

        Raises `RunNotFound`, `RunFinished`, `InboxFull`, `NotSerializable`.
        """
        names.checked("channel", channel)
        if key is not None:
            names.checked("message key", key)
        data = self._codec.encode(value, f"the message on channel {channel!r}")
        await self._control.send(id, channel, key, data)

    async def cancel(self, id: str) -> None:
        """Ask a run to end: `CancelledError` arrives at its await, and its `finally` blocks run.

        Raises `RunNotFound` and `RunFinished`, as `pause` and `resume` do.
        """
        await self._control.cancel(id)

    async def pause(self, id: str) -> None:
        """Start nothing more for this run until it is resumed; steps under way end and are
        recorded.
        """
        await self._control.control(id, "pause")

    async def resume(self, id: str) -> None:
        """Let a paused run go on."""
        await self._control.control(id, "resume")

    async def retry(self, id: str) -> None:
        """Let a blocked run go on, or a failed or cancelled one without the failures or the cancel
        that ended it: under the same id, with what was recorded before; the failed run is kept as
        `id~1`. docs/explain/retry-and-fork.md says what is kept and what is done again. Raises
        `RunNotFound`, `RunFinished`, `DefinitionError` for an earlier generation.
        """
        await self._control.retry(id)

    async def resolve(
        self,
        id: str,
        *,
        seq: int | None = None,
        result: Any = UNSET,
        error: str | None = None,
        retry: bool = False,
    ) -> None:
        """Decide what became of a step whose process died (`on_crash="ask"`): its `result`, an
        `error`, or `retry`.

        `seq` is the step's row, where several ask. Raises `RunNotFound`, and `DefinitionError`
        where no step asks.
        """
        validation.check_resolution(seq, error, retry)
        given = None if result is UNSET else result
        await self._control.resolve(id, seq, resolution(self._codec, given, error, retry=retry))

    async def fork(
        self,
        id: str,
        at: int,
        *,
        new_id: str | None = None,
        result: Any = UNSET,
        args: dict[str, Any] | None = None,
    ) -> Run[Any]:
        """A new run with the history of `id` before row `at`, which is then done again.

        `result` is what the step in row `at` gives instead of being done; `args` replaces the
        step's arguments, or, at row 1, the run's own. Both are plain JSON values. Raises
        `RunNotFound`, `RunExists`, `DefinitionError`.

        >>> from perdure import workflow
        >>> @workflow
        ... async def double(n: int) -> int:
        ...     return n * 2
        >>> async def main():
        ...     async with Engine(":memory:", workflows=[double]) as engine:
        ...         await engine.run(double(4), id="four")
        ...         fork = await engine.fork("four", 1, new_id="five", args={"n": 5})
        ...         return await fork.result()
        >>> asyncio.run(main())
        10
        """
        validation.check_edit(at, args)
        encoded = None if result is UNSET else self._codec.encode(result, "the edited result")
        edited = None if args is None else self._codec.encode(args, "the edited arguments")
        name = names.checked_id(f"{id}-fork-{os.urandom(3).hex()}" if new_id is None else new_id)
        await self._control.fork(id, at, name, encoded, edited)
        return Run(self, name)

    # --- inspection -------------------------------------------------------------------------------

    @property
    def _control(self) -> Control:
        return self._parts().control

    @property
    def _queries(self) -> Queries:
        return self._parts().queries

    async def _status(self, id: str) -> str:
        return await self._read(self._queries.status, id)

    async def info(self, id: str) -> RunInfo:
        """Everything about a run but its history. Raises `RunNotFound`, as all verbs do that take
        an id.
        """
        return await self._read(self._queries.info, id)

    async def summary(self, id: str) -> RunSummary:
        """A run without its arguments and its result, which are not read."""
        return await self._read(self._queries.summary, id)

    async def history(
        self,
        id: str,
        *,
        after: int | None = None,
        limit: int | None = None,
        payloads: bool = True,
    ) -> list[HistoryEvent]:
        """The rows of a run in order, with times and decoded arguments and results.

        `after` is the row to read on from, `limit` how many rows to read; the default is all of
        them. A page costs what it returns, however long the history is. With `payloads=False`
        arguments, results, errors and data are not read: for times and names. They are None then,
        but for the `error` of an attempt that failed, which is empty.

        >>> from perdure import step, workflow
        >>> @step
        ... async def double(n: int) -> int:
        ...     return n * 2
        >>> @workflow
        ... async def doubles(times: int) -> None:
        ...     for n in range(times):
        ...         await double(n)
        >>> async def main():
        ...     async with Engine(":memory:", workflows=[doubles]) as engine:
        ...         await engine.run(doubles(100), id="d")
        ...         page = await engine.history("d", after=100, limit=2)
        ...         return [(row.seq, row.kind, row.args, row.result) for row in page]
        >>> asyncio.run(main())
        [(101, 'completed', None, 98), (102, 'step', {'n': 50}, None)]
        """
        begin = 0 if after is None else numbers.count(after, "after", low=0)
        most = None if limit is None else numbers.count(limit, "limit", low=1)
        whole = numbers.flag(payloads, "payloads")
        read = self._queries.history if whole else self._queries.outline
        return await self._read(read, id, begin, most)

    async def entry(self, id: str, seq: int) -> list[HistoryEvent]:
        """Row `seq` of a run, and the rows that answer it: a step with its attempts and its result,
        for instance. An empty list where the run has no such row.
        """
        return await self._read(self._queries.entry, id, numbers.count(seq, "seq", low=1))

    async def progress(self, id: str) -> Progress:
        """How far a run is; cheap enough to ask many times a second, whatever its payloads are."""
        return await self._read(self._queries.progress, id)

    async def runs(
        self,
        *,
        status: str | None = None,
        workflow: str | None = None,
        tags: dict[str, Any] | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[RunInfo]:
        """Runs, newest first, at most `limit`; `after` is the id of the last one of the page
        before.

        `tags` are those that a run has at least. Raises `DefinitionError` for a status that there
        is not. `summaries` returns the same without arguments and results.
        """
        asked = self._filter(status=status, workflow=workflow, tags=tags, limit=limit, after=after)
        return await self._read(self._queries.runs, asked)

    async def summaries(self, **filters: Unpack[RunFilters]) -> list[RunSummary]:
        """Runs without their arguments and results, which are not read: takes what `runs` does."""
        return await self._read(self._queries.summaries, self._filter(**filters))

    async def counts(self) -> dict[str, int]:
        """How many runs have each status, for those that any has. Only indexes are read."""
        return await self._read(self._queries.counts)

    def _filter(self, **filters: Unpack[RunFilters]) -> Filter:
        asked = Filter(**filters)
        if asked.tags:
            self._codec.encode(asked.tags, "the tags")
        return asked

    async def doctor(self) -> dict[str, Any]:
        """Facts about the store and its workers, as `perdure doctor` prints them."""
        now_ms = self._clock.now_ms()
        found = await self._read(facts.of_store, self._store, self.path, now_ms)
        return {**found, "hung_threads": self._scheduler.steps.threads.hung}

    async def blocked(self, id: str) -> list[Blocked]:
        """The runs that can't go on by themselves, of `id` and all that it has started: with what
        blocks them and why.
        """
        return await self._read(self._queries.blocked, id)

    async def left_to_workers(self) -> int:
        """How many runs of its workflows are due that neither this engine executes, with
        execute="asked", nor another one, up to 1,001.
        """
        scheduler, now_ms = self._scheduler, self._clock.now_ms()
        worker, at_work, names = scheduler.owner, scheduler.memory.at_work(), scheduler.names
        left = facts.left_to_workers
        return await self._read(left, self._store, worker, at_work, names, now_ms)

    # --- waiting ----------------------------------------------------------------------------------

    async def _result(self, run_id: str, key: int | None, asked: str | None = None) -> Any:
        return await self._results.result(run_id, key, asked)

    def _stream(
        self, run_id: str, name: str, after: int, *, positions: bool = False
    ) -> AsyncIterator[Any]:
        return self._results.stream(
            run_id,
            names.checked("stream", name),
            numbers.count(after, "after", low=0),
            positions=positions,
        )

    @property
    def _results(self) -> Results:
        return self._parts().results
