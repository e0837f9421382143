"""Page of a run: its head, its views, the panel of a step, and the verbs of its buttons.

Rules: the head says at once what the run is, why it does not go on, and what may be done about it;
everything is an address; what changes is asked for again as a fragment.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from perdure.core import lifecycle
from perdure.errors import RunNotFound, StepNotWaiting
from perdure.http import (
    stream_text,
)
from perdure.http.body import form_of
from perdure.http.pages.run_views import VIEWS, Asked, context_of, messages_of
from perdure.http.site import site_of, url
from perdure.http.templating import page
from perdure.http.visitors import person
from perdure.runtime.info import HistoryEvent, RunInfo, moment
from perdure.runtime.standing import Standing
from perdure.views import format, rows, timeline, traces
from perdure.views.standing import standing
from perdure.views.step import StepView, step_view
from perdure.views.waiting import is_retrying

VERBS = ("pause", "resume", "retry", "cancel")
BUTTONS = {
    "pause": "Pause",
    "resume": "Resume",
    "retry": "Retry",
    "cancel": "Cancel",
}
_DANGEROUS = frozenset({"cancel"})
_POINTS = frozenset({"message", "request"})
LINES = 100
"""Lines that a step has logged, in its panel."""
GZIP_FROM_BYTES = 1_400
COLUMNS_ROWS = 20_000
"""Rows of one answer: an engine in this process must not wait long for its encoding."""

Context = dict[str, Any]


# --- the page -------------------------------------------------------------------------------------


async def run_page(request: Request) -> Response:
    """The page of a run."""
    id = request.path_params["id"]
    view = request.query_params.get("view", "waterfall")
    view = view if view in VIEWS else "waterfall"
    asked = Asked(request, await site_of(request).reader.run(id))
    if (at := asked.number("at")) is not None:
        return RedirectResponse(url(request, "runs", id, "travel", at=at), 303)
    head, side, shown = await asyncio.gather(
        _head(asked), _side(asked, asked.number("step")), context_of(view, asked)
    )
    twin = url(request, "runs", f"{id}.json", **dict(request.query_params))
    return page(
        request, "run.html", area="runs", json=twin, view=view, views=VIEWS, **head, **side, **shown
    )


async def twin(request: Request) -> Response:
    """The data of the page. An id may end in `.json`: then this is its page."""
    id = request.path_params["id"]
    reader = site_of(request).reader
    try:
        info = await reader.run(id)
    except RunNotFound:
        request.path_params["id"] = f"{id}.json"
        return await run_page(request)
    asked = Asked(request, info)
    view = request.query_params.get("view", "waterfall")
    found: Context = {"run": info}
    found["why"], found["exposed"], found["requests"] = await asyncio.gather(
        reader.why(id), reader.exposed(id), reader.requests(id)
    )
    if (seq := asked.number("step")) is not None:
        found["step"] = await reader.entry(id, seq)
    elif view == "waterfall":
        found["waterfall"] = await reader.waterfall(id)
    elif view in VIEWS:
        found[view] = await context_of(view, asked)
    return _json(request, found)


async def _head(asked: Asked) -> Context:
    """What the head of the page shows: the fragment that changes while a run is live."""
    info, reader = asked.info, asked.reader
    why, exposed, requests, asked_of_people = await asyncio.gather(
        reader.why(info.id), reader.exposed(info.id), reader.requests(info.id),
        reader.inbox_of(info.id),
    )  # fmt: skip
    now = datetime.now(UTC)
    begun = info.started_at or info.created_at
    queued = await _queued(asked) if info.status == lifecycle.RUNNING else []
    return {
        "run": info,
        "queued": _queue_sentences(queued, now),
        "label": _label(info),
        "why": why,
        "kind_of_why": _kind_of_why(info),
        "prompts": [one["prompt"] for one in info.waiting_for if one.get("prompt")],
        "error_line": format.error_line(info.error) if info.error else None,
        "trace": traces.trace(info.error),
        "took_ms": max(0, round(((info.ended_at or now) - begun).total_seconds() * 1_000)),
        "exposed": exposed,
        "requests": rows.requests(requests, now),
        "verbs": offered(info.status),
        "ended": info.ended_at is not None,
        "answer": bool(asked_of_people),
        "retrying": is_retrying(info),
        "links": _links(asked),
    }


async def _queued(asked: Asked) -> list[Standing]:
    """Where steps of the run stand in queues."""
    if asked.info.ended_at is not None:
        return []
    found = await asked.reader.standings([asked.info.id])
    return [one for one in found[asked.info.id] if one.seq is not None]


def _queue_sentences(queued: list[Standing], now: datetime) -> list[str]:
    """For each queue how many steps wait there, and what keeps the first of them."""
    by_queue: dict[str, list[Standing]] = {}
    for one in queued:
        by_queue.setdefault(one.queue, []).append(one)
    found = []
    for queue, inside in by_queue.items():
        steps = f"{format.count(len(inside), 'step')} wait{'s' if len(inside) == 1 else ''}"
        why = standing(inside[0], now).partition("; ")[2]
        found.append(f"{steps} in queue {queue}{f': {why}' if why else ''}.")
    return found


def _label(info: RunInfo) -> str:
    """The status of a run as a word: `retrying 3` while it waits for an attempt."""
    if info.status != lifecycle.WAITING:
        return info.status
    attempt = next((one["attempt"] for one in info.waiting_for if "again_ms" in one), None)
    return info.status if attempt is None else f"retrying {attempt}"


def _kind_of_why(info: RunInfo) -> str:
    if info.status == lifecycle.BLOCKED:
        return lifecycle.BLOCKED
    return "retrying" if _label(info).startswith("retrying") else info.status


def _links(asked: Asked) -> list[tuple[str, str]]:
    """Where to read on: what else is about this run."""
    info, request = asked.info, asked.request
    found = [("Time travel", url(request, "runs", info.id, "travel"))]
    if site_of(request).may_operate(request):
        found.append(("Start again…", url(request, "start", info.workflow, again=info.id)))
    if info.forked_from:
        compared = url(request, "compare", a=info.forked_from, b=info.id)
        found.append(("Compare with its source", compared))
    return found


class Button(msgspec.Struct, frozen=True):
    """A verb that is offered: its name, what stands on the button, and what it will do."""

    verb: str
    title: str
    meaning: str
    dangerous: bool


def offered(status: str) -> list[Button]:
    """The verbs that change a run of this status, by the table of the life cycle."""
    found = []
    for verb in VERBS:
        outcomes = lifecycle.VERBS[verb].outcomes[status].values()
        may = any(isinstance(one, str) and one != status for one in outcomes)
        asked_for = verb == "cancel" and status in lifecycle.OPEN
        skipped = verb == "retry" and status == lifecycle.PAUSED
        if (may or asked_for) and not skipped and (verb != "cancel" or asked_for):
            meaning = lifecycle.VERBS[verb].meaning
            found.append(Button(verb, BUTTONS[verb], meaning, verb in _DANGEROUS))
    return found


# --- the panel at the side ------------------------------------------------------------------------


async def _side(asked: Asked, seq: int | None) -> Context:
    """A step in full, or the run's own values where none is chosen."""
    if seq is None:
        return {"step": None, "step_seq": None}
    found = await asked.reader.entry(asked.info.id, seq)
    step = step_view(found)
    shown: Context = {"step": step, "step_seq": seq}
    if step is not None:
        shown |= _step_context(asked, step, found)
        shown["idempotency_key"] = await _key(asked, step)
        shown |= await _logged(asked, step)
    return shown


def _step_context(asked: Asked, step: StepView, found: list[HistoryEvent]) -> Context:
    blocked = asked.info.status in (lifecycle.BLOCKED, lifecycle.PAUSED)
    return {
        "step_word": _word(asked.info, step),
        "step_error": format.error_line(step.error) if step.error else None,
        "step_trace": traces.trace(step.error),
        "step_said": messages_of(step) if step.asked or step.answered else None,
        "step_rows": ["\n".join(timeline.row_in_full(row)) for row in found],
        "step_unknown": blocked and step.kind == "step" and step.state in ("open", "retrying"),
        "again_at": moment(step.again_at_ms),
        "step_waits": _waits(asked.info, step),
    }


def _waits(info: RunInfo, step: StepView) -> bool:
    """Whether a step waits for its next attempt, which may be asked for now."""
    at = moment(step.again_at_ms) if info.status in lifecycle.OWNABLE else None
    return at is not None and at > datetime.now(UTC)


def _word(info: RunInfo, step: StepView) -> str:
    """The status of a step as a word: an open one is as its run is, where nothing works on that."""
    if step.state not in ("open", "retrying"):
        return {"fired": "completed"}.get(step.state, step.state)
    if info.status in (lifecycle.BLOCKED, lifecycle.PENDING, lifecycle.PAUSED):
        return info.status
    if info.ended_at is not None:
        return lifecycle.CANCELLED
    waits = step.kind == "timer" and step.state == "open"
    return lifecycle.WAITING if waits else {"open": lifecycle.RUNNING}.get(step.state, step.state)


async def _logged(asked: Asked, step: StepView) -> Context:
    """The last lines that a step has logged, and whether there are earlier ones."""
    if step.kind != "step":
        return {"logged": [], "logged_more": False}
    found = await asked.reader.logs(asked.info.id, limit=LINES + 1, seq=step.seq, newest=True)
    return {"logged": found[-LINES:], "logged_more": len(found) > LINES}


async def _key(asked: Asked, step: StepView) -> str | None:
    if step.kind != "step":
        return None
    return await asked.reader.idempotency_key(asked.info.id, step.seq)


# --- fragments ------------------------------------------------------------------------------------


async def _asked(request: Request) -> Asked:
    return Asked(request, await site_of(request).reader.run(request.path_params["id"]))


async def head(request: Request) -> Response:
    """The head of the page, while the run is live."""
    asked = await _asked(request)
    return page(request, "_run_head.html", **await _head(asked))


async def side(request: Request) -> Response:
    """The panel at the side: a step, or the run."""
    asked = await _asked(request)
    shown, step = await asyncio.gather(_head(asked), _side(asked, asked.number("step")))
    return page(request, "_run_side.html", **shown, **step)


async def view_part(request: Request) -> Response:
    """One view of the page, without what is around it."""
    view = request.path_params["view"]
    asked = await _asked(request)
    if view not in VIEWS:
        raise HTTPException(404, f"There is no view {view!r}; there are {', '.join(VIEWS)}.")
    shown = await context_of(view, asked)
    ended = asked.info.ended_at is not None
    return page(request, f"_run_{view}.html", run=asked.info, view=view, ended=ended, **shown)


async def columns(request: Request) -> Response:
    """The waterfall as columns; with `after`, what is new behind that row. The page asks again
    until it has all `rows`.
    """
    asked = await _asked(request)
    info = asked.info
    found = await asked.reader.waterfall(info.id, asked.number("after", 0) or 0, COLUMNS_ROWS)
    begun, now = info.started_at or info.created_at, datetime.now(UTC)
    queued = await _queued(asked)
    return _json(
        request,
        {
            "status": info.status,
            "rows": info.history_rows,
            "begun_ms": _ms(begun),
            "now_ms": _ms(now),
            "ended_ms": None if info.ended_at is None else _ms(info.ended_at),
            "waits": [one for one in info.waiting_for if one.keys() & _POINTS],
            "queued": {one.seq: standing(one, now) for one in queued},
            "again": {one["seq"]: one["again_ms"] for one in info.waiting_for if "again_ms" in one},
            "bars": found,
        },
    )


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1_000)


async def stream_items(request: Request) -> Response:
    """Items of a stream behind a position."""
    asked = await _asked(request)
    name, after = request.path_params["name"], asked.number("after", 0) or 0
    found = await asked.reader.stream(asked.info.id, name, after, 1_000)
    items = stream_text.pieces(found, asked.number("attempt"))
    return _json(request, {"items": items, "ended": asked.info.ended_at is not None})


def _json(request: Request, found: Any) -> Response:
    """JSON, compressed where that is worth it and the browser takes it."""
    raw = msgspec.json.encode(found, enc_hook=str)
    headers = {"cache-control": "no-cache", "vary": "accept-encoding"}
    if len(raw) >= GZIP_FROM_BYTES and "gzip" in request.headers.get("accept-encoding", ""):
        raw = gzip.compress(raw, 3, mtime=0)
        headers["content-encoding"] = "gzip"
    return Response(raw, headers=headers, media_type="application/json")


# --- verbs ----------------------------------------------------------------------------------------


async def act(verb: str, request: Request) -> Response:
    """Use a verb, and show the run again."""
    id, engine = request.path_params["id"], site_of(request).operated
    if verb != "retry":
        await getattr(engine, verb)(id)
        return RedirectResponse(url(request, "runs", id), 303)
    text = (await form_of(request)).get("seq", "")
    if text and not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise HTTPException(400, f"seq: {text[:40]!r} is not the number of a row.")
    seq = int(text) if text else None  # none: all that wait
    with contextlib.suppress(StepNotWaiting):  # it has begun meanwhile, as was asked for
        await engine.retry(id, seq=seq, sender=person(request))
    return RedirectResponse(url(request, "runs", id, step=seq), 303)


ROUTES = [
    Route("/runs/{id:name}/waterfall.json", columns),
    Route("/runs/{id:name}/head", head),
    Route("/runs/{id:name}/side", side),
    Route("/runs/{id:name}/view/{view:name}", view_part),
    Route("/runs/{id:name}/streams/{name:name}.json", stream_items),
    *(Route(f"/runs/{{id:name}}/{verb}", partial(act, verb), methods=["POST"]) for verb in VERBS),
    Route("/runs/{id:name}.json", twin),
    Route("/runs/{id:name}", run_page, name="run"),
]
