"""Public engine: opens a store, executes its runs, and offers the verbs that control them.

Rules: every verb returns after its commit; errors are Perdure's own; closing releases everything,
so that the next engine goes on at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Never, ParamSpec, Self, TypeVar, Unpack, cast

from perdure.api.definitions import Call, Workflow, workflow_call
from perdure.api.options import Durability, StartOptions
from perdure.api.queues import Queue
from perdure.api.retention import Retention
from perdure.codec.json_codec import JsonCodec
from perdure.core import names
from perdure.core.limits import Limits
from perdure.errors import (
    DefinitionError,
    StoreError,
    UsedAfterFork,
)
from perdure.process.clock import SystemClock
from perdure.process.periodic import to_its_end
from perdure.replica.options import Replica
from perdure.runtime import options, validation
from perdure.runtime.engine_answers import AnswerVerbs
from perdure.runtime.engine_by_name import StartsByName
from perdure.runtime.engine_control import UNSET, ControlVerbs
from perdure.runtime.engine_queues import QueueVerbs
from perdure.runtime.engine_reads import ReadVerbs
from perdure.runtime.engine_requests import RequestVerbs
from perdure.runtime.engine_retention import RetentionVerbs
from perdure.runtime.engine_schedules import ScheduleVerbs
from perdure.runtime.engine_standing import StandingVerbs
from perdure.runtime.engine_transfer import TransferVerbs
from perdure.runtime.observer import Observer, notifier
from perdure.runtime.opening import OpenEngine, open_engine
from perdure.runtime.registry import add_workflow
from perdure.runtime.run_handle import Run
from perdure.store.sqlite import forked
from perdure.store.sqlite.driver import SqliteStore

if TYPE_CHECKING:
    from perdure.api.schedules import Schedule
    from perdure.api.tokens import Tokens
    from perdure.replica.replicate import Replication

P = ParamSpec("P")
T = TypeVar("T")


class Engine(
    TransferVerbs,
    ControlVerbs,
    QueueVerbs,
    ReadVerbs,
    RequestVerbs,
    AnswerVerbs,
    RetentionVerbs,
    ScheduleVerbs,
    StandingVerbs,
    StartsByName,
):
    """Opens a store and executes its runs while the `async with` block lasts.

    `store` is a path or `sqlite:///path`; `workflows` are those that this process executes (what
    they call as children is found by itself); `lease_ttl` is the time, at least a second, after
    which others take over the runs of a process that went silent; `execute=False` makes a client
    that starts, sends and looks without executing; `create=False` refuses to make a new file;
    `execute="asked"` executes only the runs that are started or waited for through this engine,
    with what they start, and leaves the others in the file to workers; `limits` is a `Limits`;
    `queues` is a list of `Queue`, stored on entering where they are new or declared otherwise than
    before; `observer` is an `Observer`, or several, that are notified of runs, attempts, commits
    and leases; `close_grace` the seconds that steps under way get to end when the engine closes;
    `retention` is a `Retention`: runs that ended long ago are archived and deleted meanwhile;
    `schedules` are those of this code (`Schedule`), declared by an engine that executes runs;
    `redact` are names of members (`["password", "*_token"]`, in any case), or a function that says
    it of a name: views, pages and exports have `•••` in the place of their values, as of every
    `Secret`, and runs get them as they are; `step_logs` is the lowest level of what steps log that
    is kept with their runs, None to keep nothing.

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
        queues: Iterable[Queue] = (),
        retention: Retention | None = None,
        schedules: Iterable[Schedule] = (),
        redact: Iterable[str] | Callable[[str], bool] | None = None,
        step_logs: str | int | None = "INFO",
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
            queues=queues,
            retention=retention,
            schedules=schedules,
            redact=redact,
            step_logs=step_logs,
            moved=moved,
        )
        self.path, self.durability = self._options.path, self._options.durability
        self.limits = self._options.limits
        self.workflows: dict[str, Workflow[..., Any]] = {}
        for definition in workflows:
            add_workflow(self.workflows, definition)
        self._clock = SystemClock()
        self._codec = JsonCodec(self.limits.payload_bytes_max)
        self._open: OpenEngine | None = None
        self._parent: int | None = None  # in a child: the process that has it open
        self._closing = contextlib.AsyncExitStack()
        self.replica: Replication | None = None
        self._reader: Any = None

    # --- life -------------------------------------------------------------------------------------

    def _open_store(self) -> SqliteStore:
        options = self._options
        return SqliteStore(
            self.path, limits=self.limits, create=options.create, redaction=options.redaction
        )

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

    # --- starting ---------------------------------------------------------------------------------

    async def start(
        self,
        call: Call[T],
        *,
        id: str | None = None,
        queue: str | None = None,
        key: str | None = None,
        priority: int = 0,
        weight: int | None = None,
        at: datetime | None = None,
        debounce: float | timedelta | None = None,
        debounce_max: float | timedelta | None = None,
        tags: dict[str, Any] | None = None,
        timeout: float | timedelta | None = None,
        durability: Durability | None = None,
    ) -> Run[T]:
        """Start a run and return when that is on disk.

        With an `id` that exists, the existing run is returned when workflow and arguments are
        equal, however they are written (a default left out, by name, `1` or `1.0`); `RunExists` is
        raised when they differ. `at` (aware) starts it later; `timeout` (seconds or a timedelta)
        limits the whole run, from when it begins: neither `at` nor a wait in its `queue` counts,
        but the waits of its steps do; `tags` find it again; of those that are due, higher
        `priority` begins first; `durability` is this run's own. With "replica" it returns when the
        start is in the replica, or raises `ReplicaUnavailable` after `replica_timeout`: the run is
        on this disk then, and the same start finds it.

        In a `queue` it waits until that admits it, by priority, then by turns of `key` (whom it is
        for, also in the queues of its steps and its children), and holds its place until its end;
        `weight` is how many tokens of a `Rate` it takes. With `debounce` (seconds or a timedelta)
        and an `id` it begins when so much time has passed without another such start, at most
        `debounce_max` after the first, with the arguments of the last one; the other
        options are those of the first.

        Raises `NotSerializable`, `PayloadTooLarge`, `BadName`, `DefinitionError`, `QueueNotFound`
        and `QueueFull`; nothing is written then.

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
            call, id=id, queue=queue, key=key, priority=priority, weight=weight, at=at,
            debounce=debounce, debounce_max=debounce_max, tags=tags, timeout=timeout,
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

    async def _start(self, call: Call[Any], options: StartOptions) -> Run[Any]:
        return await self.start(call, **options)

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

    # --- looking ----------------------------------------------------------------------------------

    def reader(self) -> Any:
        """A `perdure.reader.StoreReader`: reads of the store beside this engine, from threads of
        their own; closed with it. A store in memory is read on the event loop.
        """
        if self._reader is None:
            self._parts()
            store = self._store if self.path == ":memory:" else None
            made = import_module("perdure.reader").StoreReader  # it is above this, with its views
            self._reader = made(self.path, now_ms=self._clock.now_ms, store=store)
            self._closing.push_async_callback(self._reader.__aexit__)
            self._closing.callback(setattr, self, "_reader", None)
        return self._reader

    @property
    def is_open(self) -> bool:
        """Whether it was entered and is not closed."""
        return self._open is not None

    def add_observer(self, observer: Observer) -> bool:
        """Notify one more observer. False where the engine is open and was entered without any:
        then it notifies none.
        """
        if (known := self._options.observer) is not None:
            known.add(observer)
            return True
        if self.is_open:
            return False
        self._options = replace(self._options, observer=notifier(observer))
        return True

    def asgi(self, *, token: Tokens = None, prefix: str = "") -> Any:
        """An ASGI application with the pages, `/api/v1` and `/metrics`, to mount anywhere.

        Without a token it answers only this machine, under its own name. `token` opens it for
        others: a string, or several `Token` with names and roles; where none is given it is that of
        the environment variable PERDURE_TOKEN. `prefix` is what its addresses begin with where a
        proxy in front takes that away; where the application is mounted under a path, it knows.
        It may be made before the engine is entered; a server that runs it on its own enters the
        engine while it lives. Raises `DefinitionError`.
        """
        try:  # an extra: loaded by name, as a plugin would be
            app = import_module("perdure.http.app")
        except ModuleNotFoundError as error:
            raise DefinitionError(
                f"The pages need {error.name}: pip install 'perdure[ui]'."
            ) from error
        return app.asgi(self, token=token, prefix=prefix)

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
