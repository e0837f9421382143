"""Pages of queues: what stands in them, why it waits, their limits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from perdure.api.queues import Rate
from perdure.errors import DefinitionError
from perdure.http.body import Form, form_of
from perdure.http.site import site_of, url
from perdure.http.templating import page
from perdure.runtime.info import QueueInfo
from perdure.views import queues as texts

PLACES_SHOWN = 50
COUNTS = ("concurrency", "per_worker", "key_concurrency", "waiting_max")
RATES = ("rate", "key_rate")


async def queues(request: Request) -> Response:
    """All queues."""
    now = datetime.now(UTC)
    lines = [
        {"queue": one, "limits": texts.limits(one), "state": texts.state(one, now)}
        for one in await site_of(request).reader.queues()
    ]
    return page(request, "queues.html", area="queues", lines=lines,
                json=url(request, "api", "v1", "queues"))  # fmt: skip


async def queue(request: Request) -> Response:
    """One queue with its keys, and what runs and waits there."""
    return await _queue(request, request.path_params["name"])


async def _queue(
    request: Request, name: str, refused: str | None = None, typed: Form | None = None
) -> Response:
    found = await site_of(request).reader.queue(name, PLACES_SHOWN)
    now = datetime.now(UTC)
    return page(
        request, "queue.html", 200 if refused is None else 422, area="queues", found=found,
        queue=found.queue, limits=texts.limits(found.queue), state=texts.state(found.queue, now),
        keys=[(key, texts.key_state(key, found.queue, now)) for key in found.keys],
        rate=_rate_fields(found.queue), refused=refused, typed=typed or {}, shown=PLACES_SHOWN,
        json=url(request, "api", "v1", "queues", name),
    )  # fmt: skip


def _rate_fields(queue: QueueInfo) -> dict[str, tuple[Any, Any]]:
    fields = {}
    for name in RATES:
        rate: Rate | None = getattr(queue, name)
        fields[name] = ("", "") if rate is None else (rate.limit, _seconds(rate))
    return fields


def _seconds(rate: Rate) -> str:
    per = rate.per
    return f"{per if isinstance(per, int | float) else per.total_seconds():g}"


async def change(request: Request) -> Response:
    """Set limits, pause or resume: what the form has."""
    name, form, site = request.path_params["name"], await form_of(request), site_of(request)
    before, engine = (await site.reader.queue(name, 1)).queue, site.operated
    try:
        if "paused" in form:
            await engine.queue(name, paused=form["paused"] == "yes")
        else:
            await engine.queue(name, **_limits(form, before))
    except (DefinitionError, ValueError) as error:
        return await _queue(request, name, str(error), form)
    return RedirectResponse(url(request, "queues", name), 303)


def _limits(form: Form, before: QueueInfo) -> dict[str, Any]:
    """The limits that a form gives; empty fields remove one. Raises `DefinitionError`."""
    given: dict[str, Any] = {name: _count(name, form.get(name, "")) for name in COUNTS}
    for name in RATES:
        limit = _count(name, form.get(name, ""))
        was: Rate | None = getattr(before, name)
        given[name] = None if limit is None else _rate(name, limit, form.get(f"{name}_s", ""), was)
    return given


def _rate(name: str, limit: int, seconds: str, was: Rate | None) -> Rate:
    try:
        per = float(seconds or 1)
    except ValueError:
        raise DefinitionError(f"{name}: {seconds!r} are no seconds.") from None
    if was is not None and (was.limit, _seconds(was)) == (limit, f"{per:g}"):
        return was  # with its burst
    return Rate(limit, per)


def _count(name: str, text: str) -> int | None:
    if not text.strip():
        return None
    if not (text.strip().isascii() and text.strip().isdecimal()) or len(text) > 15:
        raise DefinitionError(
            f"{name}: {text[:40]!r} is no limit. Write a whole number of at least 1, or nothing."
        )
    return int(text)


ROUTES = [
    Route("/queues", queues, name="queues"),
    Route("/queues/{name:name}", queue, name="queue"),
    Route("/queues/{name:name}", change, methods=["POST"], name="change_queue"),
]
