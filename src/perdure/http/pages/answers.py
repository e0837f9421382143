"""Page of a link that answers once: a question, its form, and nothing else.

Rules: the link alone opens it, without a login, until it is used or expires; opening it
uses up nothing, because mail programs open links by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perdure.errors import LinkExpired, LinkUnknown, LinkUsed, NotAwaited, RunFinished
from perdure.http.body import form_of
from perdure.http.filling import Filled, filled, unfilled, with_secrets
from perdure.http.site import site_of
from perdure.http.templating import page
from perdure.reader.values import LinkView

_OVER = (LinkExpired, LinkUnknown, LinkUsed, NotAwaited, RunFinished)


async def opened(request: Request) -> Response:
    """The question of a link, or why it is not asked any more."""
    try:
        link = await site_of(request).reader.link(request.path_params["token"])
    except LinkUnknown:
        return _over(request, 404, "This link is not known here.",
                     "Open it exactly as it was sent, or ask for a new one.")  # fmt: skip
    if link.over is not None:
        return _over(request, 410, "This link can't be used any more.", link.over)
    if not link.awaited:
        return _over(request, 409, "Nothing is asked any more.",
                     f"The run {link.run} is {link.status} and does not wait for this answer.",
                     link)  # fmt: skip
    return _asked(request, link, unfilled(link.schema or {}))


async def answered(request: Request) -> Response:
    """Take the answer."""
    engine, token = site_of(request).operated, request.path_params["token"]
    link = await site_of(request).reader.link(token)
    if link.over is not None or not link.awaited:
        return await opened(request)
    form = filled(link.schema or {}, _texts(await form_of(request)))
    if form.again or not form.fits:
        return _asked(request, link, form, 200 if form.again else 422)
    form.value = with_secrets(link.schema or {}, form.value)
    try:
        await engine.answer_by_link(token, form.value)
    except _OVER as error:
        return _over(request, 409, "Nothing is asked any more.", str(error), link)
    return page(request, "answer.html", link=link, form=form, state="done", title="", text="")


def _texts(form: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(text) for name, text in form.items()}


def _asked(request: Request, link: LinkView, form: Filled, status: int = 200) -> Response:
    alone = form.field.kind == "choice" and len(form.field.options) <= 4 and form.field.needed
    return page(request, "answer.html", status, link=link, form=form, state="asked", title="",
                text="", choices=form.field.options if alone else [])  # fmt: skip


def _over(
    request: Request, status: int, title: str, text: str, link: LinkView | None = None
) -> Response:
    return page(request, "answer.html", status, link=link, form=None, state="over", title=title,
                text=text)  # fmt: skip


ROUTES = [
    Route("/answer/{token}", opened, methods=["GET"], name="answer"),
    Route("/answer/{token}", answered, methods=["POST"]),
]
