"""Verbs of an engine about answers of people: to what a run waits for, also by a link.

Rules: an answer is for one wait, and arrives only while the run waits for it, so that two people
never answer the same question; a value that does not fit is refused before it is sent; the token of
a link is nowhere in the store.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

import msgspec

from perdure.api.options import to_ms
from perdure.codec.schema_check import faults
from perdure.codec.schemas import schema_named
from perdure.core import names, numbers
from perdure.errors import DefinitionError, DoesNotFit, LinkUnknown, NotAwaited
from perdure.runtime.engine_parts import EngineParts
from perdure.runtime.info import instant, moment
from perdure.runtime.validation import checked_sender
from perdure.store.answer_writes import AnswerByLink, MakeLink
from perdure.store.awaited import items_of
from perdure.store.rows import LinkRow
from perdure.store.writes import Deliver

LINKS_SHOWN_MAX = 1_000
WEEK = timedelta(days=7)


class AnswerLink(msgspec.Struct, frozen=True):
    """A link that answers once, without a login, until it expires.

    `path` is its address below the root of the pages. The token is shown this once.
    """

    run_id: str
    channel: str
    recipient: str | None
    expires_at: datetime
    token: str

    @property
    def path(self) -> str:
        return f"/answer/{self.token}"

    def url(self, base: str) -> str:
        """The whole address, for pages that are at `base`: `https://host/prefix`."""
        return base.rstrip("/") + self.path


class LinkInfo(msgspec.Struct, frozen=True):
    """A link that was made, without its token."""

    channel: str
    seq: int
    recipient: str | None
    made_at: datetime
    expires_at: datetime
    used_at: datetime | None


class AnswerVerbs(EngineParts):
    """See the module's text."""

    async def answer(
        self,
        id: str,
        value: Any,
        *,
        channel: str | None = None,
        seq: int | None = None,
        sender: str | None = None,
    ) -> None:
        """Answer what a run waits for with `receive`, and return when that is on disk.

        `channel` may be left out where the run waits on one only. `seq` is the row at which the
        wait began, as the inbox shows it: an answer to a wait that is over by now is refused. The
        value is plain JSON; where the type that the code asks for is recorded it is checked.
        `sender` is the name that is recorded with it.

        Raises `NotAwaited`, with the sender of an earlier answer; `DoesNotFit`; `DefinitionError`
        where the run waits on several channels; `RunNotFound`, `RunFinished`, `InboxFull`.

        >>> import asyncio
        >>> from perdure import Engine, receive, workflow
        >>> @workflow
        ... async def order(item: str) -> str:
        ...     yes = await receive("approval", bool, prompt=f"Buy {item}?")
        ...     return "bought" if yes else "left"
        >>> async def main():
        ...     async with Engine(":memory:", workflows=[order]) as engine:
        ...         run = await engine.start(order("a chair"), id="chair")
        ...         while await run.status() != "waiting":
        ...             await asyncio.sleep(0.01)
        ...         await engine.answer("chair", True, sender="ada")
        ...         return await run.result()
        >>> asyncio.run(main())
        'bought'
        """
        sender = checked_sender(sender)
        item = await self._awaited(id, channel, seq)
        data = self._encoded(item, item["message"], value)
        message = Deliver(
            id, "message", self._clock.now_ms(), item["message"], data=data, verb="answer",
            sender=sender, wait=item["seq"],
        )  # fmt: skip
        await self._control.deliver(id, message)

    async def answer_link(
        self,
        id: str,
        *,
        channel: str | None = None,
        expires: float | timedelta = WEEK,
        recipient: str | None = None,
    ) -> AnswerLink:
        """A link by which a person can answer what the run waits for, once and without a login.

        It is good for this wait only, and for `expires` (seconds or a timedelta). `recipient` is
        recorded as the sender of the answer; the link alone is enough to use it. Raises
        `NotAwaited`, `TooManyLinks`, and what `answer` raises for a run.

        >>> import asyncio
        >>> from perdure import Engine, receive, workflow
        >>> @workflow
        ... async def order(item: str) -> bool:
        ...     return await receive("approval", bool)
        >>> async def main():
        ...     async with Engine(":memory:", workflows=[order]) as engine:
        ...         run = await engine.start(order("a chair"), id="chair")
        ...         while await run.status() != "waiting":
        ...             await asyncio.sleep(0.01)
        ...         link = await engine.answer_link("chair", recipient="ada@example.org")
        ...         await engine.answer_by_link(link.token, True)
        ...         return link.url("https://agents.example.org").rpartition("/")[
        ...             0
        ...         ], await run.result()
        >>> asyncio.run(main())
        ('https://agents.example.org/answer', True)
        """
        from secrets import token_urlsafe  # late: it loads random and hmac for few engines

        recipient = checked_sender(recipient)
        lasts_ms = to_ms(expires, "expires")
        if lasts_ms is None:
            raise DefinitionError("expires is the time that a link is good; it can't be None.")
        item = await self._awaited(id, channel, None)
        token, now_ms = token_urlsafe(32), self._clock.now_ms()
        until_ms = now_ms + lasts_ms
        make = MakeLink(
            id, item["message"], item["seq"], digest_of(token), recipient, now_ms, until_ms
        )
        async with self._control.answering(id):
            await self._scheduler.writer.ask(make)
        return AnswerLink(id, item["message"], recipient, instant(until_ms), token)

    async def answer_by_link(self, token: str, value: Any) -> str:
        """Answer by a link, which is used up by that. Returns the id of the run.

        Raises `LinkUnknown`, `LinkUsed`, `LinkExpired`, and what `answer` raises; the link stays
        good where the value does not fit.
        """
        if not isinstance(token, str):
            raise DefinitionError(f"The token of a link is a text, not {numbers.shown(token)}.")
        digest = digest_of(token)
        link = await self._read(self._store.link, digest)
        if link is None:
            raise LinkUnknown
        data = self._encoded(awaited_item(link), link.channel, value)
        await self._control.deliver(link.run_id, AnswerByLink(digest, data, self._clock.now_ms()))
        return link.run_id

    async def links(self, id: str) -> list[LinkInfo]:
        """The links to a run, the newest first, without their tokens. Raises `RunNotFound`."""
        run = await self._read(self._queries.key, id)
        rows = await self._read(self._store.links_of, run, LINKS_SHOWN_MAX)
        return [
            LinkInfo(
                row.channel, row.wait, row.recipient, instant(row.made_ms), instant(row.expires_ms),
                moment(row.used_ms),
            )
            for row in rows
        ]  # fmt: skip

    def _encoded(self, item: dict[str, Any] | None, channel: str, value: Any) -> bytes:
        """An answer as JSON, checked where it is known what is waited for."""
        where = f"the answer on channel {channel!r}"
        if item is None:
            return self._codec.encode(value, where)
        schema = item.get("schema") or schema_named(str(item.get("type")))
        data = self._codec.encode(value, where)
        if schema and (found := faults(schema, msgspec.json.decode(data))):
            raise DoesNotFit(f"The{where[3:]}", "; ".join(map(str, found)))
        return self._codec.encode_marked(msgspec.json.decode(data), schema, where)

    async def _awaited(self, id: str, channel: str | None, seq: int | None) -> dict[str, Any]:
        """The message that a run waits for."""
        if channel is not None:
            names.checked("channel", channel)
        if seq is not None:
            numbers.count(seq, "seq")
        summary = await self._read(self._queries.summary, id)
        items = [one for one in summary.waiting_for if "message" in one and "seq" in one]
        found = [one for one in items if channel in (None, one["message"])]
        found = [one for one in found if seq in (None, one["seq"])]
        channels = sorted({one["message"] for one in found})
        if len(channels) > 1:
            raise DefinitionError(
                f"Run {id!r} waits on several channels ({', '.join(channels)}): say which one."
            )
        if found:
            return found[0]
        if channel is None or seq is None:
            raise NotAwaited(id, channel, summary.status)
        return {"message": channel, "seq": seq}  # what is written says by whom it was answered


def digest_of(token: str) -> str:
    """What the store has of a token."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def awaited_item(link: LinkRow) -> dict[str, Any] | None:
    """What the run of a link waits for, as its row says it; None where that wait is over."""
    wait = (link.channel, link.wait)
    items = items_of(link.waiting)
    return next((one for one in items if (one.get("message"), one.get("seq")) == wait), None)
