"""The steps of one run in memory: attempts are begun, waited for, tried again and noted.

Rules: a failed attempt is written before the next one starts, and until that is due the step holds
nothing; an attempt whose run is gone, blocked or stopping begins where the run goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec

from perdure.core import events as ev
from perdure.core.events import Command, Event
from perdure.core.replay import Kernel
from perdure.process.clock import SystemClock
from perdure.runtime import log
from perdure.runtime.backoff import Backoff
from perdure.runtime.run_host import RunHost
from perdure.runtime.steps import Again, Ended, Running
from perdure.runtime.transactional import Transaction
from perdure.store.writes import Emit, RecordHeartbeat

if TYPE_CHECKING:
    from perdure.runtime.run import ActiveRun

_encode = msgspec.json.Encoder().encode


class StepsOfRun:
    """What an active run does about its steps; the run sets what stands here."""

    __slots__ = ("_more", "_settled", "crashes")

    host: RunHost
    kernel: Kernel
    clock: SystemClock
    run: int
    run_id: str
    durability: str | None
    paused: bool
    gone: bool
    stopping: bool
    inflight: dict[int, Running]
    rows: list[Event | Command]
    todo: list[Command]
    backoff: Backoff
    crashes: int
    _attempts: dict[int, tuple[int, int, int]]
    _taken: list[tuple[int, int]]
    _blocked: tuple[str, str] | None
    held: deque[Callable[[], None]] | None
    _more: bool
    _settled: bool

    if TYPE_CHECKING:

        @property
        def owner(self) -> int: ...

        def name_of(self, seq: int) -> str: ...

        def touch(self) -> None: ...

        def input(
            self,
            kind: str,
            *,
            ref: int | None = None,
            data: bytes | None = None,
            took_ms: int | None = None,
        ) -> None: ...

        def failed(self, error: BaseException) -> None: ...

        def block_by_length(self, rows: int) -> None: ...

    @property
    def workflow(self) -> str:
        return self.kernel.facts.workflow

    def got_on(self) -> None:
        """Something was recorded that this run has done: its count of crashes starts anew."""
        if self.crashes:
            self.crashes, self._settled, self._more = 0, True, True

    def begin_after_commit(
        self, command: Command, attempt: int, failures: int, again_ms: int = 0
    ) -> None:
        """Start an attempt that is not a step's first when all that is noted so far is on disk."""
        self._attempts[command.seq] = (attempt, failures, again_ms)
        self.todo.append(command)

    def begin(
        self,
        command: Command,
        attempt: int,
        failures: int,
        again_ms: int = 0,
        *,
        confirmed: bool = False,
    ) -> None:
        """Start an attempt, or wait for its time, which is a date in ms UTC."""
        if self.gone or self._blocked or self.stopping:
            pass  # it begins where the run goes on
        elif self.paused:
            self.begin_after_commit(
                command, attempt, failures, again_ms
            )  # when the run is resumed, in memory or by replay
        elif again_ms and again_ms > self.clock.now_ms():
            self.back_off(command, attempt, failures, again_ms)
        elif command.call.options.transactional:
            Transaction(cast("ActiveRun", self), command, attempt, failures).begin()
        elif (
            not confirmed
            and (gate := self.host.gate) is not None
            and gate.holds(command.call.options, self.durability)
        ):
            gate.after(partial(self._begin_confirmed, command, attempt, failures))
        else:
            self.inflight[command.seq] = self.host.steps.start(
                self, command, attempt, failures, self._step_done
            )

    def _begin_confirmed(self, command: Command, attempt: int, failures: int) -> None:
        if command.seq in self.kernel.open:  # it may have been cancelled meanwhile
            self.begin(command, attempt, failures, confirmed=True)

    def back_off(self, command: Command, attempt: int, failures: int, again_ms: int) -> None:
        """Let the next attempt of a step wait for its time, without holding anything."""
        if not self.gone and command.seq in self.kernel.open:
            self.backoff.add(command, attempt, failures, again_ms)
            self.touch()

    def _stop_step(self, seq: int) -> None:
        self.backoff.drop(seq)
        running = self.inflight.get(seq)
        if running is not None:
            running.cancel()

    def _step_done(self, command: Command, ended: Ended | Again | None) -> None:
        self.inflight.pop(command.seq, None)
        try:
            if ended is None or command.seq not in self.kernel.open:
                self.touch()
            elif isinstance(ended, Again):
                self._attempt_failed(command, ended)
            else:
                if ended.kind == ev.FAILED and not self.gone:
                    log.step_failed(self, command, ended.attempt, ended.data)
                self.input(ended.kind, ref=command.seq, data=ended.data, took_ms=ended.took_ms)
        except Exception as error:  # other steps' outcomes are reported behind this one
            self.failed(error)

    def _attempt_failed(self, command: Command, again: Again) -> None:
        """Note a failed attempt; the next one starts after the commit of that, or waits for its
        time.
        """
        if self.gone or self.kernel.diverged:
            self.touch()
            return
        if self.held is not None:
            self.held.append(partial(self._attempt_failed, command, again))
            return
        log.attempt_failed(self, command, again, self.clock.now_ms())
        self.got_on()
        self._note(command.seq, again.note, took_ms=again.took_ms)
        if (
            again.again_ms > self.clock.now_ms()
            and not self.stopping
            and not self.paused
            and not self._blocked
        ):
            self.back_off(command, again.attempt, again.failures, again.again_ms)
        else:
            self.begin_after_commit(command, again.attempt, again.failures, again.again_ms)

    def note_event(self, seq: int | None, note: dict[str, Any], taken: int | None = None) -> None:
        """Write down something about a step, or with `seq` None about the run, that its workflow
        does not see.
        """
        if self.held is not None:
            self.held.append(lambda: self.note_event(seq, note, taken))
        else:
            self._note(seq, _encode(note), taken)

    def _note(
        self, seq: int | None, data: bytes, taken: int | None = None, took_ms: int | None = None
    ) -> None:
        event = self.kernel.stamp(
            ev.ATTEMPT, self.clock.now_ms(), ref=seq, data=data, took_ms=took_ms
        )
        if taken is not None:
            self._taken.append((taken, event.seq))
            self._more = True
        self.rows.append(event)
        if self.kernel.seq > self.host.history_rows_max:
            self.block_by_length(self.kernel.seq)
        self.touch()

    def write(self, write: Emit | RecordHeartbeat) -> None:
        if not self.gone:
            self.host.writer.put(write, lambda _: self.host.emitted(), keep=True)

    def last_heartbeat(self, seq: int) -> bytes | None:
        return self.host.store.heartbeat(self.run, seq)
