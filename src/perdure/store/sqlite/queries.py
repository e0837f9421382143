"""The queries of the SQLite store: the shared ones in its dialect, and its own."""

from __future__ import annotations

from perdure.store import sql

PACKAGE = "perdure.store.sqlite"
_OWN = sql.load("sqlite.sql", PACKAGE)
Q = {**sql.in_dialect(sql.load("shared.sql", "perdure.store"), _OWN), **_OWN}
