"""Requests and exposed values for callers: asks, waits for replies and values, and lists.

Rules: what is reported is committed, and in the replica where that is asked for; a caller that
gives up leaves its request with the run; askers look again when their request has a reply, or their
run has ended or is blocked, and not at every message of that run.
"""

from __future__ import annotations

import asyncio
import os
from contextvars import Context
from typing import Any

import msgspec

from perdure.codec.json_codec import JsonCodec
from perdure.core.lifecycle import BLOCKED, CANCELLED, FAILED, FINAL, PENDING
from perdure.errors import NotExposed, RequestRefused, RequestTimeout, RequestUnanswered
from perdure.runtime import validation
from perdure.runtime.control import Control
from perdure.runtime.info import OpenRequest, moment, waiting_text
from perdure.runtime.results import blocked_error, error_text
from perdure.runtime.scheduler import Scheduler
from perdure.store.request_writes import Ask
from perdure.store.rows import Asked, ReplyRow, RunHead
from perdure.store.writes import StartAnd, StartRun

OPEN_REQUESTS_MAX = 1_000
_decode = msgspec.json.Decoder().decode


def new_key() -> str:
    """The key of a request that was given none."""
    return f"ask-{os.urandom(12).hex()}"


class Requests:
    """The requests and exposed values that callers of one open engine ask for."""

    def __init__(self, scheduler: Scheduler, control: Control, codec: JsonCodec) -> None:
        self._scheduler, self._control, self._codec = scheduler, control, codec
        self._reads, self._store = scheduler.reads, scheduler.store
        self._watched = _WatchedRuns(scheduler)

    # --- requests ---------------------------------------------------------------------------------

    async def ask(
        self, ask: Ask, type_: Any, start: StartRun | None, timeout_s: float | None
    ) -> Any:
        """Ask a run, which `start` begins where there is none, and wait for the reply."""
        async with self._control.answering(ask.run_id):
            write = ask if start is None else StartAnd(start, ask)
            asked: Asked = await self._scheduler.writer.ask(write, self._woken)
            await self._scheduler.claims.ask_for(asked.run)
            try:
                async with asyncio.timeout(timeout_s):
                    reply = await self._reply(ask, asked)
            except TimeoutError:
                head = await self._reads.get(self._store.run_head, ask.run_id)
                standing = _standing(head, ask.channel)
                raise RequestTimeout(
                    ask.run_id, ask.channel, ask.key, timeout_s or 0, standing
                ) from None
            if reply.refused:
                raise RequestRefused(ask.run_id, ask.channel, _decode(reply.data))
        return self._codec.decode(reply.data, type_, f"the reply on channel {ask.channel!r}")

    def _woken(self, asked: Asked) -> None:
        if asked.new:
            self._scheduler.woken([asked.run])

    async def _reply(self, ask: Ask, asked: Asked) -> ReplyRow:
        """The reply to a request. Raises what the end of its run means for that."""
        run, request, waiters = asked.run, asked.request, self._scheduler.waiters
        while True:
            self._scheduler.check_lost()
            news = waiters.expect_reply(request)  # before the reads: news may come during them
            try:
                with self._watched.by(run, request):
                    head = await self._reads.get(self._store.run_head, ask.run_id)
                    # Behind that: a run that has ended by now may have replied before it did.
                    reply = await self._reads.get(self._store.reply, request)
                    if reply is not None:
                        return reply
                    _check_run(head, ask, self._store.path)
                    if head.run == run:
                        await news
                    run = head.run  # it may have continued as another one
            finally:
                waiters.leave_reply(request, news)

    def open(self, run_id: str) -> list[OpenRequest]:
        """Requests to a run that wait for a reply, the oldest first."""
        rows = self._store.open_requests(
            self._store.run_key(validation.findable(run_id)), OPEN_REQUESTS_MAX
        )
        return [OpenRequest(row.channel, row.key, row.sender, moment(row.at_ms)) for row in rows]

    # --- exposed values ---------------------------------------------------------------------------

    async def exposed(self, run_id: str) -> dict[str, Any]:
        """The exposed values of a run, by name."""
        async with self._control.answering(run_id):
            run = await self._reads.get(self._store.run_key, run_id)
            rows = await self._reads.get(self._store.exposed, run)
        return {row.name: _decode(row.data) for row in rows}

    async def exposed_value(self, run_id: str, name: str, timeout_s: float | None) -> Any:
        """One exposed value, waiting until it is set."""
        async with self._control.answering(run_id):
            try:
                async with asyncio.timeout(timeout_s):
                    return _decode(await self._value(run_id, name))
            except TimeoutError:
                raise TimeoutError(
                    f"Run {run_id!r} has not set {name!r} with expose() within {timeout_s:g} s."
                ) from None

    async def _value(self, run_id: str, name: str) -> bytes:
        changed, unsubscribe = self._scheduler.waiters.subscribe()
        try:
            while True:
                changed.clear()
                self._scheduler.check_lost()
                head = await self._reads.get(self._store.run_head, run_id)
                value = await self._reads.get(self._store.exposed_value, head.run, name)
                if value is not None:
                    return value
                if head.status in FINAL:
                    rows = await self._reads.get(self._store.exposed, head.run)
                    names = tuple(row.name for row in rows)
                    raise NotExposed(run_id, name, head.status, names)
                if head.status == BLOCKED:
                    raise blocked_error(run_id, head.blocked_by, head.reason, self._store.path)
                await changed.wait()
        finally:
            unsubscribe()


class _WatchedRuns:
    """Runs with askers: one look at a run when there is news of it, however many ask it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._waiters = scheduler, scheduler.waiters
        self._askers: dict[int, dict[int, int]] = {}  # by run, how many wait for each request
        self._news: dict[int, asyncio.Future[None]] = {}

    def by(self, run: int, request: int) -> _Watch:
        """A context in which the askers of a request are woken when its run ends or is blocked."""
        return _Watch(self, run, request)

    def add(self, run: int, request: int) -> None:
        askers = self._askers.setdefault(run, {})
        askers[request] = askers.get(request, 0) + 1
        if run not in self._news:
            self._expect(run)

    def leave(self, run: int, request: int) -> None:
        askers = self._askers.get(run, {})
        if request in askers:
            askers[request] -= 1
            if not askers[request]:
                del askers[request]
        if not askers and (news := self._news.pop(run, None)) is not None:
            self._askers.pop(run, None)
            self._waiters.leave(run, news)

    def _expect(self, run: int) -> None:
        self._news[run] = news = self._waiters.expect(run)
        news.add_done_callback(lambda done: self._look(run, done), context=Context())

    def _look(self, run: int, done: asyncio.Future[None]) -> None:
        if done.cancelled() or self._news.get(run) is not done:
            return
        if done.exception() is not None:  # the store is lost, which the askers are told by `fail`
            del self._news[run]
            return
        self._expect(run)
        self._scheduler.reads.then(self._wake_if_over, self._scheduler.store.statuses, [run])

    def _wake_if_over(self, found: dict[int, tuple[str, int | None, int | None]]) -> None:
        for run, (status, successor, _) in found.items():
            if status in FINAL or status == BLOCKED or successor is not None:
                for request in [*self._askers.get(run, ())]:
                    self._waiters.replied(request)


class _Watch:
    """A run is watched for the asker of a request."""

    __slots__ = ("_of", "_request", "_run")

    def __init__(self, of: _WatchedRuns, run: int, request: int) -> None:
        self._of, self._run, self._request = of, run, request

    def __enter__(self) -> None:
        self._of.add(self._run, self._request)

    def __exit__(self, *error: object) -> None:
        self._of.leave(self._run, self._request)


def _check_run(head: RunHead, ask: Ask, store: str) -> None:
    """Raise where the run does not reply by itself any more."""
    if head.status in FINAL:
        error = "" if head.error is None else error_text(head.error)
        retry = head.status in (FAILED, CANCELLED)
        raise RequestUnanswered(
            ask.run_id, ask.channel, ask.key, head.status, error=error, retry=retry
        )
    if head.status == BLOCKED:
        stays = (
            f"\nThe request stays with the run, and asking again with key={ask.key!r} waits for "
            "its reply."
        )
        raise blocked_error(ask.run_id, head.blocked_by, head.reason, store, stays)


def _standing(head: RunHead, channel: str) -> str:
    """What a run does instead of replying."""
    waiting = [] if head.waiting is None else _decode(head.waiting)
    if head.status == PENDING and head.owner is None:
        return f"it is {head.status}, and no process executes it"
    if any(item.get("message") == channel for item in waiting):
        return "it receives messages on that channel and no requests, so send() is what reaches it"
    text = waiting_text(waiting, head.status)
    return f"it waits for {text}" if text else f"it is {head.status}"
