"""The OpenAPI document as a resource, and as a page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from perdure.http.api import words
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
        made = document(operations)
        groups: dict[str, list[dict[str, Any]]] = {}
        for path, methods in made["paths"].items():
            for method, one in methods.items():
                row = {"method": method.upper(), "path": path.removeprefix(ROOT), **_row(one)}
                groups.setdefault(one["tags"][0], []).append(row)
        shown: dict[str, Any] = {
            "groups": groups,
            "shapes": [_shape(*one) for one in sorted(made["components"]["schemas"].items())],
            "base": f"{request.url.scheme}://{request.url.netloc}{root_of(request)}",
            "json": url(request, "api", "v1", "openapi.json"),
            "read_only": not site_of(request).may_operate(request),
        }
        return page(request, "api.html", area="api", **shown)

    return reference


def _row(operation: dict[str, Any]) -> dict[str, Any]:
    """An operation in words."""
    responses = operation["responses"]
    failures = [code for code in responses if code.startswith(("4", "5"))]
    body = operation.get("requestBody", {}).get("content", {})
    return {
        "summary": operation["summary"],
        "about": words.of_text(operation.get("description", "")),
        "parameters": [_parameter(one) for one in operation["parameters"]],
        "body": _content(body) if body else None,
        "answer": _content(next(iter(responses.values()))["content"]),
        "failures": ", ".join(failures),
    }


def _parameter(one: dict[str, Any]) -> tuple[str, str, words.Parts]:
    schema = one["schema"]
    text = words.of_schema(schema)
    if "default" in schema:
        text = [*text, ("", f", {schema['default']} by default")]
    if one.get("required") and one["in"] != "path":
        text = [*text, ("", ", needed")]
    if "description" in one:
        text = [*text, ("", f". {one['description']}")]
    return one["name"], one["in"], text


def _content(content: dict[str, Any]) -> words.Parts:
    [(media, described), *_] = content.items()
    if media != "application/json":
        return [("code", media)]
    return words.of_schema(described["schema"])


def _shape(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if "properties" not in schema:  # a tuple
        return {"name": name, "about": words.of_schema(schema), "fields": []}
    needed = schema.get("required", [])
    fields = [
        (field, words.of_schema(one), field in needed)
        for field, one in schema["properties"].items()
    ]  # fmt: skip
    about = words.of_text(schema.get("description", ""))
    return {"name": name, "about": about, "fields": fields}
