"""Site: what the handlers of one application share.

Rules: a site without an engine is read-only; addresses are made by `url`, so that they work under
any prefix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from perdure.http.visitors import OPERATE, visitor_of

if TYPE_CHECKING:
    from perdure.http.counters import Counters
    from perdure.reader import StoreReader
    from perdure.runtime.engine import Engine

ROOT = "perdure.root"
Areas = tuple[tuple[str, str, tuple[str, ...]], ...]
"""Entries of a navigation: area, title, parts of its address."""


class Site:
    """What handlers share. `name` is what pages call the store; `engine` is None where the store is
    only looked at; `reader` is that of the engine where none is given; `notice` is a text that
    every page shows; `about` says what is looked at, and `follows` that this changes; `dev`
    marks this start of a server that is replaced when code changes; `counters` are those of the
    engine.
    """

    def __init__(
        self,
        name: str,
        reader: StoreReader | None = None,
        engine: Engine | None = None,
        notice: str | None = None,
        *,
        about: str | None = None,
        up: str | None = None,
        areas: Areas | None = None,
        dev: str | None = None,
        counters: Counters | None = None,
    ) -> None:
        self.name, self.engine, self.notice = name, engine, notice
        self.about, self.up, self.areas = about, up, areas
        self.dev, self.counters = dev, counters
        self.follows = False
        self._reader = reader

    @property
    def reader(self) -> StoreReader:
        """Raises `EngineClosed` while the engine that it belongs to is not open."""
        if self._reader is not None:
            return self._reader
        assert self.engine is not None, "a site has a reader or an engine"
        reader: StoreReader = self.engine.reader()
        return reader

    @property
    def operated(self) -> Engine:
        """The engine, for a change. Raises `HTTPException`, 403, where there is none."""
        if self.engine is None:
            raise HTTPException(403, "This store is only looked at here: nothing can be changed.")
        return self.engine

    @property
    def read_only(self) -> bool:
        return self.engine is None

    def may_operate(self, connection: HTTPConnection) -> bool:
        """Whether this visitor may change something: pages show no buttons to others."""
        return self.engine is not None and visitor_of(connection).role == OPERATE


def site_of(connection: HTTPConnection) -> Site:
    """The site of a request."""
    site: Site = connection.app.state.site
    return site


def root_of(connection: HTTPConnection) -> str:
    """What the addresses of this application begin with: "" or "/prefix"."""
    root: str = connection.scope.get(ROOT, connection.scope.get("root_path", ""))
    return root


def url(connection: HTTPConnection, *parts: str, **query: Any) -> str:
    """An address of this application: `url(request, "runs", run_id, step=17)`. Parts are quoted,
    slashes included; a query value of None is left out.
    """
    path = root_of(connection) + "/" + "/".join(quote(part, safe="") for part in parts)
    given = {key: value for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path
