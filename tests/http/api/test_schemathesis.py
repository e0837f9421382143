"""The API against its own document: generated requests, right and wrong ones, of every operation.

Rules: a bounded number of requests, the same each time; some ids are of things that exist; answers
are judged by a validator of the draft that the document uses.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from perdure.http.api.openapi import document
from perdure.http.api.routes import OPERATIONS
from tests.http.api.conftest import agent
from tests.http.support import Served

KNOWN = {"id": "known", "name": "nightly", "seq": "1"}
ENDLESS = ["events"]
DOCUMENT = document(OPERATIONS, "", "1")
schema = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.fixture(scope="module")
def address(served: Served) -> str:
    served.do(lambda engine: engine.start(agent("known"), id="known"))
    return served.url


def sensible(case: Any) -> None:
    """Things that exist in every other request, and nothing to wait for."""
    if len(case.query or {}) % 2 == 0:
        for name in case.path_parameters or {}:
            case.path_parameters[name] = KNOWN[name]
    if isinstance(case.body, dict) and case.path.endswith("/requests"):
        case.body["timeout"] = 0
    if case.query and "wait" in case.query:
        case.query["wait"] = 0


@cache
def validator(path: str, method: str, status: str, media: str) -> Any:
    """The validator of an answer. Raises `KeyError` for one that the document does not name."""
    answer = DOCUMENT["paths"][path][method]["responses"][status]
    root = {"components": DOCUMENT["components"], **answer["content"][media]["schema"]}
    return jsonschema.Draft202012Validator(root)


@schema.exclude(operation_id=ENDLESS).parametrize()
@settings(
    max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)  # fmt: skip
def test_every_operation_answers_as_the_document_says(case: Any, address: str) -> None:
    sensible(case)
    answer = case.call(base_url=address)
    media = answer.headers["content-type"][0].partition(";")[0]
    assert answer.status_code not in (500, 503), answer.text
    if answer.status_code in (404, 405):  # an address that a generated name makes another one
        assert media == "application/problem+json"
        return
    check = validator(case.path, case.method.lower(), str(answer.status_code), media)
    errors = [error.message[:300] for error in check.iter_errors(answer.json())]
    assert errors == []
