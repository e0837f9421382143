"""What the views of the run page show: for each a function that makes its template's context.

Rules: a view reads what it shows and nothing else; pages of long lists are bounded; what is shown
is data that the `.json` twin gives as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request

from perdure.core import events as ev
from perdure.http import stream_text
from perdure.http.site import site_of
from perdure.runtime.info import RunInfo
from perdure.views import timeline
from perdure.views.conversation import Said
from perdure.views.step import StepView, step_view
from perdure.views.waterfall import Waterfall, readable

if TYPE_CHECKING:
    from perdure.reader import StoreReader

LOG_ROWS = 200
TABLE_ROWS = 200
TABLE_HISTORY_ROWS = 400_000
"""Rows of a history that a table is made of, as many as the waterfall of the page has."""

STREAM_ITEMS = 1_000
SEARCHED_STEPS_MAX = 40
"""Steps that are looked at for a message list, from the newest one back."""

VIEWS = {
    "waterfall": "Waterfall",
    "log": "Log",
    "chat": "Chat",
    "stream": "Stream",
    "tree": "Tree",
    "source": "Source",
    "table": "Table",
}
Context = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """Which part of a run is shown: the run, and the query of the page."""

    request: Request
    info: RunInfo

    @property
    def reader(self) -> StoreReader:
        return site_of(self.request).reader

    def number(self, name: str, default: int | None = None) -> int | None:
        """A whole number of the query; `default` where there is none."""
        text = self.request.query_params.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else default

    def text(self, name: str) -> str | None:
        return self.request.query_params.get(name) or None


async def context_of(view: str, asked: Asked) -> Context:
    """The context of a view's template."""
    return await _VIEWS[view](asked)


async def _waterfall(asked: Asked) -> Context:
    return {}


async def _log(asked: Asked) -> Context:
    """A page of rows; without `after`, the newest ones."""
    rows = asked.info.history_rows
    after = asked.number("after")
    begin = max(0, rows - LOG_ROWS) if after is None else after
    history = await asked.reader.history(asked.info.id, begin, LOG_ROWS)
    lines = [(row, timeline.log_line(row, 300)) for row in history]
    last = history[-1].seq if history else begin
    return {
        "lines": lines,
        "begin": begin,
        "last": last,
        "earlier": max(0, begin - LOG_ROWS) if begin else None,
        "later": last if last < rows else None,
        "following": after is None,
    }


class NameTotal(msgspec.Struct):
    """All bars of one name: how many, how many failed and how many are open, and their lengths."""

    name: str
    number: int = 0
    failed: int = 0
    open: int = 0
    total_ms: int = 0
    slowest_ms: int = 0
    slowest_seq: int = 0


def totals(found: Waterfall) -> list[NameTotal]:
    """What took the time, by name; that with the longest total first."""
    by_name: dict[int, NameTotal] = {}
    bars = zip(found.seq, found.name, found.kind, found.status, found.took_ms, strict=True)
    for index, (seq, name, kind, status, took_ms) in enumerate(bars):
        if kind not in ("step", "child"):
            continue
        one = by_name.setdefault(name, NameTotal(found.names[name]))
        one.number += 1
        one.failed += status == ev.FAILED
        one.open += status == "open"
        work_ms = found.work_ms.get(index, took_ms) or 0
        one.total_ms += work_ms
        if work_ms >= one.slowest_ms:
            one.slowest_ms, one.slowest_seq = work_ms, seq
    return sorted(by_name.values(), key=lambda one: -one.total_ms)


async def _table(asked: Asked) -> Context:
    """A page of bars, in the order of the run or the slowest first."""
    found = await asked.reader.waterfall(asked.info.id, 0, TABLE_HISTORY_ROWS)
    slow, only_errors = asked.text("sort") == "slow", asked.text("only") == "errors"
    order = [
        bar
        for bar in range(len(found.seq))
        if not only_errors or found.status[bar] == ev.FAILED or found.attempts[bar] > 1
    ]
    if slow:
        order.sort(key=lambda bar: -(found.took_ms[bar] or 0))
    pages = max(1, -(-len(order) // TABLE_ROWS))
    page = min(asked.number("page", 1) or 1, pages)
    first = (page - 1) * TABLE_ROWS
    shown = order[first : first + TABLE_ROWS]
    return {
        "found": found,
        "bars": shown,
        "number": len(order),
        "page_number": page,
        "slow": slow,
        "only_errors": only_errors,
        "more": page < pages,
        "cut_at": found.last if found.last < asked.info.history_rows else None,
        "totals": totals(found),
        "labels": {bar: readable(found.label[bar]) for bar in shown if _labelled(found, bar)},
    }


def _labelled(found: Waterfall, bar: int) -> bool:
    return bar in found.label and found.kind[bar] != "timer"


async def _chat(asked: Asked) -> Context:
    """The conversation as of a step, or of the newest step that has one."""
    seq = asked.number("step")
    candidates = [seq] if seq else await _newest_steps(asked)
    for candidate in candidates:
        step = step_view(await asked.reader.entry(asked.info.id, candidate))
        if step is not None and step.asked:
            return {"said": messages_of(step), "of": step}
    return {"said": None, "of": None}


def messages_of(step: StepView) -> list[Said]:
    """What was said up to a step, its answer included."""
    return [*(step.asked or []), *(step.answered or [])]


async def _newest_steps(asked: Asked) -> list[int]:
    found = await asked.reader.waterfall(asked.info.id)
    steps = [seq for seq, kind in zip(found.seq, found.kind, strict=True) if kind == "step"]
    return steps[: -SEARCHED_STEPS_MAX - 1 : -1]


async def _stream(asked: Asked) -> Context:
    """The items of a stream, the first one where none is named."""
    streams = await asked.reader.streams(asked.info.id)
    name = asked.text("name") or (streams[0].name if streams else None)
    after = asked.number("after", 0) or 0
    raw = asked.text("as") == "items"
    items: list[stream_text.Piece] = []
    if name is not None:
        found = await asked.reader.stream(asked.info.id, name, after, STREAM_ITEMS)
        items = stream_text.pieces(found)
    return {
        "streams": streams,
        "name": name,
        "items": items,
        "prose": not raw and any(one.text is not None for one in items),
        "raw": raw,
        "words": stream_text.words(items),
        "attempt": next((one.attempt for one in reversed(items) if one.attempt), None),
        "last": items[-1].position if items else after,
        "more": len(items) == STREAM_ITEMS,
    }


async def _tree(asked: Asked) -> Context:
    return {"family": await asked.reader.family(asked.info.id)}


async def _source(asked: Asked) -> Context:
    """The code of the workflow, where this process has it."""
    engine = site_of(asked.request).engine
    definition = None if engine is None else engine.workflows.get(asked.info.workflow)
    if definition is None:
        return {"source": None, "file": None}
    try:
        text = inspect.getsource(definition.fn)
        return {"source": text, "file": inspect.getsourcefile(definition.fn)}
    except (OSError, TypeError):
        return {"source": None, "file": None}


_VIEWS: Mapping[str, Callable[[Asked], Awaitable[Context]]] = {
    "waterfall": _waterfall,
    "log": _log,
    "chat": _chat,
    "stream": _stream,
    "tree": _tree,
    "source": _source,
    "table": _table,
}
