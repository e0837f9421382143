"""The deterministic asyncio loop of workflow code: inputs in by `turn`, commands out.

Rules: callbacks run in the order in which they were scheduled; time is what the last input said;
tasks, futures and calls hash by their number, not by their address, so that sets of them keep one
order; what would reach outside raises at that line.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import sys
from asyncio.events import _get_running_loop, _set_running_loop
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from perdure.core import guard
from perdure.core.guard import inside as _inside
from perdure.core.limits import NEVER_MS, TURN_CALLBACKS_MAX, TURN_CALLBACKS_QUICK
from perdure.core.refused import Refusal, remember
from perdure.errors import EndlessTurn, TouchedFromOutside

log = logging.getLogger("perdure")


class Handle(msgspec.Struct, eq=False):
    """A callback in the queue: as much of `asyncio.Handle` as asyncio itself uses."""

    _callback: Callable[..., Any]
    _args: tuple[Any, ...]
    _context: contextvars.Context
    _cancelled: bool = False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def get_context(self) -> contextvars.Context:
        return self._context


class TimerHandle(Handle, kw_only=True):
    """A durable timer: the number of its command, and its deadline; `NEVER_MS` is never due."""

    loop: Any
    when_ms: int
    seq: int = 0

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self.loop.owner.timer_cancelled(self)

    def when(self) -> float:
        return self.when_ms / 1000


class Future(asyncio.Future[Any]):
    """A future with a stable hash. With `kernel` and `seq`, a cancel abandons its command."""

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
    """See the module's text. `owner` is notified of timers; each input sets `now_ms`."""

    def __init__(self, owner: Any, first_number: int = 0) -> None:
        self.owner = owner
        self.now_ms = 0
        self._ready: deque[Handle] = deque()
        # asyncio keeps the tasks of all loops in one set: runs that counted from the same number
        # would all collide.
        self._first_number = self._number = first_number
        self._tasks: list[Task] = []
        self._tasks_pruned = 64
        self._agens: list[Any] = []
        self._task_factory: Any = None
        self._exception_handler: Any = None
        # The first refusal of this turn, or what code outside has done since the last one.
        self.refused: Refusal | None = None
        guard.install()

    def turn(self) -> None:
        """Run callbacks until none is left. The kernel has set `guard.inside.loop` to this loop."""
        if sys.get_asyncgen_hooks().firstiter is not _first_iteration:
            _take_asyncgen_hook()
        outer = _get_running_loop()
        _set_running_loop(self)
        ready = self._ready
        try:
            for _ in range(TURN_CALLBACKS_QUICK):
                if not ready:
                    return
                handle = ready.popleft()
                if not handle._cancelled:
                    try:
                        handle._context.run(handle._callback, *handle._args)
                    except BaseException as error:
                        self._failed(handle, error)
            self._turn_on()
        finally:
            _set_running_loop(outer)

    def _failed(self, handle: Handle, error: BaseException) -> None:
        """As in asyncio, the loop goes on after an error in a callback."""
        if isinstance(error, KeyboardInterrupt):
            raise error
        if not isinstance(error, SystemExit):  # the task has it; the process does not end
            message = f"Exception in callback {handle._callback!r}"
            self.call_exception_handler({"message": message, "exception": error, "handle": handle})

    def _turn_on(self) -> None:
        """The rest of a long turn, in iterations as asyncio's loop has them.

        Callbacks that only schedule themselves again, and cancel a task again, are a busy wait
        (anyio's cancel scopes): they go on with the next input, if there can be one.
        """
        ready, before = self._ready, None
        same = left = TURN_CALLBACKS_MAX - TURN_CALLBACKS_QUICK
        while ready:
            these = [_repeated(handle) for handle in ready]
            if these != before or None in these:
                before, same = these, left
            elif same - left >= TURN_CALLBACKS_QUICK and self.owner.waits:
                return
            left -= len(these)
            if left < 0:
                raise EndlessTurn(TURN_CALLBACKS_MAX)
            for _ in these:
                handle = ready.popleft()
                if not handle._cancelled:
                    try:
                        handle._context.run(handle._callback, *handle._args)
                    except BaseException as error:
                        self._failed(handle, error)

    # --- what asyncio needs -----------------------------------------------------------------------

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def time(self) -> float:
        return self.now_ms / 1000

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        if _inside.loop is not self:
            raise self._touched()
        handle = Handle(callback, args, contextvars.copy_context() if context is None else context)
        self._ready.append(handle)
        if type(callback) is _FirstStep:
            self._adopt_task(callback.__self__)  # type: ignore[attr-defined]
        return handle

    def _touched(self) -> TouchedFromOutside:
        """The error for code outside. This run stops half changed; so does a run that did it."""
        error = TouchedFromOutside(self.owner.facts.run_id if self.owner is not None else "")
        for loop in (self, _inside.loop):
            remember(loop, error.what, error)
        return error

    def _adopt_task(self, task: Any) -> None:
        """A task of another class, from code or a factory, ends with the run, too."""
        foreign = type(task) is not Task and isinstance(task, asyncio.Task)
        if foreign and not task.done() and task not in self._tasks:
            if task.get_name().startswith("Task-"):
                task.set_name(self._next_name())
                self._number += 1
            self._know(task)

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return self._set_timer(self.now_ms + delay * 1000, callback, args, context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return self._set_timer(when * 1000, callback, args, context)

    def _set_timer(self, at_ms: float, callback: Any, args: Any, context: Any) -> TimerHandle:
        """A timer that is never early: its time is rounded up, save for the error of floats."""
        if math.isnan(at_ms):
            raise ValueError("A delay can't be NaN.")
        when_ms = NEVER_MS if at_ms >= NEVER_MS else math.ceil(at_ms - 0.001)
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
        if self._task_factory is not None:
            if self._task_factory is not _eager_task_factory:
                return self._ask_factory(coro, options)
            options["eager_start"] = True  # as it would, with our class
        if options.get("name") is None:
            options["name"] = self._next_name()
        task = Task(coro, loop=self, **options)
        self._know(task)
        return task

    def _next_name(self) -> str:
        """Of a task that is given none; asyncio's own names count through the process."""
        return f"Task-{self._number - self._first_number + 1}"

    def _ask_factory(self, coro: Any, options: dict[str, Any]) -> Any:
        """A factory may take no name and no context: it gets what is given, without the name."""
        given = {key: value for key, value in options.items() if value is not None}
        name = given.pop("name", None)
        task = self._task_factory(self, coro, **given)
        self._adopt_task(task)
        if name is not None:
            task.set_name(name)
        return task

    def _know(self, task: Any) -> None:
        self._tasks.append(task)
        if len(self._tasks) > self._tasks_pruned:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks_pruned = max(64, 2 * len(self._tasks))

    def get_task_factory(self) -> Any:
        return self._task_factory

    def set_task_factory(self, factory: Any) -> None:
        if factory is not None and not callable(factory):
            raise TypeError("task factory must be a callable or None")
        self._task_factory = factory

    def live_tasks(self) -> list[Any]:
        """Tasks that are not done, oldest first."""
        return [task for task in self._tasks if not task.done()]

    def adopt(self, agen: Any) -> None:
        """Keep an async generator alive as long as the run: nothing else may resume or close it."""
        if len(self._agens) >= 64:
            self._agens = [one for one in self._agens if one.ag_frame is not None]
        self._agens.append(agen)

    def open_generators(self) -> list[Any]:
        """Async generators that are open, oldest first; the caller closes them."""
        agens, self._agens = self._agens, []
        return [agen for agen in agens if agen.ag_frame is not None]

    async def shutdown_asyncgens(self) -> None:
        for agen in self.open_generators():
            await agen.aclose()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    def clear(self) -> None:
        """Release what has ended, so that it is freed without the garbage collector."""
        for task in self._tasks:
            if task.done() and task._log_traceback:  # now: interpreters free it at other times
                message, error = "Task exception was never retrieved", task.exception()
                self.call_exception_handler(
                    {"message": message, "exception": error, "future": task}
                )
        self._tasks.clear()
        self.owner = None

    def suspended(self) -> Iterable[Any]:
        """Coroutines and async generators that are alive, for `discard`."""
        return [*(task.get_coro() for task in self.live_tasks()), *self._agens]

    # --- errors, and questions about the loop -----------------------------------------------------

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """Debug mode changes what asyncio does; a run must do the same with it and without."""

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_exception_handler(self) -> Any:
        return self._exception_handler

    def set_exception_handler(self, handler: Any) -> None:
        if handler is not None and not callable(handler):
            raise TypeError(f"A callable object or None is expected, got {handler!r}")
        self._exception_handler = handler

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Handle an error that nothing in the workflow waits for, in the context of its source."""
        handler = self._exception_handler
        try:
            if handler is None:
                self.default_exception_handler(context)
                return
            sources = (context.get(key) for key in ("task", "future", "handle"))
            source: Any = next((one for one in sources if one is not None), None)
            if hasattr(source, "get_context"):
                source.get_context().run(handler, self, context)
            else:
                handler(self, context)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            run_id, message = self.owner and self.owner.facts.run_id, context.get("message")
            text = f"Unhandled error in exception handler, for: {message}"
            log.error("run %s: %s", run_id, text, exc_info=error, extra={"run_id": run_id})

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log it, unless this is a replay: then it was logged before."""
        if not guard.inside.muted and self.owner is not None:
            others = sorted(context.keys() - {"message", "exception"})
            rest = "".join(f"\n{key}: {context[key]!r}" for key in others)
            of = {"run_id": self.owner.facts.run_id, "workflow": self.owner.facts.workflow}
            text, error = f"{context.get('message', 'an error')}{rest}", context.get("exception")
            log.error("run %s: %s", of["run_id"], text, exc_info=error, extra=of)

    def forgive(self) -> None:
        """Forget errors of ended tasks and the refusal: they were dealt with before the replay."""
        self.refused = None
        for task in self._tasks:
            if task.done():
                task._log_traceback = False


def _repeated(handle: Handle) -> Any:
    """A key that is equal for a callback that comes again; None for one that advances a task."""
    waited_for = handle._args[0] if handle._args else None
    task = getattr(handle._callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return handle._callback, handle._args
    return task if isinstance(waited_for, asyncio.Future) and waited_for.cancelled() else None


def _take_asyncgen_hook() -> None:
    """Async generators of workflow code belong to their run, not to the loop around it.

    Once per outer loop: it raises an audit event, and asyncio restores the hook at the loop's end.
    """
    _inside.asyncgen_hook = sys.get_asyncgen_hooks().firstiter  # of this thread
    sys.set_asyncgen_hooks(firstiter=_first_iteration)


def _first_iteration(agen: Any) -> None:
    loop = running()
    if loop is not None:
        loop.adopt(agen)
    elif _inside.asyncgen_hook is not None:
        _inside.asyncgen_hook(agen)


def _refuse(name: str, what: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise guard.refused(self, what)

    method.__name__ = name
    return method


_OUTSIDE = {
    "Running a function in a thread": "run_in_executor call_soon_threadsafe set_default_executor",
    "Starting a subprocess": "subprocess_exec subprocess_shell",
    "Network I/O": """
        getaddrinfo getnameinfo create_connection create_server create_unix_connection
        create_unix_server create_datagram_endpoint connect_accepted_socket start_tls sendfile
        sock_recv sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendall sock_sendto
        sock_connect sock_accept sock_sendfile""",
    "Reading or writing a file descriptor": """
        add_reader remove_reader add_writer remove_writer connect_read_pipe connect_write_pipe""",
    "Handling a signal": "add_signal_handler remove_signal_handler",
    "Running or stopping the event loop": "run_forever run_until_complete stop close",
}

for _what, _names in _OUTSIDE.items():
    for _name in _names.split():
        setattr(WorkflowLoop, _name, _refuse(_name, _what))


_eager_task_factory = getattr(asyncio, "eager_task_factory", None)  # new in 3.12


def running() -> WorkflowLoop | None:
    """The workflow loop that this thread is in, if any."""
    return _inside.loop  # type: ignore[no-any-return]


class _Probe(asyncio.AbstractEventLoop):
    """A loop that keeps the callback by which asyncio begins a task."""

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        self.callback = callback

    def get_debug(self) -> bool:
        return False


def _first_step() -> type:
    """The class of the callback by which this interpreter begins a task."""

    async def nothing() -> None: ...

    probe, coro = _Probe(), nothing()  # type: ignore[abstract]
    task = asyncio.Task(coro, loop=probe)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coro.close()
    return type(probe.callback)


_FirstStep = _first_step()
