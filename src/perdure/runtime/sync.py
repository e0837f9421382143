"""The engine for code without an event loop: the same verbs, carried out on a loop in a thread of
its own.

Rules: no second implementation; every verb is the engine's own coroutine, waited for, with its
types; loop and thread are made in the process that enters it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast

from perdure.api.definitions import Call, Workflow
from perdure.core.limits import Limits
from perdure.errors import DefinitionError, EngineClosed, UsedAfterFork
from perdure.runtime.engine import Engine
from perdure.runtime.run_handle import Run
from perdure.runtime.schedule_handle import ScheduleHandle

if TYPE_CHECKING:
    from datetime import datetime

    from perdure.replica.replicate import Replication

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def run(call: Call[T], store: str | os.PathLike[str] = "perdure.db", id: str | None = None) -> T:
    """Execute one run to its end, as `asyncio.run` does for a coroutine; with an `id` it goes on
    where it stopped.

    What the run starts is executed as well; other runs that are due in the file stay for a worker.
    Raises what `Run.result` raises, and `DefinitionError` inside a running event loop.

    >>> from perdure import workflow
    >>> @workflow
    ... async def double(n: int) -> int:
    ...     return n * 2
    >>> run(double(4), store=":memory:")
    8
    """
    if asyncio._get_running_loop() is not None:
        raise DefinitionError(
            "run() has an event loop of its own. Inside another one: `async with "
            "Engine(...) as engine: await engine.run(...)`."
        )

    async def main() -> T:
        async with Engine(store, execute="asked") as engine:
            return await engine.run(call, id=id)

    return asyncio.run(main())


# --- verbs that wait ------------------------------------------------------------------------------


def _waits(method: Any, owner: str, returns: str | None = None) -> Any:
    """A coroutine method as a plain one of `owner`, `SyncEngine` or `SyncRun`, with its parameters
    and its documentation.
    """

    def verb(self: Any, *args: Any, **kwargs: Any) -> Any:
        engine = self if isinstance(self, SyncEngine) else self._engine
        result = engine.wait(method(self._inner, *args, **kwargs))
        return _in_sync(engine, result)

    signature = inspect.signature(method)
    verb.__signature__ = (  # type: ignore[attr-defined]
        signature if returns is None else signature.replace(return_annotation=returns)
    )
    verb.__name__, verb.__qualname__ = method.__name__, f"{owner}.{method.__name__}"
    verb.__doc__ = (
        method.__doc__ and f"{method.__doc__.partition('>>>')[0].rstrip()}\n"
    )  # its example awaits
    return verb


def _in_sync(engine: SyncEngine, result: Any) -> Any:
    """A handle as one whose verbs wait; anything else as it is."""
    match result:
        case Run():
            return SyncRun(engine, result)
        case ScheduleHandle():
            return SyncScheduleHandle(engine, result)
        case [Run(), *_]:
            return [SyncRun(engine, run) for run in result]
        case _:
            return result


def _verb(
    method: Callable[Concatenate[Engine, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[SyncEngine, P], R]:
    return cast("Callable[Concatenate[SyncEngine, P], R]", _waits(method, "SyncEngine"))


def _finds(
    method: Callable[Concatenate[Engine, P], Coroutine[Any, Any, Run[T]]],
) -> Callable[Concatenate[SyncEngine, P], SyncRun[T]]:
    """A verb that gives a run."""
    return cast(
        "Callable[Concatenate[SyncEngine, P], SyncRun[T]]",
        _waits(method, "SyncEngine", f"Sync{method.__annotations__['return']}"),
    )


def _of_run(
    method: Callable[Concatenate[Run[T], P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[SyncRun[T], P], R]:
    return cast("Callable[Concatenate[SyncRun[T], P], R]", _waits(method, "SyncRun"))


def _finds_schedule(
    method: Callable[Concatenate[Engine, P], Coroutine[Any, Any, ScheduleHandle]],
) -> Callable[Concatenate[SyncEngine, P], SyncScheduleHandle]:
    return cast(
        "Callable[Concatenate[SyncEngine, P], SyncScheduleHandle]",
        _waits(method, "SyncEngine", "SyncScheduleHandle"),
    )


def _of_schedule(
    method: Callable[Concatenate[ScheduleHandle, P], Coroutine[Any, Any, R]],
    returns: str | None = None,
) -> Callable[Concatenate[SyncScheduleHandle, P], R]:
    made = _waits(method, "SyncScheduleHandle", returns)
    return cast("Callable[Concatenate[SyncScheduleHandle, P], R]", made)


def _made_like(
    made: Callable[Concatenate[Engine, P], None],
) -> Callable[[Any], Callable[Concatenate[SyncEngine, P], None]]:
    def give(init: Any) -> Callable[Concatenate[SyncEngine, P], None]:
        init.__signature__ = inspect.signature(made)
        return cast("Callable[Concatenate[SyncEngine, P], None]", init)

    return give


class SyncRun(Generic[T]):
    """A `Run` whose verbs wait."""

    def __init__(self, engine: SyncEngine, inner: Run[T]) -> None:
        self._engine, self._inner, self.id = engine, inner, inner.id

    def __repr__(self) -> str:
        return repr(self._inner)

    result = _of_run(Run[T].result)
    status = _of_run(Run.status)
    info = _of_run(Run.info)
    summary = _of_run(Run.summary)
    send = _of_run(Run.send)
    ask = _of_run(Run.ask)
    exposed = _of_run(Run.exposed)
    cancel = _of_run(Run.cancel)
    history = _of_run(Run.history)

    def stream(self, name: str, *, after: int = 0) -> Iterator[Any]:
        """The items of a stream behind position `after`, by default from the first, and on until
        the run has ended.
        """
        return self._waits_for(self._inner.stream(name, after=after))

    def stream_with_positions(self, name: str, *, after: int = 0) -> Iterator[tuple[int, Any]]:
        """The items of a stream, each behind its position: a reader that comes back passes the last
        one as `after`.

        Positions are whole numbers that grow; between two of a stream there may be any number of
        others.
        """
        return self._waits_for(self._inner.stream_with_positions(name, after=after))

    def _waits_for(self, items: AsyncIterator[R]) -> Iterator[R]:
        while True:
            try:
                yield self._engine.wait(_next(items))
            except StopAsyncIteration:
                return


class SyncScheduleHandle:
    """A `ScheduleHandle` whose verbs wait; its runs are `SyncRun`s."""

    def __init__(self, engine: SyncEngine, inner: ScheduleHandle) -> None:
        self._engine, self._inner, self.name = engine, inner, inner.name

    def __repr__(self) -> str:
        return repr(self._inner)

    info = _of_schedule(ScheduleHandle.info)
    pause = _of_schedule(ScheduleHandle.pause)
    resume = _of_schedule(ScheduleHandle.resume)
    trigger = cast(
        "Callable[[SyncScheduleHandle], SyncRun[Any]]",
        _of_schedule(ScheduleHandle.trigger, "SyncRun[Any]"),
    )
    backfill_ids = _of_schedule(ScheduleHandle.backfill_ids)
    backfill = cast(
        "Callable[[SyncScheduleHandle, datetime, datetime | None], list[SyncRun[Any]]]",
        _of_schedule(ScheduleHandle.backfill, "list[SyncRun[Any]]"),
    )
    next = _of_schedule(ScheduleHandle.next)
    remove = _of_schedule(ScheduleHandle.remove)


async def _and_tell(work: Coroutine[Any, Any, T], ended: threading.Event) -> T:
    try:
        return await work
    finally:
        ended.set()


async def _next(items: Any) -> Any:
    return await items.__anext__()


class SyncEngine:
    """`Engine` for code without an event loop: takes what it takes, and has its verbs, each of
    which waits.

    >>> from perdure import workflow
    >>> @workflow
    ... async def double(n: int) -> int:
    ...     return n * 2
    >>> with SyncEngine(":memory:", workflows=[double]) as engine:
    ...     engine.start(double(4), id="four").result()
    8
    """

    @_made_like(Engine.__init__)
    def __init__(self, *args: Any, **options: Any) -> None:
        self._inner = Engine(*args, **options)
        self._loop: asyncio.AbstractEventLoop | None = (
            None  # made where it is entered: a thread does not survive a fork
        )
        self._thread: threading.Thread | None = None
        self._pid = 0

    start = _finds(Engine.start)
    start_by_name = _finds(Engine.start_by_name)
    run = _verb(Engine.run)
    get = _finds(Engine.get)
    find = _verb(Engine.find)
    send = _verb(Engine.send)
    ask = _verb(Engine.ask)
    exposed = _verb(Engine.exposed)
    requests = _verb(Engine.requests)
    answer = _verb(Engine.answer)
    answer_link = _verb(Engine.answer_link)
    answer_by_link = _verb(Engine.answer_by_link)
    links = _verb(Engine.links)
    cancel = _verb(Engine.cancel)
    pause = _verb(Engine.pause)
    resume = _verb(Engine.resume)
    retry = _verb(Engine.retry)
    resolve = _verb(Engine.resolve)
    fork = _finds(Engine.fork)
    queue = _verb(Engine.queue)
    queues = _verb(Engine.queues)
    info = _verb(Engine.info)
    summary = _verb(Engine.summary)
    summaries = _verb(Engine.summaries)
    counts = _verb(Engine.counts)
    entry = _verb(Engine.entry)
    history = _verb(Engine.history)
    progress = _verb(Engine.progress)
    runs = _verb(Engine.runs)
    doctor = _verb(Engine.doctor)
    blocked = _verb(Engine.blocked)
    queue_keys = _verb(Engine.queue_keys)
    queue_places = _verb(Engine.queue_places)
    standing = _verb(Engine.standing)
    standings = _verb(Engine.standings)
    exposed_values = _verb(Engine.exposed_values)
    prune = _verb(Engine.prune)
    export = _verb(Engine.export)
    import_ = _verb(Engine.import_)
    left_to_workers = _verb(Engine.left_to_workers)
    store_lost = _verb(Engine.store_lost)
    schedule = _finds_schedule(Engine.schedule)
    schedules = _verb(Engine.schedules)
    get_schedule = _finds_schedule(Engine.get_schedule)

    @property
    def path(self) -> str:
        """The path of the store."""
        return self._inner.path

    @property
    def durability(self) -> str:
        """What an answer means: "disk" or "replica"."""
        return self._inner.durability

    @property
    def limits(self) -> Limits:
        """What the engine allows."""
        return self._inner.limits

    @property
    def workflows(self) -> Mapping[str, Workflow[..., Any]]:
        """The workflows that the engine knows, by name."""
        return self._inner.workflows

    @property
    def replica(self) -> Replication | None:
        """The replica, whose `status()` has the lag; `engine.wait(engine.replica.verify())`
        restores it for a test.
        """
        return self._inner.replica

    def __enter__(self) -> Self:
        self._pid, self._loop = os.getpid(), asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._serve, args=(self._loop,), name="perdure-engine", daemon=True
        )
        self._thread.start()
        try:
            self.wait(self._inner.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._pid != os.getpid():
            return  # of a child that was forked inside the block: it is the parent's to close
        try:
            self.wait(self._inner.__aexit__(), to_its_end=True)
        finally:
            self._stop()

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        """The thread's work: the event loop, then the end of all that is left on it."""
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.close()

    def _stop(self) -> None:
        assert self._loop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop = None

    def wait(self, work: Coroutine[Any, Any, T], *, to_its_end: bool = False) -> T:
        """Carry out a coroutine on the engine's loop; Ctrl-C cancels it. With `to_its_end` it is
        waited for all the same.

        Raises `EngineClosed` outside the `with` block, and `UsedAfterFork` in a child that was
        forked inside it.
        """
        if self._loop is None or self._pid != os.getpid():
            work.close()
            raise EngineClosed if self._loop is None else UsedAfterFork(self._pid)
        ended = threading.Event()
        future = asyncio.run_coroutine_threadsafe(_and_tell(work, ended), self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                if to_its_end:
                    ended.wait()
            raise
