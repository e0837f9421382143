"""ASGI application of a site: its routes, and what stands before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from perdure.http.pages import nav
from perdure.http.pages import runs as runs_pages
from perdure.http.paths import KeepsEncodedSlashes
from perdure.http.site import Site

if TYPE_CHECKING:
    from perdure.runtime.engine import Engine


def asgi(engine: Engine, *, token: str | None = None, prefix: str = "") -> ASGIApp:
    """See `Engine.asgi`."""
    return application(Site(engine.path, engine=engine))


def application(site: Site) -> Starlette:
    """The application of a site."""
    app = Starlette(routes=_routes(), middleware=[Middleware(KeepsEncodedSlashes)])
    app.state.site = site
    return app


def _routes() -> Sequence[BaseRoute]:
    return [
        *runs_pages.ROUTES,
        *nav.ROUTES,
        Mount("/static", StaticFiles(packages=[("perdure.http", "static")]), name="static"),
    ]
