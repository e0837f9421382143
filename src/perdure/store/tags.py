"""Tags of runs in a transaction.

Rules: a tag of None removes one; the tags of a run together are limited as one payload is.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.core.limits import Limits
from perdure.errors import PayloadTooLarge
from perdure.store.transaction import Transaction

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode


class Tags:
    """Reads and writes tags in the transaction `db`."""

    def __init__(self, db: Transaction, limits: Limits) -> None:
        self._db, self._limits = db, limits

    def merged(self, run: int, changes: dict[str, Any]) -> dict[str, Any] | PayloadTooLarge:
        """The tags of a run with these changes."""
        ((text,),) = self._db.rows("run_tags", (run,))
        tags = {**(_decode(text) if text else {}), **changes}
        kept = {key: value for key, value in tags.items() if value is not None}
        size_bytes, limit_bytes = len(_encode(kept)), self._limits.payload_bytes_max
        if size_bytes > limit_bytes:
            return PayloadTooLarge("the run's tags together", size_bytes, limit_bytes)
        return kept

    def put(self, run: int, tags: dict[str, Any]) -> None:
        """Make these the tags of a run."""
        self._db.do("set_tags", (_encode(tags).decode(), run))
        self._db.do("drop_tags", (run,))
        each = [(key, _encode(value).decode(), run) for key, value in tags.items()]
        self._db.many("insert_tag", each)
