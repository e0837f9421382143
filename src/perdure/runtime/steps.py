"""Attempts of steps: run the function, apply timeout and retry policy, report one outcome.

Rules: arguments come from the recorded command, decoded anew for every attempt, so a step can't change what its
workflow holds; a failed attempt is written before the next one starts; the outcome leaves through a plain callback.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import msgspec

from perdure import api
from perdure.codec import JsonCodec, failure_of_step, signature_of
from perdure.core.events import Command
from perdure.core.limits import Limits
from perdure.core.retry import Retry
from perdure.errors import DefinitionError, NotSerializable, PayloadTooLarge, PerdureError
from perdure.runtime import eager
from perdure.runtime.clock import SystemClock
from perdure.store.base import Beat, Emit


class Ended(msgspec.Struct, frozen=True, gc=False):
    """How a step ended: kind completed or failed, with JSON, and how long the last attempt took."""

    kind: str
    data: bytes
    took_ms: int


class AttemptTimeout(PerdureError, TimeoutError):
    """One attempt took longer than its timeout."""

    def __init__(self, timeout_ms: int) -> None:
        super().__init__(f"the attempt took longer than its timeout of {timeout_ms / 1000:g} s")


class ProcessDied(PerdureError):
    """Stands in the history for an attempt of which only the beginning is known."""

    def __init__(self) -> None:
        super().__init__("the process ended during this attempt")


class CancelledByItself(PerdureError):
    """A step raised CancelledError though nobody had cancelled it."""

    def __init__(self, step: str) -> None:
        super().__init__(f"step {step} raised CancelledError by itself")


class LeftTheProcess(PerdureError):
    """A step called sys.exit(); it must not take the engine with it."""

    def __init__(self, code: object) -> None:
        super().__init__(f"the step called sys.exit({code!r})")


class _HeldBack(Exception):
    """The run is paused or the engine closes, so the next attempt is not made now."""


Done = Callable[[Command, "Ended | None"], None]


class StepHost(Protocol):
    """What a step needs of its run: where to write notes, and the run's names."""

    run: int
    run_id: str

    @property
    def owner(self) -> int: ...

    def name_of(self, seq: int) -> str: ...

    async def note(self, seq: int, attempt: int, error: bytes, again_ms: int | None) -> None: ...

    def holds_back(self, command: Command, attempt: int, failures: int) -> bool: ...

    def write(self, write: Emit | Beat) -> None: ...

    def last_heartbeat(self, seq: int) -> bytes | None: ...


class StepAttempt(msgspec.Struct, eq=False):
    """What `current_step()` gives; see `api.Attempt`."""

    _host: StepHost
    _steps: Any
    seq: int
    attempt: int

    @property
    def run_id(self) -> str:
        return self._host.run_id

    @property
    def idempotency_key(self) -> str:
        return f"{self.run_id}/{self._host.name_of(self.seq)}"

    @property
    def last_heartbeat(self) -> Any:
        found = self._host.last_heartbeat(self.seq)
        return None if found is None else msgspec.json.decode(found)

    def heartbeat(self, value: Any = None) -> api.Ordered[None]:
        data = self._steps.codec.encode(value, f"the heartbeat of row {self.seq}")
        self._write(Beat(self._host.run, self._host.owner, self.seq, self.attempt, data, self._steps.clock.now_ms()))
        return api.Ordered()

    def emit(self, stream: str, item: Any) -> None:
        data = self._steps.codec.encode(item, f"the item for stream {stream!r}")
        self._write(Emit(self._host.run, self._host.owner, self.seq, self.attempt, [(stream, data)], self._steps.clock.now_ms()))

    def _write(self, write: Emit | Beat) -> None:
        self._steps.loop.call_soon_threadsafe(self._host.write, write)


class Gate:
    """Lets so many in at a time; the others wait in line."""

    def __init__(self, places: int) -> None:
        self.free = places
        self._line: deque[Callable[[], None]] = deque()

    def enter(self, begin: Callable[[], None]) -> None:
        if self.free > 0:
            self.free -= 1
            begin()
        else:
            self._line.append(begin)

    def leave(self) -> None:
        if self._line:
            self._line.popleft()()
        else:
            self.free += 1


class Running(msgspec.Struct, eq=False):
    """One step under way, from the line at the gate to its end; `cancel` works at any point of it."""

    task: asyncio.Task[None] | None = None
    begun: bool = False
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True
        if self.task is not None and self.begun:
            self.task.cancel()


class Steps:
    """Starts attempts: async ones on the event loop, plain ones in threads, each behind its gate.

    What has ended is gathered, and `on_ended` asks for a plain callback in which `collect` reports it.
    """

    def __init__(self, codec: JsonCodec, clock: SystemClock, limits: Limits, on_ended: Callable[[Steps], None]) -> None:
        self.codec, self.clock, self.limits = codec, clock, limits
        self.loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(limits.threads_max, thread_name_prefix="perdure-step")
        self._async_gate, self._thread_gate = Gate(limits.steps_max), Gate(limits.threads_max)
        self._ended: list[tuple[Gate, Done, Command, Ended | None]] = []
        self._on_ended = on_ended

    def start(self, host: StepHost, command: Command, attempt: int, failures: int, wait_ms: int, done: Done) -> Running:
        """Begin attempt number `attempt`; `done` is called from a plain callback, with None after a cancel."""
        running = Running()
        gate = self._async_gate if command.call.definition.is_async else self._thread_gate
        if wait_ms <= 0 and gate.free > 0:
            gate.free -= 1
            running.task = eager.start(self._carry_out(running, gate, host, command, attempt, failures, done), self.loop)
            return running
        begin = partial(self._begin, running, gate, host, command, attempt, failures, done)
        if wait_ms > 0:
            self.loop.call_later(wait_ms / 1000, gate.enter, begin)
        else:
            gate.enter(begin)
        return running

    def _begin(self, running: Running, gate: Gate, *rest: Any) -> None:
        running.task = eager.start(self._carry_out(running, gate, *rest), self.loop)

    async def _carry_out(
        self, running: Running, gate: Gate, host: StepHost, command: Command, attempt: int, failures: int, done: Done
    ) -> None:
        running.begun = True
        ended: Ended | None = None
        try:
            while ended is None and not running.cancelled:
                began = self.clock.now_ms()
                try:
                    value = await self._work(host, command, attempt)
                    data = self.codec.encode_output(command.call.definition, value)
                    ended = Ended("completed", data, self.clock.now_ms() - began)
                except (asyncio.CancelledError, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    failures += 1
                    ended = await self._after_failure(host, command, attempt, failures, error, self.clock.now_ms() - began)
                    attempt += 1
        except _HeldBack:
            pass
        except asyncio.CancelledError:
            if not running.cancelled:
                ended = Ended("failed", self.failure(CancelledByItself(command.name or ""), 1), 0)
        if not self._ended:
            self._on_ended(self)
        self._ended.append((gate, done, command, ended))

    async def _after_failure(
        self, host: StepHost, command: Command, attempt: int, failures: int, error: BaseException, took_ms: int
    ) -> Ended | None:
        """The step's end, or None when there will be another attempt and its time has come."""
        cause = self.as_error(error) or error
        retry: Retry = command.call.options.retry
        if not self.goes_on(retry, failures, cause):
            return Ended("failed", self.failure(cause, failures), took_ms)
        wait_ms = retry.wait_ms(failures, f"{host.run_id}/{command.seq}")
        await host.note(command.seq, attempt, self.codec.encode_error(cause), self.clock.now_ms() + wait_ms)
        await asyncio.sleep(wait_ms / 1000)
        if host.holds_back(command, attempt + 1, failures):
            raise _HeldBack
        return None

    @staticmethod
    def as_error(error: BaseException | None) -> BaseException | None:
        """What is recorded for an error: leaving the process is one like others."""
        return LeftTheProcess(error.code) if isinstance(error, SystemExit) else error

    def collect(self) -> None:
        """Report what has ended since the last time; called just before a transaction."""
        ended, self._ended = self._ended, []
        for gate, done, command, outcome in ended:
            gate.leave()
            done(command, outcome)

    def failed(self, error: BaseException) -> None:
        """Nothing is left to do: each run sees to its own errors."""

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def goes_on(retry: Retry, failures: int, error: BaseException) -> bool:
        """A value that can't be stored or is too large is not mended by trying again."""
        return not isinstance(error, NotSerializable | PayloadTooLarge | DefinitionError) and retry.again(failures, error)

    def failure(self, error: BaseException, attempts: int) -> bytes:
        return failure_of_step(self.codec.encode_error(error), attempts, isinstance(error, AttemptTimeout))

    def _work(self, host: StepHost, command: Command, attempt: int) -> Any:
        """The attempt, to be awaited."""
        call = command.call
        definition = call.definition
        signature = definition.compiled or signature_of(definition)
        args, kwargs = call.args, call.kwargs
        if command.edited or not signature.scalars_only(args, kwargs):
            args, kwargs = signature.decode_args(command.data or b"{}")
        api._attempt.set(StepAttempt(host, self, command.seq, attempt))
        if definition.is_async:
            work = definition.fn(*args, **kwargs)
        else:
            work = self.loop.run_in_executor(self._threads, _bound(definition.fn, args, kwargs))
        timeout_ms = call.options.timeout_ms
        return work if timeout_ms is None else _within(work, timeout_ms)


async def _within(work: Any, timeout_ms: int) -> Any:
    """The step's own TimeoutError stays its own; ours says which limit it was."""
    scope = asyncio.timeout(timeout_ms / 1000)
    try:
        async with scope:
            return await work
    except TimeoutError as error:
        if scope.expired():
            raise AttemptTimeout(timeout_ms) from error
        raise


def _bound(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
    """The call with this context's variables: a thread of the pool has none of them."""
    context = contextvars.copy_context()

    def run() -> Any:
        try:
            return context.run(fn, *args, **kwargs)
        except StopIteration as error:  # a future can't carry it
            raise RuntimeError("the step raised StopIteration") from error

    return run
