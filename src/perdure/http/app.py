"""ASGI application of a site: its routes, and what stands before them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from perdure.api.tokens import Tokens, tokens_of
from perdure.errors import DefinitionError
from perdure.http import problems
from perdure.http.access import Access
from perdure.http.api import routes as api
from perdure.http.counters import counters_of
from perdure.http.events.updates import CountsUpdates
from perdure.http.gate import Gate
from perdure.http.paths import KeepsEncodedSlashes
from perdure.http.site import Site

if TYPE_CHECKING:
    from perdure.runtime.engine import Engine


TOKEN_VARIABLE = "PERDURE_TOKEN"
PAGES = (
    "answers", "bulk", "compare", "dev", "inbox", "login", "metrics", "nav", "queues", "run",
    "runs", "schedules", "sql", "start", "system", "travel", "workers",
)  # fmt: skip
"""The modules with the pages of a store."""


def asgi(engine: Engine, *, token: Tokens = None, prefix: str = "") -> ASGIApp:
    """See `Engine.asgi`."""
    site = Site(engine.path, engine=engine, counters=counters_of(engine))
    return application(site, token=token, prefix=prefix)


def application(site: Site, *, token: Tokens = None, prefix: str = "") -> ASGIApp:
    """The application of a site, behind its gate. Raises `DefinitionError`."""
    return guarded(pages(site), site, token=token, prefix=prefix)


def guarded(app: ASGIApp, site: Site, *, token: Tokens = None, prefix: str = "") -> ASGIApp:
    """An application behind the gate of a site, which it has as `app.state.site`. The token is that
    of the environment variable PERDURE_TOKEN where none is given. Raises `DefinitionError`.
    """
    tokens = tokens_of(os.environ.get(TOKEN_VARIABLE) if token is None else token)
    access = Access(site.name, tokens)
    return KeepsEncodedSlashes(Gate(app, site, access, checked_prefix(prefix)))


def pages(site: Site) -> Starlette:
    """The pages and the API of a site without a gate: for an application that has one."""
    app = Starlette(
        routes=_routes(),
        middleware=[Middleware(KeepsEncodedSlashes), Middleware(CountsUpdates)],
        exception_handlers=problems.HANDLERS,
    )
    app.state.site = site
    return app


def checked_prefix(prefix: str) -> str:
    """A prefix of addresses. Raises `DefinitionError`.

    >>> checked_prefix("/durable/"), checked_prefix("/")
    ('/durable', '')
    """
    bare = prefix.rstrip("/")
    if bare and (not bare.startswith("/") or "//" in bare or set(bare) & set("?#%\\;, \"'<>")):
        raise DefinitionError(f"prefix is a path such as '/durable', not {prefix!r}.")
    return bare


def _routes() -> Sequence[BaseRoute]:
    pages = (import_module(f"perdure.http.pages.{name}") for name in PAGES)
    return [
        *api.ROUTES,
        *(route for page in pages for route in page.ROUTES),
        Mount(
            "/static/waterfall/{mark}", StaticFiles(packages=[("perdure.http", "static/waterfall")])
        ),
        Mount("/static", StaticFiles(packages=[("perdure.http", "static")]), name="static"),
    ]
