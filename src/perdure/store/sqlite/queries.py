"""The queries of the SQLite store: the shared ones in its dialect, and its own."""

from __future__ import annotations

from perdure.store import sql

PACKAGE = "perdure.store.sqlite"
WORDS = {"lock": ""}
"""A write transaction of SQLite locks the whole file, so no row needs a lock."""

Q = {
    **sql.in_dialect(sql.load("shared.sql", "perdure.store"), WORDS),
    **sql.load("sqlite.sql", PACKAGE),
}
