"""Claims: which of the runs that are due a worker gets.

Rules: higher priority first, then what has been due for longer; a claim reads some hundred rows,
however many runs are due; among several workers one takes no more than its share of all that is
running or due.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.store.transaction import Transaction
from perdure.store.writes import Claim

_encode = msgspec.json.Encoder().encode

SORTED_ROWS_MAX = 1_000
"""Up to this many due runs are sorted; of more, the order comes from an index."""


def due_runs(db: Transaction, claim: Claim) -> list[tuple[int, str | None]]:
    """The runs that a claim gets, in the order in which they should begin, and their queues."""
    if claim.limit <= 0:
        return []
    if claim.families is not None:
        asked = [
            (family.run, family.root, name, claim.now_ms, claim.limit)
            for family in claim.families
            for name in claim.workflows
        ]
        return _in_order(
            [row for one in asked for row in db.rows("due_in_family", one)], claim.limit
        )
    names = _encode(claim.workflows).decode()
    count_max = max(SORTED_ROWS_MAX, claim.limit) + 1
    ((due,),) = db.rows("due_count", (names, claim.now_ms, count_max))
    limit = min(claim.limit, share(db, claim, due))
    if limit <= 0:
        return []
    if due <= SORTED_ROWS_MAX:
        found = db.rows("due_runs", (names, claim.now_ms, limit))
    else:
        each = [(name, claim.now_ms, limit) for name in claim.workflows]
        found = [row for one in each for row in db.rows("due_by_priority", one)]
    return _in_order(found, limit)


def _in_order(rows: list[tuple[Any, ...]], limit: int) -> list[tuple[int, str | None]]:
    """The first runs of rows (priority, due time, run, queue)."""
    ordered = sorted(rows, key=lambda row: (-row[0], row[1]))[:limit]
    return [(run, queue) for _, _, run, queue in ordered]


def share(db: Transaction, claim: Claim, due: int) -> int:
    """How many of `due` runs this worker may take, beside what it and the others execute."""
    workers, running, own = map(int, db.rows("loads", (claim.owner,))[0])
    if workers <= 1:
        return due
    part = -(-due // workers)
    return max(-(-(running + due) // workers) - own, part if claim.insists else 0)
