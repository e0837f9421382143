"""Page of SQL: queries that only read, kept in the address; their rows as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perdure.errors import DefinitionError, StoreError
from perdure.http.site import site_of, url
from perdure.http.templating import page
from perdure.reader import StoreReader
from perdure.reader.store_queries import SQL_ROWS_MAX
from perdure.reader.values import Table
from perdure.store.sql import load

ROWS_SHOWN = 1_000
SHEET_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take for a formula."""


async def sql(request: Request) -> Response:
    """The query of the address with its rows."""
    given = request.query_params  # the name that the API has for it is taken, too
    text = (given.get("text") or given.get("q") or "").strip()
    reader = site_of(request).reader
    table, refused = None, None
    if text:
        try:
            table = await reader.sql(text, ROWS_SHOWN)
        except (DefinitionError, StoreError) as error:
            refused = str(error)
    return page(
        request, "sql.html", 422 if refused else 200, area="sql", text=text, table=table,
        refused=refused, examples=_examples(), views=await _views(reader),
        json=url(request, "api", "v1", "sql", q=text) if text else None,
        csv=url(request, "sql.csv", text=text) if text else None,
    )  # fmt: skip


async def sql_csv(request: Request) -> Response:
    """The rows of a query as CSV, up to 10,000. Raises `DefinitionError`."""
    table = await site_of(request).reader.sql(request.query_params.get("text", ""), SQL_ROWS_MAX)
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(map(_cell, table.columns))
    rows.writerows(map(_cell, row) for row in table.rows)
    return Response(
        out.getvalue(),
        media_type="text/csv; charset=utf-8",
        headers={"content-disposition": 'attachment; filename="rows.csv"'},
    )


def _cell(value: Any) -> Any:
    """A value as text that a spreadsheet does not execute."""
    if isinstance(value, str) and value.startswith(SHEET_STARTS):
        return "'" + value
    return value.hex() if isinstance(value, bytes) else value


def _examples() -> list[tuple[str, str]]:
    queries = load("examples.sql", "perdure.http")
    return [(name.replace("_", " "), text) for name, text in queries.items() if name != "views"]


async def _views(reader: StoreReader) -> list[tuple[str, str]]:
    """The documented views with their columns; nothing where a file has none."""
    try:
        found: Table = await reader.sql(load("examples.sql", "perdure.http")["views"], 100)
    except (DefinitionError, StoreError):
        return []
    return [(str(name), str(columns)) for name, columns in found.rows]


ROUTES = [
    Route("/sql", sql, name="sql"),
    Route("/sql.csv", sql_csv, name="sql_csv"),
]
