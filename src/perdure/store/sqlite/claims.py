"""Claims: which of the runs that are due a worker gets, so that every worker gets its share.

Rules: higher priority first, then what has been due for longer; a claim reads some hundred rows,
however many runs are due; where several workers live, one takes no more than its share of all that
is at work or due, so the others find the rest.
"""

from __future__ import annotations

from typing import Any

import apsw
import msgspec

from perdure.store import sql
from perdure.store.writes import Claim

Q = sql.load("sqlite.sql")
_encode = msgspec.json.Encoder().encode

SORTED_ROWS_MAX = 1_000
"""Up to so many due runs are sorted; of more, the order is read off an index."""


def due_runs(db: apsw.Connection, claim: Claim) -> list[int]:
    """The runs that a claim gets, in the order in which they should begin."""
    if claim.families is not None:
        asked = [
            (family.run, family.root, name, claim.now_ms, claim.limit)
            for family in claim.families
            for name in claim.workflows
        ]
        return _in_order(
            [row for one in asked for row in db.execute(Q["due_in_family"], one)], claim.limit
        )
    names = _encode(claim.workflows).decode()
    due: Any = db.execute(
        Q["due_count"], (names, claim.now_ms, max(SORTED_ROWS_MAX, claim.limit) + 1)
    ).get
    limit = min(claim.limit, _share(db, claim, due))
    if not limit:
        return []
    if due <= SORTED_ROWS_MAX:
        found: list[Any] = db.execute(Q["due_runs"], (names, claim.now_ms, limit)).fetchall()
    else:
        found = [
            row
            for name in claim.workflows
            for row in db.execute(Q["due_by_priority"], (name, claim.now_ms, limit))
        ]
    return _in_order(found, limit)


def _in_order(rows: list[Any], limit: int) -> list[int]:
    """The first runs of rows of priority, due time and key."""
    return [run for _, _, run in sorted(rows, key=lambda row: (-row[0], row[1]))[:limit]]


def _share(db: apsw.Connection, claim: Claim, due: int) -> int:
    """How many of `due` runs are this worker's to take, beside what it and the others execute; at
    least one part of them if it insists.
    """
    counts: Any = db.execute(Q["loads"], (claim.owner,)).fetchone()
    workers, running, own = map(int, counts)
    if workers <= 1:
        return due
    part = -(-due // workers)
    return max(-(-(running + due) // workers) - own, part if claim.insists else 0)
