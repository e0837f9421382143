"""The invariants of a history, each a function over its rows that raises `InvariantViolated`.

Rules: nothing here executes a step or opens a file; the caller makes the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise, takewhile, zip_longest
from typing import Any

import msgspec

from perdure.codec.json_codec import JsonCodec
from perdure.core import events as ev
from perdure.core.diff import difference, fits
from perdure.core.events import Command, Event
from perdure.core.replay import Kernel
from perdure.errors import PerdureError

MakeKernel = Callable[[], Kernel]


class InvariantViolated(AssertionError):
    """A history violates an invariant; the text says where."""


def facts(rows: Sequence[Event | Command]) -> list[tuple[Any, ...]]:
    """Rows or commands as values to compare, without tracebacks of recorded errors."""
    return [(row.seq, row.kind, row.at_ms, row.ref, row.name, _payload(row)) for row in rows]


def _payload(row: Event | Command) -> Any:
    data = row.data if row.data is None or isinstance(row.data, bytes) else row.data.read()
    if (row.kind, row.name) != (ev.FINISH, "failed") or data is None:
        return None if row.edited else data
    error = msgspec.json.decode(data)
    return error["type"], error["message"]


def asked_next(rows: Sequence[Event], end: int) -> list[Event]:
    """What a replay of the first `end` rows has to ask for: the rest of the command group."""
    return list(takewhile(lambda row: row.kind in ev.COMMANDS, rows[end:]))


def replay(make: MakeKernel, rows: Sequence[Event]) -> list[Command]:
    """The history, run again: the code asks for what the rows record. Returns what follows."""
    kernel = make()
    try:
        return kernel.replay(rows)
    except PerdureError as error:
        raise InvariantViolated(f"The history is not what this code asks for. {error}") from error
    finally:
        kernel.discard()


def replay_every_prefix(make: MakeKernel, rows: Sequence[Event]) -> None:
    """Wherever the process had died, the next one would ask for what this history has next."""
    for end in range(1, len(rows) + 1):
        asked, recorded = replay(make, rows[:end]), asked_next(rows, end)
        if facts(asked) != facts(recorded) and (parting := _parting(recorded, asked)):
            raise InvariantViolated(
                f"Replay of its first {end} rows does not go on as it did: {parting}"
            )


def _parting(recorded: Sequence[Event], asked: Sequence[Command]) -> str:
    """The first place where two continuations differ, human-readable."""
    for row, command in zip_longest(recorded, asked):
        if row is None:
            return (
                f"the code asks for {command.kind} {command.name or ''} where the history has "
                f"nothing more"
            )
        if command is None or not _is_recorded(row, command):
            return difference(row, command, JsonCodec())
    return ""


def _is_recorded(row: Event, command: Command) -> bool:
    """Whether a row is what the code asks for, also in other bytes of an earlier version."""
    in_other_bytes = (row.kind, row.name) != (ev.FINISH, "failed") and row.at_ms == command.at_ms
    return facts([row]) == facts([command]) or (in_other_bytes and fits(row, command, JsonCodec()))


def in_order(rows: Sequence[Event]) -> None:
    """Rows are numbered without gaps, time never runs backwards, and nothing follows the end."""
    if [row.seq for row in rows] != list(range(1, len(rows) + 1)):
        raise InvariantViolated(f"The rows are numbered {[row.seq for row in rows]}")
    for one, two in pairwise(rows):
        if two.at_ms < one.at_ms:
            raise InvariantViolated(
                f"Row {two.seq} was recorded at {two.at_ms} ms, before row {one.seq} at "
                f"{one.at_ms} ms"
            )
        if one.kind == ev.FINISH:
            raise InvariantViolated(f"Row {two.seq}, {two.kind}, is behind the end of the run")


def recorded_once(rows: Sequence[Event]) -> None:
    """Each command has one answer at most, and comes before it."""
    answered: set[int | None] = set()
    asked = {row.seq: row.kind for row in rows if row.kind in ev.COMMANDS}
    for row in rows:
        if row.kind not in (ev.COMPLETED, ev.FAILED, ev.FIRED):
            continue
        if row.ref in answered:
            raise InvariantViolated(f"Row {row.seq} is a second answer to row {row.ref}")
        if row.ref not in asked or (row.ref or 0) > row.seq:
            raise InvariantViolated(f"Row {row.seq} answers row {row.ref}, which asks for nothing")
        answered.add(row.ref)


def replied_once(rows: Sequence[Event]) -> None:
    """A reply is to a request before it, and a request gets one."""
    requests = {row.seq for row in rows if row.kind == ev.REQUEST}
    answered: set[int] = set()
    for row in rows:
        if row.kind not in ev.REPLIES or row.ref is None:
            continue
        if row.ref in answered:
            raise InvariantViolated(f"Row {row.seq} is a second reply to the request in {row.ref}")
        if row.ref not in requests or row.ref > row.seq:
            raise InvariantViolated(f"Row {row.seq} replies to row {row.ref}, which is no request")
        answered.add(row.ref)


def only_grown(before: Sequence[Event], after: Sequence[Event]) -> None:
    """Rows are never changed: the earlier history is the beginning of the later one."""
    for one, two in zip(facts(before), facts(after), strict=False):
        if one != two:
            raise InvariantViolated(f"Row {one[0]} was\n  {one}\nand has become\n  {two}")
    if len(after) < len(before):
        raise InvariantViolated(f"There were {len(before)} rows, and {len(after)} are left")


def recorded_stays(
    recorded: Mapping[tuple[int, int], Event | Command], on_disk: Mapping[int, Sequence[Event]]
) -> None:
    """A row that the store has taken, given by its run and number, is on disk, and is the same."""
    for (run, seq), row in recorded.items():
        found = next((one for one in on_disk.get(run, ()) if one.seq == seq), None)
        if found is None:
            raise InvariantViolated(
                f"Row {seq} of run number {run}, {row.kind} {row.name or ''}, was recorded "
                f"and is lost"
            )
        if facts([found])[0][1:5] != facts([row])[0][1:5]:
            raise InvariantViolated(
                f"Row {seq} of run number {run} was recorded as {row.kind} {row.name} and "
                f"is {found.kind} {found.name}"
            )


def not_begun_again(
    begun: Iterable[tuple[int, int]], before: Mapping[int, Sequence[Event]]
) -> None:
    """A step whose outcome was on disk is never begun again."""
    answered = {
        (run, row.ref)
        for run, rows in before.items()
        for row in rows
        if row.kind in (ev.COMPLETED, ev.FAILED)
    }
    if again := answered & set(begun):
        raise InvariantViolated(
            f"Steps had begun again, by run number and row, although their outcome was "
            f"recorded: {sorted(again, key=str)}"
        )


def commit_before_effect(
    begun: Iterable[tuple[int, int]], on_disk: Mapping[int, Sequence[Event]]
) -> None:
    """A step with effects, given by run and row, begins only after its row is on disk."""
    for run, seq in begun:
        if not any(row.seq == seq and row.kind == ev.STEP for row in on_disk.get(run, ())):
            raise InvariantViolated(
                f"The step in row {seq} of run number {run} had begun, and that row was not on disk"
            )
