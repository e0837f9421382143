"""Attempts of steps: call the function once, apply timeout and retry policy, report the outcome.

Rules: arguments come from the recorded command, decoded anew for every attempt, so a step can't
change what its workflow holds; an attempt has the context variables of the code that asked for its
step, in a copy of its own; the outcome leaves through a plain callback, and whether and when there
is another attempt is part of it: nothing waits here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from time import perf_counter
from typing import Any

import msgspec

from perdure.api import verbs
from perdure.codec.error_encoder import failure_of_step
from perdure.codec.json_codec import JsonCodec
from perdure.codec.signature import signature_of
from perdure.core import numbers
from perdure.core.events import Command
from perdure.core.limits import Limits
from perdure.core.retry import Retry
from perdure.errors import (
    AttemptTimeout,
    CancelledByItself,
    DefinitionError,
    LeftTheProcess,
    NotSerializable,
    PayloadTooLarge,
    QueueFull,
    RetryAfter,
    RetryFailed,
)
from perdure.process import eager
from perdure.process.clock import SystemClock
from perdure.process.slices import slice_end_s
from perdure.process.thread_pool import ThreadPool
from perdure.runtime.observer import Notifier
from perdure.runtime.step_attempt import StepAttempt, StepHost
from perdure.runtime.step_logs import StepLogs

HELD_MAX = 1_000
"""How often an attempt of a step may raise `RetryAfter`, or find its queue full, without counting
as a failure.
"""

_FULL = Retry(delay=0.5, max_delay=60)
"""The waits of attempts whose queue is full, whatever the step's own policy is."""


class Ended(msgspec.Struct, frozen=True, gc=False):
    """How a step ended: kind completed or failed, with JSON, how long the last attempt took, and
    its number if it failed.
    """

    kind: str
    data: bytes
    took_ms: int
    attempt: int = 0


class Again(msgspec.Struct, frozen=True, gc=False):
    """An attempt failed and there will be another one: the number of the next, how many have failed
    by now, when it is due.

    `note` is what the history keeps of the failed one. `held`: the step asked for this time, and
    its queue is to wait as well.
    """

    attempt: int
    failures: int
    again_ms: int
    note: bytes
    took_ms: int
    held: bool = False


Done = Callable[[Command, "Ended | Again | None"], None]


class CapacityLimiter:
    """Admits up to `places` attempts at a time; the others wait in order."""

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
        self.free += 1
        if self._line and self.free > 0:
            self.free -= 1
            self._line.popleft()()

    def shrink(self) -> None:
        """One place less: the attempt that has it hangs."""
        self.free -= 1

    def refuse_waiting(self) -> None:
        """Admit none of those that wait."""
        self._line.clear()


class InThread:
    """The function of an attempt in a thread, which may go on when the attempt has ended."""

    __slots__ = ("_loop", "_on_end", "_work", "begun", "ended", "given_up")

    def __init__(self, work: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self._work, self._loop = work, loop
        self._on_end: Callable[[], None] | None = None
        self.begun = self.ended = self.given_up = False

    def __call__(self) -> Any:
        self.begun = True  # before the look: the event loop looks after it has given up
        try:
            return None if self.given_up else self._work()
        finally:
            self.ended = True
            if self._on_end is not None:
                with contextlib.suppress(RuntimeError):  # the event loop is closed
                    self._loop.call_soon_threadsafe(self._on_end, context=Context())

    def when_ended(self, act: Callable[[], None]) -> bool:
        """Call `act`, perhaps twice, when the function has returned. False if it has
        already, or has not begun: then it never does.
        """
        self._on_end = act  # before the look: the thread looks after it has ended
        self.given_up = True
        return self.begun and not self.ended


class Running(msgspec.Struct, eq=False):
    """One attempt, from waiting for capacity to its end; `cancel` works at any point. `thread` is
    there for a plain step with a queue, `attempt` from when its function is called.
    """

    task: asyncio.Task[None] | None = None
    begun: bool = False
    cancelled: bool = False
    thread: InThread | None = None
    attempt: StepAttempt | None = None

    def cancel(self) -> None:
        self.cancelled = True
        if self.task is not None and self.begun:
            self.task.cancel()


class Steps:
    """Starts attempts: async ones on the event loop, plain ones in threads, each behind a capacity
    limiter.

    Attempts that have ended are gathered; `on_ended` asks for a plain callback in which `collect`
    reports them.
    """

    def __init__(
        self,
        codec: JsonCodec,
        clock: SystemClock,
        limits: Limits,
        on_ended: Callable[[Steps], None],
        observer: Notifier | None = None,
    ) -> None:
        self.observer = observer
        self.logs: StepLogs | None = None
        self.codec, self.clock, self.limits = codec, clock, limits
        self.loop = asyncio.get_running_loop()
        self._async_limiter, self._thread_limiter = (
            CapacityLimiter(limits.steps_max),
            CapacityLimiter(limits.threads_max),
        )
        self.threads = ThreadPool(
            limits.threads_max,
            limits.threads_hung_max,
            self._thread_limiter.shrink,
            self._thread_limiter.leave,
        )
        self._ended: list[tuple[CapacityLimiter, Done, Command, Ended | Again | None]] = []
        self._on_ended = on_ended

    def start(
        self,
        host: StepHost,
        command: Command,
        attempt: int,
        failures: int,
        done: Done,
        running: Running | None = None,
    ) -> Running:
        """Begin attempt number `attempt`; `done` is called from a plain callback, with None after a
        cancel.
        """
        running = running or Running()
        limiter = self._async_limiter if command.call.definition.is_async else self._thread_limiter
        if limiter.free > 0:
            limiter.free -= 1
            work = self._carry_out(running, limiter, host, command, attempt, failures, done)
            running.task = eager.start(
                work, self.loop, Context() if command.context is None else command.context.copy()
            )
        else:
            limiter.enter(
                partial(self._begin, running, limiter, host, command, attempt, failures, done)
            )
        return running

    def _begin(
        self,
        running: Running,
        limiter: CapacityLimiter,
        host: StepHost,
        command: Command,
        *rest: Any,
    ) -> None:
        running.task = eager.start(
            self._carry_out(running, limiter, host, command, *rest), self.loop, context_of(command)
        )

    async def _carry_out(
        self,
        running: Running,
        limiter: CapacityLimiter,
        host: StepHost,
        command: Command,
        attempt: int,
        failures: int,
        done: Done,
    ) -> None:
        running.begun = True
        ended: Ended | Again | None = None
        failed: BaseException | None = None
        began_ms = self.clock.now_ms()
        try:
            if not running.cancelled:
                if self.observer is not None:
                    self.observer.attempt_started(
                        host.run_id, command.seq, command.name or "", attempt
                    )
                value = await self._work(running, host, command, attempt)
                data = self.codec.encode_output(command.call.definition, value)
                ended = Ended("completed", data, self.clock.now_ms() - began_ms)
        except asyncio.CancelledError as error:
            failed = error
            if not running.cancelled:
                ended = Ended(
                    "failed", self.failure(CancelledByItself(command.name or ""), 1), 0, attempt
                )
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            failed = error
            ended = self.after_failure(host.run_id, command, attempt, failures + 1, error, began_ms)
        if self.observer is not None and (failed is not None or ended is not None):
            took_ms = max(0, self.clock.now_ms() - began_ms)
            self.report_end(host.run_id, command, attempt, took_ms, failed, ended)
        failed = None  # its traceback holds this frame
        if running.attempt is not None:
            running.attempt.end()
        if not self._ended:
            self._on_ended(self)
        self._ended.append((limiter, done, command, ended))

    def report_end(
        self,
        run_id: str,
        command: Command,
        attempt: int,
        took_ms: int,
        error: BaseException | None,
        ended: Ended | Again | None,
    ) -> None:
        """Tell the observers how an attempt has ended."""
        if self.observer is not None:
            again_ms = ended.again_ms if isinstance(ended, Again) else None
            name = command.name or ""
            self.observer.attempt_ended(
                run_id, command.seq, name, attempt, took_ms, error, again_ms
            )

    def after_failure(
        self,
        run_id: str,
        command: Command,
        attempt: int,
        failures: int,
        error: BaseException,
        began_ms: int,
        *,
        refused: bool = False,
    ) -> Ended | Again:
        """What follows from a failed attempt: the step's end, or another attempt. Never raises.

        `refused`: it has not begun. A full queue does not count: a limit that protects is no
        reason to lose work.
        """
        now_ms = self.clock.now_ms()
        took_ms = max(0, now_ms - began_ms)
        cause = self.as_error(error) or error
        retry: Retry = command.call.options.retry
        held_s = _held_s(cause, attempt - failures)
        if refused and isinstance(cause, QueueFull) and attempt - failures < HELD_MAX:
            held_s = _FULL.wait_ms(attempt - failures + 1, f"{run_id}/{command.seq}") / 1000
        try:
            if held_s is not None or self.goes_on(retry, failures, cause):
                if held_s is None:
                    wait_ms = round(retry.wait_ms(failures, f"{run_id}/{command.seq}"))
                else:
                    wait_ms, failures = round(1000 * held_s), failures - 1
                again_ms = now_ms + numbers.count(
                    wait_ms, "Retry.wait_ms()", low=0, high=numbers.SECONDS_MAX * 1000
                )
                note: dict[str, Any] = {
                    "attempt": attempt,
                    "error": msgspec.Raw(self.codec.encode_error(cause)),
                    "began_ms": began_ms,
                    "again_ms": again_ms,
                }
                if held_s is not None:
                    note["held"] = True
                raw = msgspec.json.encode(note)
                held = held_s is not None and not refused
                return Again(attempt + 1, failures, again_ms, raw, took_ms, held)
        except Exception as problem:  # of a policy or an error class that is the user's
            cause = RetryFailed(command.name or "", cause, problem)
        return Ended("failed", self.failure(cause, failures), took_ms, attempt)

    @staticmethod
    def as_error(error: BaseException | None) -> BaseException | None:
        """What is recorded for an error: leaving the process is one like others."""
        return LeftTheProcess(error.code) if isinstance(error, SystemExit) else error

    def collect(self) -> None:
        """Report what has ended since the last time; called just before a transaction."""
        ended, self._ended = self._ended, []
        until_s = 0.0
        for number, (limiter, done, command, outcome) in enumerate(ended, 1):
            limiter.leave()
            done(command, outcome)
            if number == len(ended):
                return
            until_s = until_s or slice_end_s(self.loop)
            if perf_counter() > until_s:  # the event loop gets its turn
                if not self._ended:
                    self._on_ended(self)
                self._ended[:0] = ended[number:]
                return

    @property
    def unreported(self) -> bool:
        """Whether an attempt has ended that was not reported to its run yet."""
        return bool(self._ended)

    def begin_no_more(self) -> None:
        """The engine closes: attempts that wait for capacity begin where their run goes on."""
        self._async_limiter.refuse_waiting()
        self._thread_limiter.refuse_waiting()

    def failed(self, error: BaseException) -> None:
        """Nothing is left to do: each run sees to its own errors."""

    def close(self) -> None:
        self.threads.shutdown()

    @staticmethod
    def goes_on(retry: Retry, failures: int, error: BaseException) -> bool:
        """A value that can't be stored, or is too large, will not be better next time."""
        return not isinstance(
            error, NotSerializable | PayloadTooLarge | DefinitionError
        ) and retry.again(failures, error)

    def failure(self, error: BaseException, attempts: int) -> bytes:
        return failure_of_step(
            self.codec.encode_error(error), attempts, isinstance(error, AttemptTimeout)
        )

    def _work(self, running: Running, host: StepHost, command: Command, attempt: int) -> Any:
        """The attempt, to be awaited."""
        call = command.call
        definition = call.definition
        signature = definition.compiled or signature_of(definition)
        args, kwargs = call.args, call.kwargs
        if command.edited or not signature.scalars_only(args, kwargs):
            args, kwargs = signature.decode_args(command.data or b"{}")
        current = StepAttempt(host, self, command.seq, attempt, command.name or "")
        running.attempt = current
        verbs._attempt.set(current)
        if definition.is_async:
            work = definition.fn(*args, **kwargs)
        else:
            what, fn = f"step {command.name} of run {host.run_id}", definition.fn
            bound = _bound(fn, args, kwargs)
            if call.options.queue is not None:
                running.thread = bound = InThread(bound, self.loop)
            work = self.loop.run_in_executor(self.threads, bound, what)
        timeout_ms = call.options.timeout_ms
        return work if timeout_ms is None else _within(work, timeout_ms, not definition.is_async)


def _held_s(error: BaseException, uncounted: int) -> float | None:
    """After how many seconds a step asked to be tried again, if it did, and not too often."""
    return error.seconds if isinstance(error, RetryAfter) and uncounted < HELD_MAX else None


def context_of(command: Command) -> Context:
    """The context variables that an attempt begins with: those of the code that asked for the step,
    never those of another caller.
    """
    return Context() if command.context is None else command.context.copy()


async def _within(work: Any, timeout_ms: int, in_thread: bool) -> Any:
    """The step's own TimeoutError stays its own; ours says which limit it was."""
    scope = asyncio.timeout(timeout_ms / 1000)
    try:
        async with scope:
            return await work
    except TimeoutError as error:
        if scope.expired():
            raise AttemptTimeout(timeout_ms, in_thread) from error
        raise


def _bound(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[..., Any]:
    """The call with this context's variables: a thread of the pool has none of them."""
    context = copy_context()

    def run() -> Any:
        try:
            return context.run(fn, *args, **kwargs)
        except StopIteration as error:  # a future can't carry it
            raise RuntimeError("the step raised StopIteration") from error

    return run
