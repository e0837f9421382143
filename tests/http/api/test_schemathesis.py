"""The API against its own document: generated requests, right and wrong ones, of every operation.

Rules: a bounded number of requests, the same each time; some ids are of things that exist; answers
are judged by a validator of the draft that the document uses.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, settings

from perdure.http.api.openapi import document
from perdure.http.api.routes import OPERATIONS
from tests.http.api.conftest import agent
from tests.http.support import Served

KNOWN = {"id": "known", "name": "nightly", "seq": "1"}
ENDLESS = ["events"]
DOCUMENT = document(OPERATIONS, "", "1")
OPERATION_IDS = sorted(
    operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()
)


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


@pytest.mark.parametrize("operation", [one for one in OPERATION_IDS if one not in ENDLESS])
def test_every_operation_answers_as_the_document_says(operation: str, address: str) -> None:
    """What is sent is made here: made while pytest collects, as Schemathesis' own parametrization
    does, it would cost each worker as much as all the operations.
    """
    import schemathesis
    from schemathesis.core.result import Ok
    from schemathesis.pytest.lazy import get_all_tests

    [made] = get_all_tests(
        schema=schemathesis.openapi.from_dict(DOCUMENT).include(operation_id=operation),
        test_func=an_answer_is_as_the_document_says,
        settings=None,
        given_kwargs={},
    )
    assert isinstance(made, Ok), made
    _, send_all = made.ok()
    send_all(address=address)


@settings(
    max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)  # fmt: skip
def an_answer_is_as_the_document_says(case: Any, address: str) -> None:
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
