"""One run in memory: carries out plans, and turns what happened into writes.

Rules: a command with effects begins only after the commit of the turn that asked for it; a failed
attempt is written before the next one begins, and until that is due the step holds nothing; a run
whose lease is lost is dropped without a trace; plans wait while the writer has a transactional
step: its row is next.
"""

from __future__ import annotations

from contextvars import Context
from functools import partial

from perdure.core import events as ev
from perdure.core.events import Command, Event
from perdure.core.lifecycle import PAUSED, RUNNING, WAITING
from perdure.errors import PerdureError
from perdure.runtime import commits, log, plans, recovery
from perdure.runtime.block_reason import too_long
from perdure.runtime.plans import PendingAttempt, Plan
from perdure.runtime.queues import Asked
from perdure.runtime.run_inputs import NONE_YET, RunInputs
from perdure.runtime.steps import Again, Ended
from perdure.runtime.transactional import Transactions
from perdure.runtime.turns import Standing
from perdure.store.rows import InboxRow, LoadedRun
from perdure.store.writes import Finish, Turn

_TIMER_S_MAX = 86_400.0


class ActiveRun(RunInputs):
    """See the module's text. Made by the scheduler from a row."""

    __slots__ = ()

    # --- begin ------------------------------------------------------------------------------------

    def first_rows(self) -> list[Event | Command] | None:
        """Execute a run that is not written yet up to its first wait.

        Returns the rows to write with it, if it asks for steps only.
        """
        self._touched = True  # nothing else may be collected before the run has its key
        self.input(ev.START)
        todo = self._turns.todo
        if not self._steady() or any(getattr(item, "kind", None) != ev.STEP for item in todo):
            return None
        if (places := self.attempts.places) is not None and places.refused:
            return None
        return self._turns.rows

    def written(self, run: int, first: list[Event | Command] | None) -> None:
        """The run is in the file under this key, and so are its `first` rows, if it had any."""
        self.run = self.outbox.run = self.outbox.origin = run
        self._touched = False
        if first is None:
            self.touch()
        else:
            self.attempts.begin_all(self._turns.taken_over())

    def first_places(self) -> list[Asked]:
        """The places that its first turn asks for, to be written with the run."""
        return self._turns.first_places()

    def load(self, loaded: LoadedRun) -> None:
        """Continue behind the history, or begin if there is none; then feed the inbox."""
        history = loaded.history
        if not history:
            self.input(ev.START)
            self._inbox.take(self, loaded.inbox)
            return
        self.attempts.take_heartbeats(loaded.heartbeats)
        if loaded.places:
            self.attempts.take_places(loaded.places)
        asked = self.kernel.replay(history)  # commands that no row records yet
        self._register(asked)
        if self._names is not None:
            self._names.add_all(history)
        for timer, until_ms in recovery.moved_timers(history, asked, self.clock.now_ms()):
            timer.data, timer.edited = b'{"until_ms":%d}' % until_ms, True
            self.kernel.move_timer(timer.seq, until_ms)
        self._queue(asked)
        self._turns.noted_seq = released_seq = recovery.released_at(history)
        decisions: list[InboxRow] = []
        self._inbox.take(self, loaded.inbox, decisions)
        kernel = self.kernel
        for plan in recovery.decide(history, decisions, kernel.open, kernel.codec):
            self.do(plan)
        found = recovery.recover(
            self.run_id, history, self._turns.rows, self.kernel.open.values(),
            self.clock.now_ms(), released=released_seq > 0, adopts=self._names is not None,
            in_line=loaded.places,
        )  # fmt: skip
        if found.died:
            log.run_taken_over(self, found.died)
        for plan in found.plans:
            self.do(plan)
        if self.takes_inbox:  # it is known by now which steps wait
            for row in decisions:
                if recovery.wait_of(row) is not None:
                    self.feed_inbox(row)
        if (places := self.attempts.places) is not None:
            places.forget([seq for seq in places.found if seq not in self.kernel.open])
        self.touch()

    # --- plans ------------------------------------------------------------------------------------

    def do(self, plan: Plan) -> None:  # noqa: C901  # one match over all kinds of plans
        """Carry out a plan; while the writer has a transactional step of this run, plans wait."""
        if (waiting := self._transactions.waiting) is not None:
            waiting.append(plan)
            return
        if self.gone:
            return
        turns, open_commands = self._turns, self.kernel.open
        match plan:
            case plans.Feed(kind, ref, name, data, took_ms, taken, progress):
                crashes = self.crashes
                self.crashes = crashes if progress else 0
                self.input(kind, ref, name, data, took_ms, taken)
                self.crashes = self.crashes if progress else crashes
                self.adopting.discard(ref or 0)
            case plans.Note(ref, data, taken):
                self._note(ref, data, taken=taken)
            case plans.Drop(taken):
                turns.drop(taken)
                self.touch()
            case plans.EndWait(row):
                self._end_wait(row)
            case plans.RetryAttempt(command, again):
                self._retry_attempt(command, again)
            case plans.Begin(attempt) if attempt.command.seq in open_commands:
                self.attempts.begin(
                    attempt.command, attempt.attempt, attempt.failures, attempt.again_ms
                )
            case plans.BeginAfterCommit(attempt):
                self._begin_after_commit(attempt)
            case plans.BackOff(attempt) if attempt.command.seq in open_commands:
                self.attempts.back_off(attempt)
                self.touch()
            case plans.Admit(attempt):  # the row is to say first that the run is at work
                for step in recovery.due_attempts([attempt], noted=self._noted):
                    self.do(step)
                self.touch()
            case plans.Transact(attempt) if attempt.command.seq in open_commands:
                if self._transactions is NONE_YET:
                    self._transactions = Transactions()
                self._transactions.begin(self, attempt)
            case plans.Block():
                self.block(plan)
            case plans.Reissue(command):
                if command.kind == ev.CHILD:
                    self.adopting.add(command.seq)
                turns.todo.append(command)
                turns.more = True
            case plans.ChildSettled(seq):
                self.adopting.discard(seq)
                self.touch()
            case plans.RetryChild():
                commits.children_of(self).retry(plan)
            case plans.AwaitChild():
                commits.children_of(self).wait_for(plan)
            case plans.Release():
                self.release()

    # --- attempts ---------------------------------------------------------------------------------

    def attempt_ended(self, command: Command, ended: Ended | Again | None) -> None:
        """An attempt has ended; None: it was cancelled."""
        try:
            if ended is None or command.seq not in self.kernel.open:
                self.touch()
            elif isinstance(ended, Again):
                self.do(plans.RetryAttempt(command, ended))
            else:
                if ended.kind == ev.FAILED and not self.gone:
                    log.step_failed(self, command, ended.attempt, ended.data)
                self.input(ended.kind, command.seq, None, ended.data, ended.took_ms)
        except Exception as error:  # other steps' outcomes are reported behind this one
            self.failed(error)

    def _retry_attempt(self, command: Command, again: Again) -> None:
        """Record a failed attempt; the next one begins after that commit, or when it is due."""
        if self.kernel.diverged:
            self.touch()
            return
        log.attempt_failed(self, command, again, self.clock.now_ms())
        self.note_progress()
        self._note(command.seq, again.note, took_ms=again.took_ms)
        attempt = PendingAttempt(command, again.attempt, again.failures, again.again_ms)
        later = again.again_ms > self.clock.now_ms()
        if later and not self.attempts.closed and not self.paused:
            self.do(plans.BackOff(attempt))
        else:
            self._begin_after_commit(attempt)
        if again.held and command.call.options.queue is not None:
            self._turns.hold(command.call.options.queue, again.again_ms)

    def _end_wait(self, row: InboxRow) -> None:
        """Do with a waiting step what was decided about it; other decisions are void."""
        if self.kernel.outcome is not None or self.kernel.diverged:
            self.touch()
            return  # no row comes behind the end
        attempt = self.attempts.take_wait(row.ref or 0, recovery.wait_of(row) or 0)
        for plan in recovery.end_wait(row, attempt, self.kernel.codec):
            self.do(plan)

    def _begin_after_commit(self, attempt: PendingAttempt) -> None:
        """Begin an attempt after the next commit, which asks for a place if one is needed."""
        attempts = self.attempts
        if attempts.paused or attempts.closed or not attempts.needs_place(attempt.command):
            self._turns.todo.append(attempt)
        else:
            attempts.ask(attempt)
            self.touch()

    @property
    def _noted(self) -> bool:
        """Whether the last row notes that no step has begun."""
        return self.kernel.seq == self._turns.noted_seq

    # --- turns ------------------------------------------------------------------------------------

    def touch(self) -> None:
        """Have the writer ask for the next turn."""
        if not self._touched and not self.gone:
            self._touched = True
            self.host.writer.touch(self)

    def collect(self) -> None:
        """Make one turn of all that has happened since the last one, and queue it."""
        self._touched = False
        if self.gone:
            return
        turns = self._turns
        if turns.rows and not turns.more and self._steady():
            append, todo = turns.append()
            if self.attempts.places is None:
                self.host.writer.put(append, partial(commits.appended, self, todo), keep=True)
            else:
                places = turns.add_places(append)
                done = partial(commits.appended, self, todo, places=places)
                self.host.writer.put(append, done, keep=True)
            return
        turn, asked, todo = turns.turn()
        if not self._steady():
            self._conclude(turn)
        places = turns.add_places(turn)
        suspend = turn.suspend
        end: Finish | bool = turn.finish or (suspend is not None and suspend.release)
        if (
            turn.rows or suspend or turn.finish or turn.effects or turn.taken
            or turn.unread is not None or places or turn.released
        ):  # fmt: skip
            done = partial(commits.committed, self, asked, todo, end, places=places)
            self.host.writer.put(turn, done, keep=True)
        else:
            self.attempts.begin_all(todo)
        if end:
            if turn.finish is not None:
                self.host.run_ends()
            self._leave()

    def _steady(self) -> bool:
        """The usual case: at work before and after, without timers or steps that rest."""
        kernel = self.kernel
        return (
            kernel.local > 0
            and self.status == RUNNING
            and kernel.outcome is None
            and self._blocked is None
            and not self.paused
            and self._timer is None
            and not kernel.timers
            and kernel.mail.unread == self._turns.unread
            and not self.attempts.resting
        )

    def _conclude(self, turn: Turn) -> None:
        """Add what becomes of the run to a turn, and act on it."""
        held = self._transactions.waiting is not None or self.attempts.asking
        at_work = self.status == RUNNING
        now = Standing(at_work, self.paused, self._blocked, held, bool(self.adopting))
        self._turns.conclude(turn, now)
        leaves = turn.finish is not None or (turn.suspend is not None and turn.suspend.release)
        if leaves:
            return
        if self._timer is not None or self.kernel.timers or self.attempts.resting:
            self.set_timer()
        if turn.suspend is None or turn.suspend.status == RUNNING:
            if not at_work:
                self.host.unparked(self)
            self.status = RUNNING
        else:
            self.status = WAITING
            self.host.parked(self)

    def refused(self, error: PerdureError) -> None:
        """The store refuses what the run has written: it leaves memory."""
        commits.refused(self, error)

    def failed(self, error: BaseException) -> None:
        """An error of Perdure's while the writer asked for the turn: the run is blocked."""
        commits.failed(self, error)

    # --- time, pause, release ---------------------------------------------------------------------

    def set_timer(self) -> None:
        """Have the event loop call when a durable timer or an attempt is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_ms = self._turns.due_ms()
        if due_ms is not None and not self.paused and not self.kernel.diverged:
            wait_s = min(max(0, due_ms - self.clock.now_ms()) / 1000, _TIMER_S_MAX)
            call_later = self.host.steps.loop.call_later
            self._timer = call_later(wait_s, self._timer_due, context=Context())

    def _timer_due(self) -> None:
        held = self._transactions.waiting is not None
        if self.gone or self.paused or held or self.kernel.diverged or too_long(self._blocked):
            return  # the next turn sets it anew
        again = self.attempts.take_due(now_ms := self.clock.now_ms())
        for plan in recovery.due_attempts(again, noted=self._noted):
            self.do(plan)
        if (due := self.kernel.due()) is not None and due[0] <= now_ms:
            self.input(ev.FIRED, due[1])
        elif again:
            self.touch()
        else:
            self.set_timer()

    def begin_no_more(self) -> None:
        """Begin no attempt any more: the engine closes."""
        self.attempts.closed = True

    def pause(self) -> None:
        """Begin nothing more; the run leaves memory when its attempts have ended."""
        self.paused = self.attempts.paused = True
        self.touch()

    def resume(self) -> None:
        """Go on after `pause`."""
        self.paused = self.attempts.paused = False
        self.read_inbox()
        self.status = PAUSED  # to be written to the row, whatever it says now
        self.touch()

    def evict(self) -> None:
        """Leave memory, unless something is to be done by now: it parks again after that."""
        due_ms = self._turns.due_ms()
        busy = self._touched or (due_ms is not None and due_ms <= self.clock.now_ms())
        if self.status == WAITING and not busy:
            self.release()

    def release(self) -> None:
        """Leave memory: the run returns by replay when it is due."""
        if (waiting := self._transactions.waiting) is not None:
            waiting.append(plans.Release())  # the number of a row is taken already
            return
        if self._touched:
            self.collect()
        if self.gone:
            return
        turn = self._turns.release(waits=self.status == WAITING)
        self.host.writer.put(turn, partial(commits.left, self), keep=True)
        self._leave()

    def drop(self) -> None:
        """Leave at once, without a write: the lease is lost, or the engine closes."""
        if not self.gone:
            self._leave()

    def _leave(self) -> None:
        """Leave memory without a trace in user code."""
        self.gone = True
        self.attempts.leave()
        if self._timer is not None:
            self._timer.cancel()
        self.kernel.discard()
