"""Updates: requests of open pages for parts that have changed, and what they cost.

Rules: a script that asks again says so by the header `HX-Request`, as htmx does; the first look at
a page counts for nothing, or the next change would wait for it.
"""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from perdure.errors import EngineClosed
from perdure.http.events.hub import hub_of
from perdure.http.site import site_of


class CountsUpdates:
    """The application, with what updates cost added to the hub's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_update(scope):
            await self._app(scope, receive, send)
            return
        try:
            cost = hub_of(site_of(HTTPConnection(scope))).cost
        except EngineClosed:
            await self._app(scope, receive, send)
        else:
            await cost.of(self._answered(scope, receive, send))

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _is_update(scope: Scope) -> bool:
    return any(name == b"hx-request" for name, _ in scope["headers"])
