"""Templates of the pages: a jinja2 environment that escapes everything."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import jinja2
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, Response

from perdure.http.csrf import csrf_field, csrf_token
from perdure.http.site import site_of, url
from perdure.http.visitors import visitor_of


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
    """A page from a template, which has `site`, `request`, `visitor`, `operate` (whether buttons
    are shown), `url`, `csrf_field`, `csrf_token` and what is given.
    """
    site = site_of(request)
    shared = {
        "site": site,
        "request": request,
        "visitor": visitor_of(request),
        "operate": site.may_operate(request),
        "url": partial(url, request),
        "csrf_field": partial(csrf_field, request),
        "csrf_token": partial(csrf_token, request),
    }
    text = environment().get_template(template).render(shared | context)
    return HTMLResponse(text, status)
