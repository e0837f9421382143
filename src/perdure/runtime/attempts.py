"""The attempts of one run's steps: admitted by a queue or confirmed by the replica first, begun,
cancelled, or postponed.

Rules: an attempt of a run that is blocked, stopping or gone is not begun here, but where the run
continues; one of a paused run waits for its next commit; what came of an attempt is reported to the
run in a plain callback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import Context
from functools import partial
from typing import Any, Protocol

from perdure.core import events as ev
from perdure.core.events import Command
from perdure.core.replay import Kernel
from perdure.errors import QueueNotFound
from perdure.runtime.backoff import Backoff
from perdure.runtime.outbox import Outbox
from perdure.runtime.plans import (
    Admit,
    BackOff,
    Begin,
    BeginAfterCommit,
    Block,
    PendingAttempt,
    Plan,
    Todo,
    Transact,
)
from perdure.runtime.queues import Asked, RunPlaces, key_and_weight
from perdure.runtime.run_host import RunHost
from perdure.runtime.step_attempt import Held
from perdure.runtime.steps import Again, Ended, InThread, Running
from perdure.store.rows import Place
from perdure.store.writes import AskPlace, Emit, RecordHeartbeat, ReleasePlaces, Spend


class RunOfSteps(Protocol):
    """What attempts need of their run."""

    def do(self, plan: Plan) -> None: ...

    def touch(self) -> None: ...

    def attempt_ended(self, command: Command, ended: Ended | Again | None) -> None: ...


_NOTHING: Mapping[int, PendingAttempt] = {}


class Attempts:
    """See the module's text. It is what a step sees of its run, too: see `steps.StepHost`."""

    __slots__ = (
        "_backoff", "_heartbeats", "_host", "_kernel", "_outbox", "_run", "closed",
        "log_lines", "paused", "places", "resting", "under_way",
    )  # fmt: skip

    def __init__(
        self, host: RunHost, run: RunOfSteps, kernel: Kernel, outbox: Outbox, *, paused: bool
    ) -> None:
        self._host, self._kernel, self._outbox = host, kernel, outbox
        self._run: RunOfSteps | None = run
        self.paused, self.closed = paused, False
        self.log_lines: int | None = None  # of the run's steps, as far as they are stored
        self.under_way: dict[int, Running] = {}
        self._heartbeats: dict[int, bytes] | None = None  # the last one of each open step
        self._backoff: Backoff | None = None  # made by the first attempt that waits
        self.resting: Mapping[int, PendingAttempt] = _NOTHING  # those that wait, by row
        self.places: RunPlaces | None = None  # made by the first step that has a queue

    def begin_all(self, todo: Todo) -> None:
        """Begin what waited for its commit."""
        for item in todo:
            if isinstance(item, PendingAttempt):
                if self._run is not None:
                    self._run.do(Begin(item))
            elif item.kind == ev.STEP and item.seq in self._kernel.open:
                self.begin(item, 1, 0)

    def begin(
        self, command: Command, attempt: int, failures: int, again_ms: int = 0, *,
        confirmed: bool = False,
    ) -> None:  # fmt: skip
        """Begin an attempt, or let it wait for its time, its commit or its confirmation."""
        run, options = self._run, command.call.options
        if self.closed or run is None:
            return
        if self.paused:
            run.do(BeginAfterCommit(PendingAttempt(command, attempt, failures, again_ms)))
        elif again_ms and again_ms > self._host.steps.clock.now_ms():
            run.do(BackOff(PendingAttempt(command, attempt, failures, again_ms)))
        elif options.queue is not None and self.needs_place(command):
            run.do(BeginAfterCommit(PendingAttempt(command, attempt, failures)))
        elif options.transactional:
            run.do(Transact(PendingAttempt(command, attempt, failures)))
        elif (
            not confirmed
            and (gate := self._host.gate) is not None
            and gate.holds(options, self._outbox.durability)
        ):
            gate.after(partial(self._confirmed, command, attempt, failures))
        else:
            self.under_way[command.seq] = self._host.steps.start(
                self, command, attempt, failures, self._ended
            )

    def _confirmed(self, command: Command, attempt: int, failures: int) -> None:
        if command.seq in self._kernel.open:  # it may have been cancelled meanwhile
            self.begin(command, attempt, failures, confirmed=True)

    def _ended(self, command: Command, ended: Ended | Again | None) -> None:
        running = self.under_way.pop(command.seq, None)
        if self._heartbeats and not isinstance(ended, Again):
            self._heartbeats.pop(command.seq, None)
        if self.places is not None:
            thread = None if running is None else running.thread
            self._give_back(self.places, command.seq, thread)
        if self._run is not None:
            self._run.attempt_ended(command, ended)

    def cancel(self, seq: int) -> None:
        """Cancel the attempt of the step in row `seq`, if there is one."""
        self.forget_backoff(seq)
        running = self.under_way.get(seq)
        if running is not None:
            running.cancel()
        if self.places is not None:
            self.places.cancel(seq)
            if running is None:  # it was to begin after a commit, or a confirmation
                self.places.give_back(seq)

    def begun(self) -> set[int]:
        """The rows of steps whose attempt has begun, and has not only a place in line."""
        return {seq for seq, running in self.under_way.items() if running.begun}

    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks of the attempts under way."""
        return [running.task for running in self.under_way.values() if running.task is not None]

    def leave(self) -> None:
        """Cancel all attempts; nothing of them is reported any more."""
        self.closed, self._run = True, None
        if self.places is not None:
            for seq in self.places.held:
                self._host.lines.remove(self._outbox.run, seq)
        for running in list(self.under_way.values()):
            running.cancel()

    # --- places in queues -------------------------------------------------------------------------

    @property
    def asking(self) -> bool:
        """Whether the store has not answered for a place yet."""
        return self.places is not None and bool(self.places.asking)

    def needs_place(self, command: Command) -> bool:
        """Whether a step has to ask its queue for a place."""
        return command.call.options.queue is not None and (
            self.places is None or command.seq not in self.places.held
        )

    def ask(self, attempt: PendingAttempt) -> None:
        """Ask for a place with the next turn: the attempt begins when the queue admits it."""
        if (places := self.places) is None:
            self.places = places = RunPlaces()
        command, outbox, host = attempt.command, self._outbox, self._host
        options = command.call.options
        key, weight = options.key, options.weight
        if callable(key) or callable(weight):
            try:
                key, weight = key_and_weight(command)
            except Exception as error:  # of a function of the user's
                places.refused = True
                self._refused_soon(attempt, error)
                return
        ask = AskPlace(
            outbox.run, host.owner, command.seq, options.queue, key or outbox.key, weight,
            outbox.priority, host.steps.clock.now_ms(),
        )  # fmt: skip
        places.asked.append((attempt, ask))

    def placed(self, asked: Asked, answer: Any) -> None:
        """What became of a place that was asked for."""
        places, run = self.places, self._run
        if places is None or run is None:
            return  # it has left: whoever loads it asks again
        places.asking -= 1
        attempt, ask = asked
        command, kernel = attempt.command, self._kernel
        if places.found:
            places.found.pop(ask.seq, None)
        if type(answer) is Place:
            places.held[ask.seq] = Held(answer.place, ask.queue, ask.key)
            if answer.admitted and ask.seq in kernel.open and kernel.outcome is None:
                self.begin(command, attempt.attempt, attempt.failures)  # the usual case
                if not (self.closed or self.paused):
                    return
            elif answer.admitted or ask.seq not in kernel.open:  # cancelled meanwhile
                places.give_back(ask.seq)
            else:
                self._backoff_of().add_in_line(attempt)
                self._host.lines.add(self._outbox.run, ask.seq, answer.place, self.admitted)
        elif isinstance(answer, QueueNotFound):
            run.do(Block("code", str(answer)))
        else:
            self._refused_soon(attempt, answer)
        run.touch()

    def admitted(self, seq: int) -> None:
        """The step in row `seq` waits no longer."""
        attempt = None if self._backoff is None else self._backoff.take(seq)
        if attempt is not None and self._run is not None:
            self._run.do(Admit(attempt))

    def take_places(self, found: dict[int, int]) -> None:
        """Take over those that were read with the run: no attempt of these steps has begun."""
        self.places = RunPlaces()
        self.places.found = found

    def give_up_places(self) -> None:
        """The run leaves and asks anew: attempts that have not ended keep theirs."""
        if self.places is not None:
            for seq in self.places.held:
                self._host.lines.remove(self._outbox.run, seq)
            self.places.give_up(self.under_way)

    def _refused_soon(self, attempt: PendingAttempt, error: BaseException) -> None:
        """An attempt fails before it has begun; reported in a callback, as all outcomes are."""
        steps, command = self._host.steps, attempt.command
        ended = steps.after_failure(
            self._outbox.run_id, command, attempt.attempt, attempt.failures + 1, error,
            steps.clock.now_ms(), refused=True,
        )  # fmt: skip
        steps.loop.call_soon(self._ended, command, ended, context=Context())

    def _give_back(self, places: RunPlaces, seq: int, thread: InThread | None) -> None:
        """Give the place of an attempt back: with the next turn, when the run has left at once, and
        where a thread can't be stopped when its function has returned.
        """
        held = None if thread is None else places.held.pop(seq, None)
        if thread is None or held is None:
            places.give_back(seq)
        elif thread.when_ended(partial(self._release, [held.place])):
            places.kept.append(held.place)
        else:
            places.released.append(held.place)
        if self._run is None:
            self._release(places.take_released())

    def _release(self, places: list[int]) -> None:
        if places:
            release = ReleasePlaces(places, self._host.owner, self._host.steps.clock.now_ms())
            self._host.writer.put(release, self._host.released, keep=True)

    # --- what a step sees of its run --------------------------------------------------------------

    @property
    def run(self) -> int:
        return self._outbox.run

    @property
    def run_id(self) -> str:
        return self._outbox.run_id

    @property
    def owner(self) -> int:
        return self._host.owner

    @property
    def workflow(self) -> str:
        return self._kernel.facts.workflow

    def name_of(self, seq: int) -> str:
        return self._outbox.name_of(seq)

    def held_place(self, seq: int) -> Held | None:
        """The place that the step in row `seq` has in its queue."""
        return None if self.places is None else self.places.held.get(seq)

    def check_queue(self, queue: str) -> None:
        """Raise `QueueNotFound` for a queue that the store does not have. On the event loop."""
        self._host.lines.check(queue)

    def spend(self, spend: Spend) -> None:
        """Queue what an attempt has used of a queue's rate."""
        self._host.writer.put(spend, self._host.spent, keep=True)

    def write(self, write: Emit | RecordHeartbeat) -> None:
        """Queue what an attempt emits, or its heartbeat."""
        if self._run is not None:
            if isinstance(write, RecordHeartbeat):
                if self._heartbeats is None:
                    self._heartbeats = {}
                self._heartbeats[write.seq] = write.data
            self._host.writer.put(write, lambda _: self._host.emitted(), keep=True)

    def log_lines_added(self, total: int) -> None:
        """Lines that steps have logged are stored; the run has so many now."""
        self.log_lines = total
        self._host.emitted()

    def take_heartbeats(self, heartbeats: dict[int, bytes]) -> None:
        """Take over those that were read with the run."""
        self._heartbeats = heartbeats

    def last_heartbeat(self, seq: int) -> bytes | None:
        return None if self._heartbeats is None else self._heartbeats.get(seq)

    # --- attempts that wait for their time --------------------------------------------------------

    def back_off(self, attempt: PendingAttempt) -> None:
        """Let an attempt wait until it is due."""
        self._backoff_of().add(attempt)

    def _backoff_of(self) -> Backoff:
        if self._backoff is None:
            self._backoff = Backoff()
            self.resting = self._backoff.steps
        return self._backoff

    def forget_backoff(self, seq: int) -> None:
        """The step in row `seq` was cancelled, or has its outcome."""
        waited = self._backoff is not None and self._backoff.take(seq) is not None
        if waited and self.places is not None:
            self._host.lines.remove(self._outbox.run, seq)
            self.places.give_back(seq)

    def take_wait(self, seq: int, again_ms: int) -> PendingAttempt | None:
        """Remove and return the attempt of the step in row `seq`, if it waits until this time."""
        return None if self._backoff is None else self._backoff.take_wait(seq, again_ms)

    def due_ms(self) -> int | None:
        """When the next attempt is due."""
        return None if self._backoff is None else self._backoff.due_ms()

    def take_due(self, now_ms: int) -> list[PendingAttempt]:
        """Remove and return the attempts that are due, the earliest first."""
        return [] if self._backoff is None else self._backoff.take_due(now_ms)

    def waiting_for(self, limit: int) -> list[dict[str, Any]]:
        """What the attempts wait for, as `Backoff.waiting_for` says it."""
        return [] if self._backoff is None else self._backoff.waiting_for(limit)
