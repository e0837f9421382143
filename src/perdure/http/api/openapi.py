"""The OpenAPI 3.1 document of the API, made from the table of its operations.

Rules: what is described is what is checked: the types of queries, bodies and answers; every status
that an operation gives is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from perdure.codec.schemas import schema_of
from perdure.http.api.operation import INTEGERS, ROOT, Operation
from perdure.http.problems import PROBLEM_JSON, Problem

REF = "#/components/schemas/{name}"
EVERY = (400, 401, 422, 503)
"""Statuses that any operation may give."""
DESCRIPTION = """Everything that the command line can do with a store of Perdure, as resources.

Ids and names in paths are percent-encoded as a whole, slashes included. Errors are problem
documents (RFC 9457). Pages of a list are asked for with `after`. Reads have an `ETag` and honour
`If-None-Match`. Integers are exact; with `integers=text` those that not every JSON reader keeps
(beyond 2^53) are strings. Where a token is needed it is a bearer token."""

_KEYS = {
    "start_run": "Makes the id of the run where none is given: the same key and call is one run.",
    "fork_run": "Makes the id of the fork where none is given: the same key is one fork.",
    "send_message": "The key of the message where none is given: it arrives once.",
    "ask_run": "The key of the request where none is given: the same request has one reply.",
}
"""Operations that take an Idempotency-Key, and what becomes of it. Verbs such as cancel need none:
doing them again changes nothing. What remains (trigger) starts a run each time.
"""


def document(operations: Sequence[Operation], root: str = "", version: str = "") -> dict[str, Any]:
    """The document for an application whose addresses begin with `root`."""
    types: list[Any] = [Problem]
    types += [operation.answer for operation in operations]
    types += [operation.body for operation in operations if operation.body is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    places = iter(schemas)
    next(places)
    answers = [next(places) for _ in operations]
    bodies = {one.id: next(places) for one in operations if one.body is not None}
    paths: dict[str, Any] = {}
    for operation, answer in zip(operations, answers, strict=True):
        described = _operation(operation, answer, bodies.get(operation.id))
        paths.setdefault(ROOT + operation.template, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "Perdure", "version": version, "description": DESCRIPTION},
        "servers": [{"url": root or "/"}],
        "security": [{}, {"bearer": []}, {"cookie": []}],
        "tags": [{"name": name} for name in dict.fromkeys(one.group for one in operations)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "perdure"},
            },
        },
    }


def _operation(
    operation: Operation, answer: dict[str, Any], body: dict[str, Any] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.group],
        "parameters": _parameters(operation),
        "responses": _responses(operation, answer),
        "x-role": "view" if operation.safe else "operate",
    }
    if operation.description:
        found["description"] = operation.description
    if body is not None:
        assert operation.body is not None
        needed = any(field.required for field in msgspec.structs.fields(operation.body))
        found["requestBody"] = {
            "required": needed,
            "content": {"application/json": {"schema": body}},
        }
    if operation.takes is not None:
        found["requestBody"] = {"required": True, "content": {operation.takes: {"schema": {}}}}
    return found


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    text = {"type": "string", "minLength": 1}
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": text} for name in operation.parts
    ]
    for field in msgspec.structs.fields(operation.query):
        schema = _given(schema_of(field.type) or {})
        one: dict[str, Any] = {"name": field.encode_name, "in": "query", "schema": schema}
        if field.required:
            one["required"] = True
        elif field.default is not msgspec.NODEFAULT and field.default is not None:
            one["schema"] = schema | {"default": field.default}
        found.append(one)
    if operation.media == "application/json":
        schema = {"type": "string", "enum": ["text"]}
        about = "With text, integers beyond 2^53 are strings."
        found.append({"name": INTEGERS, "in": "query", "schema": schema, "description": about})
    if operation.id in _KEYS:
        about = _KEYS[operation.id]
        schema = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[ -~]+$"}
        found.append(
            {"name": "Idempotency-Key", "in": "header", "schema": schema, "description": about}
        )
    return found


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter that is given: none is null."""
    kinds = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    return kinds[0] if len(kinds) == 1 else schema


def _responses(operation: Operation, answer: dict[str, Any]) -> dict[str, Any]:
    content = {operation.media: {"schema": answer}}
    done = [operation.status, *(code for code in operation.errors if code < 300)]
    found: dict[str, Any] = {
        str(code): {"description": HTTPStatus(code).phrase, "content": content} for code in done
    }
    if operation.safe and operation.media == "application/json":
        found["304"] = {"description": "It is what If-None-Match names."}
    failures = {*EVERY, *(code for code in operation.errors if code >= 300)}
    if operation.body is not None:
        failures |= {413, 415}
    problem = {PROBLEM_JSON: {"schema": {"$ref": REF.format(name="Problem")}}}
    for code in sorted(failures):
        found[str(code)] = {"description": HTTPStatus(code).phrase, "content": problem}
    found["default"] = {"description": "Any other problem.", "content": problem}
    return found
