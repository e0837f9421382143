"""Transitions: what each write means, once for all databases.

Rules: a refused write is an error value; ownership is checked before anything is changed; a turn
and what follows from it are one transaction. A database gives named queries (`Transaction`) and
nothing else; which write does what is decided here and in `starting`, `inboxes`, `ownership`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.codec.secrets import Hides
from perdure.core.events import FINISH, Event
from perdure.core.lifecycle import BLOCKED, PAUSED
from perdure.core.limits import Limits
from perdure.errors import LeaseLost, PayloadTooLarge, PerdureError
from perdure.store.answer_writes import AnswerByLink, DeclareWorkflows, MakeLink
from perdure.store.answers import Answers
from perdure.store.history import HistoryWriter
from perdure.store.import_writes import ImportRuns
from perdure.store.importing import Importing
from perdure.store.inboxes import Inboxes
from perdure.store.log_writes import AddLogLines
from perdure.store.logs import LogLines
from perdure.store.ownership import Ownership
from perdure.store.queue_settings import QueueSettings
from perdure.store.queues import Places
from perdure.store.request_writes import Ask, Expose, Reply
from perdure.store.requests import Requests
from perdure.store.retention import Retention
from perdure.store.rows import Place, Woken, Written
from perdure.store.schedules import Schedules
from perdure.store.starting import Starting
from perdure.store.tags import Tags
from perdure.store.transaction import Transaction
from perdure.store.writes import (
    AdoptChild,
    Append,
    AskPlace,
    BeginEpoch,
    Claim,
    ClockMovedBack,
    ControlRun,
    Deliver,
    Emit,
    EndWorker,
    Finish,
    ForkRun,
    HoldQueue,
    JoinWorker,
    RecordHeartbeat,
    ReleasePlaces,
    RenewLease,
    SetQueue,
    Spend,
    StartAnd,
    StartRun,
    Suspend,
    Transact,
    Turn,
    WakeBlocked,
)


class Transitions:
    """Applies writes in the transaction `db`.

    A driver calls `apply[type(write)](write)` for each write of a batch, `flush` before it commits,
    `forget` when another connection has committed, and `undo` after a rollback.
    """

    def __init__(self, db: Transaction, limits: Limits, hides: Hides | None = None) -> None:
        self._db, self._history = db, HistoryWriter(db, hides)
        self._places = places = Places(db)
        self._queues = QueueSettings(db, places.states, places.lines, places.admission)
        self._inboxes = Inboxes(db, limits, places, self._history)
        self._ownership = Ownership(db, self._inboxes, places, self._queues)
        self._owners = self._ownership.owners
        self._tags = Tags(db, limits)
        retention = Retention(db, self._history, lambda run: self._owners.pop(run, None))
        self._starting = Starting(
            db, self._history, self._ownership, self._inboxes, self._tags, places
        )
        self._requests = Requests(db, limits, self._ownership, self._inboxes, self._starting)
        answers = Answers(db, self._inboxes)
        schedules = Schedules(
            db,
            self._starting.start,
            self._inboxes,
            self._ownership.is_alive,
            places.refusal,
            self._history.is_plain,
        )
        self.apply: dict[type, Callable[[Any], Any]] = {
            Append: self._append,
            Turn: self._turn,
            StartRun: self._starting.start,
            ForkRun: self._starting.fork,
            AdoptChild: self._starting.adopt_child,
            Deliver: self._inboxes.deliver,
            ControlRun: self._inboxes.control,
            Claim: self._ownership.claim,
            JoinWorker: self._ownership.join,
            RenewLease: self._ownership.renew,
            EndWorker: self._ownership.end,
            WakeBlocked: self._ownership.wake_blocked,
            ClockMovedBack: self._ownership.clock_moved_back,
            BeginEpoch: self._begin_epoch,
            Emit: self._emit,
            AddLogLines: LogLines(db, self._history, self._ownership.lost).add,
            RecordHeartbeat: self._record_heartbeat,
            Transact: self._transact,
            **schedules.apply,
            **retention.apply,
            ImportRuns: Importing(db, self._tags).import_,
            Ask: self._requests.ask,
            StartAnd: self._requests.start_and,
            MakeLink: answers.make_link,
            AnswerByLink: answers.answer_by_link,
            DeclareWorkflows: answers.declare,
            Expose: self._requests.expose,
            Reply: self._requests.reply,
            AskPlace: self._ask_place,
            ReleasePlaces: self._release_places,
            SetQueue: self._queues.set,
            HoldQueue: self._queues.hold,
            Spend: self._queues.spend,
        }

    def flush(self) -> None:
        """Write what was gathered: rows of history, states of queues."""
        self._history.flush()
        if self._places.states.changes:
            self._places.states.flush()

    def forget(self) -> None:
        """Another connection has committed."""
        self._history.others_committed()
        self._ownership.forget()
        self._places.states.forget()

    def undo(self) -> None:
        """The transaction was rolled back."""
        self._history.forget()
        self._ownership.forget()
        self._places.states.forget()

    # --- turns ------------------------------------------------------------------------------------

    def _append(self, append: Append) -> Written | LeaseLost | None:
        if self._owners.get(append.run) != append.owner:
            lost = self._ownership.lost(append.run, append.owner)
            if lost is not None:
                return lost
        self._history.append(append.run, append.rows)
        if not append.places and not append.released and not append.kept:
            return None
        self._places.begin()
        written = Written()
        self._ask_and_release(append, written)
        return self._with_admitted(append, written)

    def _turn(self, turn: Turn) -> Written | PerdureError:
        lost = self._ownership.lost(turn.run, turn.owner)
        if lost is not None:
            return lost
        tags = None if turn.tags is None else self._tags.merged(turn.run, turn.tags)
        if isinstance(tags, PayloadTooLarge):
            return tags
        if turn.finish is not None:
            for row in turn.rows:
                if row.kind == FINISH:
                    row.data = None  # the run's own row has it
        self._history.append(turn.run, turn.rows)
        self._update_run(turn, tags)
        written = Written([], [])
        self._places.begin()
        for effect in turn.effects:
            result = self.apply[type(effect)](effect)
            written.effects.append(result)
            if isinstance(result, Woken):
                written.woken += [result.run, *result.others]
        if turn.places or turn.released or turn.kept:
            self._ask_and_release(turn, written)
        if turn.finish is not None:
            written.woken += self._finish(turn, turn.finish)
        elif turn.suspend is not None:
            written.woken += self._suspend(turn, turn.suspend)
        return self._with_admitted(turn, written)

    def _ask_and_release(self, write: Append | Turn, written: Written) -> None:
        places = self._places
        if write.kept:
            places.set_apart(write.kept, write.owner)
        if len(write.released) == len(write.places) == 1:  # the usual case: a step after a step
            handed_on = places.hand_on(write.released[0], write.places[0])
            if handed_on is not None:
                written.places = [handed_on]
                return
        if write.released:
            places.release(write.released, write.owner, write.at_ms)
        written.places = [places.ask(ask) for ask in write.places]

    def _with_admitted(self, write: Append | Turn, written: Written) -> Written:
        """Add to a result what queues have admitted."""
        places = self._places
        if places.steps:
            written.admitted = places.admitted_of(write.owner)
        written.queue_due = places.due()
        return written

    def _update_run(self, turn: Turn, tags: dict[str, Any] | None) -> None:
        """What a turn changes of its run besides the history."""
        if turn.taken:
            self._db.many("take", [(seq, inbox_id) for inbox_id, seq in turn.taken])
        if tags is not None:
            self._tags.put(turn.run, tags)
        if turn.unread is not None:
            self._db.do("set_unread", (turn.unread, turn.run))
        if turn.python is not None:
            self._db.do("set_python", (turn.python, turn.run))
        if turn.settled:
            self._db.do("settle", (turn.run,))

    def _suspend(self, turn: Turn, suspend: Suspend) -> list[int]:
        """Store the state of a run. Returns the runs to wake."""
        run, at_ms = turn.run, turn.at_ms
        if suspend.status is not None:
            waiting = None if suspend.waiting is None else suspend.waiting.decode()
            block = (suspend.blocked_by, suspend.reason)
            self._db.do("suspend", (suspend.status, waiting, suspend.due_ms, *block, run))
        if suspend.release:
            self._owners.pop(run, None)
            ((queue, status),) = self._db.rows("queue_and_status", (run,))
            self._db.do("release", (run,))
            self._db.do("release_with_mail", (at_ms, run))
            if queue is not None:
                self._places.let_go(run, queue, status, turn.owner, at_ms)
            if suspend.places and status != PAUSED:
                self._places.leave_in_line(run, at_ms)
        return self._inboxes.cancel_blocked(run, at_ms) if suspend.status == BLOCKED else []

    def _finish(self, turn: Turn, finish: Finish) -> list[int]:
        """End a run, and start the one that continues it. Returns the runs to wake."""
        run, start = turn.run, finish.successor
        self._owners.pop(run, None)
        successor = None if start is None else self._starting.succeed(run, start, finish)
        result = self._history.payload(run, finish.result)
        error = self._history.payload(run, finish.error)
        fields = (finish.status, result, error, turn.at_ms, successor, run)
        ((parent, seq, run_id, queue, scheduled_ms),) = self._db.rows("before_end", (run,))
        self._db.do("finish", fields)
        self._db.do("close_inbox", (run,))
        if queue is not None:
            self._places.end_run(run, turn.owner, turn.at_ms)
        if successor is not None:
            return [successor]
        if scheduled_ms is not None:
            self._inboxes.tick_ended(run_id, turn.at_ms)
        if parent is None:
            return []
        self._inboxes.answer_parent(parent, seq, run_id, finish, turn.at_ms)
        return [parent]

    # --- places in queues -------------------------------------------------------------------------

    def _ask_place(self, ask: AskPlace) -> Place | PerdureError:
        lost = self._ownership.lost(ask.run, ask.owner)
        return self._places.ask(ask) if lost is None else lost

    def _release_places(self, release: ReleasePlaces) -> Written:
        places = self._places
        places.begin()
        places.release(release.places, release.worker, release.at_ms)
        admitted = places.admitted_of(release.worker)
        return Written([], [], [], admitted, places.due())

    # --- steps ------------------------------------------------------------------------------------

    def _emit(self, emit: Emit) -> LeaseLost | None:
        lost = self._ownership.lost(emit.run, emit.owner)
        if lost is not None:
            return lost
        text, run, attempt = self._history.text, emit.run, emit.attempt or None
        rows = [
            (run, name, emit.seq, attempt, text(run, data) if attempt else None, emit.at_ms)
            for name, data in emit.items
        ]
        self._db.many("insert_stream", rows)
        return None

    def _record_heartbeat(self, beat: RecordHeartbeat) -> LeaseLost | None:
        lost = self._ownership.lost(beat.run, beat.owner)
        if lost is not None:
            return lost
        data = self._history.text(beat.run, beat.data)
        fields = (beat.run, beat.seq, beat.attempt, data, beat.at_ms)
        self._db.do("insert_heartbeat", fields)
        return None

    def _transact(self, transact: Transact) -> Event | PerdureError | None:
        """The step's writes and its row, together or not at all."""
        lost = self._ownership.lost(transact.run, transact.owner)
        if lost is not None:
            return lost
        self._history.flush()  # the step may read what was recorded
        value, error = self._db.execute_step(transact.work)
        row = transact.conclude(value, error)
        if row is not None:
            self._history.append(transact.run, [row])
        return row

    # --- replica ----------------------------------------------------------------------------------

    def _begin_epoch(self, begin: BeginEpoch) -> None:
        self._db.do("begin_epoch", (begin.store_id, begin.address, begin.epoch))
