"""Ids in paths: a slash inside an id stays apart from the slashes between the parts.

Rules: an id is one part of a path, percent-encoded as a whole; servers decode paths before an
application sees them, so the encoded form is taken from `raw_path`.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from starlette.convertors import Convertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send


class NameConvertor(Convertor[str]):
    """`{id:name}` in a route: one part of a path, decoded."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return unquote(value)

    def to_string(self, value: str) -> str:
        return quote(value, safe="")


register_url_convertor("name", NameConvertor())


class KeepsEncodedSlashes:
    """Middleware: in `path`, an encoded slash and an encoded percent sign stay encoded."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = scope.get("raw_path")
        if scope["type"] == "http" and raw and b"%" in raw:
            kept = raw.decode("latin-1").replace("%25", "%2525")
            kept = kept.replace("%2F", "%252F").replace("%2f", "%252F")
            scope = {**scope, "path": unquote(kept.partition("?")[0])}
        await self._app(scope, receive, send)
