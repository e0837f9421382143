"""Inputs of one run in memory: feeds its kernel, queues what its code asks for, and blocks it where
its code can't go on.

Rules: inputs are stamped in the order in which they are fed; a readonly step begins at once, other
commands wait for the commit of their turn; what costs a run its code costs no other run anything.
"""

from __future__ import annotations

import asyncio

from perdure.core import events as ev
from perdure.core.events import Command, Event
from perdure.core.lifecycle import PAUSED, RUNNING
from perdure.core.replay import Kernel
from perdure.errors import RunBlocked
from perdure.runtime import block_reason, log, plans
from perdure.runtime.attempts import Attempts
from perdure.runtime.block_reason import too_long
from perdure.runtime.inbox import Inbox
from perdure.runtime.naming import Names
from perdure.runtime.outbox import Outbox, may_exist, start_in_queue
from perdure.runtime.plans import Block, PendingAttempt, Plan
from perdure.runtime.run_host import RunHost
from perdure.runtime.steps import Again, Ended
from perdure.runtime.transactional import Transactions
from perdure.runtime.turns import Turns
from perdure.store.rows import InboxRow, RunRow

_PROGRESS = frozenset({ev.COMPLETED, ev.FAILED, ev.FIRED})  # a message comes from outside
_WITH_EFFECT = ev.REPLIES | {
    ev.CHILD, ev.SPAWN, ev.SEND, ev.EMIT, ev.TAG, ev.EXPOSE, ev.ABANDON,
}  # fmt: skip
_STARTING = frozenset({ev.CHILD, ev.SPAWN, ev.SEND, ev.FINISH})
NONE_YET = Transactions()  # no transactional step


class RunInputs:
    """The part of a run that reacts; `run.ActiveRun` is the whole."""

    __slots__ = (
        "_blocked", "_inbox", "_names", "_python", "_timer", "_touched", "_transactions", "_turns",
        "adopting", "attempts", "child", "clock", "crashes", "gone", "host", "kernel", "outbox",
        "paused", "run", "run_id", "status",
    )  # fmt: skip

    def __init__(self, host: RunHost, row: RunRow, kernel: Kernel) -> None:
        self.host, self.kernel, self.clock = host, kernel, host.steps.clock
        self.run, self.run_id, self.child = row.run, row.id, row.parent is not None
        self.crashes, self._python = row.crashes, row.python
        self.status, self.gone = RUNNING, False
        self.paused = row.status == PAUSED
        origin = row.origin or row.run
        names = None if row.forked_from is None and row.origin is None else Names(origin)
        self._names = names
        self.outbox = Outbox(
            row.run, row.id, origin, row.root, row.durability, names, row.key, row.priority
        )
        self.attempts = Attempts(host, self, kernel, self.outbox, paused=self.paused)
        self._turns = Turns(host, row, kernel, self.outbox, self.attempts)
        self._inbox = Inbox(host)
        self._touched = False  # the writer will ask for the next turn
        self.adopting: set[int] = set()  # children whose run may exist; the store is asked
        self._blocked: Block | None = None
        self._transactions = NONE_YET
        self._timer: asyncio.TimerHandle | None = None

    @property
    def workflow(self) -> str:
        return self.kernel.facts.workflow

    @property
    def at_its_end(self) -> bool:
        return self.kernel.outcome is not None

    @property
    def blocked(self) -> bool:
        """Whether it stops here until a person or other code has changed something."""
        return self._blocked is not None

    # --- what the whole run does ------------------------------------------------------------------

    def do(self, plan: Plan) -> None:
        """Carry out a plan."""
        raise NotImplementedError

    def attempt_ended(self, command: Command, ended: Ended | Again | None) -> None:
        """An attempt has ended; None: it was cancelled."""
        raise NotImplementedError

    def touch(self) -> None:
        """Have the writer ask for the next turn."""
        raise NotImplementedError

    def drop(self) -> None:
        """Leave memory at once, without a write."""
        raise NotImplementedError

    # --- inputs -----------------------------------------------------------------------------------

    def input(
        self, kind: str, ref: int | None = None, name: str | None = None, data: bytes | None = None,
        took_ms: int | None = None, taken: int | None = None,
    ) -> None:  # fmt: skip
        """Record an input and let the workflow react. Call it from a plain callback."""
        if (waiting := self._transactions.waiting) is not None:
            waiting.append(plans.Feed(kind, ref, name, data, took_ms, taken))
            return
        kernel = self.kernel
        if self.gone or kernel.outcome is not None or kernel.diverged:
            self.touch()
            return  # no row comes behind the end, nor behind the place where code and rows part
        event = kernel.stamp(
            kind, self.clock.now_ms(), ref=ref, name=name, data=data, took_ms=took_ms
        )
        if taken is None:
            self._turns.rows.append(event)
        else:
            self._turns.add(event, taken)
        if self.attempts.resting:
            self.attempts.forget_backoff(ref or 0)
        self.absorb(event)

    def absorb(self, event: Event) -> None:
        """Feed an event whose row is in the file, or among those to be written."""
        kernel = self.kernel
        try:
            commands = kernel.feed(event)
            if len(commands) != 1 or commands[0].kind != ev.STEP:  # the usual case saves the call
                self._register(commands)
        except (Exception, asyncio.CancelledError) as error:  # it costs this run only
            self.block_by(error)
            return
        except BaseException:  # Ctrl-C in workflow code: replay makes this turn again
            self.drop()
            raise
        if kernel.seq > self.host.history_rows_max and kernel.outcome is None:
            self.block_by_length(kernel.seq)
        if self.crashes and event.kind in _PROGRESS:
            self.note_progress()
        if kernel.outcome is not None and too_long(self._blocked):  # it ends when it is retried
            commands = [command for command in commands if command.kind != ev.FINISH]
        self._queue(commands)

    def _register(self, commands: list[Command]) -> None:
        """Make the workflows known that these commands start. Raises `DefinitionError`."""
        for command in commands:
            if command.kind in _STARTING and command.call is not None:
                self.host.register(command.call.definition)
                start_in_queue(command.call)  # what its functions raise is raised here

    def _queue(self, commands: list[Command]) -> None:
        """Queue commands for their rows, and begin at once what may run ahead of them."""
        turns, names = self._turns, self._names
        turns.rows += commands
        for command in commands:
            if names is not None:
                names.add(command)
            if command.kind == ev.STEP:
                options = command.call.options
                if options.queue is not None:
                    self.attempts.ask(PendingAttempt(command, 1, 0))
                elif options.readonly and self.run:
                    self.attempts.begin(command, 1, 0)
                else:
                    turns.todo.append(command)
            elif command.kind in _WITH_EFFECT:
                if command.kind == ev.ABANDON:
                    self.attempts.cancel(command.ref or 0)
                elif command.kind == ev.CHILD and (names is not None or may_exist(command)):
                    self.adopting.add(command.seq)
                turns.todo.append(command)
                turns.more = True
        if not self._touched:
            self.touch()

    def read_inbox(self) -> None:
        """Read what has arrived since the last look, and feed it."""
        self._inbox.read(self)

    @property
    def takes_inbox(self) -> bool:
        return not (self.gone or self.paused or self._blocked)

    def feed_inbox(self, row: InboxRow) -> None:
        """Feed a row of the inbox."""
        match row.kind:
            case ev.MESSAGE | ev.REQUEST:
                self.input(row.kind, name=row.name, data=row.data, taken=row.id)
            case "cancel":
                self.input(ev.CANCEL, taken=row.id)
            case "completed" | "failed":
                self.input(row.kind, row.ref, data=row.data, taken=row.id)
            case "resolve":  # what became of a step is asked, and decided, before it is at work
                self.do(plans.EndWait(row))

    def _note(
        self, ref: int | None, data: bytes, took_ms: int | None = None, taken: int | None = None
    ) -> None:
        """Record something that the workflow does not see."""
        kernel = self.kernel
        event = kernel.stamp(ev.ATTEMPT, self.clock.now_ms(), ref=ref, data=data, took_ms=took_ms)
        self._turns.add(event, taken)
        if kernel.seq > self.host.history_rows_max:
            self.block_by_length(kernel.seq)
        self.touch()

    def note_progress(self) -> None:
        """Something that this run has done was recorded: its count of crashes begins anew."""
        if self.crashes:
            self.crashes, self._turns.settled, self._turns.more = 0, True, True

    # --- blocked ----------------------------------------------------------------------------------

    def block(self, reason: Block, error: BaseException | None = None) -> None:
        """Stop until a person decides; attempts under way may still end and are recorded."""
        if self._blocked is None:
            log.run_blocked(self, reason.reason, error)
            self._blocked, self.attempts.closed = reason, True
        self.touch()

    def block_by(self, error: BaseException) -> None:
        """Stop because the code and the history have diverged, or the code can't be executed.

        What the code asked for and no row records is lost; the numbers that it got mean nothing.
        """
        self.kernel.diverged = True
        reason = block_reason.of_code(error, self._python)
        self.block(reason, None if isinstance(error, RunBlocked) else error)

    def block_by_length(self, rows: int) -> None:
        """Stop because the history has this many rows, more than it may have."""
        self.block(block_reason.of_length(rows, self.host.history_rows_max, self.run_id))
