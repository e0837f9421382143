"""Page of runs: counts, filters in the address, live rows, what to do with many of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from perdure.core import lifecycle
from perdure.core.lifecycle import STATUSES
from perdure.errors import DefinitionError
from perdure.http import columns
from perdure.http.activity import last_hour
from perdure.http.addresses import Address
from perdure.http.run_query import filters, run_query, spelled_out
from perdure.http.site import site_of, url
from perdure.http.templating import page
from perdure.reader import StoreReader
from perdure.reader.values import RETRYING, WHYS_MAX, Activity, Bounded, RunPage, RunQuery
from perdure.views import rows

SHOWN = (
    lifecycle.RUNNING, RETRYING, lifecycle.WAITING, lifecycle.PENDING, lifecycle.PAUSED,
    lifecycle.BLOCKED, lifecycle.FAILED, lifecycle.COMPLETED, lifecycle.CANCELLED,
)  # fmt: skip
"""The chips, those first that need attention."""

YEAR_S = 365 * 24 * 3600
LOOKING_S = 0.05
"""How long it is looked for the filter that has removed everything."""

TIMES = (("", "Any time"), ("1h", "Last hour"), ("24h", "Last 24 hours"), ("7d", "Last 7 days"),
         ("30d", "Last 30 days"))  # fmt: skip


async def runs(request: Request) -> Response:
    """The list of runs."""
    pairs = request.query_params.multi_items()
    if "filter" in request.query_params or "" in request.query_params.values():
        return _spelled_out(request, pairs)
    now = datetime.now(UTC)
    address = Address(url(request), pairs)
    try:
        asked = run_query(pairs, now)
        found = await _found(site_of(request).reader, asked)
    except DefinitionError as error:
        return _answer(request, address, RunQuery(), None, refused=str(error), status=422)
    bounded = found.page.runs or found.page.searched is not None
    dropped = [] if bounded else await _without(site_of(request).reader, address, now)
    return _answer(request, address, asked, found, dropped=dropped)


class Found(msgspec.Struct, frozen=True):
    """What the page shows."""

    page: RunPage
    whys: dict[str, str]
    counts: dict[str, Bounded]
    activity: Activity
    workflows: list[str]


async def _found(reader: StoreReader, asked: RunQuery) -> Found:
    """Counts are left out where the search of a text has ended at its bound: theirs would, too."""
    page = await reader.runs(asked)
    counts, activity, workflows, whys = await asyncio.gather(
        _nothing() if page.searched is not None else reader.counts(asked),
        last_hour(reader),
        reader.workflows(),
        reader.whys([run.id for run in page.runs][:WHYS_MAX]),
    )
    return Found(page, whys, counts, activity, workflows)


async def _nothing() -> dict[str, Bounded]:
    return {}


async def _without(
    reader: StoreReader, address: Address, now: datetime
) -> list[tuple[str, str, str]]:
    """Filters without any one of which the list would not be empty, and the address for that."""
    loop, found = asyncio.get_running_loop(), []
    until = loop.time() + LOOKING_S
    for name, text in sorted(address.filters, key=lambda pair: pair[0] != "q"):  # texts are dear
        rest = [pair for pair in address.filters if pair != (name, text)]
        page = await reader.runs(msgspec.structs.replace(run_query(rest, now), limit=1))
        if page.runs:
            found.append((name, text, address.without(name, text)))
        if loop.time() > until:
            break
    return found


def _answer(
    request: Request,
    address: Address,
    asked: RunQuery,
    found: Found | None,
    *,
    refused: str | None = None,
    dropped: Sequence[tuple[str, str, str]] = (),
    status: int = 200,
) -> Response:
    chosen = columns.chosen(request.cookies.get(columns.COOKIE))
    context: dict[str, Any] = {
        "address": address,
        "asked": asked,
        "found": found,
        "refused": refused,
        "dropped": dropped,
        "columns": chosen,
        "choices": columns.CHOICES,
        "tag_columns": columns.tags_of(chosen),
        "chips": _chips(address, found),
        "total": _total(found),
        "lines": _lines(found),
        "spark": _spark(found),
        "times": TIMES,
        "topic": f"runs?{address.query}" if address.query else "runs",
        "first": "after" not in request.query_params,
    }
    query = f"?{request.url.query}" if request.url.query else ""
    json = url(request, "api", "v1", "runs") + query
    return page(request, "runs.html", status, area="runs", json=json, **context)


class Chip(msgspec.Struct, frozen=True):
    """A status with its count, and the address that it switches to."""

    status: str
    text: str
    some: bool
    on: bool
    address: str


def _chips(address: Address, found: Found | None) -> list[Chip]:
    on = address.values("status")
    counts = {} if found is None else found.counts
    return [
        Chip(
            status,
            _bounded(counts.get(status)),
            status not in counts or counts[status].number > 0,
            status in on,
            address.toggled("status", status),
        )
        for status in SHOWN
    ]


def _total(found: Found | None) -> str:
    counts = [found.counts[one] for one in STATUSES if one in found.counts] if found else []
    if not counts:
        return ""
    more = any(one.more for one in counts)
    return _bounded(Bounded(sum(one.number for one in counts), more))


def _bounded(count: Bounded | None) -> str:
    return "" if count is None else f"{count.number:,}{'+' if count.more else ''}"


def _lines(found: Found | None) -> list[dict[str, Any]]:
    """The rows: a run and its line."""
    if found is None:
        return []
    now = datetime.now(UTC)
    return [
        {"run": run, "line": rows.run_line(run, now, found.whys.get(run.id))}
        for run in found.page.runs
    ]


def _spark(found: Found | None) -> list[list[int]]:
    return [] if found is None else [
        [one.completed + one.cancelled, one.failed] for one in found.activity.buckets
    ]  # fmt: skip


def _spelled_out(request: Request, pairs: Sequence[tuple[str, str]]) -> Response:
    """A redirect to the address that has what was typed as parameters, and nothing empty."""
    typed = [pair for name, text in pairs if name == "filter" for pair in spelled_out(text)]
    once = {name for name, _ in typed} - {"status", "tag", "in"}
    if "filter" in dict(pairs):
        once.add("q")
    kept = [(name, text) for name, text in filters(pairs) if name not in once]
    wanted = Address(url(request), [*kept, *typed])
    if not wanted.values("q"):
        wanted.filters = list(wanted.others("in"))
    return RedirectResponse(str(wanted), 303)


async def choose_columns(request: Request) -> Response:
    """Remember in this browser which columns the list has. No store changes, so viewers may."""
    given = request.query_params
    back = Address(url(request), given.multi_items())
    answer = RedirectResponse(str(back), 303)
    if "usual" in given:
        answer.delete_cookie(columns.COOKIE, path=url(request))
        return answer
    value = columns.cookie_of(given.getlist("column"), given.get("tags", ""))
    answer.set_cookie(
        columns.COOKIE, value, YEAR_S, path=url(request), samesite="strict", httponly=True
    )
    return answer


ROUTES = [
    Route("/", runs, name="runs"),
    Route("/columns", choose_columns, name="columns"),
]
