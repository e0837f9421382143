"""The deterministic asyncio loop that workflow code runs on: one door in (`turn`), one door out (commands).

Rules: callbacks run in the order in which they were scheduled; time is what the last input said; tasks,
futures and calls hash by their number, not by their address, so that sets of them keep one order; anything
that would reach outside raises at the line that asked for it. Nothing here knows of histories or stores.
"""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import sys
from asyncio import tasks as _asyncio_tasks
from asyncio.events import _get_running_loop, _set_running_loop
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from perdure.core import guard
from perdure.core.guard import inside as _inside
from perdure.core.limits import TURN_CALLBACKS_MAX
from perdure.errors import NotDeterministic, PerdureError


class EndlessTurn(PerdureError, RuntimeError):
    """Workflow code kept itself busy without ever waiting for an event."""

    def __init__(self) -> None:
        super().__init__(
            f"The workflow ran {TURN_CALLBACKS_MAX:,} callbacks without waiting for anything durable. "
            "A loop over asyncio.sleep(0)? Await a step, a timer or a message in it."
        )


class Handle(msgspec.Struct, eq=False):
    """A callback in the queue; as much of `asyncio.Handle` as asyncio itself uses."""

    _callback: Callable[..., Any]
    _args: tuple[Any, ...]
    _context: contextvars.Context
    _cancelled: bool = False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled


class TimerHandle(Handle, kw_only=True):
    """A durable timer: `seq` is its command's number, `when_ms` its deadline."""

    loop: Any
    when_ms: int
    seq: int = 0

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self.loop.owner.timer_cancelled(self)


class Future(asyncio.Future[Any]):
    """A future with a stable hash, which tells its owner when workflow code cancels it.

    `number` is given out when somebody asks for the hash; `kernel` and `seq` are set only where a command waits for the answer.
    """

    number: int = 0
    kernel: Any = None
    seq: int = 0

    def __hash__(self) -> int:
        if not self.number:
            self.number = self.get_loop().next_number()  # type: ignore[attr-defined]
        return self.number

    def cancel(self, msg: Any | None = None) -> bool:
        cancelled = super().cancel(msg)
        if cancelled and self.kernel is not None:
            self.kernel.abandon(self.seq)
        return cancelled


class Task(asyncio.Task[Any]):
    """A task with a stable hash."""

    __slots__ = ("number",)

    def __init__(self, coro: Any, *, loop: WorkflowLoop, **options: Any) -> None:
        self.number = loop.next_number()
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self.number


class WorkflowLoop(asyncio.AbstractEventLoop):
    """See the module's text; `owner` is told about timers, `now_ms` is set by each input."""

    def __init__(self, owner: Any, first_number: int = 0) -> None:
        self.owner = owner
        self.now_ms = 0
        self._ready: deque[Handle] = deque()
        # asyncio keeps the tasks of all loops in one set: runs that counted from the same number would all collide.
        self._first_number = self._number = first_number
        self._tasks: list[Task] = []
        self._tasks_pruned = 64
        self._agens: list[Any] = []
        guard.install()

    # --- one door in ------------------------------------------------------------------------------

    def turn(self) -> None:
        """Run callbacks until none is left. Call it from a plain callback, never from inside a task."""
        if sys.get_asyncgen_hooks().firstiter is not _first_iteration:
            _take_asyncgen_hook()
        outer = _get_running_loop()
        _set_running_loop(self)
        _inside.loop = self
        ready = self._ready
        try:
            for _ in range(TURN_CALLBACKS_MAX):
                if not ready:
                    return
                handle = ready.popleft()
                if not handle._cancelled:
                    try:
                        handle._context.run(handle._callback, *handle._args)
                    except SystemExit:
                        pass  # the task holds it as its error; a workflow must not end the process
        finally:
            _inside.loop = None
            _set_running_loop(outer)
        raise EndlessTurn

    # --- what asyncio needs -----------------------------------------------------------------------

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def time(self) -> float:
        return self.now_ms / 1000

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        handle = Handle(callback, args, contextvars.copy_context() if context is None else context)
        self._ready.append(handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        return self._set_timer(self.now_ms + round(delay * 1000), callback, args, context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        return self._set_timer(round(when * 1000), callback, args, context)

    def _set_timer(
        self, when_ms: int, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context | None
    ) -> TimerHandle:
        context = contextvars.copy_context() if context is None else context
        timer = TimerHandle(callback, args, context, loop=self, when_ms=when_ms)
        self.owner.timer_set(timer)
        return timer

    def fire(self, timer: TimerHandle) -> None:
        """Queue a timer's callback; the kernel calls it when the timer's event is fed."""
        self._ready.append(timer)

    def create_future(self) -> Future:
        return Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> Any:
        options.pop("eager_start", None)  # an eager task would run before its turn
        if options.get("name") is None:  # asyncio's own names count through the process
            options["name"] = f"Task-{self._number - self._first_number + 1}"
        task = Task(coro, loop=self, **options)
        self._tasks.append(task)
        if len(self._tasks) > self._tasks_pruned:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks_pruned = max(64, 2 * len(self._tasks))
        return task

    def live_tasks(self) -> list[Task]:
        """Tasks that are not done, oldest first."""
        return [task for task in self._tasks if not task.done()]

    def adopt(self, agen: Any) -> None:
        """Keep an async generator alive as long as the run: nobody else may resume or close it."""
        if len(self._agens) >= 64:
            self._agens = [one for one in self._agens if one.ag_frame is not None]
        self._agens.append(agen)

    def clear(self) -> None:
        """Let go of what has ended, so that it is freed at once and not by the garbage collector."""
        self._tasks.clear()
        self.owner = None

    def suspended(self) -> Iterable[Any]:
        """Coroutines and async generators that are alive, for `discard`."""
        return [*(task.get_coro() for task in self.live_tasks()), *self._agens]

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Unretrieved errors of abandoned tasks; the run's own outcome is recorded elsewhere."""


_outer_hook: Any = None


def _take_asyncgen_hook() -> None:
    """Async generators of workflow code belong to their run, not to the loop around it. Set once per outer loop,
    because setting it raises an audit event each time; asyncio puts back what was there when that loop ends.
    """
    global _outer_hook
    _outer_hook = sys.get_asyncgen_hooks().firstiter
    sys.set_asyncgen_hooks(firstiter=_first_iteration)


def _first_iteration(agen: Any) -> None:
    loop = running()
    if loop is not None:
        loop.adopt(agen)
    elif _outer_hook is not None:
        _outer_hook(agen)


def _refuse(name: str, what: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotDeterministic(what)

    method.__name__ = name
    return method


_OUTSIDE = {
    "Running a function in a thread": ("run_in_executor", "call_soon_threadsafe", "set_default_executor"),
    "Starting a subprocess": ("subprocess_exec", "subprocess_shell"),
    "Network I/O": (
        "getaddrinfo", "getnameinfo", "create_connection", "create_server", "create_unix_connection",
        "create_unix_server", "create_datagram_endpoint", "connect_accepted_socket", "start_tls", "sendfile",
        "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendto",
        "sock_connect", "sock_accept", "sock_sendfile",
    ),
    "Reading or writing a file descriptor": (
        "add_reader", "remove_reader", "add_writer", "remove_writer", "connect_read_pipe", "connect_write_pipe",
    ),
    "Handling a signal": ("add_signal_handler", "remove_signal_handler"),
    "Running or stopping the event loop": ("run_forever", "run_until_complete", "stop", "close"),
}  # fmt: skip

for _what, _names in _OUTSIDE.items():
    for _name in _names:
        setattr(WorkflowLoop, _name, _refuse(_name, _what))


def running() -> WorkflowLoop | None:
    """The workflow loop that this thread is in, if any."""
    return _inside.loop  # type: ignore[no-any-return]


class _OrderedSet(builtins.set[Any]):
    """A set that is walked in the order in which it was filled; outside workflow code a plain set is made."""

    def __new__(cls, items: Iterable[Any] = ()) -> Any:
        return builtins.set(items) if running() is None else super().__new__(cls)

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._order = dict.fromkeys(items)
        super().__init__(self._order)

    def __iter__(self) -> Iterator[Any]:
        return iter([item for item in self._order if item in self])

    def add(self, item: Any) -> None:
        super().add(item)
        self._order[item] = None


class _Gathering(_asyncio_tasks._GatheringFuture):  # type: ignore[misc,name-defined]
    """What `asyncio.gather` gives, with a stable hash."""

    def __init__(self, children: Any, *, loop: Any) -> None:
        super().__init__(children, loop=loop)
        self.number = loop.next_number() if isinstance(loop, WorkflowLoop) else id(self)

    def __hash__(self) -> int:
        return self.number


_all_tasks = asyncio.all_tasks


def _own_tasks(loop: Any = None) -> set[Any]:
    """Tasks of a run, oldest first; elsewhere what asyncio says."""
    found = running() if loop is None else loop
    return _OrderedSet(found.live_tasks()) if isinstance(found, WorkflowLoop) else _all_tasks(loop)


# `asyncio.wait` and `asyncio.as_completed` put what they are given into a set and walk it; plain coroutines in
# it hash by address, so the walk would differ from process to process. Outside workflows nothing changes.
_asyncio_tasks.set = _OrderedSet  # type: ignore[attr-defined]
_asyncio_tasks._GatheringFuture = _Gathering  # type: ignore[attr-defined]
_asyncio_tasks.all_tasks = asyncio.all_tasks = _own_tasks
