"""Names in a file that are Perdure's: tables, views and indexes, those still to come included.

Rules: what a migration adds to a file that users may have tables of their own in is called
`perdure_` and something; tables in the singular, views in the plural where both would be the same.
"""

from __future__ import annotations

import re
from functools import cache

from perdure.store import sql
from perdure.store.sqlite import connection
from perdure.store.sqlite.queries import PACKAGE


@cache
def _tables() -> frozenset[str]:
    versions = range(1, connection.SCHEMA_VERSION + 1)
    texts = [sql.text_of(f"migrations/{version:04}.sql", PACKAGE) for version in versions]
    return frozenset(
        name
        for text in texts
        for name in re.findall(r"^CREATE (?:TABLE) (\w+)", text, re.MULTILINE)
    )


def is_reserved(name: str | None) -> bool:
    """Whether a table, a view or an index of this name is Perdure's, or reserved for it."""
    lower = (name or "").lower()
    return lower in _tables() or lower.startswith("perdure_")
