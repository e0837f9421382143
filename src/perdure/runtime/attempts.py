"""The attempts of one run's steps: begun, cancelled, confirmed by the replica first, or postponed.

Rules: an attempt of a run that is blocked, stopping or gone is not begun here, but where the run
continues; one of a paused run waits for its next commit; what came of an attempt is reported to the
run in a plain callback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

from perdure.core import events as ev
from perdure.core.events import Command
from perdure.core.replay import Kernel
from perdure.runtime.backoff import Backoff
from perdure.runtime.outbox import Outbox
from perdure.runtime.plans import (
    BackOff,
    Begin,
    BeginAfterCommit,
    PendingAttempt,
    Plan,
    Todo,
    Transact,
)
from perdure.runtime.run_host import RunHost
from perdure.runtime.steps import Again, Ended, Running
from perdure.store.writes import Emit, RecordHeartbeat


class RunOfSteps(Protocol):
    """What attempts need of their run."""

    def do(self, plan: Plan) -> None: ...

    def attempt_ended(self, command: Command, ended: Ended | Again | None) -> None: ...


_NOTHING: Mapping[int, PendingAttempt] = {}


class Attempts:
    """See the module's text. It is what a step sees of its run, too: see `steps.StepHost`."""

    __slots__ = (
        "_backoff", "_heartbeats", "_host", "_kernel", "_outbox", "_run", "closed", "paused",
        "resting", "under_way",
    )  # fmt: skip

    def __init__(
        self, host: RunHost, run: RunOfSteps, kernel: Kernel, outbox: Outbox, *, paused: bool
    ) -> None:
        self._host, self._kernel, self._outbox = host, kernel, outbox
        self._run: RunOfSteps | None = run
        self.paused, self.closed = paused, False
        self.under_way: dict[int, Running] = {}
        self._heartbeats: dict[int, bytes] | None = None  # the last one of each open step
        self._backoff: Backoff | None = None  # made by the first attempt that waits
        self.resting: Mapping[int, PendingAttempt] = _NOTHING  # those that wait, by row

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
        run = self._run
        if self.closed or run is None:
            return
        if self.paused:
            run.do(BeginAfterCommit(PendingAttempt(command, attempt, failures, again_ms)))
        elif again_ms and again_ms > self._host.steps.clock.now_ms():
            run.do(BackOff(PendingAttempt(command, attempt, failures, again_ms)))
        elif command.call.options.transactional:
            run.do(Transact(PendingAttempt(command, attempt, failures)))
        elif (
            not confirmed
            and (gate := self._host.gate) is not None
            and gate.holds(command.call.options, self._outbox.durability)
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
        self.under_way.pop(command.seq, None)
        if self._heartbeats and not isinstance(ended, Again):
            self._heartbeats.pop(command.seq, None)
        if self._run is not None:
            self._run.attempt_ended(command, ended)

    def cancel(self, seq: int) -> None:
        """Cancel the attempt of the step in row `seq`, if there is one."""
        self.forget_backoff(seq)
        running = self.under_way.get(seq)
        if running is not None:
            running.cancel()

    def begun(self) -> set[int]:
        """The rows of steps whose attempt has begun, and has not only a place in line."""
        return {seq for seq, running in self.under_way.items() if running.begun}

    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks of the attempts under way."""
        return [running.task for running in self.under_way.values() if running.task is not None]

    def leave(self) -> None:
        """Cancel all attempts; nothing of them is reported any more."""
        self.closed, self._run = True, None
        for running in list(self.under_way.values()):
            running.cancel()

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

    def write(self, write: Emit | RecordHeartbeat) -> None:
        """Queue what an attempt emits, or its heartbeat."""
        if self._run is not None:
            if isinstance(write, RecordHeartbeat):
                if self._heartbeats is None:
                    self._heartbeats = {}
                self._heartbeats[write.seq] = write.data
            self._host.writer.put(write, lambda _: self._host.emitted(), keep=True)

    def take_heartbeats(self, heartbeats: dict[int, bytes]) -> None:
        """Take over those that were read with the run."""
        self._heartbeats = heartbeats

    def last_heartbeat(self, seq: int) -> bytes | None:
        return None if self._heartbeats is None else self._heartbeats.get(seq)

    # --- attempts that wait for their time --------------------------------------------------------

    def back_off(self, attempt: PendingAttempt) -> None:
        """Let an attempt wait until it is due."""
        if self._backoff is None:
            self._backoff = Backoff()
            self.resting = self._backoff.steps
        self._backoff.add(attempt)

    def forget_backoff(self, seq: int) -> None:
        """The step in row `seq` was cancelled, or has its outcome."""
        if self._backoff is not None:
            self._backoff.drop(seq)

    def due_ms(self) -> int | None:
        """When the next attempt is due."""
        return None if self._backoff is None else self._backoff.due_ms()

    def take_due(self, now_ms: int) -> list[PendingAttempt]:
        """Remove and return the attempts that are due, the earliest first."""
        return [] if self._backoff is None else self._backoff.take_due(now_ms)

    def waiting_for(self, limit: int) -> list[dict[str, Any]]:
        """What the attempts wait for, as `Backoff.waiting_for` says it."""
        return [] if self._backoff is None else self._backoff.waiting_for(limit)
