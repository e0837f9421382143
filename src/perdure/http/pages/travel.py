"""Time travel: what a run knew at a row of its history, and forks from there.

Rules: a moment is an address; a fork says what it keeps and what it does again, and shows the
difference of an edit before it starts.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from perdure.errors import PerdureError
from perdure.http import forking
from perdure.http.body import form_of
from perdure.http.forking import Cut, Edit
from perdure.http.problems import status_of
from perdure.http.site import site_of, url
from perdure.http.templating import page
from perdure.runtime.info import HistoryEvent
from perdure.views import timeline, traces
from perdure.views.moment import Moment

EMPTY: Mapping[str, str] = {}


async def travel(request: Request) -> Response:
    """The page of a moment."""
    id, reader = request.path_params["id"], site_of(request).reader
    summary = await reader.summary(id)
    if not summary.history_rows:
        return page(request, "travel.html", area="runs", run=summary, moment=None)
    asked = _row(request) or summary.history_rows
    moment = await reader.at(id, min(max(asked, 1), summary.history_rows))
    cut = await _cut(request, moment)
    return page(
        request, "travel.html", area="runs",
        json=url(request, "api", "v1", "runs", id, "moment", at=moment.seq),
        run=moment.run, moment=moment, title=_heading(moment.row),
        before=moment.stop_before, behind=moment.stop_behind, place=_place(moment), cut=cut,
        next_title=None if moment.next is None else timeline.title(moment.next, 160),
        trace="\n".join(traces.trace(moment.row.error)) if moment.row.error else "",
        about=None if moment.about is None else timeline.title(moment.about, 160),
    )  # fmt: skip


def _heading(row: HistoryEvent) -> str:
    """A row above its values: an answer is named, because its value follows."""
    if row.kind in ("completed", "failed") and row.of is not None:
        return f"{row.of} {row.kind}"
    return timeline.title(row, 60)


async def fork_form(request: Request) -> Response:
    """The form of a fork from a row."""
    moment = await _moment(request)
    cut = await _cut(request, moment)
    return _drawn(request, moment, cut, forking.edit_of(cut, request.query_params, None))


async def fork(request: Request) -> Response:
    """Start a fork, once its difference has been shown."""
    sent, moment = await form_of(request), await _moment(request)
    site, cut = site_of(request), await _cut(request, moment)
    if (engine := site.engine) is None:
        raise HTTPException(403, "This store is only looked at here.")
    edit = forking.edit_of(cut, sent, engine.workflows.get(moment.run.workflow))
    if sent.get("do") == "show" or edit.errors:
        return _drawn(request, moment, cut, edit, 422 if edit.errors else 200, sent=sent)
    if edit.diff and sent.get("seen") != edit.seen:
        return _drawn(request, moment, cut, edit, sent=sent, look=True)
    new_id = sent.get("new_id", "").strip() or None
    given: dict[str, Any] = {} if edit.how == "again" else {edit.how: edit.value}
    try:
        made = await engine.fork(moment.run.id, cut.row, new_id=new_id, **given)
    except PerdureError as error:
        return _drawn(request, moment, cut, edit, status_of(error), sent=sent, refused=str(error))
    return RedirectResponse(url(request, "runs", made.id), 303)


# --- parts ----------------------------------------------------------------------------------------


def _drawn(
    request: Request, moment: Moment, cut: Cut, edit: Edit, status: int = 200, *,
    sent: Mapping[str, str] = EMPTY, look: bool = False, refused: str | None = None,
) -> Response:  # fmt: skip
    return page(
        request, "fork.html", status, area="runs", run=moment.run, moment=moment, cut=cut,
        edit=edit, look=look, refused=refused, new_id=sent.get("new_id", ""),
        texts={"args": sent.get("args", cut.args), "result": sent.get("result", cut.result)},
        title=timeline.title(moment.about or moment.row, 160),
    )  # fmt: skip


async def _moment(request: Request) -> Moment:
    seq = _row(request)
    if seq is None:
        raise HTTPException(404, "A fork is made at a row: add ?at=ROW to the address.")
    return await site_of(request).reader.at(request.path_params["id"], seq)


async def _cut(request: Request, moment: Moment) -> Cut:
    seq = forking.step_of(moment)
    rows = [] if seq is None else await site_of(request).reader.entry(moment.run.id, seq)
    return forking.cut_at(moment, rows)


def _row(request: Request) -> int | None:
    text = request.query_params.get("at", "")
    return int(text) if text.isdecimal() and len(text) < 10 else None


def _place(moment: Moment) -> int:
    """Where on the slider a moment is: the last stop at it or before it."""
    return max(bisect.bisect_right(moment.stops, moment.seq) - 1, 0)


ROUTES = [
    Route("/runs/{id:name}/travel", travel, name="travel"),
    Route("/runs/{id:name}/fork", fork_form, methods=["GET"], name="fork"),
    Route("/runs/{id:name}/fork", fork, methods=["POST"]),
]
