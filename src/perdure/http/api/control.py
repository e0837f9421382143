"""Verbs for runs: start, send, ask, wait, cancel, pause, resume, retry, resolve, fork, and one verb
for many.

Rules: an answer comes after the commit; a request that is repeated with its Idempotency-Key is the
same request where the store itself can tell: by the run's id, the message's or the request's key.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from starlette.exceptions import HTTPException

from perdure.api.options import StartOptions
from perdure.codec.schema_check import faults
from perdure.errors import RunBlocked, RunCancelled, RunExists, RunFailed, UnknownWorkflow
from perdure.http import bulk
from perdure.http.api.operation import Call, Nothing, Operation, WaitSeconds, now
from perdure.http.limits import time_limit
from perdure.http.run_query import run_query
from perdure.http.site import url
from perdure.reader.values import RunQuery
from perdure.runtime.info import RunInfo
from perdure.runtime.requests import new_key
from perdure.views.shapes import Reply

FAULTS_SHOWN_MAX = 5


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A body; a field that it does not have is refused."""


class StartRun(Body, frozen=True, kw_only=True):
    """A run to start: see `Engine.start`. `args` are by parameter name; times are seconds. With
    `unknown` it is started unchecked, though neither this process nor the store knows the workflow.
    """

    workflow: str
    args: dict[str, Any] = {}
    id: str | None = None
    queue: str | None = None
    key: str | None = None
    priority: int = 0
    weight: int | None = None
    at: datetime | None = None
    debounce: float | None = None
    debounce_max: float | None = None
    tags: dict[str, Any] | None = None
    timeout: float | None = None
    durability: Literal["disk", "replica"] | None = None
    unknown: bool = False


class StartedRun(msgspec.Struct, frozen=True):
    """The run that was started, or that the same start had started before."""

    id: str
    workflow: str


class Message(Body, frozen=True, kw_only=True):
    """A message. With a `key` it arrives once."""

    channel: str
    value: Any
    key: str | None = None


class SentMessage(msgspec.Struct, frozen=True):
    """What was sent where."""

    run: str
    channel: str
    key: str | None


class Ask(Body, frozen=True, kw_only=True):
    """A request, and how many seconds to wait for its reply, up to 60."""

    channel: str
    value: Any
    key: str | None = None
    timeout: WaitSeconds = 30.0
    sender: str | None = None


class Steered(msgspec.Struct, frozen=True):
    """A run, its status before a verb, and behind it: what is asked for may come a moment later."""

    id: str
    before: str
    status: str


class Retry(Body, frozen=True, kw_only=True):
    """What to try again. `seq` is the row of a step that waits for its next attempt; without it,
    all that wait, or the run as a whole.
    """

    seq: int | None = None


class Retried(Steered, frozen=True):
    """The same, with the rows of the steps that begin their next attempt."""

    steps: list[int] = []


class Resolve(Body, frozen=True, kw_only=True):
    """What became of a step: one of `result`, `error` and `retry`. `seq` is the step's row, where
    several ask, or wait for their next attempt.
    """

    seq: int | None = None
    result: Any | UnsetType = UNSET
    error: str | None = None
    retry: bool = False


class Fork(Body, frozen=True, kw_only=True):
    """Where a fork begins to differ, and how: see `Engine.fork`."""

    at: int
    id: str | None = None
    result: Any | UnsetType = UNSET
    args: dict[str, Any] | None = None


class ForkedRun(msgspec.Struct, frozen=True):
    """The new run."""

    id: str
    forked_from: str


class Wait(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many seconds to wait for the end, up to 60."""

    wait: WaitSeconds = 0.0


class Outcome(msgspec.Struct, frozen=True):
    """How a run stands or ended: `result` of a completed one, `error` of a failed one, `reason` of
    one that is blocked or waits.
    """

    id: str
    status: str
    ended: bool
    result: Any
    error: dict[str, Any] | None
    reason: str | None


class Many(Body, frozen=True, kw_only=True):
    """A verb for many runs: those with these `ids`, or those that match `filter`, whose names are
    those of the list of runs. Nothing is done unless `dry_run` is false.
    """

    verb: Literal["cancel", "pause", "resume", "retry"]
    ids: list[str] | None = None
    filter: dict[str, str | list[str]] | None = None
    dry_run: bool = True


class ManyDone(msgspec.Struct, frozen=True):
    """What the verb does, or with `dry_run` would do: `acts` on these ids, `leaves` those, each
    with the reason. `more` runs match than were taken: send it again, with `next` as `after`
    in its filter. `done` and `failed` say what became of each of `acts`.
    """

    verb: str
    dry_run: bool
    acts: list[bulk.Planned]
    leaves: list[bulk.Planned]
    more: bool
    done: int = 0
    failed: list[bulk.Done] = []
    next: str | None = None


# --- starting -------------------------------------------------------------------------------------


async def start_run(call: Call[Nothing, StartRun]) -> StartedRun:
    """Start a run, and answer when that is durable.

    With an `id`, or an Idempotency-Key that an id is made of, the same start gives the run that it
    started before; another one with the same id is a conflict.
    """
    asked, key = call.body, call.idempotency_key
    given = asked.id
    if given is None and key is not None:
        given = derived_id(asked.workflow, key)
    if not asked.unknown:
        await check_known(call, asked.workflow, asked.args)
    options: StartOptions = {
        "id": given, "queue": asked.queue, "key": asked.key, "priority": asked.priority,
        "weight": asked.weight, "at": asked.at, "debounce": asked.debounce,
        "debounce_max": asked.debounce_max, "tags": asked.tags, "timeout": asked.timeout,
        "durability": asked.durability,
    }  # fmt: skip
    run = await call.engine.start_by_name(asked.workflow, asked.args, **options)
    call.headers["location"] = url(call.request, "api", "v1", "runs", run.id)
    return StartedRun(run.id, asked.workflow)


async def check_known(call: Call[Any, Any], workflow: str, args: dict[str, Any]) -> None:
    """Raise `UnknownWorkflow` for a name that neither the code here, nor another process, nor a run
    has, and 422 for arguments that do not fit what another process has declared.
    """
    if workflow in call.engine.workflows:
        return  # whose code checks them
    declared = (await call.reader.declared()).get(workflow)
    if declared is None:
        page = await call.reader.runs(RunQuery(workflow=workflow, limit=1))
        if not page.runs:
            raise UnknownWorkflow(workflow, tuple(sorted(call.engine.workflows)))
    elif declared.schema and (found := faults(declared.schema, args)):
        wrong = "; ".join(map(str, found[:FAULTS_SHOWN_MAX]))
        raise HTTPException(422, f"The arguments do not fit workflow {workflow}: {wrong}.")


def derived_id(name: str, key: str) -> str:
    """An id for a run that a client named by a key.

    >>> derived_id("agent", "order-7") == derived_id("agent", "order-7")
    True
    """
    return f"{name[:100]}-{blake2b(key.encode(), digest_size=10, person=b'run').hexdigest()}"


async def fork_run(call: Call[Nothing, Fork]) -> ForkedRun:
    """Start a new run from a row of another; the old one stays as it is.

    With an Idempotency-Key the same fork is made once.
    """
    asked, key, id = call.body, call.idempotency_key, call.part("id")
    if asked.result is not UNSET and asked.args is not None:
        raise HTTPException(422, "Give result or args: with a result the step does not run.")
    new_id = asked.id
    if new_id is None and key is not None:
        new_id = f"{derived_id(f'{id[:60]}-fork', key)}"
    changes: dict[str, Any] = {} if asked.result is UNSET else {"result": asked.result}
    try:
        made = await call.engine.fork(id, asked.at, new_id=new_id, args=asked.args, **changes)
    except RunExists:
        if key is None or new_id is None or not await _is_fork(call, new_id, id):
            raise
        call.status = 200
        return ForkedRun(new_id, id)
    call.headers["location"] = url(call.request, "api", "v1", "runs", made.id)
    return ForkedRun(made.id, id)


async def _is_fork(call: Call[Any, Any], new_id: str, id: str) -> bool:
    found = (await call.reader.summary(new_id)).forked_from
    return found is not None and found.startswith(id)


# --- messages -------------------------------------------------------------------------------------


async def send_message(call: Call[Nothing, Message]) -> SentMessage:
    """Send a message to a run, and answer when it is durable.

    An Idempotency-Key is the key of the message where none is given.
    """
    asked, id = call.body, call.part("id")
    key = call.idempotency_key if asked.key is None else asked.key
    await call.engine.send(id, asked.value, channel=asked.channel, key=key, sender=call.person)
    return SentMessage(id, asked.channel, key)


async def ask_run(call: Call[Nothing, Ask]) -> Reply:
    """Ask a run, and answer with its reply.

    After `timeout` seconds without one it is 504: the request stays with the run, and the same key
    waits for its reply. An Idempotency-Key is the key of the request where none is given.
    """
    asked, id = call.body, call.part("id")
    key = (call.idempotency_key or new_key()) if asked.key is None else asked.key
    wait_s = asked.timeout
    time_limit(call.request, wait_s + 15)
    sender = asked.sender or call.person
    reply = await call.engine.ask(
        id, asked.value, channel=asked.channel, timeout=wait_s, key=key, sender=sender
    )
    return Reply(id, asked.channel, key, reply)


async def get_result(call: Call[Wait, None]) -> Outcome:
    """Wait for the end of a run and get its outcome; 202 where it has not ended by then.

    It waits where the store is operated, not where it is only looked at.
    """
    id, wait_s = call.part("id"), call.query.wait
    if wait_s and call.site.engine is not None:
        time_limit(call.request, wait_s + 15)
        run = await call.engine.get(id)
        try:
            await run.result(timeout=wait_s)
        except (RunFailed, RunCancelled, RunBlocked, TimeoutError):
            pass  # what follows says so
    found = outcome(await call.reader.run(id))
    call.status = 200 if found.ended else 202
    return found


def outcome(run: RunInfo) -> Outcome:
    """How a run stands."""
    return Outcome(
        run.id, run.status, run.ended_at is not None, run.result, run.error, run.reason
    )  # fmt: skip


# --- verbs ----------------------------------------------------------------------------------------


async def cancel_run(call: Call[Nothing, Nothing]) -> Steered:
    """Ask a run to end: it cleans up, and its children are cancelled."""
    return await _steered(call, call.engine.cancel)


async def pause_run(call: Call[Nothing, Nothing]) -> Steered:
    """Start nothing more for a run until it is resumed."""
    return await _steered(call, call.engine.pause)


async def resume_run(call: Call[Nothing, Nothing]) -> Steered:
    """Let a paused run go on."""
    return await _steered(call, call.engine.resume)


async def retry_run(call: Call[Nothing, Retry]) -> Retried:
    """Let a blocked run go on, or a failed or cancelled one without what ended it.

    Of any other run, steps that wait for their next attempt begin it now.
    """
    steps: list[int] = []

    async def retry(id: str) -> None:
        steps.extend(await call.engine.retry(id, seq=call.body.seq, sender=call.person))

    done = await _steered(call, retry)
    return Retried(done.id, done.before, done.status, steps)


async def resolve_run(call: Call[Nothing, Resolve]) -> Steered:
    """Say what became of a step whose outcome is unknown, or of one that waits for its next
    attempt.
    """
    asked = call.body
    if (asked.result is not UNSET) + (asked.error is not None) + asked.retry != 1:
        raise HTTPException(422, "Give one of result, error and retry.")
    changes: dict[str, Any] = {} if asked.result is UNSET else {"result": asked.result}

    async def resolve(id: str) -> None:
        await call.engine.resolve(
            id, seq=asked.seq, error=asked.error, retry=asked.retry, sender=call.person, **changes
        )

    return await _steered(call, resolve)


async def _steered(call: Call[Any, Any], verb: Any) -> Steered:
    id = call.part("id")
    before = (await call.reader.summary(id)).status
    await verb(id)
    return Steered(id, before, (await call.reader.summary(id)).status)


async def steer_many(call: Call[Nothing, Many]) -> ManyDone:
    """Cancel, pause, resume or retry many runs, after a dry run that says what would be done.

    Up to 1,000 at once; each run is a commit of its own, and what refuses one is said for it.
    """
    asked = call.body
    if (asked.ids is None) == (asked.filter is None):
        raise HTTPException(422, "Give ids or filter.")
    if asked.ids is not None:
        plan = await bulk.plan_of_ids(call.reader, asked.verb, asked.ids)
    else:
        pairs = [
            (name, text)
            for name, given in (asked.filter or {}).items()
            for text in ([given] if isinstance(given, str) else given)
        ]
        plan = await bulk.plan_of_query(call.reader, asked.verb, run_query(pairs, now()))
    acts, leaves = plan.acts, plan.leaves
    if asked.dry_run:
        return ManyDone(asked.verb, True, acts, leaves, plan.more, next=plan.next)
    time_limit(call.request, None)
    ids = [one.id for one in acts]
    doing = bulk.carry_out(call.engine, asked.verb, ids, call.person)
    ended = [done async for done in doing]
    failed = [one for one in ended if one.error is not None]
    return ManyDone(
        asked.verb, False, acts, leaves, plan.more, len(ended) - len(failed), failed, plan.next
    )  # fmt: skip


def _verb(path: str, handler: Any, answer: Any, body: Any = Nothing, status: int = 200,
          *errors: int) -> Operation:  # fmt: skip
    return Operation(
        "POST", path, handler, answer, body=body, status=status, errors=(403, *errors)
    )  # fmt: skip


OPERATIONS = [
    _verb("/runs", start_run, StartedRun, StartRun, 201, 404, 409, 413, 429),
    _verb("/runs/{id:name}/messages", send_message, SentMessage, Message, 200, 404, 409, 413, 429),
    _verb("/runs/{id:name}/requests", ask_run, Reply, Ask, 200, 404, 409, 413, 429, 504),
    Operation(
        "GET", "/runs/{id:name}/result", get_result, Outcome, Wait, errors=(202, 404, 409)
    ),
    _verb("/runs/{id:name}/cancel", cancel_run, Steered, Nothing, 200, 404, 409),
    _verb("/runs/{id:name}/pause", pause_run, Steered, Nothing, 200, 404, 409),
    _verb("/runs/{id:name}/resume", resume_run, Steered, Nothing, 200, 404, 409),
    _verb("/runs/{id:name}/retry", retry_run, Retried, Retry, 200, 404, 409),
    _verb("/runs/{id:name}/resolve", resolve_run, Steered, Resolve, 200, 404, 409, 413),
    _verb("/runs/{id:name}/forks", fork_run, ForkedRun, Fork, 201, 404, 409, 413),
    _verb("/bulk", steer_many, ManyDone, Many, 200),
]  # fmt: skip
