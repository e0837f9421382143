"""Inbox: everything that waits for a person, each with the form or the buttons that answer it.

Rules: an answer is for the wait that the page showed, so that two people never give the same one;
what does not fit is said beside its field, with everything kept that was typed; who answered is
recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from perdure.errors import NotAwaited, RequestRefused, RequestTimeout
from perdure.http.body import Form, form_of
from perdure.http.filling import Filled, filled, pretty, unfilled, with_secrets
from perdure.http.site import site_of, url
from perdure.http.templating import page
from perdure.http.visitors import person
from perdure.reader.values import InboxItem
from perdure.runtime.engine import Engine

ANSWERED_SHOWN = 12
REPLY_S_MAX = 15.0
LINK_DAYS = (1, 7, 30)


class Card(msgspec.Struct):
    """An item of the inbox with its form. `choices` are the answers of a question whose answer is
    one click: pairs of a JSON text and a word.
    """

    item: InboxItem
    form: Filled
    choices: list[tuple[str, str]]
    link: str | None = None

    @property
    def id(self) -> str:
        return f"item-{self.item.run}-{self.item.seq}"


async def inbox(request: Request) -> Response:
    """The page of everything that waits for a person."""
    reader = site_of(request).reader
    found = await reader.inbox(request.query_params.get("after"))
    answered = await reader.answered(ANSWERED_SHOWN)
    older = None if found.next is None else url(request, "inbox", after=found.next)
    done, at = request.query_params.get("done"), request.query_params.get("at")
    cards = [_card(one) for one in found.items if (one.run, str(one.seq)) != (done, at)]
    return _drawn(request, cards, 200, older=older,
                  answered=answered, done=done)  # fmt: skip


async def of_run(request: Request) -> Response:
    """The page of what one run waits for a person to do."""
    id = request.path_params["id"]
    items = await site_of(request).reader.inbox_of(id)
    return _drawn(request, [_card(one) for one in items], 200, only=id)


async def answer(request: Request) -> Response:
    """Answer a message or a request that a run waits for; say so where somebody else was first."""
    id = request.path_params["id"]
    try:
        return await _answered(request, id)
    except NotAwaited as late:
        at = "" if late.at is None else f" at {late.at:%Y-%m-%d %H:%M:%S} UTC"
        who = f"{late.by or 'Somebody'} answered this{at}." if at else "It is not asked any more."
        items = await site_of(request).reader.inbox_of(id)
        said = ("warn", f"{who} Nothing was sent.", None)
        return _drawn(request, [_card(one) for one in items], 409, only=id, reply=said)


async def _answered(request: Request, id: str) -> Response:
    form = await form_of(request)
    item = await _asked(request, id, form)
    card = _card(item, filled(item.schema or {}, form))
    if card.form.again or not card.form.fits:
        return _drawn(request, [card], 200 if card.form.again else 422, only=id)
    engine, sender = site_of(request).operated, person(request)
    if item.kind == "request":
        return await _ask(request, engine, card)
    value = with_secrets(item.schema or {}, card.form.value)
    await engine.answer(id, value, channel=item.channel, seq=item.seq, sender=sender)
    return _to_inbox(request, id, item.seq)


async def resolve(request: Request) -> Response:
    """Say what became of a step whose process died."""
    id, form = request.path_params["id"], await form_of(request)
    engine, seq, sender = site_of(request).operated, _number(form, "seq"), person(request)
    match form.get("as"):
        case "retry":
            await engine.resolve(id, seq=seq, retry=True, sender=sender)
        case "error":
            text = form.get("error", "").strip() or f"{sender} says that it failed"
            await engine.resolve(id, seq=seq, error=text, sender=sender)
        case _:
            try:
                result = msgspec.json.decode(form.get("result", "").strip() or "null")
            except msgspec.DecodeError as error:
                items = await site_of(request).reader.inbox_of(id)
                wrong = f'The result is not JSON: {error}. A text needs its quotes: "so".'
                return _drawn(request, [_card(one) for one in items], 422, only=id, wrong=wrong,
                              typed=form.get("result", ""))  # fmt: skip
            await engine.resolve(id, seq=seq, result=result, sender=sender)
    return _to_inbox(request, id, seq)


async def link(request: Request) -> Response:
    """Make a link that answers once, and show it."""
    id, form = request.path_params["id"], await form_of(request)
    item = await _asked(request, id, form)
    days = _number(form, "days") or LINK_DAYS[1]
    made = await site_of(request).operated.answer_link(
        id, channel=item.channel, expires=timedelta(days=days),
        recipient=form.get("recipient", "").strip() or None,
    )  # fmt: skip
    card = _card(item)
    where = request.url
    card.link = f"{where.scheme}://{where.netloc}{url(request, 'answer', made.token)}"
    return _drawn(request, [card], 200, only=id)


# --- parts ----------------------------------------------------------------------------------------


def _drawn(request: Request, cards: Sequence[Card], status: int, **context: Any) -> Response:
    shared: dict[str, Any] = {
        "only": None,
        "older": None,
        "answered": [],
        "done": None,
        "reply": None,
    }
    shared |= {"wrong": None, "typed": "", "days": LINK_DAYS}
    twin = url(request, "api", "v1", "inbox")
    context = shared | context
    return page(request, "inbox.html", status, area="inbox", json=twin, cards=cards, **context)


def _card(item: InboxItem, form: Filled | None = None) -> Card:
    schema = item.schema or {}
    found = unfilled(schema) if form is None else form
    alone = found.field.kind == "choice" and found.field.needed and len(found.field.options) <= 4
    choices = found.field.options if alone and item.kind == "message" else []
    return Card(item, found, choices)


async def _asked(request: Request, id: str, form: Form) -> InboxItem:
    """The item that a form is about. Raises `NotAwaited`."""
    channel, seq = form.get("channel", ""), _number(form, "seq")
    kind = "request" if form.get("kind") == "request" else "message"
    items = await site_of(request).reader.inbox_of(id)
    wanted = (kind, channel, seq)
    found = [one for one in items if (one.kind, one.channel, one.seq) == wanted]
    if not found and kind == "message" and seq is not None:
        engine = site_of(request).operated
        await engine.answer(id, None, channel=channel, seq=seq)  # it says who answered
    if not found:
        raise NotAwaited(id, channel, (await site_of(request).reader.summary(id)).status)
    return found[0]


async def _ask(request: Request, engine: Engine, card: Card) -> Response:
    """Send a request, and show its reply, or that there is none yet."""
    item = card.item
    reply: tuple[str, str, str | None]
    assert item.channel is not None
    try:
        asked = with_secrets(item.schema or {}, card.form.value)
        value = await engine.ask(
            item.run, asked, channel=item.channel, timeout=REPLY_S_MAX, sender=person(request)
        )
        reply = ("good", f"{item.run} replied", pretty(value))
    except (RequestRefused, RequestTimeout) as error:
        reply = ("warn", str(error), None)
    items = await site_of(request).reader.inbox_of(item.run)
    return _drawn(request, [_card(one) for one in items], 200, only=item.run, reply=reply)


def _to_inbox(request: Request, id: str, seq: int | None) -> Response:
    return RedirectResponse(url(request, "inbox", done=id, at=seq), 303)


def _number(form: Form, name: str) -> int | None:
    text = form.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 16 else None


ROUTES = [
    Route("/inbox", inbox, name="inbox"),
    Route("/inbox/{id:name}", of_run, name="inbox_of"),
    Route("/inbox/{id:name}/answer", answer, methods=["POST"]),
    Route("/inbox/{id:name}/resolve", resolve, methods=["POST"]),
    Route("/inbox/{id:name}/link", link, methods=["POST"]),
]
