"""The queries of the SQLite store: the shared ones in its dialect, and its own."""

from __future__ import annotations

from perdure.store import sql

PACKAGE = "perdure.store.sqlite"
_OWN = {**sql.load("sqlite.sql", PACKAGE), **sql.load("pages.sql", PACKAGE)}
Q = {**sql.in_dialect(sql.shared(), _OWN), **_OWN}

RARE = frozenset(
    {
        "block_crash_loop", "count_crashes", "crash_loops", "due_at_once", "due_names",
        "due_with_mail", "end_worker", "forget_workers", "free_runs", "join_worker", "note_archive",
        "prunable", "pruning", "read_checksum", "wake_blocked", "wake_unread", "workers",
    }
)  # fmt: skip
"""Queries that are seldom asked: their statements are not kept."""
