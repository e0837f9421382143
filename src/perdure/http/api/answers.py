"""Inbox of the API: what waits for a person, answers, and links that answer without a login."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from perdure.http.api.control import Body
from perdure.http.api.operation import Call, Nothing, Operation, Seconds, UpTo1000
from perdure.http.site import url
from perdure.reader.values import InboxPage
from perdure.runtime.engine_answers import LinkInfo

WEEK_S = 7 * 86_400.0


class ItemsPage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which page: `after` is `next` of the page before."""

    after: str | None = None
    limit: UpTo1000 = 50


class Answer(Body, frozen=True, kw_only=True):
    """An answer. `channel` may be left out where the run waits on one only; `seq` is the row of
    the wait as the inbox shows it: then nobody answers the same thing twice.
    """

    value: Any
    channel: str | None = None
    seq: int | None = None


class Answered(msgspec.Struct, frozen=True):
    """The run that was answered, and in whose name."""

    run: str
    sender: str


class NewLink(Body, frozen=True, kw_only=True):
    """A link to make: how many seconds it is good, and for whom, which is recorded."""

    channel: str | None = None
    expires: Seconds = WEEK_S
    recipient: str | None = None


class Link(msgspec.Struct, frozen=True):
    """A link. It is told once: the store keeps only a digest of it."""

    url: str
    channel: str
    expires_at: datetime


async def list_inbox(call: Call[ItemsPage, None]) -> InboxPage:
    """List everything that waits for a person: messages, requests, unknown outcomes."""
    return await call.reader.inbox(call.query.after, call.query.limit)


async def answer_run(call: Call[Nothing, Answer]) -> Answered:
    """Answer what a run waits for; refused where it does not wait for that any more."""
    id, asked = call.part("id"), call.body
    await call.engine.answer(
        id, asked.value, channel=asked.channel, seq=asked.seq, sender=call.person
    )
    return Answered(id, call.person)


async def make_link(call: Call[Nothing, NewLink]) -> Link:
    """Make a link by which a person can answer what a run waits for, once, without a login."""
    id, asked = call.part("id"), call.body
    made = await call.engine.answer_link(
        id, channel=asked.channel, expires=asked.expires, recipient=asked.recipient
    )
    asked_at = call.request.url
    where = f"{asked_at.scheme}://{asked_at.netloc}{url(call.request)}".rstrip("/")
    return Link(made.url(where), made.channel, made.expires_at)


async def list_links(call: Call[Nothing, None]) -> list[LinkInfo]:
    """List the links that were made for a run, without what makes them work."""
    return await call.engine.links(call.part("id"))


RUN = "/runs/{id:name}"
OPERATIONS = [
    Operation("GET", "/inbox", list_inbox, InboxPage, ItemsPage, group="Inbox"),
    Operation(
        "POST", f"{RUN}/answers", answer_run, Answered, body=Answer, group="Inbox",
        errors=(403, 404, 409, 413),
    ),
    Operation(
        "POST", f"{RUN}/links", make_link, Link, body=NewLink, group="Inbox", status=201,
        errors=(403, 404, 409, 429),
    ),
    Operation("GET", f"{RUN}/links", list_links, list[LinkInfo], group="Inbox", errors=(403, 404)),
]  # fmt: skip
