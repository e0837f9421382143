"""The turns of one run: rows and commands gathered since its last commit, made into writes.

Rules: a turn of outcomes and new steps only is an `Append`, which is the usual case and the cheap
one; everything else is a `Turn`, which has effects, the end of the run or its new state.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.core import events as ev
from perdure.core.events import Command, Event
from perdure.core.lifecycle import BLOCKED, PENDING, RUNNING, WAITING
from perdure.core.replay import Kernel
from perdure.process.interpreter import PYTHON
from perdure.runtime import recovery
from perdure.runtime.attempts import Attempts
from perdure.runtime.block_reason import UNKNOWN_OUTCOME, too_long
from perdure.runtime.naming import new_seed
from perdure.runtime.outbox import Outbox, tags_of
from perdure.runtime.plans import Block, Todo
from perdure.runtime.queues import Asked
from perdure.runtime.run_host import RunHost
from perdure.store.rows import RunRow
from perdure.store.writes import Append, Finish, HoldQueue, StartAnd, StartRun, Suspend, Turn

_WAITING_STEPS_MAX = 20
_encode = msgspec.json.Encoder().encode


class Standing(msgspec.Struct, frozen=True):
    """What a run is doing, beside its kernel and its attempts, when a turn is made.

    `at_work` is what its row says; `held` says that the writer has a transactional step of it;
    `unsettled` that the store is asked what became of a child.
    """

    at_work: bool
    paused: bool
    blocked: Block | None
    held: bool
    unsettled: bool


class Turns:
    """See the module's text. `more` says that the next turn is no mere `Append`."""

    __slots__ = (
        "_attempts", "_holds", "_host", "_kernel", "_outbox", "_python", "_taken", "more",
        "noted_seq", "rows", "settled", "todo", "unread",
    )  # fmt: skip

    def __init__(
        self, host: RunHost, row: RunRow, kernel: Kernel, outbox: Outbox, attempts: Attempts
    ) -> None:
        self._host, self._kernel, self._outbox, self._attempts = host, kernel, outbox, attempts
        self.rows: list[Event | Command] = []
        self.todo: Todo = []
        self._taken: list[tuple[int, int]] = []
        self._holds: list[HoldQueue] = []
        self.more = True
        self.settled = False  # the count of crashes begins anew
        self.noted_seq = 0  # the row of the note of a release, while nothing has happened since
        self.unread = -1 if row.history_rows else 0  # of a loaded run it is written anew
        self._python = row.python

    def add(self, event: Event, taken: int | None) -> None:
        """Add an input or a note, which came from the row `taken` of the inbox."""
        self.rows.append(event)
        if taken is not None:
            self._taken.append((taken, event.seq))
            self.more = True

    def drop(self, taken: int) -> None:
        """Take the row `taken` out of the inbox, without a row of history."""
        self._taken.append((taken, 0))
        self.more = True

    def append(self) -> tuple[Append, Todo]:
        """Take what was gathered as an `Append`."""
        write, todo = Append(self._outbox.run, self._host.owner, self.rows), self.todo
        self.rows, self.todo = [], []
        return write, todo

    def taken_over(self) -> Todo:
        """Forget the rows, which were written with the run itself; returns what begins now."""
        todo, self.rows, self.todo, self.more = self.todo, [], [], False
        return todo

    def turn(self) -> tuple[Turn, list[Command], Todo]:
        """Take what was gathered as a `Turn`, with the commands whose effects it has."""
        host, kernel = self._host, self._kernel
        at_ms = host.steps.clock.now_ms()
        turn = Turn(self._outbox.run, host.owner, self.rows, at_ms, self._taken)
        turn.settled, todo = self.settled, self.todo
        self.rows, self._taken, self.todo, self.settled, self.more = [], [], [], False, False
        asked = self._add_effects(turn, todo)
        if kernel.mail.unread != self.unread and not kernel.diverged:
            turn.unread = self.unread = kernel.mail.unread
        if self._python != PYTHON and not kernel.diverged and not kernel.facts.old:
            turn.python = self._python = PYTHON
        return turn, asked, todo

    def _add_effects(self, turn: Turn, todo: Todo) -> list[Command]:
        asked = []
        commands = [item for item in todo if isinstance(item, Command) and item.kind != ev.STEP]
        for command in commands:
            effect = self._outbox.effect(command, self._host.owner, turn.at_ms)
            if type(effect) is StartRun:
                effect = self._host.new_run(effect, turn.at_ms)
            elif type(effect) is StartAnd:
                effect.start.seed = new_seed()
            if effect is not None:
                turn.effects.append(effect)
                asked.append(command)
        if self._holds:
            turn.effects += self._holds
            self._holds = []
        turn.tags = tags_of(commands)
        return asked

    def hold(self, queue: str, until_ms: int) -> None:
        """Have a queue admit nothing until a time, with the next turn."""
        now_ms = self._host.steps.clock.now_ms()
        if until_ms > now_ms:
            self._holds.append(HoldQueue(queue, until_ms, now_ms))
            self.more = True

    def add_places(self, write: Append | Turn) -> list[Asked]:
        """Add what is to be said of places in queues; returns what is asked for."""
        places = self._attempts.places
        if places is None:
            return []
        if places.released:
            write.released = places.take_released()
            write.at_ms = write.at_ms or self._host.steps.clock.now_ms()
        if places.kept:
            write.kept = places.take_kept()
        if not places.asked:
            return []
        asked = places.take()
        write.places = [ask for _, ask in asked]
        for ask in write.places:
            ask.run = write.run  # which had no key yet when its first turn asked
        return asked

    def first_places(self) -> list[Asked]:
        """The places that the first turn of a run asks for, which is written with the run."""
        places = self._attempts.places
        return [] if places is None else places.take()

    # --- the state of the run ---------------------------------------------------------------------

    def conclude(self, turn: Turn, now: Standing) -> None:
        """Add to a turn what becomes of the run: its end, or its new state if that has changed.

        A run that is at work, as its row says, gets no new state.
        """
        kernel, attempts = self._kernel, self._attempts
        quiet = not attempts.under_way and not now.held
        outcome = None if attempts.asking else kernel.outcome
        if outcome is not None and not kernel.diverged and not too_long(now.blocked):
            turn.finish = self._finish(outcome, turn.at_ms)
            attempts.give_up_places()
        elif now.blocked is not None and quiet:
            turn.suspend = blocked(now.blocked)
            attempts.give_up_places()
            if now.blocked.by != UNKNOWN_OUTCOME:  # the step in question may have begun
                self.note_unbegun(turn)
        elif now.paused and quiet:
            turn.suspend = Suspend(None, release=True)  # the row says paused, or resumed by now
            attempts.give_up_places()
            self.note_unbegun(turn)
        elif now.held or now.unsettled or now.blocked is not None or self._busy:
            if not now.at_work:
                turn.suspend = Suspend(RUNNING)
        else:
            turn.suspend = Suspend(WAITING, self._waiting_for(), self.due_ms())

    @property
    def _busy(self) -> bool:
        """Whether something is answered by this process."""
        return self._kernel.local > len(self._attempts.resting)

    def _finish(self, outcome: ev.Outcome, at_ms: int) -> Finish:
        finish = self._outbox.finish(outcome, at_ms)
        if finish.successor is not None:
            finish.successor = self._host.new_run(finish.successor, at_ms)
            finish.leftovers = self._kernel.mail.leftovers()
            finish.requests = self._kernel.mail.open_requests()
        return finish

    def release(self, *, waits: bool) -> Turn:
        """The turn with which a run leaves memory as it is."""
        at_ms = self._host.steps.clock.now_ms()
        status, due_ms = (WAITING, self.due_ms()) if waits else (PENDING, at_ms)
        suspend = Suspend(status, self._waiting_for(), due_ms, release=True)
        if (places := self._attempts.places) is not None:
            suspend.places = places.any
        turn = Turn(self._outbox.run, self._host.owner, [], at_ms, suspend=suspend)
        self.note_unbegun(turn)
        return turn

    def note_unbegun(self, turn: Turn) -> None:
        """Note which steps have not begun, so that after a restart nothing is asked about them."""
        kernel = self._kernel
        if kernel.diverged:
            return
        begun, noted = self._attempts.begun(), kernel.seq == self.noted_seq
        for note in recovery.release_notes(kernel.open.values(), begun, noted=noted):
            row = kernel.stamp(ev.ATTEMPT, turn.at_ms, ref=note.ref, data=note.data)
            turn.rows.append(row)

    def due_ms(self) -> int | None:
        """When the next durable timer or the next attempt of a step is due."""
        due, again_ms = self._kernel.due(), self._attempts.due_ms()
        if due is None or again_ms is None:
            return again_ms if due is None else due[0]
        return min(due[0], again_ms)

    def _waiting_for(self) -> bytes:
        """What the run waits for, human-readable; of a resting step, which attempt and when."""
        resting = self._attempts.resting
        found: list[Any] = self._attempts.waiting_for(_WAITING_STEPS_MAX)
        items = self._kernel.waiting_for()
        found += [item for item in items if "step" not in item or item["seq"] not in resting]
        return _encode(found)


def blocked(reason: Block) -> Suspend:
    """The state of a run that is blocked and leaves memory."""
    return Suspend(BLOCKED, blocked_by=reason.by, reason=reason.reason, release=True)
