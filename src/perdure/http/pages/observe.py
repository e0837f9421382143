"""Pages of `perdure observe`: the list of databases, a search over those that are open, and the
pages of each one below `/db/NAME/`.

Rules: read-only everywhere; a database is opened when one of its pages is asked for; its
application is a site like any other, which knows nothing of buckets.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from perdure.api.tokens import Tokens
from perdure.core.lifecycle import STATUSES
from perdure.http import app as sites
from perdure.http import problems
from perdure.http.pages import login
from perdure.http.paths import KeepsEncodedSlashes
from perdure.http.site import ROOT, Site, root_of, url
from perdure.http.templating import page
from perdure.observe import listing
from perdure.observe.databases import Databases, Opened
from perdure.observe.listing import Query

JSON = "application/json"
AREAS = (("databases", "Databases", ()), ("search", "Search", ("search",)))


def databases_app(databases: Databases, *, token: Tokens = None, prefix: str = "") -> ASGIApp:
    """The application of databases, behind the same gate as that of an engine.

    Raises `DefinitionError` for a bad token or prefix.
    """
    name = (
        databases.targets[0] if len(databases.targets) == 1 else f"{len(databases.targets)} places"
    )
    site = Site(name, areas=AREAS)
    app = Starlette(
        routes=[
            Route("/", listed, name="databases"),
            Route("/databases.json", listed_json),
            Route("/search", searched, name="search"),
            Route("/search.json", searched_json),
            Route("/db/{name:name}", to_database),
            Mount("/db/{name:name}", _DatabaseApps(databases)),
            *login.ROUTES,
            Mount("/static", StaticFiles(packages=[("perdure.http", "static")]), name="static"),
        ],
        middleware=[Middleware(KeepsEncodedSlashes)],
        exception_handlers=problems.HANDLERS,
    )
    app.state.site, app.state.databases = site, databases
    return sites.guarded(app, site, token=token, prefix=prefix)


# --- the list -------------------------------------------------------------------------------------


def _query(request: Request) -> Query:
    asked = request.query_params
    return Query(
        text=asked.get("q", "").strip(),
        only=tuple(one for one in asked.getlist("only") if one in listing.CHOICES),
        sort=asked.get("sort", "name") if asked.get("sort") in listing.SORTS else "name",
        after=int(after) if (after := asked.get("after", "")[:9]).isdecimal() else 0,
    )


async def _list(request: Request) -> tuple[listing.Page, Query]:
    databases: Databases = request.app.state.databases
    query = _query(request)
    now_ms = time.time_ns() // 1_000_000
    return listing.page(await databases.entries(), query, now_ms), query


async def listed(request: Request) -> Response:
    """The list. One database alone is shown at once."""
    databases: Databases = request.app.state.databases
    found, query = await _list(request)
    if found.total == 1 and not request.query_params:
        (only,) = found.rows
        return RedirectResponse(url(request, "db", only.name, ""), 303)
    return page(
        request,
        "databases.html",
        area="databases",
        json=url(request, "databases.json") + _given(query),
        found=found,
        query=query,
        address=lambda **changes: url(request) + _given(msgspec.structs.replace(query, **changes)),
        choices=listing.CHOICES,
        sorts=listing.SORTS,
        statuses=STATUSES,
        problems=databases.problems,
        ago_s=round(databases.listed_ago_s),
        requests=databases.requests,
        opened={one.name for one in databases.opened},
    )


def _given(query: Query) -> str:
    """A query as the end of an address."""
    pairs: list[tuple[str, Any]] = [("q", query.text)] if query.text else []
    pairs += [("only", one) for one in query.only]
    pairs += [("sort", query.sort)] if query.sort != "name" else []
    pairs += [("after", query.after)] if query.after else []
    return f"?{urlencode(pairs)}" if pairs else ""


async def listed_json(request: Request) -> Response:
    """The list, for programs."""
    found, _ = await _list(request)
    return Response(msgspec.json.encode(found), media_type=JSON)


# --- search ---------------------------------------------------------------------------------------


async def searched(request: Request) -> Response:
    """What a search over all open databases has found."""
    databases: Databases = request.app.state.databases
    text = request.query_params.get("q", "").strip()
    found = await databases.search(text) if text else []
    return page(
        request,
        "databases_search.html",
        area="search",
        json=f"{url(request, 'search.json')}?{urlencode({'q': text})}",
        text=text,
        found=found,
        opened=databases.opened,
    )


async def searched_json(request: Request) -> Response:
    """What a search has found, for programs."""
    databases: Databases = request.app.state.databases
    text = request.query_params.get("q", "").strip()
    return Response(msgspec.json.encode(await databases.search(text)), media_type=JSON)


# --- single databases -----------------------------------------------------------------------------


async def to_database(request: Request) -> Response:
    """To the pages of a database, which begin behind a slash."""
    return RedirectResponse(url(request, "db", request.path_params["name"], ""), 303)


class _DatabaseApps:
    """Hands a request over to the application of the database that its path names."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._apps: dict[str, tuple[Opened, Starlette]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        name: str = scope["path_params"]["name"]
        opened = await self._databases.open(name)
        root = root_of(request)
        app = self._app_of(opened, root)
        path = get_route_path(scope)
        below = {
            **{key: value for key, value in scope.items() if key not in ("endpoint", "router")},
            "path": path,
            "raw_path": quote(path, safe="/%").encode(),
            "root_path": "",
            "path_params": {},
            ROOT: f"{root}/db/{quote(name, safe='')}",
        }
        with opened.in_use():
            await app(below, receive, send)

    def _app_of(self, opened: Opened, root: str) -> Starlette:
        known = self._apps.get(opened.name)
        if known is None or known[0] is not opened:
            still_open = set(map(id, self._databases.opened))
            self._apps = {n: one for n, one in self._apps.items() if id(one[0]) in still_open}
            site = Site(opened.name, opened.reader, up=f"{root}/")
            known = self._apps[opened.name] = opened, sites.pages(site)
        site = known[1].state.site
        site.about, site.follows = opened.about, opened.pages is not None
        return known[1]
