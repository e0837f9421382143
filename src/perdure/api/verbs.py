"""Verbs of workflows and steps: messages, streams, time, random numbers, continuation.

Rules: no I/O and no store here; inside a workflow every verb is a command to the kernel that runs
it, inside a step it goes to the attempt; elsewhere it is an error that says where it belongs.
"""

from __future__ import annotations

import asyncio
import contextvars
import uuid as _uuid
from collections.abc import Awaitable, Generator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, cast

import msgspec

from perdure.api.definitions import Call, starting_call, workflow_call
from perdure.core import names
from perdure.core.guard import inside as _inside
from perdure.core.numbers import shown
from perdure.errors import DefinitionError, NotInWorkflow

if TYPE_CHECKING:
    import random as _random

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


# --- in workflows ---------------------------------------------------------------------------------


class Issued(Awaitable[T_co]):
    """The result of an eager verb, which is under way already; awaiting it gives its outcome."""

    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[Any] | None = None) -> None:
        self._future = future

    def __await__(self) -> Generator[Any, Any, T_co]:
        if self._future is None:
            return cast("Generator[Any, Any, T_co]", _NOTHING)
        return cast("Generator[Any, Any, T_co]", self._future.__await__())


class _Nothing:
    """An iterator that ends at once: awaiting it gives None."""

    def __iter__(self) -> _Nothing:
        return self

    def __next__(self) -> Any:
        raise StopIteration


_NOTHING = _Nothing()


class CurrentRun(msgspec.Struct, frozen=True):
    """Facts of the run that is being executed.

    `replaying` is True while recorded history is run again. `scheduled_at` is the nominal time, in
    UTC, of the tick of a schedule that started the run, or the time of `trigger()`; None where no
    schedule did. It is the same on every replay.
    """

    id: str
    workflow: str
    replaying: bool
    scheduled_at: datetime | None = None


async def receive(
    channel: str, type: type[T] = cast("type[Any]", Any), *, prompt: str | None = None
) -> T:
    """Wait for the next message on `channel`, and give it decoded as `type`.

    Messages of a channel come in the order in which they were recorded, each to one receiver. One
    that does not fit `type` is noted in the history as rejected, and the wait goes on. `prompt` is
    the question that the inbox asks a person, above a form for `type`. `asyncio.timeout` bounds the
    wait. Raises `BadName`.

    >>> from perdure import SyncEngine, workflow
    >>> @workflow
    ... async def approval(item: str) -> str:
    ...     return f"{item}: {await receive('verdict', bool)}"
    >>> with SyncEngine(":memory:", workflows=[approval]) as engine:
    ...     run = engine.start(approval("a chair"), id="chair")
    ...     engine.send("chair", True, channel="verdict")
    ...     run.result()
    'a chair: True'
    """
    return cast("T", await _kernel("receive()").mail.receive(channel, type, checked_prompt(prompt)))


def send(
    run_id: str,
    value: Any,
    *,
    channel: str,
    key: str | None = None,
    start: Call[Any] | None = None,
) -> Issued[None]:
    """Send a message to another run. Awaiting it waits for delivery, and raises `RunNotFound`,
    `RunFinished` or `InboxFull`.

    It is on its way when this returns, and arrives once, however often this run is replayed; with a
    `key` it arrives once for that key, from all senders. With `start`, the call of a workflow, the
    run is started with the message in one transaction where no run has the id, and is independent
    of this one; awaiting it raises `RunExists` where that is a run of another workflow. Raises
    `NotSerializable`, `BadName` and `DefinitionError` at once.

    >>> from perdure import SyncEngine, receive, workflow
    >>> @workflow
    ... async def totals() -> int:
    ...     return await receive("add", int) + await receive("add", int)
    >>> @workflow
    ... async def sale(cents: int) -> None:
    ...     await send("totals", cents, channel="add", start=totals())
    >>> with SyncEngine(":memory:", workflows=[sale]) as engine:
    ...     engine.run(sale(3)), engine.run(sale(4)), engine.get("totals").result()
    (None, None, 7)
    """
    call = None if start is None else starting_call(start, run_id)
    return Issued(_kernel("send()").send(run_id, value, channel, key, call))


def start(
    call: Call[T], *, id: str | None = None, tags: dict[str, Any] | None = None
) -> Issued[str]:
    """Start an independent run, which is not cancelled with this one. Awaiting it gives its id.

    Without an `id` it gets one that is the same on every replay. Awaiting it raises `RunExists`
    when the id has another workflow or other arguments; `BadName` and `DefinitionError` are raised
    at once.

    >>> from perdure import SyncEngine, workflow
    >>> @workflow
    ... async def mail(to: str) -> str:
    ...     return f"sent to {to}"
    >>> @workflow
    ... async def order(customer: str) -> str:
    ...     return await start(mail(customer), id=f"mail-{customer}")
    >>> with SyncEngine(":memory:", workflows=[order]) as engine:
    ...     engine.get(engine.run(order("ada"))).result()
    'sent to ada'
    """
    kernel, call = _kernel("start()"), workflow_call(call, "start()")
    return Issued(kernel.spawn(call, id, None if tags is None else names.checked_tags(tags)))


def emit(stream: str, item: Any) -> Issued[None]:
    """Add an item to a stream of this run, from a workflow or from a step; `Run.stream` reads it.
    docs/howto/streams.md has more.

    An item is any value that has a JSON form. Raises `NotSerializable` and `BadName`.

    >>> from perdure import SyncEngine, workflow
    >>> @workflow
    ... async def count(n: int) -> None:
    ...     for i in range(n):
    ...         emit("numbers", i)
    >>> with SyncEngine(":memory:", workflows=[count]) as engine:
    ...     list(engine.start(count(3)).stream("numbers"))
    [0, 1, 2]
    """
    if (attempt := _attempt.get()) is not None and _inside.loop is None:
        attempt.emit(stream, item)
    else:
        _kernel("emit()", "workflow or step").emit(stream, item)
    return Issued()


def tag(**tags: Any) -> Issued[None]:
    """Set tags of this run, by which `engine.runs(tags=...)` finds it; a value of None removes one.

    >>> from perdure import SyncEngine, workflow
    >>> @workflow
    ... async def refund(euros: int) -> None:
    ...     tag(large=euros > 100)
    >>> with SyncEngine(":memory:", workflows=[refund]) as engine:
    ...     engine.run(refund(250), id="refund-1")
    ...     [info.id for info in engine.runs(tags={"large": True})]
    ['refund-1']
    """
    _kernel("tag()").tag(tags)
    return Issued()


def now() -> datetime:
    """The run's time: when the event that the workflow is reacting to was recorded, as an aware UTC
    datetime.
    """
    return datetime.fromtimestamp(_kernel("now()").now_ms() / 1000, UTC)


def random() -> _random.Random:
    """The run's own random generator: the same numbers on every replay.

    >>> from perdure import run, workflow
    >>> @workflow
    ... async def dice() -> int:
    ...     return random().randint(1, 6)
    >>> 1 <= run(dice(), store=":memory:") <= 6
    True
    """
    return cast("_random.Random", _kernel("random()").random)


def uuid4() -> _uuid.UUID:
    """A UUID that is the same on every replay."""
    return _uuid.UUID(int=_kernel("uuid4()").random.getrandbits(128), version=4)


def patched(change_id: str) -> bool:
    """Whether this run takes the new path of a change: True for runs that get here for the first
    time.

    Runs that passed this point before the change was deployed get False, and keep to the old path.
    docs/howto/change-code.md says when it is needed.

    >>> from perdure import run, workflow
    >>> @workflow
    ... async def price(cents: int) -> int:
    ...     return cents + (100 if patched("postage") else 0)
    >>> run(price(900), store=":memory:")
    1000
    """
    return cast("bool", _kernel("patched()").patched(names.checked("change id", change_id)))


def continue_as(call: Call[Any]) -> NoReturn:
    """End this run and go on as `call` under the same id, with an empty history. Never returns.

    Messages that were not received go along. Raises `DefinitionError` for what is not the call of a
    workflow.

    >>> from perdure import run, workflow
    >>> @workflow
    ... async def countdown(n: int) -> str:
    ...     return "done" if n == 0 else continue_as(countdown(n - 1))
    >>> run(countdown(3), store=":memory:")
    'done'
    """
    _kernel("continue_as()").continue_as(workflow_call(call, "continue_as()"))
    raise AssertionError("the kernel has raised")


def current_run() -> CurrentRun:
    """Facts of the run that is being executed."""
    kernel = _kernel("current_run()")
    facts = kernel.facts
    at = (
        None
        if facts.scheduled_ms is None
        else datetime.fromtimestamp(facts.scheduled_ms / 1000, UTC)
    )
    return CurrentRun(facts.run_id, facts.workflow, kernel.replaying, at)


# --- in steps -------------------------------------------------------------------------------------


class Attempt(Protocol):
    """The attempt of a step, as the step sees it; see `current_step`."""

    @property
    def run_id(self) -> str: ...
    @property
    def workflow(self) -> str: ...
    @property
    def step(self) -> str: ...
    @property
    def seq(self) -> int: ...
    @property
    def attempt(self) -> int: ...
    @property
    def idempotency_key(self) -> str: ...
    @property
    def last_heartbeat(self) -> Any: ...
    def heartbeat(self, value: Any = None) -> Issued[None]: ...
    def emit(self, stream: str, item: Any) -> None: ...
    def spend(self, queue: str, amount: int, *, key: str | None = None) -> Issued[None]: ...


_attempt: contextvars.ContextVar[Attempt | None] = contextvars.ContextVar(
    "perdure_attempt", default=None
)


def current_step() -> Attempt:
    """The attempt that is being executed: `run_id`, `workflow`, `step`, `seq`, `attempt` (from 1),
    `idempotency_key` (the same on every attempt), `heartbeat(value)`, and `last_heartbeat` (the
    last value that an earlier attempt reported).

    `spend(queue, amount)` charges the rate of a queue for what the attempt has really used, tokens
    of a model say. On the queue of the step its weight counts as paid in advance: what is spent
    over it makes the queue wait, what was not needed is given back. `key` is whose rate is charged,
    by default that of the step on its own queue.

    Raises `NotInWorkflow` outside a step, and in one that no workflow runs.

    >>> from perdure import run, step, workflow
    >>> @step
    ... def charge(cents: int) -> str:
    ...     # a real one hands idempotency_key to its service
    ...     return f"charged {cents} at attempt {current_step().attempt}"
    >>> @workflow
    ... async def order(cents: int) -> str:
    ...     return await charge(cents)
    >>> run(order(500), store=":memory:")
    'charged 500 at attempt 1'
    """
    attempt = _attempt.get()
    if attempt is None:
        raise NotInWorkflow("current_step()", "step that a workflow runs")
    return attempt


PROMPT_CHARS_MAX = 2_000
"""Each wait writes its prompt anew."""


def checked_prompt(prompt: str | None) -> str | None:
    """The question of a wait. Raises `DefinitionError` for what is no text of some lines."""
    if prompt is None or (isinstance(prompt, str) and len(prompt) <= PROMPT_CHARS_MAX):
        return prompt
    raise DefinitionError(
        f"prompt is a text of up to {PROMPT_CHARS_MAX:,} characters, not {shown(prompt)}."
    )


# --- inside ---------------------------------------------------------------------------------------


def _kernel(verb: str, place: str = "workflow") -> Any:
    loop = _inside.loop
    if loop is None:
        raise NotInWorkflow(verb, place)
    return loop.owner
