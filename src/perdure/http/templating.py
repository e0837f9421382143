"""Templates of the pages: a jinja2 environment that escapes everything."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

import jinja2
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, Response

from perdure.http import pictures, values
from perdure.http.assets import asset, module_assets
from perdure.http.csrf import csrf_field, csrf_token
from perdure.http.events.topics import topic
from perdure.http.site import root_of, site_of, url
from perdure.http.visitors import visitor_of
from perdure.views import format
from perdure.views.decisions import decision_text

AREAS = (
    ("runs", "Runs", ()),
    ("inbox", "Inbox", ("inbox",)),
    ("queues", "Queues", ("queues",)),
    ("schedules", "Schedules", ("schedules",)),
    ("workers", "Workers", ("workers",)),
    ("system", "System", ("system",)),
    ("sql", "SQL", ("sql",)),
)
"""The entries of the navigation: area, title, parts of its address."""


@cache
def environment() -> jinja2.Environment:
    """The environment of all sites of this process."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("perdure.http"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=values.shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "ago": format.ago,
        "duration": format.duration,
        "json_lines": values.lines,
        "json_text": values.text,
        "one_line": format.value,
        "call_arguments": format.arguments,
        "shell": shlex.quote,
    }
    made.globals |= {"areas": AREAS, "bars": pictures.bars, "topic": topic}
    made.globals["decision_text"] = decision_text
    return made


def page(
    request: HTTPConnection,
    template: str,
    /,
    status: int = 200,
    *,
    area: str = "",
    json: str | None = None,
    **context: Any,
) -> Response:
    """A page from a template. `area` is the entry of the navigation that it belongs to, `json` the
    address of its data.

    The template has what is given, and `site`, `request`, `url`, `asset`, `modules`, `here` (the
    address of the page), `now` (aware), `visitor`, `operate` (whether buttons are shown),
    `csrf_field`, `csrf_token`.
    """
    site = site_of(request)
    shared = {
        "site": site,
        "request": request,
        "url": partial(url, request),
        "asset": partial(asset, request),
        "modules": partial(module_assets, request),
        "icons": asset(request, "icons.svg"),
        "here": here_of(request),
        "now": datetime.now(UTC),
        "visitor": visitor_of(request),
        "operate": site.may_operate(request),
        "area": area,
        "areas": site.areas or AREAS,
        "json": json,
        "csrf_field": partial(csrf_field, request),
        "csrf_token": partial(csrf_token, request),
    }
    text = environment().get_template(template).render(shared | context)
    return HTMLResponse(text, status)


def here_of(request: HTTPConnection) -> str:
    """The path and query of a request as the browser sees them."""
    raw = request.scope.get("raw_path", request.scope["path"].encode())
    path: str = raw.decode("latin-1").partition("?")[0]
    root = root_of(request)
    path = path if path.startswith(f"{root}/") else root + path  # a proxy has taken the prefix away
    return f"{path}?{request.url.query}" if request.url.query else path
