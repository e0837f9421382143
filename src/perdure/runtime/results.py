"""Results and streams of runs: what callers wait for, as values or as the errors that stand for how
a run ended.

Rules: nothing is reported before its own commit, nor before the replica has it where that is asked
for; a run that goes on under the same id, after a retry or `continue_as`, is followed.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from perdure.api.definitions import Workflow
from perdure.codec.errors import decode_error
from perdure.codec.signature import signature_of
from perdure.codec.values import decode
from perdure.core import lifecycle
from perdure.core.lifecycle import FINAL
from perdure.errors import (
    HistoryTooLong,
    Nondeterminism,
    RunBlocked,
    RunCancelled,
    RunFailed,
    RunNotFound,
)
from perdure.runtime import stream_pages
from perdure.runtime.durability import AnswerGate, stricter
from perdure.runtime.scheduler import Scheduler
from perdure.store.base import Store
from perdure.store.rows import OutcomeRow

_BLOCKED: dict[str, type[RunBlocked]] = {
    "nondeterminism": Nondeterminism,
    "history": HistoryTooLong,
}


class Results:
    """Waits for the runs of one engine; `workflows` are those whose results come back as their own
    types.
    """

    def __init__(
        self,
        store: Store,
        scheduler: Scheduler,
        gate: AnswerGate | None,
        workflows: Mapping[str, Workflow[..., Any]],
    ) -> None:
        self._reads = scheduler.reads
        self._store, self._scheduler, self._gate, self._workflows = (
            store,
            scheduler,
            gate,
            workflows,
        )

    async def result(self, run_id: str, key: int | None, asked: str | None) -> Any:
        """What a run returned. Raises `RunFailed`, `RunCancelled`, or `RunBlocked`; `asked` is the
        durability that the caller wants.
        """
        if key is not None and self._scheduler.memory.executes(key):
            await self._scheduler.wait_for_news(key)
        run = asked_for = await self._key(run_id) if key is None else key
        await self._scheduler.claims.ask_for(asked_for)
        while True:
            try:
                row = await self._outcome_or_news(run)
            except RunNotFound:  # pruned: others may have gone on under its id since
                if (later := await self._key(run_id)) == run:
                    raise
                run, key = later, None
                continue
            if run == key and row.id != run_id:
                # A retried run goes on under its id with another key.
                run, key = await self._key(run_id), None
            elif row.successor is not None:
                run = row.successor
            elif row.status in FINAL or row.status == lifecycle.BLOCKED:
                if self._gate is not None:
                    await self._gate.answer(stricter(asked, row.durability))
                self._scheduler.claims.forget(asked_for)
                return self._outcome(row)

    async def _key(self, run_id: str) -> int:
        return await self._reads.get(self._store.run_key, run_id)

    async def _outcome_or_news(self, run: int) -> OutcomeRow:
        """How a run ended or stands. Where it is still under way, returns when there is news."""
        if self._reads.inline:
            row = await self._reads.get(_true_outcome, self._store, run)
            if _under_way(row):
                await self._scheduler.wait_for_news(run)
            return row
        news = self._scheduler.expect_news(run)
        try:
            row = await self._reads.get(_true_outcome, self._store, run)
            if _under_way(row):
                await self._scheduler.wait_for_news(run, news)
        finally:
            self._scheduler.waiters.leave(run, news)
        return row

    def _outcome(self, row: OutcomeRow) -> Any:
        match row.status:
            case lifecycle.COMPLETED:
                definition = self._workflows.get(row.workflow)
                raw = row.result or b"null"
                return (
                    decode(raw)
                    if definition is None
                    else signature_of(definition).decode_result(raw)
                )
            case lifecycle.FAILED:
                error = decode_error(row.error or b"{}")
                raise RunFailed(row.id, error_text(row.error or b"{}")) from error
            case lifecycle.CANCELLED:
                raise RunCancelled(row.id)
            case _:
                raise blocked_error(row.id, row.blocked_by, row.reason, self._store.path)

    async def stream(
        self, run_id: str, name: str, after: int, *, positions: bool = False
    ) -> AsyncIterator[Any]:
        """The items of a stream, or pairs of position and item, behind position `after`, and on
        until the run has ended.

        Those of all runs that went on under the id by `continue_as`; what a retry has taken back is
        left out. The id of an earlier generation stands for its own items. Raises `BadPosition`.
        """
        run = await self._reads.get(stream_pages.first_run, self._store, run_id, name, after)
        event, unsubscribe = self._scheduler.waiters.subscribe()
        try:
            while True:
                event.clear()
                page = await self._reads.get(
                    stream_pages.page, self._store, run, run_id, name, after
                )
                last = page.over and not page.items and page.later is None
                if self._gate is not None and (last or any(item.recorded for item in page.items)):
                    await self._gate.answer(await self._reads.get(self._store.durability, run_id))
                for item in page.items:
                    after = item.position
                    decoded = msgspec.json.decode(item.data)
                    yield (after, decoded) if positions else decoded
                if page.items:
                    continue
                if last:
                    return
                if page.over and page.later is not None:
                    run = page.later
                    await asyncio.sleep(0)  # there may be thousands of generations
                else:
                    self._scheduler.check_lost()
                    await event.wait()
        finally:
            unsubscribe()


def _true_outcome(store: Store, run: int) -> OutcomeRow:
    return store.outcome(run, true=True)


def _under_way(row: OutcomeRow) -> bool:
    return row.successor is None and row.status not in FINAL and row.status != lifecycle.BLOCKED


def blocked_error(
    run_id: str, blocked_by: str | None, reason: str | None, path: str, more: str = ""
) -> RunBlocked:
    """The error of a run that is blocked, in the store at `path`; `more` is said behind it."""
    # the reason ends with a command
    store = f" --store {shlex.quote(path)}" if blocked_by == "crash_loop" else ""
    return _BLOCKED.get(blocked_by or "", RunBlocked)(run_id, (reason or "") + store + more)


def error_text(raw: bytes) -> str:
    """Type and message of a recorded error."""
    error = msgspec.json.decode(raw)
    return f"{error.get('type', 'Error')}: {error.get('message', '')}".rstrip(": ")
