"""Pages of schedules: when they start next, how the last ones ended, and steering them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from perdure.api.schedules import ScheduleInfo
from perdure.errors import BadSchedule, PerdureError
from perdure.http.body import Form, form_of
from perdure.http.site import site_of, url
from perdure.http.templating import page
from perdure.reader import StoreReader
from perdure.runtime.info import RunSummary
from perdure.views import rows
from perdure.views.schedules import when_text

TICKS_SHOWN = 10
RUNS_SHOWN = 20
LAST_SHOWN = 5
LAST_OF_MAX = 40
"""So many schedules of a list are shown with how their last runs ended."""

PAGE_SCHEDULES = 100


async def schedules(request: Request) -> Response:
    """All schedules, a page of them."""
    reader, after = site_of(request).reader, request.query_params.get("after", "")
    found = await reader.schedules(after, PAGE_SCHEDULES)
    last = await asyncio.gather(*(reader.schedule_runs(one.name, LAST_SHOWN)
                                  for one in found[:LAST_OF_MAX]))  # fmt: skip
    runs: list[Sequence[RunSummary]] = [*last, *([()] * (len(found) - len(last)))]
    more = len(found) == PAGE_SCHEDULES
    return page(
        request, "schedules.html", area="schedules",
        lines=[{"schedule": one, "text": when_text(one.when), "runs": [*reversed(those)]}
               for one, those in zip(found, runs, strict=True)],
        next=url(request, "schedules", after=found[-1].name) if more else None,
        first=url(request, "schedules") if after else None,
        json=url(request, "api", "v1", "schedules"),
    )  # fmt: skip


async def schedule(request: Request) -> Response:
    """One schedule: its next ticks, its last runs, its arguments."""
    return await _schedule(request, request.path_params["name"])


async def _schedule(request: Request, name: str, **more: Any) -> Response:
    reader = site_of(request).reader
    found = await reader.schedule(name)
    runs, (ticks, no_ticks) = await asyncio.gather(
        reader.schedule_runs(name, RUNS_SHOWN), _ticks(reader, name)
    )
    now = datetime.now(UTC)
    context = {"backfill": None, "refused": None, "given": {"start": "", "end": ""}} | more
    return page(
        request, "schedule.html", 422 if context["refused"] else 200, area="schedules",
        schedule=found, text=when_text(found.when), ticks=ticks, no_ticks=no_ticks,
        lines=[(run, rows.run_line(run, now)) for run in runs],
        json=url(request, "api", "v1", "schedules", name), **context,
    )  # fmt: skip


async def _ticks(reader: StoreReader, name: str) -> tuple[list[Any], str | None]:
    try:
        return list(await reader.ticks(name, TICKS_SHOWN)), None
    except BadSchedule as error:  # a zone that this machine does not know
        return [], str(error)


async def steer(request: Request) -> Response:
    """Pause, resume, trigger or remove a schedule, or start the ticks of a time that has passed."""
    site, name, form = site_of(request), request.path_params["name"], await form_of(request)
    handle = await site.operated.get_schedule(name)
    back = url(request, "schedules", name)
    match form.get("verb"):
        case "pause":
            await handle.pause()
        case "resume":
            await handle.resume()
        case "trigger":
            run = await handle.trigger()
            back = url(request, "runs", run.id)
        case "remove":
            await handle.remove()
            back = url(request, "schedules")
        case "backfill":
            return await _backfill(request, await handle.info(), form)
        case verb:
            raise HTTPException(400, f"{verb!r} is nothing that can be done to a schedule.")
    return RedirectResponse(back, 303)


async def _backfill(request: Request, info: ScheduleInfo, form: Form) -> Response:
    """Show the ids of the runs that a backfill has; with `sure`, start them."""
    engine = site_of(request).operated
    given = {"start": form.get("start", ""), "end": form.get("end", "")}
    handle = await engine.get_schedule(info.name)
    try:
        start, end = _time(given["start"], info), _time(given["end"], info)
        if form.get("sure"):
            await handle.backfill(start, end)
            return RedirectResponse(url(request, "schedules", info.name), 303)
        ids = await handle.backfill_ids(start, end)
        return await _schedule(request, info.name, given=given, backfill=ids)
    except PerdureError as error:
        return await _schedule(request, info.name, given=given, refused=str(error))


def _time(text: str, info: ScheduleInfo) -> datetime:
    from perdure.api.ticks import zone_of

    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadSchedule(
            "backfill", f"{text[:40]!r} is no time. Write 2026-11-01T00:00, in {info.tz}.",
            info.name,
        ) from None  # fmt: skip
    return at if at.tzinfo is not None else at.replace(tzinfo=zone_of(info.tz).zone)


ROUTES = [
    Route("/schedules", schedules, name="schedules"),
    Route("/schedules/{name:name}", schedule, name="schedule"),
    Route("/schedules/{name:name}", steer, methods=["POST"], name="steer_schedule"),
]
