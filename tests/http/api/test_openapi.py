"""The OpenAPI document and the routes are one thing."""

from __future__ import annotations

import re
from typing import Any

import jsonschema  # type: ignore[import-untyped]
from starlette.routing import Route

from perdure.http.api.openapi import EVERY, document
from perdure.http.api.operation import ROOT
from perdure.http.api.routes import OPERATIONS, ROUTES

DOCUMENT = document(OPERATIONS, "/prefix", "1")


def refs(value: Any) -> set[str]:
    """All `$ref` in a value."""
    match value:
        case {"$ref": str(ref)}:
            return {ref}
        case dict():
            return set().union(*map(refs, value.values()))
        case list():
            return set().union(*map(refs, value))
        case _:
            return set()


def test_every_route_is_in_the_document_and_nothing_else() -> None:
    routes = {
        (method.lower(), re.sub(r"{(\w+):\w+}", r"{\1}", route.path))
        for route in ROUTES
        if isinstance(route, Route) and route.path.startswith(ROOT)
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(method, path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert routes - described == {("get", f"{ROOT}/openapi.json")}
    assert described <= routes
    assert len({one.id for one in OPERATIONS}) == len(OPERATIONS)


def test_what_is_referred_to_is_there_and_every_schema_is_one() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert refs(DOCUMENT) == {f"#/components/schemas/{name}" for name in schemas}
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_operation_says_what_it_does_and_how_it_fails() -> None:
    for operation in OPERATIONS:
        one = DOCUMENT["paths"][ROOT + operation.template][operation.method.lower()]
        assert re.fullmatch(r"[A-Z][^\n]+\.", one["summary"]), operation.id
        assert {str(code) for code in EVERY} <= one["responses"].keys()
        assert one["x-role"] == ("view" if operation.method == "GET" else "operate")
        assert {part["name"] for part in one["parameters"] if part["in"] == "path"} == set(
            operation.parts
        )
    assert DOCUMENT["servers"] == [{"url": "/prefix"}]
