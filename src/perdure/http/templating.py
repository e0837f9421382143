"""Templates of the pages: a jinja2 environment that escapes everything."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import jinja2
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, Response

from perdure.http.site import site_of, url


@cache
def environment() -> jinja2.Environment:
    """The environment of all sites of this process."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("perdure.http"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(request: HTTPConnection, template: str, /, status: int = 200, **context: Any) -> Response:
    """A page from a template, which has `site`, `request`, `url` and what is given."""
    shared = {"site": site_of(request), "request": request, "url": partial(url, request)}
    text = environment().get_template(template).render(shared | context)
    return HTMLResponse(text, status)
