"""Helpers for many calls at once, and for one call until its result will do.

Rules: plain code over asyncio, so that a helper does in a workflow what it does elsewhere; what it
has begun it ends or awaits before it returns or raises, also when it is cancelled; no call that
was not begun is begun later.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Collection, Coroutine, Iterable
from datetime import timedelta
from typing import Any, TypeVar, overload

from perdure.api.definitions import Call, Step
from perdure.api.options import to_ms
from perdure.api.verbs import random
from perdure.core import numbers
from perdure.core.guard import inside as _inside
from perdure.core.retry import Retry
from perdure.errors import CallCancelled, DefinitionError, PollTimeout, TooManyFailures

T = TypeVar("T")

POLLS_MAX = 5_000
"""Polls of one `poll_until`: 20,000 rows of history, of the 50,000 that a run may have."""

POLL_EVERY = Retry(delay=1.0, factor=1.5, max_delay=60.0)
_UNTIL = "until is a plain function of the result that gives True or False"


# --- many calls -----------------------------------------------------------------------------------


@overload
async def gather_limited(calls: Iterable[Coroutine[Any, Any, T]], *, limit: int) -> list[T]: ...
@overload
async def gather_limited(
    calls: Iterable[Coroutine[Any, Any, T]],
    *,
    limit: int,
    tolerate: float | None = ...,
    enough: int | None = ...,
) -> list[T | BaseException]: ...
async def gather_limited(
    calls: Iterable[Coroutine[Any, Any, Any]],
    *,
    limit: int,
    tolerate: float | None = None,
    enough: int | None = None,
) -> list[Any]:
    """Carry out calls, at most `limit` at once, and give their results in the order of the calls.

    `calls` are calls of steps or workflows, or other coroutines, in a list or from a generator: the
    next one is taken when there is a place for it. `tolerate` is how many may fail: a whole number
    (default 0), or a fraction such as 0.1, for which `calls` needs a length; 1.0 is all. The error
    of a failed call stands in the list in place of its result. With `enough`, it stops at so many
    successes, and by default as many may fail as leave that within reach; calls that were under way
    then are cancelled, and a `CancelledError` is in their place. Calls that were not begun are not
    in the list.

    Raises `TooManyFailures`, an `ExceptionGroup`, when one more has failed than may: calls under
    way are cancelled and awaited first. Raises `DefinitionError` for a limit that can't be, for
    fewer calls than `enough`, and for tasks and futures, which run without a limit already.

    >>> from perdure import run, step, workflow
    >>> @step(retry=None)
    ... async def check(n: int) -> int:
    ...     return 12 // n
    >>> @workflow
    ... async def checks(numbers: list[int]) -> list[str]:
    ...     found = await gather_limited(map(check, numbers), limit=2, tolerate=1)
    ...     return [type(one).__name__ if isinstance(one, Exception) else str(one) for one in found]
    >>> run(checks([3, 0, 4]), store=":memory:")
    ['4', 'StepFailed', '3']
    """
    try:
        gathering = _Gathering(calls, *_checked(calls, limit, tolerate, enough))
        await gathering.run()
        return gathering.outcomes
    finally:
        _close_rest(calls)


def _checked(
    calls: Any, limit: Any, tolerate: Any, enough: Any
) -> tuple[int, float, int | None, float]:
    """The limit, how many are tolerated, how many are enough, and how many there are to spare."""
    if not isinstance(calls, Iterable):
        text = "an iterable of calls, such as map(fetch, urls)"
        raise DefinitionError(f"gather_limited: calls is {text}, not {numbers.shown(calls)}.")
    total = len(calls) if isinstance(calls, Collection) else math.inf
    numbers.count(limit, "gather_limited: limit")
    tolerated = _tolerated(tolerate, total)
    if enough is None:
        return limit, 0 if tolerated is None else tolerated, None, math.inf
    if numbers.count(enough, "gather_limited: enough") > total:
        raise DefinitionError(
            f"gather_limited: enough={enough:,} is more than the {total:,} calls. Pass more calls, "
            "or lower enough."
        )
    return limit, math.inf if tolerated is None else tolerated, enough, total - enough


def _tolerated(tolerate: Any, total: float) -> float | None:
    """How many calls may fail; None where nothing is said."""
    if tolerate is None:
        return None
    if not isinstance(tolerate, float):
        return numbers.count(tolerate, "gather_limited: tolerate", low=0)
    if not 0 <= tolerate <= 1:
        right = "a whole number of calls, or a fraction of them from 0.0 to 1.0"
        raise DefinitionError(f"gather_limited: tolerate is {right}, not {tolerate!r}.")
    if tolerate == 1:
        return math.inf
    if total == math.inf:
        text = "needs calls with a length: pass a list, or a whole number of failures"
        raise DefinitionError(f"gather_limited: tolerate={tolerate!r} is a fraction, and {text}.")
    return math.floor(tolerate * total + 1e-9)  # 0.29 of 100 is 29


def _close_rest(calls: Any) -> None:
    """Close calls that were made and not begun, which would warn that they were never awaited."""
    if isinstance(calls, Collection):
        for call in calls:
            if isinstance(call, Call) or inspect.iscoroutine(call):
                call.close()


class _Gathering:
    """One `gather_limited`: calls under way by task, and what has come of the others."""

    def __init__(
        self, calls: Iterable[Any], limit: int, tolerated: float, enough: int | None, spare: float
    ) -> None:
        self.limit, self.tolerated, self.enough, self.spare = limit, tolerated, enough, spare
        self.outcomes: list[Any] = []
        self._calls = iter(calls)
        self._more = True
        self._failures: dict[int, Exception] = {}
        self._succeeded = 0
        self._places: dict[asyncio.Task[Any], int] = {}  # of the calls that are under way
        self._ended: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()

    async def run(self) -> None:
        """Fill `outcomes`. Raises `TooManyFailures`, and what the iterable of calls raises."""
        try:
            await self._go_on()
        except GeneratorExit:
            raise  # closed: nothing can be awaited any more
        except BaseException:
            await self._stop()
            raise
        await self._stop()
        if self._too_many() or self._succeeded < (self.enough or 0):
            raise self._error()

    async def _go_on(self) -> None:
        self._begin()
        while self._places:
            self._note(await self._ended.get())
            if self._too_many() or self._succeeded == self.enough:
                return
            self._begin()

    def _begin(self) -> None:
        """Begin calls for as long as there is a place and a next one."""
        while self._more and len(self._places) < self.limit:
            try:
                call = next(self._calls)
            except StopIteration:
                self._more = False
                return
            if not isinstance(call, Coroutine):
                text = "calls and coroutines; tasks and futures run already, without its limit"
                raise DefinitionError(f"gather_limited takes {text}. Not {numbers.shown(call)}.")
            task = asyncio.create_task(call)
            self._places[task] = len(self.outcomes)
            self.outcomes.append(None)
            task.add_done_callback(self._ended.put_nowait)

    def _note(self, task: asyncio.Task[Any], stopped: bool = False) -> None:
        """Put what has come of a call into its place. Raises what ends more than a call."""
        place = self._places.pop(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        self.outcomes[place] = task.result() if error is None else error
        if error is None:
            self._succeeded += 1
        elif stopped:
            return
        elif isinstance(error, asyncio.CancelledError):
            self._failures[place] = CallCancelled(f"Call {place + 1}")
        elif isinstance(error, Exception):
            self._failures[place] = error
        else:
            raise error

    async def _stop(self) -> None:
        """Cancel what is under way and wait until all of it has ended, also if cancelled again."""
        for task in self._places:
            task.cancel()
        cancelled: asyncio.CancelledError | None = None
        while self._places:
            try:
                self._note(await self._ended.get(), stopped=True)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def _too_many(self) -> bool:
        return len(self._failures) > min(self.tolerated, self.spare)

    def _error(self) -> Exception:
        if not self._failures:
            text = f"enough={self.enough:,} is more than the {len(self.outcomes):,} calls"
            return DefinitionError(f"gather_limited: {text}. Pass more calls, or lower enough.")
        failures = [self._failures[place] for place in sorted(self._failures)]
        if len(failures) <= self.tolerated:
            allowed = f"{self.enough:,} have to succeed"
        else:
            allowed = f"at most {self.tolerated:,} may" if self.tolerated else "none may"
        return TooManyFailures.of(failures, self.outcomes, allowed)


# --- one call, again and again --------------------------------------------------------------------


async def poll_until(
    call: Call[T],
    *,
    until: Callable[[T], object],
    every: Retry | float | timedelta = POLL_EVERY,
    timeout: float | timedelta | None = None,
    polls_max: int = POLLS_MAX,
) -> T:
    """Carry out the call of a step again and again until `until(result)` is true; give that result.

    Each poll is a step of its own, with the arguments and options of `call`; in between the run
    waits, parked, for as long as `every` says: seconds, a timedelta, or a `Retry`, of which
    `delay`, `factor`, `max_delay` and `jitter` count. By default that is 1 s, growing to a minute.
    A step that fails for good ends it; its own `retry` says when that is. `until` is workflow code:
    it decides and touches nothing.

    A poll takes four rows of history. `polls_max` bounds them; a poll over weeks has an `every` of
    minutes. Raises `PollTimeout`, a `TimeoutError`, after `timeout` (seconds or timedelta), which
    cancels a poll that is under way, and after `polls_max` polls. Raises `DefinitionError`.

    >>> from perdure import run, step, workflow
    >>> states = iter(["queued", "running", "done"])
    >>> @step
    ... async def state(job: str) -> str:
    ...     return next(states)
    >>> @workflow
    ... async def wait_for(job: str) -> str:
    ...     return await poll_until(state(job), until=lambda found: found == "done", every=0.01)
    >>> run(wait_for("j-1"), store=":memory:")
    'done'
    """
    poll = _Poll(call, until, _waits(every), numbers.count(polls_max, "poll_until: polls_max"))
    ms = to_ms(timeout, "poll_until: timeout")
    if ms is None:
        return await poll.run()  # type: ignore[no-any-return]
    try:
        async with asyncio.timeout(ms / 1000) as scope:
            return await poll.run()  # type: ignore[no-any-return]
    except TimeoutError as error:
        if not scope.expired() or type(error) is not TimeoutError:
            raise  # of a step, or of `until`
        raise PollTimeout(poll.name, poll.polls, f"timeout={ms / 1000:g} s", poll.last) from None


def _waits(every: Any) -> Retry:
    if isinstance(every, Retry):
        return every
    seconds = (to_ms(every, "poll_until: every") or 0) / 1000
    return Retry(delay=seconds, factor=1, max_delay=seconds, jitter=False)


class _Poll:
    """One `poll_until`: how often it has asked, and the last result."""

    def __init__(self, call: Any, until: Any, every: Retry, polls_max: int) -> None:
        if not isinstance(call, Call) or not isinstance(call.definition, Step):
            raise DefinitionError(
                f"poll_until takes the call of a step, as in poll_until(fetch(job), ...), not "
                f"{numbers.shown(call)}."
            )
        if not callable(until) or inspect.iscoroutinefunction(until):
            call.close()
            raise DefinitionError(f"poll_until: {_UNTIL}, not {numbers.shown(until)}.")
        self.name, self.polls, self.last = call.definition.name, 0, None
        self._call, self._until, self._every, self._polls_max = call, until, every, polls_max

    async def run(self) -> Any:
        call = self._call
        while True:
            self.last = await call
            self.polls += 1
            if self._is_enough(self.last):
                return self.last
            if self.polls == self._polls_max:
                limit = f"polls_max={self._polls_max:,}"
                raise PollTimeout(self.name, self.polls, limit, self.last)
            await asyncio.sleep(self._every.wait_ms(self.polls, self._jitter_key()) / 1000)
            call = Call(call.definition, call.args, call.kwargs, call.options)

    def _is_enough(self, result: Any) -> bool:
        said = self._until(result)
        if inspect.isawaitable(said):  # it would count as true
            if inspect.iscoroutine(said) or isinstance(said, Call):
                said.close()
            raise DefinitionError(f"poll_until: {_UNTIL}, and this one is to be awaited.")
        return bool(said)

    def _jitter_key(self) -> str:
        """Other numbers for each run and poll; in a run the same ones on replay."""
        if not self._every.jitter:
            return ""
        if _inside.loop is not None:
            return str(random().random())
        from random import random as any_number

        return str(any_number())
