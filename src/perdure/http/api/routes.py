"""The table of all operations of the API, and its routes."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route

from perdure.http.api import answers, control, live, queues, reference, runs, store, transfer
from perdure.http.api.operation import ROOT, Operation

OPERATIONS: list[Operation] = [
    *runs.OPERATIONS,
    *control.OPERATIONS,
    *answers.OPERATIONS,
    *queues.OPERATIONS,
    *store.OPERATIONS,
    *transfer.OPERATIONS,
    *live.OPERATIONS,
]

ROUTES: list[BaseRoute] = [
    *(operation.route() for operation in OPERATIONS),
    Route(f"{ROOT}/openapi.json", reference.document_of(OPERATIONS), name="api.openapi"),
    Route("/api", reference.page_of(OPERATIONS), name="api"),
]
