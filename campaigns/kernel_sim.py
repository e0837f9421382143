"""A simulation of one kernel in virtual time, with a seeded schedule of answers.

Rules: the schedule is a function of the seed and of the rows so far, so a run that crashed and was
replayed continues as the undisturbed one. Nothing here waits, sleeps or touches a store.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from campaigns.corpus import Case
from perdure.codec.error_encoder import failure_of_run, failure_of_step
from perdure.codec.json_codec import JsonCodec
from perdure.core import events as ev
from perdure.core.events import Command, Event, RunFacts
from perdure.core.replay import Kernel
from perdure.testing import invariants
from perdure.testing.invariants import InvariantViolated
from perdure.testing.virtual_time import BEGIN_MS

CODEC = JsonCodec()
ROWS_MAX = 2_000
_NOTE = b'{"attempt":1,"error":{"type":"OSError","message":"once"},"again_ms":0}'


class Watching(JsonCodec):
    """Keeps what workflow code is handed: results, errors and messages, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def _keep(self, value: Any) -> Any:
        self.seen.append(repr(value))
        return value

    def decode_result(self, call: Any, raw: bytes) -> Any:
        return self._keep(super().decode_result(call, raw))

    def decode(self, raw: bytes, type_: Any, where: str) -> Any:
        return self._keep(super().decode(raw, type_, where))

    def decode_failure(self, call: Any, raw: bytes) -> Exception:
        error: Exception = self._keep(super().decode_failure(call, raw))
        return error


def kernel_of(case: Case, codec: JsonCodec = CODEC) -> Kernel:
    """A fresh kernel for a case, with nothing fed."""
    known, call = case.call.definition, case.call
    return Kernel(
        lambda: known.fn(*call.args, **call.kwargs),
        known,
        RunFacts("run", known.name, 42, case.timeout_ms),
        codec,
    )


def row_of(command: Command) -> Event:
    """The row that a command becomes."""
    return Event(command.seq, command.kind, command.at_ms, command.ref, command.name, command.data)


@dataclass
class World:
    """One run under one schedule. `rows` is what a store would have; `crash` drops the kernel and
    replays them.

    With `noise`, rows come in between that workflow code must not notice: failed attempts, and
    answers to what it has abandoned.
    """

    case: Case
    seed: int
    rows: list[Event] = field(default_factory=list)
    noise: bool = False
    codec: JsonCodec = CODEC

    def __post_init__(self) -> None:
        self.kernel = kernel_of(self.case, self.codec)
        if self.rows:
            self.rows += [row_of(command) for command in self.kernel.replay(self.rows)]

    def run(self, crash_after: int | Iterable[int] | None = None) -> Kernel:
        """Go on until the workflow has ended; with `crash_after`, crash once behind each of these
        numbers of rows.
        """
        crashes = sorted([crash_after] if isinstance(crash_after, int) else crash_after or [])
        if not self.rows:
            self._feed(self.kernel.stamp(ev.START, BEGIN_MS))
        while self.kernel.outcome is None:
            if crashes and len(self.rows) >= crashes[0]:
                self.crash(crashes.pop(0))
                continue
            assert len(self.rows) < ROWS_MAX, f"seed {self.seed}: {self.case.name} does not end"
            self._next()
        return self.kernel

    def crash(self, rows: int) -> None:
        """Lose the process and every row behind `rows`; what the code asks for then is
        new again.
        """
        self.kernel.discard()
        self.rows = self.rows[:rows]
        self.kernel = kernel_of(self.case, self.codec)
        self.rows += [row_of(command) for command in self.kernel.replay(self.rows)]

    def _feed(self, event: Event) -> None:
        self.rows.append(event)
        self.rows += [row_of(command) for command in self.kernel.feed(event)]

    def _next(self) -> None:
        """One input: an answer, a timer, a message or the cancel, as the seed and the number of
        rows say.
        """
        dice = random.Random(f"{self.seed}/{len(self.rows)}")
        at_ms = self.rows[-1].at_ms + dice.choice([0, 1, 7, 40])
        if self.noise and dice.random() < 0.3 and self._disturb(dice, at_ms):
            return
        options = self._options()
        due = self.kernel.due()
        if due is not None and (due[0] <= at_ms or not options):
            self._feed(self.kernel.stamp(ev.FIRED, max(at_ms, due[0]), ref=due[1]))
            return
        assert options, (
            f"seed {self.seed}: {self.case.name} waits for nothing that can come: "
            f"{self.kernel.waiting_for()}"
        )
        kind, number = dice.choice(options)
        match kind:
            case "answer":
                self._answer(self.kernel.open[number], at_ms)
            case "message":
                channel, data = self.case.messages[number]
                self._feed(self.kernel.stamp(ev.MESSAGE, at_ms, name=channel, data=data))
            case "request":
                channel, data = self.case.requests[number]
                sent = b'{"key":"k%d","sender":"me","value":%s}' % (number, data)
                self._feed(self.kernel.stamp(ev.REQUEST, at_ms, name=channel, data=sent))
            case _:
                self._feed(self.kernel.stamp(ev.CANCEL, at_ms))

    def _options(self) -> list[tuple[str, int]]:
        options = [("answer", seq) for seq in self.kernel.open]
        taken = sum(row.kind == ev.MESSAGE for row in self.rows)
        if taken < len(self.case.messages):
            options.append(("message", taken))
        asked = sum(row.kind == ev.REQUEST for row in self.rows)
        if asked < len(self.case.requests):
            options.append(("request", asked))
        if (
            self.case.cancelled
            and len(self.rows) > 4
            and not any(row.kind == ev.CANCEL for row in self.rows)
        ):
            options.append(("cancel", 0))
        return options

    def _disturb(self, dice: random.Random, at_ms: int) -> bool:
        """A row that changes nothing for the workflow: a failed attempt is noted, or an answer
        comes too late.
        """
        answered = {row.ref for row in self.rows if row.kind in (ev.COMPLETED, ev.FAILED)}
        late = [row.ref for row in self.rows if row.kind == ev.ABANDON and row.ref not in answered]
        trying = [seq for seq, command in self.kernel.open.items() if command.kind == ev.STEP]
        if late and (not trying or dice.random() < 0.5):
            self._feed(
                self.kernel.stamp(ev.COMPLETED, at_ms, ref=dice.choice(late), data=b'"too late"')
            )
        elif trying:
            self.rows.append(
                self.kernel.stamp(ev.ATTEMPT, at_ms, ref=dice.choice(trying), data=_NOTE)
            )
        return bool(late or trying)

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
        case ev.CHILD, _ if word["args"]["n"] % 7 == 6:
            return ev.FAILED, failure_of_run(
                "a child", "failed", CODEC.encode_error(ValueError("six"))
            )
        case ev.CHILD, _:
            return ev.COMPLETED, msgspec.json.encode(2 * word["args"]["n"])
        case ev.SPAWN, _:
            return ev.COMPLETED, msgspec.json.encode(word.get("id", "made-up"))
        case _:
            return ev.COMPLETED, b"null"


# --- the invariants -------------------------------------------------------------------------------


def _calm(case: Case, seed: int, **options: Any) -> World:
    world = World(case, seed, noise=bool(seed % 2), **options)
    world.run()
    return world


def every_prefix_replays(case: Case, seed: int) -> int:
    """Replay of every prefix asks for what the live run asked for next; the history is in order,
    each answer is recorded once.
    """
    rows = _calm(case, seed).rows
    invariants.in_order(rows)
    invariants.recorded_once(rows)
    invariants.replied_once(rows)
    invariants.replay_every_prefix(lambda: kernel_of(case), rows)
    return len(rows)


def every_crash_changes_nothing(case: Case, seed: int) -> int:
    """A crash after any row, and the run goes on as the one that did not crash."""
    rows = _calm(case, seed).rows
    for end in range(1, len(rows)):
        _goes_on(case, seed, rows, [end])
    return len(rows) - 1


def many_crashes_change_nothing(case: Case, seed: int) -> int:
    """Several crashes of one run."""
    rows = _calm(case, seed).rows
    _goes_on(case, seed, rows, random.Random(seed).choices(range(1, len(rows)), k=5))
    return 5


def _goes_on(case: Case, seed: int, rows: list[Event], crashes: list[int]) -> None:
    crashed = World(case, seed, noise=bool(seed % 2))
    crashed.run(crashes)
    if invariants.facts(crashed.rows) != invariants.facts(rows):
        raise InvariantViolated(
            f"After crashes behind rows {sorted(crashes)} the history is another one"
        )


def replay_sees_the_same(case: Case, seed: int) -> int:
    """Replay hands over the very values that the workflow saw live."""
    live, again = Watching(), Watching()
    world = _calm(case, seed, codec=live)
    kernel_of(case, again).replay(world.rows)
    if again.seen != live.seen:
        raise InvariantViolated(f"Live the workflow saw {live.seen}, on replay {again.seen}")
    return len(live.seen)


def more_is_asked_behind_notes(case: Case, seed: int) -> int:
    """Code that asks for more in the last turn than is recorded, where notes follow already, as new
    code may, goes on to its end.
    """
    rows = _calm(case, seed).rows
    cuts = [end for end in range(1, len(rows)) if rows[end].kind in ev.COMMANDS]
    for end in cuts:
        notes = [
            Event(end + n, ev.ATTEMPT, rows[end - 1].at_ms, data=_NOTE)
            for n in range(1, 2 + (seed + end) % 3)
        ]
        world = World(case, seed, rows=rows[:end] + notes, noise=bool(seed % 2))
        world.run()
        invariants.in_order(world.rows)
        invariants.recorded_once(world.rows)
        invariants.replied_once(world.rows)
        if invariants.facts(world.rows[: end + len(notes)]) != invariants.facts(rows[:end] + notes):
            raise InvariantViolated(f"Rows before {end} have changed")
        if invariants.replay(lambda: kernel_of(case), world.rows):
            raise InvariantViolated(
                f"With notes behind row {end}, replay asks for more than was recorded"
            )
    return len(cuts)


INVARIANTS: dict[str, Callable[[Case, int], int]] = {
    "prefixes": every_prefix_replays,
    "crashes": every_crash_changes_nothing,
    "crashes_often": many_crashes_change_nothing,
    "values": replay_sees_the_same,
    "notes": more_is_asked_behind_notes,
}
"""Each takes a case and a seed, raises `InvariantViolated`, and gives how much it has looked at."""
