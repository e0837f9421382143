"""Places of steps in queues: asked for, waited for, held and given back.

Rules: a place is asked for in the transaction that writes the step's row or the note of its last
attempt, and given back in the one that writes the attempt's outcome; an attempt that was cancelled
holds its place until it has ended; a step that waits for its place holds nothing, so its run may
leave memory; a number names one place for ever, so late news of an old one means nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any, Protocol

from perdure.api import queues
from perdure.codec.signature import signature_of
from perdure.core.events import Command
from perdure.errors import StoreError
from perdure.runtime.plans import PendingAttempt
from perdure.runtime.read_executor import ReadExecutor
from perdure.runtime.step_attempt import Held
from perdure.store.base import Store
from perdure.store.writes import AskPlace

Asked = tuple[PendingAttempt, AskPlace]
"""An attempt, and the write that asks for its place."""


def key_and_weight(command: Command) -> tuple[str | None, int]:
    """Key and weight of a step's place. Raises what their functions raise, and `DefinitionError`
    for what they must not return.
    """
    call = command.call
    options, definition, args, kwargs = call.options, call.definition, call.args, call.kwargs
    if command.edited:
        args, kwargs = signature_of(definition).decode_args(command.data or b"{}")
    key = queues.chosen(options.key, definition, args, kwargs)
    weight = queues.chosen(options.weight, definition, args, kwargs)
    what = f"step {command.name}"
    return queues.checked_key(key, f"{what}: key"), queues.checked_weight(weight, f"{what}: weight")


class RunPlaces:
    """The places of one run's steps; made when it first needs one. `asking` are those that the
    store has been asked for and has not answered.
    """

    __slots__ = ("asked", "asking", "found", "held", "kept", "refused", "released")

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.asking = 0
        self.held: dict[int, Held] = {}
        self.found: dict[int, int] = {}
        """Places of steps that were there when the run was loaded: asking gives them again."""
        self.released: list[int] = []
        self.kept: list[int] = []
        """Places whose attempts have ended and whose threads have not."""
        self.refused = False  # an attempt has failed before it asked

    @property
    def any(self) -> bool:
        """Whether the store may have a place of a step of this run."""
        return bool(self.held or self.found or self.asking)

    def take(self) -> list[Asked]:
        """Take what is to be asked for."""
        asked, self.asked = self.asked, []
        self.asking += len(asked)
        return asked

    def cancel(self, seq: int) -> None:
        """Ask for nothing for the step in row `seq`."""
        self.asked = [one for one in self.asked if one[1].seq != seq]

    def take_released(self) -> list[int]:
        """Take the numbers of places that are given back."""
        released, self.released = self.released, []
        return released

    def take_kept(self) -> list[int]:
        """Take the numbers of places that threads keep."""
        kept, self.kept = self.kept, []
        return kept

    def give_back(self, seq: int) -> None:
        """The step in row `seq` needs its place no longer."""
        if (held := self.held.pop(seq, None)) is not None:
            self.released.append(held.place)

    def forget(self, seqs: Iterable[int]) -> None:
        """Give back what was found for steps that are not open any more."""
        self.released += [place for seq in seqs if (place := self.found.pop(seq, 0))]

    def give_up(self, under_way: Iterable[int]) -> None:
        """The run leaves, and will ask anew: give back all places but those of attempts that have
        not ended.
        """
        keep = set(under_way)
        for seq in [seq for seq in self.held if seq not in keep]:
            self.give_back(seq)
        self.forget([seq for seq in self.found if seq not in keep])
        self.asked = []


# --- steps in line --------------------------------------------------------------------------------


class LineHost(Protocol):
    """What the lines of an engine need of its scheduler."""

    store: Store
    reads: ReadExecutor

    @property
    def owner(self) -> int: ...


class Lines:
    """The steps of runs in memory that wait in queues, of one scheduler.

    Other workers admit them, too. Such news may be read before this engine knows that it waits, so
    where there are others each new wait is followed by a look.
    """

    def __init__(self, host: LineHost) -> None:
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[tuple[int, int], tuple[int, Callable[[int], None]]] = {}
        self._others = self._looking = False
        self._known: set[str] = set()

    def check(self, queue: str) -> None:
        """Raise `QueueNotFound` for a queue that the store does not have; of others it is kept that
        it has them. A store that may not be read on the event loop is not asked.
        """
        if queue not in self._known and self._host.store.inline:
            with contextlib.suppress(StoreError):  # the spending itself waits until it can be read
                self._host.store.queue_row(queue)
                self._known.add(queue)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, run: int, seq: int, place: int, admitted: Callable[[int], None]) -> None:
        """Call `admitted` with the row of a step when its place is admitted."""
        self._waiting[run, seq] = place, admitted
        if self._others:
            self._look_soon()

    def remove(self, run: int, seq: int) -> None:
        """The step waits no longer."""
        self._waiting.pop((run, seq), None)

    def admitted_soon(self, found: list[tuple[int, int, int]]) -> None:
        """As `admitted`, for a task: steps begin in a plain callback."""
        if found:
            self._loop.call_soon(self.admitted, found, context=Context())

    def admitted(self, found: Iterable[tuple[int, int, int]]) -> None:
        """These places (run, row, number) are admitted; most may be known as such."""
        for run, seq, place in found:
            waiting = self._waiting.get((run, seq))
            if waiting is not None and waiting[0] == place:
                del self._waiting[run, seq]
                waiting[1](seq)

    def others_committed(self) -> None:
        """Another process has committed: it may have admitted some of ours."""
        self._others = True
        if self._waiting:
            self._look_soon()

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_soon(self._look, context=Context())

    def _look(self) -> None:
        self._looking = False
        if self._waiting:
            host: Any = self._host
            host.reads.then(self.admitted, host.store.admitted, host.owner)
