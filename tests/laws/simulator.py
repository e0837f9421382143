"""Drives one kernel with virtual time and a seeded schedule: which open command is answered next, and when.

Rules: the schedule is a function of the seed and of the rows so far, so a run that crashed and was replayed goes on
as the one that did not; nothing here waits, sleeps or touches a store.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import msgspec
from tests.corpus import Case

from perdure.codec import JsonCodec, failure_of_step
from perdure.core import events as ev
from perdure.core.events import Command, Event, RunFacts
from perdure.core.replay import Kernel

CODEC = JsonCodec()
BEGIN_MS = 1_800_000_000_000
ROWS_MAX = 2_000


def kernel_of(case: Case) -> Kernel:
    """A fresh kernel for a case, with nothing fed."""
    definition, call = case.call.definition, case.call
    return Kernel(lambda: definition.fn(*call.args, **call.kwargs), definition, RunFacts("run", definition.name, 42), CODEC)


def row_of(command: Command) -> Event:
    """The row that a command becomes."""
    return Event(command.seq, command.kind, command.at_ms, command.ref, command.name, command.data)


@dataclass
class World:
    """One run under one schedule. `rows` is what a store would have; `crash` drops the kernel and replays them."""

    case: Case
    seed: int
    rows: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kernel = kernel_of(self.case)

    def run(self, crash_after: int | None = None) -> Kernel:
        """Go on until the workflow has ended; with `crash_after`, crash once behind that many rows."""
        if not self.rows:
            self._feed(self.kernel.stamp(ev.START, BEGIN_MS))
        while self.kernel.outcome is None:
            if crash_after is not None and len(self.rows) >= crash_after:
                self.crash(crash_after)
                crash_after = None
                continue
            assert len(self.rows) < ROWS_MAX, f"seed {self.seed}: {self.case.name} does not end"
            self._next()
        return self.kernel

    def crash(self, rows: int) -> None:
        """Lose the process and every row behind `rows`; what the code asks for then is new again."""
        self.kernel.discard()
        self.rows = self.rows[:rows]
        self.kernel = kernel_of(self.case)
        self.rows += [row_of(command) for command in self.kernel.replay(self.rows)]

    def _feed(self, event: Event) -> None:
        self.rows.append(event)
        self.rows += [row_of(command) for command in self.kernel.feed(event)]

    def _next(self) -> None:
        """One input: an answer, a timer, a message or the cancel, as the seed and the number of rows say."""
        dice = random.Random(f"{self.seed}/{len(self.rows)}")
        at_ms = self.rows[-1].at_ms + dice.choice([0, 1, 7, 40])
        options: list[tuple[str, int]] = [("answer", seq) for seq in self.kernel.open]
        taken = sum(row.kind == ev.MESSAGE for row in self.rows)
        if taken < len(self.case.messages):
            options.append(("message", taken))
        if self.case.cancelled and len(self.rows) > 4 and not any(row.kind == ev.CANCEL for row in self.rows):
            options.append(("cancel", 0))
        due = self.kernel.due()
        if due is not None and (due[0] <= at_ms or not options):
            self._feed(self.kernel.stamp(ev.FIRED, max(at_ms, due[0]), ref=due[1]))
            return
        assert options, f"seed {self.seed}: {self.case.name} waits for nothing that can come: {self.kernel.waiting_for()}"
        kind, number = dice.choice(options)
        match kind:
            case "answer":
                self._answer(self.kernel.open[number], at_ms)
            case "message":
                channel, data = self.case.messages[number]
                self._feed(self.kernel.stamp(ev.MESSAGE, at_ms, name=channel, data=data))
            case _:
                self._feed(self.kernel.stamp(ev.CANCEL, at_ms))

    def _answer(self, command: Command, at_ms: int) -> None:
        kind, data = outcome_of(command)
        self._feed(self.kernel.stamp(kind, at_ms, ref=command.seq, data=data))


def outcome_of(command: Command) -> tuple[str, bytes]:
    """What a step, a child, a spawn or a send gives: decided by its arguments alone."""
    word = msgspec.json.decode(command.data or b"{}")
    match command.kind, command.name:
        case ev.STEP, "double":
            return ev.COMPLETED, msgspec.json.encode(2 * word["n"])
        case ev.STEP, "look":
            return ev.COMPLETED, msgspec.json.encode(list(word["word"]))
        case ev.STEP, _:
            return ev.FAILED, failure_of_step(CODEC.encode_error(ValueError(word["why"])), 2, False)
        case ev.CHILD, _:
            return ev.COMPLETED, msgspec.json.encode(2 * word["args"]["n"])
        case ev.SPAWN, _:
            return ev.COMPLETED, msgspec.json.encode(word.get("id", "made-up"))
        case _:
            return ev.COMPLETED, b"null"
