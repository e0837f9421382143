"""Page of two runs side by side, from their first difference on."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perdure.errors import RunNotFound
from perdure.http.filling import pretty
from perdure.http.forking import diff_of
from perdure.http.site import site_of, url
from perdure.http.templating import page
from perdure.runtime.info import HistoryEvent
from perdure.views import format, timeline
from perdure.views.compare import Comparison, RowPair, Totals

_PAYLOADS = ("args", "result", "error", "data")


async def compare(request: Request) -> Response:
    """The page of two runs; without them it asks for their ids."""
    ids = [request.query_params.get(name, "").strip() for name in ("a", "b")]
    if not all(ids):
        return _asked(request, ids, None, 200)
    reader = site_of(request).reader
    try:
        found = await reader.compare(ids[0], ids[1])
    except RunNotFound as error:
        return _asked(request, ids, str(error), 404)
    args = [(await reader.run(id)).args for id in ids]
    first = next((one for one in found.pairs if one.state != "same"), None)
    return page(
        request, "compare.html", area="runs", ids=ids, refused=None, found=found, first=first,
        json=url(request, "api", "v1", "compare", a=ids[0], b=ids[1]), rows=_rows(found),
        facts=_facts(found), args=diff_of(*(pretty(one) for one in args)),
        detail=None if first is None else _detail(first),
    )  # fmt: skip


def _asked(request: Request, ids: list[str], refused: str | None, status: int) -> Response:
    return page(request, "compare.html", status, area="runs", ids=ids, refused=refused, found=None)


def _rows(found: Comparison) -> list[tuple[RowPair, str, str]]:
    """The pairs with a title for each side."""
    return [(one, _title(one.a), _title(one.b)) for one in found.pairs]


def _title(row: HistoryEvent | None) -> str:
    return "" if row is None else timeline.title(row, 120)


def _detail(first: RowPair) -> list[tuple[str, list[tuple[str, str]]]]:
    """What differs in the first pair: names of fields, each with its lines; nothing where the rows
    are of different things.
    """
    if first.a is None or first.b is None or {"kind", "name"} & set(first.differs):
        return []
    parts = []
    for name in _PAYLOADS:
        one, other = getattr(first.a, name), getattr(first.b, name)
        if one != other:
            parts.append((name, diff_of(pretty(one), pretty(other))))
    return parts


def _facts(found: Comparison) -> list[tuple[str, str, str]]:
    """What both runs cost: a name, and both sides."""
    sides = [_shown(one) for one in (found.totals_a, found.totals_b)]
    return [(name, sides[0][name], sides[1][name]) for name in sides[0]]


def _shown(totals: Totals) -> dict[str, Any]:
    took = totals.took_ms
    return {
        "rows": f"{totals.rows:,}",
        "steps": f"{totals.steps:,}",
        "failed attempts": f"{totals.failed_attempts:,}",
        "in steps": format.duration(totals.in_steps_ms),
        "in all": "not ended" if took is None else format.duration(took),
    }


ROUTES = [Route("/compare", compare, name="compare")]
