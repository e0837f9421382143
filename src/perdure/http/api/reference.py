"""The document of the API as a resource, and a page that shows it to people."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from perdure.http.api.openapi import document
from perdure.http.api.operation import ROOT, Operation
from perdure.http.site import root_of, site_of, url
from perdure.http.templating import page

Endpoint = Callable[[Request], Awaitable[Response]]


def document_of(operations: Sequence[Operation]) -> Endpoint:
    """The endpoint of `openapi.json`."""

    async def openapi(request: Request) -> Response:
        made = document(operations, root_of(request), version("perdure"))
        headers = {"cache-control": "private, no-cache"}
        return Response(msgspec.json.encode(made), 200, headers, "application/json")

    return openapi


def page_of(operations: Sequence[Operation]) -> Endpoint:
    """The endpoint of the page."""

    async def reference(request: Request) -> Response:
        made = document(operations, root_of(request), version("perdure"))
        groups: dict[str, list[dict[str, Any]]] = {}
        for path, methods in made["paths"].items():
            for method, one in methods.items():
                groups.setdefault(one["tags"][0], []).append(
                    {"method": method.upper(), "path": path.removeprefix(ROOT), **one}
                    | _shapes(one, made["components"]["schemas"])
                )
        shown: dict[str, Any] = {
            "groups": groups,
            "base": _base(request),
            "root": url(request, "api", "v1"),
            "json": url(request, "api", "v1", "openapi.json"),
            "read_only": not site_of(request).may_operate(request),
        }
        return page(request, "api.html", area="api", **shown)

    return reference


def _base(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}{root_of(request)}"


def _shapes(operation: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The schemas of body and answer, the first level of names looked up."""
    body = operation.get("requestBody", {}).get("content", {})
    done = next(iter(operation["responses"].values()))["content"]
    return {"body": _first(body, schemas), "answer": _first(done, schemas)}


def _first(content: dict[str, Any], schemas: dict[str, Any]) -> Any:
    schema: Any = None
    for described in content.values():
        schema = described["schema"]
    if schema and "$ref" in schema:
        return schemas[schema["$ref"].rpartition("/")[2]]
    return schema
