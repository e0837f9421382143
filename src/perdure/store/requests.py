"""Requests and exposed values: what asking, replying and exposing do in a transaction.

Rules: a request is known by its key in all runs that go on under one id; it gets one reply, the
first, which is a row of history; it counts for the limit of an inbox as a message does; a run
without a reply that continues, or is retried, takes the request along.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from perdure.core.lifecycle import FINAL
from perdure.core.limits import Limits
from perdure.core.mail import Envelope
from perdure.errors import (
    InboxFull,
    LeaseLost,
    PerdureError,
    RequestKeyUsed,
    RunExists,
    RunFinished,
    RunNotFound,
)
from perdure.store.inboxes import Inboxes
from perdure.store.ownership import Ownership
from perdure.store.request_writes import Ask, Expose, Reply
from perdure.store.rows import Asked, Replied, Woken
from perdure.store.starting import Starting
from perdure.store.transaction import Transaction
from perdure.store.writes import StartAnd, StartRun

_encode = msgspec.json.Encoder().encode
_in_order = msgspec.json.Encoder(order="sorted").encode


class Requests:
    """What writes about requests and exposed values do in the transaction `db`."""

    def __init__(
        self, db: Transaction, limits: Limits, ownership: Ownership, inboxes: Inboxes,
        starting: Starting,
    ) -> None:  # fmt: skip
        self._db, self._limits = db, limits
        self._ownership, self._inboxes, self._starting = ownership, inboxes, starting

    def ask(self, ask: Ask) -> Asked | PerdureError:
        """See `Ask`."""
        found = self._db.row("receiver_of_request", (ask.run_id,))
        if found is None:
            return RunNotFound(ask.run_id)
        run, status, _, chain = found
        digest = _digest_of(ask.value)
        before = self._db.row("request_of_key", (chain, ask.key))
        if before is not None:
            request, channel, recorded, kept = before
            if channel != ask.channel:
                return RequestKeyUsed(ask.run_id, ask.key, f"it is on channel {channel!r}")
            if recorded != digest:
                return RequestKeyUsed(ask.run_id, ask.key, "it has another value")
            if not kept:
                return RequestKeyUsed(ask.run_id, ask.key, "its reply has been pruned")
            return Asked(run, request, False)
        if status in FINAL:
            return RunFinished(ask.run_id, status, "ask")
        if self._inboxes.unread(run) >= self._limits.inbox_rows_max:
            return InboxFull(ask.run_id, self._limits.inbox_rows_max)
        fields = (chain, ask.key, ask.channel, ask.sender, digest, ask.at_ms)
        ((request,),) = self._db.rows("insert_request", fields)
        data = _encode(Envelope(ask.key, ask.sender, msgspec.Raw(ask.value)))
        self._inboxes.put(run, "request", ask.channel, request, data, ask.at_ms)
        self._inboxes.wake_waiting(run, ask.at_ms)
        return Asked(run, request, True)

    def start_and(self, both: StartAnd) -> Asked | Woken | PerdureError:
        """See `StartAnd`."""
        refusal = self._started(both.start)
        if refusal is not None:
            return refusal
        if isinstance(both.then, Ask):
            return self.ask(both.then)
        return self._inboxes.deliver(both.then)

    def _started(self, start: StartRun) -> PerdureError | None:
        """Start a run where there is none with its id. Returns why that can't be."""
        found = self._db.row("receiver_of_request", (start.id,))
        if found is None:
            started = self._starting.start(start)
            if not isinstance(started, RunExists):
                return started if isinstance(started, PerdureError) else None
            # Where several writers work at once, another one was first.
            (found,) = self._db.rows("receiver_of_request", (start.id,))
        run, _, workflow, _ = found
        first = self._db.row("workflow_of_id", (f"{start.id}~1",)) or (workflow,)
        if start.workflow in (workflow, *first):
            return None
        return RunExists(
            start.id, f"it is a run of workflow {workflow!r}, not {start.workflow!r}", run
        )

    def reply(self, reply: Reply) -> Replied | LeaseLost | None:
        """See `Reply`."""
        lost = self._ownership.lost(reply.run, reply.owner)
        if lost is not None:
            return lost
        state = "refused" if reply.refused else "replied"
        found = self._db.row("reply", (reply.run, reply.to, state, reply.at_ms, reply.seq))
        return None if found is None else Replied(found[0])

    def expose(self, expose: Expose) -> LeaseLost | None:
        """See `Expose`."""
        lost = self._ownership.lost(expose.run, expose.owner)
        if lost is None:
            self._db.do("expose", (expose.run, expose.name, expose.seq))
        return lost


def _digest_of(value: bytes) -> str:
    """A digest of a value that is the same in whatever order the members of its objects come."""
    plain = _in_order(msgspec.json.decode(value))
    return blake2b(plain, digest_size=16).hexdigest()
