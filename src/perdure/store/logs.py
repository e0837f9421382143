"""Lines that steps log: what adding them does in a transaction.

Rules: the lines of a run are the items of one of its streams, to which nothing else can be emitted;
a line that does not fit is left out, and never refused.
"""

from __future__ import annotations

from collections.abc import Callable

from perdure.core.names import LOGS
from perdure.errors import LeaseLost
from perdure.store.history import HistoryWriter
from perdure.store.log_writes import AddLogLines, LogLinesAdded
from perdure.store.transaction import Transaction


class LogLines:
    """What writes of lines do in the transaction `db`. `lost` says who owns a run."""

    def __init__(
        self,
        db: Transaction,
        history: HistoryWriter,
        lost: Callable[[int, int], LeaseLost | None],
    ) -> None:
        self._db, self._history, self._lost = db, history, lost

    def add(self, add: AddLogLines) -> LogLinesAdded | LeaseLost:
        """See `AddLogLines`."""
        run, before, text = add.run, add.before, self._history.text
        if (lost := self._lost(run, add.owner)) is not None:
            return lost
        if before is None:
            ((before,),) = self._db.rows("count_log_lines", (run,))
        taken = add.lines[: max(0, add.lines_max - before)]
        rows = [
            (run, LOGS, seq, attempt, text(run, data), at_ms)
            for seq, attempt, data, at_ms in (*taken, *add.notices)
        ]
        self._db.many("insert_stream", rows)
        return LogLinesAdded(before + len(rows), len(taken))
