"""Inboxes: what delivering a message, a verb or an answer does to the run that receives it.

Rules: a message with a key arrives once; a run that has ended receives nothing, and a cancel of a
cancelled run is no error; a run without code to unwind is cancelled at once, with its children; a
parent receives the outcome of its child.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.core.lifecycle import BLOCKED, CANCELLED, COMPLETED, FINAL, PAUSED
from perdure.core.limits import Limits
from perdure.errors import (
    InboxFull,
    NotAwaited,
    PerdureError,
    RunBlocked,
    RunFinished,
    RunNotFound,
    StepNotWaiting,
)
from perdure.store.awaited import not_awaited
from perdure.store.history import HistoryWriter
from perdure.store.queues import Places
from perdure.store.rows import Woken
from perdure.store.transaction import Transaction
from perdure.store.writes import ControlRun, Deliver, Finish

_encode = msgspec.json.Encoder().encode


class Inboxes:
    """What writes about inboxes do in the transaction `db`."""

    def __init__(
        self, db: Transaction, limits: Limits, places: Places, history: HistoryWriter
    ) -> None:
        self._db, self._limits, self._places = db, limits, places
        self._text = history.text

    # --- messages and verbs -----------------------------------------------------------------------

    def deliver(self, message: Deliver) -> Woken | PerdureError:
        """See `Deliver`."""
        found = self._db.row("receiver", (message.run_id,))
        if found is None:
            return RunNotFound(message.run_id)
        run, status, _, chain = found
        key = message.key
        if key is not None and self._db.row("key_used", (chain, key)) is not None:
            return Woken(run)  # sent before; the sender need not know that the run has ended since
        if status == CANCELLED and message.kind == "cancel":
            return Woken(run)
        late = self._late(run, message)
        if late is not None and (late.at is not None or status not in FINAL):
            return late
        if status in FINAL:
            return RunFinished(message.run_id, status, message.verb)
        if message.kind == "cancel" and (woken := self._cancel_unstarted(run, message.at_ms)):
            return woken
        if message.kind == "message" and self.unread(run) >= self._limits.inbox_rows_max:
            return InboxFull(message.run_id, self._limits.inbox_rows_max)
        data = self._text(run, message.data)
        waits = self._waits_already(run, message, data)
        if isinstance(waits, StepNotWaiting):
            return waits
        if not waits:
            used_in = None if key is None else chain
            row = (run, message.kind, message.name, message.ref, data, message.at_ms, key, used_in)
            self._db.do("insert_inbox", (*row, message.sender))
        self._wake(run, status, message)
        return Woken(run)

    def _waits_already(self, run: int, message: Deliver, data: Any) -> bool | StepNotWaiting:
        """Whether the inbox has a cancel, or the same decision about a step: one waits at most.

        Another decision about the same wait of a step is refused, because the first one ends it.
        """
        if message.kind == "cancel":
            return self._cancel_waits(run)
        if message.kind != "resolve":
            return False
        wait = (message.data or b"").partition(b",")[0].decode()
        for found, sender in self._db.rows("decided", (run, message.ref)):
            if found == data:
                return True
            if wait.startswith('{"wait":') and str(found).startswith(wait + ","):
                by = f" by {sender!r}" if sender else ""
                why = f"a decision about it{by} is there already, and counts"
                return StepNotWaiting(message.run_id, message.ref or 0, why)
        return False

    def _late(self, run: int, message: Deliver) -> NotAwaited | None:
        """Why a message is no answer to the wait that it is for; None where it is one."""
        if message.wait is None:
            return None
        return not_awaited(self._db, run, message.run_id, message.name or "", message.wait)

    def _wake(self, run: int, status: str, message: Deliver) -> None:
        """A message makes a waiting run due; a cancel or a resolve also one that a person keeps."""
        if message.kind == "message":
            self.wake_waiting(run, message.at_ms)
            return
        if status in (PAUSED, BLOCKED):
            self._db.do("resume", (message.at_ms, run))
        self._db.do("wake_idle", (message.at_ms, run))

    def wake_waiting(self, run: int, at_ms: int) -> None:
        """Make a waiting run due that has no owner."""
        self._db.do("wake_waiting", (at_ms, run))

    def control(self, control: ControlRun) -> Woken | PerdureError:
        """See `ControlRun`."""
        found = self._db.row("receiver", (control.run_id,))
        if found is None:
            return RunNotFound(control.run_id)
        run, status, reason, _ = found
        if status in FINAL:
            return RunFinished(control.run_id, status, control.verb)
        if control.verb == "pause":  # a blocked run, too: new code would continue it
            ((owner,),) = self._db.rows("pause", (run,))
            if owner is None and self._places.states.any:
                self._places.stop(run, None, control.at_ms)
        elif control.verb == "resume" and status == BLOCKED:
            return RunBlocked(control.run_id, reason or "")
        elif status in (PAUSED, BLOCKED):
            self._db.do("resume", (control.at_ms, run))
        return Woken(run)

    # --- cancelling -------------------------------------------------------------------------------

    def cancel_blocked(self, run: int, at_ms: int) -> list[int]:
        """Cancel a blocked run in whose inbox a cancel waits. Returns the runs to wake."""
        if not self._cancel_waits(run):
            return []
        woken = self._cancel_unstarted(run, at_ms)
        return [] if woken is None else woken.others

    def _cancel_unstarted(self, run: int, at_ms: int) -> Woken | None:
        """Cancel a run that has not begun, or that is blocked: it has no code to unwind."""
        ended = self._db.row("cancel_unstarted", (at_ms, run))
        if ended is None:
            return None
        self._db.do("close_inbox", (run,))
        woken = Woken(run)
        for (child,) in self._db.rows("open_children", (run,)):
            below = self.deliver(Deliver(str(child), "cancel", at_ms, verb="cancel"))
            if isinstance(below, Woken):
                woken.others += [below.run, *below.others]
        parent, seq, run_id, queue, scheduled_ms = ended
        if queue is not None:
            self._places.end_run(run, None, at_ms)
        if scheduled_ms is not None:
            self.tick_ended(run_id, at_ms)
        if parent is not None:
            self.answer_parent(parent, seq, run_id, Finish(CANCELLED), at_ms)
            woken.others.append(parent)
        return woken

    def tick_ended(self, run_id: str, at_ms: int) -> None:
        """The run of a tick has ended: ticks of its schedule that wait for that are due."""
        for (schedule,) in self._db.rows("end_tick", (run_id,)):
            self._db.do("wake_held", (at_ms, schedule))

    def _cancel_waits(self, run: int) -> bool:
        return self._db.row("cancel_waits", (run,)) is not None

    def unread(self, run: int) -> int:
        """How many messages and requests a run has not received."""
        ((unread,),) = self._db.rows("unread", (run,))
        return int(unread)

    # --- answers and what a predecessor leaves ----------------------------------------------------

    def answer_parent(
        self, parent: int, seq: int | None, run_id: str, finish: Finish, at_ms: int
    ) -> None:
        """Deliver a child's outcome to the row of its parent that waits for it.

        A parent of a later generation (`seq` None) only wakes, and looks at its child again.
        """
        if seq is not None:
            kind, data = _answer(run_id, finish)
            self._db.do("answer_parent", (parent, kind, seq, self._text(parent, data), at_ms))
        self.wake_waiting(parent, at_ms)

    def put(
        self, run: int, kind: str, name: str | None, ref: int | None, data: bytes | None, at_ms: int
    ) -> None:
        """Add a row to an inbox, whatever the state of its run."""
        fields = (run, kind, name, ref, self._text(run, data), at_ms, None, None, None)
        self._db.do("insert_inbox", fields)


def _answer(run_id: str, finish: Finish) -> tuple[str, bytes]:
    """Kind and data of the inbox row that tells a parent how its child ended."""
    if finish.status == COMPLETED:
        return "completed", finish.result or b"null"
    fields: tuple[Any, ...] = (finish.error or b"null", _encode(run_id), _encode(finish.status))
    return "failed", b'{"error":%s,"run":%s,"status":%s}' % fields
