"""A kernel without a store: feed it by hand, see what it asks for."""

from __future__ import annotations

import weakref
from typing import Any

from perdure.api.definitions import Call
from perdure.codec.json_codec import JsonCodec
from perdure.core import events as ev
from perdure.core.events import Command, Event, RunFacts
from perdure.core.replay import Kernel

AT_MS = 1_800_000_000_000
KERNELS: weakref.WeakSet[Kernel] = weakref.WeakSet()
"""Those of the present test, which are dropped when it is over."""


class Hand:
    """One run, with its rows as a store would have them."""

    def __init__(self, call: Call[Any], rows: list[Event] | None = None) -> None:
        definition = call.definition
        self.kernel = Kernel(
            lambda: definition.fn(*call.args, **call.kwargs),
            definition,
            RunFacts("r", definition.name, 7),
            JsonCodec(),
        )
        KERNELS.add(self.kernel)
        self.rows: list[Event] = []
        if rows is None:
            self.feed(ev.START)
        else:
            self.rows = rows + [_row(command) for command in self.kernel.replay(rows)]

    def feed(self, kind: str, **fields: Any) -> list[Command]:
        event = self.kernel.stamp(kind, AT_MS + len(self.rows), **fields)
        self.rows.append(event)
        commands = self.kernel.feed(event)
        self.rows += [_row(command) for command in commands]
        return commands

    def answer(self, data: bytes = b"1") -> list[Command]:
        """Complete the oldest open command."""
        return self.feed(ev.COMPLETED, ref=min(self.kernel.open), data=data)

    @property
    def error(self) -> str:
        outcome = self.kernel.outcome
        assert isinstance(outcome, ev.Failed)
        return outcome.error.decode()


def _row(command: Command) -> Event:
    return Event(command.seq, command.kind, command.at_ms, command.ref, command.name, command.data)
