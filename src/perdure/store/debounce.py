"""Starts that are put off: the last arguments win as long as the run has not begun.

Rules: whether it has begun is decided in the transaction; what the run had of the arguments before
goes with them, and messages that wait for it keep their secrets.
"""

from __future__ import annotations

from perdure.errors import RunExists
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
    chunked = [(key, history.whole(run, text)) for key, text in db.rows("chunked_messages", (run,))]
    db.do("drop_chunks", (run,))
    db.do("drop_secrets", (run,))
    history.forget_run(run)
    for key, message in chunked:
        db.do("set_message", (history.text(run, message), key))
    db.do("set_args", (history.payload(run, start.args, True), run))
    return int(run)


def refusal(
    db: Transaction, start: StartRun, run: int, compare: tuple[int, ...]
) -> RunExists | None:
    """The refusal of a start that comes after its burst: the run that was put off has begun. None
    where it was never put off.
    """
    if start.debounce_ms is None or db.row("was_put_off", (run,)) is None:
        return None
    difference = (
        "it has begun with the arguments of an earlier start, so debounce can't put it off any more"
    )
    advice = "Start the next burst under another id, such as one with the number of the version."
    return RunExists(start.id, difference, run, compare, advice)
