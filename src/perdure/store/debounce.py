"""Starts that are put off: the last arguments win as long as the run has not begun.

Rules: whether it has begun is decided in the transaction; what the run had of the arguments before
goes with them.
"""

from __future__ import annotations

from perdure.core.limits import INLINE_BYTES_MAX
from perdure.store.history import HistoryWriter
from perdure.store.transaction import Transaction
from perdure.store.writes import StartRun


def put_off(db: Transaction, history: HistoryWriter, start: StartRun) -> int | None:
    """Put the run with the id of this start off, and give it its arguments. Returns its key, or
    None where there is none that may be put off.
    """
    if start.debounce_ms is None:
        return None
    until_ms = start.at_ms + start.debounce_ms
    found = db.row("put_off", (until_ms, start.id, start.workflow))
    if found is None:
        return None
    (run,) = found
    db.do("drop_chunks", (run,))
    history.forget_run(run)
    inline = len(start.args) <= INLINE_BYTES_MAX
    args = start.args.decode() if inline else history.payload(run, start.args, True)
    db.do("set_args", (args, run))
    return int(run)
