"""Site: what the handlers of one application share.

Rules: a site without an engine is read-only; addresses are made by `url`, so that they work under
any prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from starlette.requests import HTTPConnection

if TYPE_CHECKING:
    from perdure.runtime.engine import Engine
    from perdure.runtime.store_reader import StoreReader


@dataclass
class Site:
    """What handlers share. `name` is what pages call the store; `engine` is None where the store is
    only looked at.
    """

    name: str
    reader: StoreReader
    engine: Engine | None = None

    @property
    def read_only(self) -> bool:
        return self.engine is None


def site_of(connection: HTTPConnection) -> Site:
    """The site of a request."""
    site: Site = connection.app.state.site
    return site


def url(connection: HTTPConnection, *parts: str, **query: Any) -> str:
    """An address of this application: `url(request, "runs", run_id, step=17)`. Parts are quoted,
    slashes included; a query value of None is left out.
    """
    root = connection.scope.get("app_root_path", connection.scope.get("root_path", ""))
    path = root + "/" + "/".join(quote(part, safe="") for part in parts)
    given = {key: value for key, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path
