"""What a step sees of its attempt: `current_step()`.

Rules: everything here may be called in the step's thread; what an attempt writes goes to its run on
the event loop, in the order of the calls.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future
from contextvars import Context
from typing import Any, Protocol

import msgspec

from perdure.api import queues, verbs
from perdure.codec.values import decode
from perdure.core import names
from perdure.errors import QueueNotFound
from perdure.store.writes import Emit, RecordHeartbeat, Spend

CHECK_S = 1.0
"""For how long a step's thread waits for the event loop to say whether there is a queue."""


class Held(msgspec.Struct, frozen=True, gc=False):
    """A place that a step has in a queue: in line, or admitted."""

    place: int
    queue: str
    key: str | None


class StepHost(Protocol):
    """What a step needs of its run: its names, and where its heartbeats and items go."""

    @property
    def run(self) -> int: ...

    @property
    def run_id(self) -> str: ...

    @property
    def owner(self) -> int: ...

    @property
    def workflow(self) -> str: ...

    log_lines: int | None
    """How many lines its steps have logged, as far as they are stored; None: not known."""

    def name_of(self, seq: int) -> str: ...

    def write(self, write: Emit | RecordHeartbeat) -> None: ...

    def last_heartbeat(self, seq: int) -> bytes | None: ...

    def log_lines_added(self, total: int) -> None: ...

    def held_place(self, seq: int) -> Held | None: ...

    def check_queue(self, queue: str) -> None: ...

    def spend(self, spend: Spend) -> None: ...


class StepAttempt(msgspec.Struct, eq=False):
    """What `current_step()` gives; see `verbs.Attempt`."""

    _host: StepHost
    _steps: Any
    seq: int
    attempt: int
    step: str
    ended: bool = False
    lines: int = 0
    dropped: int = 0
    """Lines that it has logged, and those that were not kept and are to be said."""

    def end(self) -> None:
        """The attempt has ended."""
        self.ended = True
        if self.dropped:
            self._steps.logs.end(self)

    @property
    def lines_of_run(self) -> int | None:
        return self._host.log_lines

    @property
    def run_id(self) -> str:
        return self._host.run_id

    @property
    def workflow(self) -> str:
        return self._host.workflow

    @property
    def idempotency_key(self) -> str:
        return f"{self.run_id}/{self._host.name_of(self.seq)}"

    @property
    def last_heartbeat(self) -> Any:
        found = self._host.last_heartbeat(self.seq)
        return None if found is None else decode(found)

    def heartbeat(self, value: Any = None) -> verbs.Issued[None]:
        data = self._steps.codec.encode(value, f"the heartbeat of row {self.seq}")
        self._write(
            RecordHeartbeat(
                self._host.run,
                self._host.owner,
                self.seq,
                self.attempt,
                data,
                self._steps.clock.now_ms(),
            )
        )
        return verbs.Issued()

    def emit(self, stream: str, item: Any) -> None:
        data = self._steps.codec.encode_item(item, f"the item for stream {stream!r}")
        items = [(names.checked_to_emit(stream), data)]
        self._write(
            Emit(
                self._host.run,
                self._host.owner,
                self.seq,
                self.attempt,
                items,
                self._steps.clock.now_ms(),
            )
        )

    def spend(self, queue: str, amount: int, *, key: str | None = None) -> verbs.Issued[None]:
        name, steps = queues.checked_name(queue), self._steps
        queues.checked_amount(amount)
        held, place = self._host.held_place(self.seq), None
        if held is not None and held.queue == name and key in (None, held.key):
            key, place = held.key, held.place
        if held is None or held.queue != name:
            self._check_queue(name)
        spend = Spend(name, queues.checked_key(key), amount, steps.clock.now_ms(), place)
        if asyncio._get_running_loop() is steps.loop:  # before the attempt gives its place back
            self._host.spend(spend)
        else:
            steps.loop.call_soon_threadsafe(self._host.spend, spend, context=Context())
        return verbs.Issued()

    def _check_queue(self, queue: str) -> None:
        """Raise `QueueNotFound` here, from a thread, too."""
        steps = self._steps
        if asyncio._get_running_loop() is steps.loop:
            self._host.check_queue(queue)
            return
        found: Future[None] = Future()

        def check() -> None:
            try:
                self._host.check_queue(queue)
                found.set_result(None)
            except QueueNotFound as error:
                found.set_exception(error)

        steps.loop.call_soon_threadsafe(check, context=Context())
        with contextlib.suppress(TimeoutError):  # the event loop is busy: the log will say it
            found.result(CHECK_S)

    def _write(self, write: Emit | RecordHeartbeat) -> None:
        self._steps.loop.call_soon_threadsafe(self._host.write, write, context=Context())
