"""The table of all operations of the API, and its routes."""

from __future__ import annotations

from starlette.routing import Route

from perdure.http.api import live
from perdure.http.api.operation import Operation

OPERATIONS: list[Operation] = [*live.OPERATIONS]

ROUTES: list[Route] = [operation.route() for operation in OPERATIONS]
