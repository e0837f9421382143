"""Forks and retries as plans: functions from histories to `ForkRun`, which says where to cut.

Rules: docs/explain/retry-and-fork.md has them as a table. Kept rows keep their numbers; a note
behind them says that none of the open steps has begun; a failure that is taken back is replaced by
a note in its place; nothing here executes a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from perdure.codec.errors import decode_error, decode_failure
from perdure.core import events as ev
from perdure.core import lifecycle
from perdure.core.events import Event
from perdure.errors import DefinitionError, grown_from
from perdure.runtime.end_cause import TracingKernel, followed
from perdure.runtime.naming import NAMED, TAKEN_BACK, Cut, Names, message_key, run_id
from perdure.store.rows import RunRow
from perdure.store.writes import ForkRun

_ANSWERS = frozenset({ev.COMPLETED, ev.FAILED, ev.FIRED})
_ENDS = _ANSWERS | {ev.ABANDON}
_AWAITED = frozenset({ev.STEP, ev.CHILD})
_encode = msgspec.json.Encoder().encode


# --- fork -----------------------------------------------------------------------------------------


def fork(
    row: RunRow,
    rows: list[Event],
    at: int,
    new_id: str,
    at_ms: int,
    result: bytes | None,
    args: bytes | None,
) -> ForkRun:
    """The fork of a run at row `at`: what that row asked for is done again, or given.

    Raises `DefinitionError`.
    """
    if type(at) is not int:
        raise DefinitionError(f"at is the number of a row of the history, not {at!r:.50}.")
    target = next((event for event in rows if event.seq == at), None)
    if target is None and not (at == 1 and not rows):
        raise DefinitionError(
            f"Run {row.id!r} has no row {at}; its history has {len(rows)} rows. `perdure "
            f"show {row.id}` numbers them."
        )
    before = _before(rows, target) if target is not None else 1
    if result is not None and (target is None or target.kind not in _AWAITED):
        raise DefinitionError(
            f"Row {at} of run {row.id!r} is no step, so its result can't be edited."
        )
    if args is not None and before > 1 and not (target is not None and target.kind == ev.STEP):
        raise DefinitionError(
            f"Arguments can be edited at a step's row, or at row 1 for the run's own; row "
            f"{at} is neither."
        )
    made = ForkRun(row.run, new_id, before, at_ms)
    kept = _until(rows, before)
    if not kept:
        made.args = args
        return made
    if args is not None:
        made.edits.append((at, args))
    given = (
        []
        if result is None
        else [Event(before + 1, ev.COMPLETED, max(at_ms, kept[-1].at_ms), at, None, result)]
    )
    note = Cut(True, upto=before + len(given), sent=_sent(row, rows, kept, at))
    made.edits += _moved_timers(
        kept, [event for event in rows if event.seq >= before], set(), at_ms
    )
    name = row.id.partition("~")[
        0
    ]  # as the code knew it: an earlier generation has been renamed since
    made.extra = [Event(before, ev.ATTEMPT, kept[-1].at_ms, None, name, _encode(note)), *given]
    return made


def _before(rows: list[Event], target: Event) -> int:
    """The first row that is cut off: the target's answer, the input that led to its end, or the
    target itself.
    """
    if target.kind == ev.FINISH:
        return (
            max(event.seq for event in _until(rows, target.seq) if event.kind != ev.ABANDON) + 1
        )  # those belong to the end
    if target.kind not in NAMED and target.kind != ev.TIMER:
        return target.seq
    end = next((event for event in rows if event.ref == target.seq and event.kind in _ENDS), None)
    if end is not None and end.kind == ev.ABANDON:
        return max(event.seq for event in _until(rows, end.seq) if event.kind in ev.INPUTS)
    if end is not None:
        return end.seq
    return target.seq if target.kind == ev.TIMER else rows[-1].seq + 1


def _sent(row: RunRow, rows: list[Event], kept: list[Event], at: int) -> dict[int, str]:
    """Messages and starts of the source whose answer is cut off: they must arrive once only."""
    names = Names(row.origin or row.run, rows)
    source = row.id.partition("~")[0]
    found = {}
    for event in _unanswered(kept, (ev.SEND, ev.SPAWN)):
        if event.seq != at:
            name = names.of(event.seq)
            found[event.seq] = names.sent(event.seq) or (
                message_key(name) if event.kind == ev.SEND else run_id(source, name)
            )
    return found


# --- retry ----------------------------------------------------------------------------------------


def retry(
    row: RunRow, rows: list[Event], at_ms: int, make: Callable[[], TracingKernel] | None
) -> ForkRun:
    """The same run again without the failures that ended it, cut where it diverges without them.

    `make` gives kernels with the present code; without them the recorded error has to do. Call it
    from a plain callback.
    """
    taken_back = _causes_by_replay(rows, make) if make is not None else None
    changed = taken_back is None
    own_error = False
    if taken_back is None or (row.status == lifecycle.CANCELLED and not taken_back):
        taken_back, own_error = _causes_by_rows(row, rows)
    before = _end_of_kept(rows, taken_back, own_error and changed, make)
    until = _until(rows, before)
    kept = [event for event in until if event.seq not in taken_back]
    made = ForkRun(row.run, row.id, before, at_ms, replace=True)
    if not kept:
        return made
    made.left_out = [event.seq for event in until if event.seq in taken_back]
    made.extra = [
        Event(event.seq, ev.ATTEMPT, event.at_ms, None, None, TAKEN_BACK)
        for event in until
        if event.seq in taken_back
    ]
    if made.extra and made.extra[-1].seq == before - 1:
        before = made.extra.pop().seq  # the note about the cut takes its place
    cut = [event for event in rows if event.seq >= before]
    names = Names(row.origin or row.run, rows)
    note = Cut(True, upto=before, retry=names.retries + 1, cut=names.cut_off(cut))
    made.extra.append(Event(before, ev.ATTEMPT, until[-1].at_ms, None, None, _encode(note)))
    made.edits = _moved_timers(
        kept,
        [event for event in rows if event.seq >= before or event.seq in taken_back],
        taken_back,
        at_ms,
    )
    open_seqs = {event.seq for event in _unanswered(kept, NAMED)}
    made.returned = [
        event
        for event in cut
        if event.seq not in taken_back
        and (
            event.kind in (ev.MESSAGE, ev.REQUEST)
            or (event.kind == ev.COMPLETED and event.ref in open_seqs)
        )
    ]
    return made


def _causes_by_replay(rows: list[Event], make: Callable[[], TracingKernel]) -> set[int] | None:
    """The rows of the causes; None where the present code does not follow the whole history."""
    kernel = make()
    try:
        if not rows or followed(kernel, rows) <= rows[-1].seq or kernel.outcome is None:
            return None
        return kernel.causes()
    finally:
        kernel.discard()


def _causes_by_rows(row: RunRow, rows: list[Event]) -> tuple[set[int], bool]:
    """The last failures whose text is part of the recorded error, and whether it has parts that the
    code raised itself; of a cancelled run its cancel, unless it was cancelled without a turn.
    """
    if row.status == lifecycle.CANCELLED:
        return {_last(rows, ev.CANCEL)} - {0} if _last(rows, ev.FINISH) else set(), False
    parts = _parts(decode_error(row.error or b"{}"))
    commands = {event.seq: event for event in rows if event.kind in NAMED}
    failures = [event for event in rows if event.kind == ev.FAILED and event.ref in commands]
    row_of = {
        _said(decode_failure(commands[event.ref or 0].name or "", _raw(event))): event.seq
        for event in failures
    }
    found = {row_of[part] for part in parts if part in row_of}
    timed_out = any(name == "TimeoutError" for name, _ in parts)
    if not found and timed_out:
        found = {_last(rows, ev.FIRED)} - {0}
    return found, not timed_out and any(
        all(part not in row_of for part in _parts(one))
        for one in _members(decode_error(row.error or b"{}"))
    )


def _members(error: BaseException) -> list[BaseException]:
    """An error, or the members of a group."""
    return (
        [one for inner in error.exceptions for one in _members(inner)]
        if isinstance(error, BaseExceptionGroup)
        else [error]
    )


def _parts(error: BaseException | None) -> list[tuple[str, str]]:
    """Class and text of an error, of its members and of their causes."""
    if error is None:
        return []
    context = error.__context__ if error.__context__ is not error.__cause__ else None
    inner = [one for one in grown_from(error) if one is not None and one is not context]
    return [_said(error), *(part for one in inner for part in _parts(one))]


def _said(error: BaseException) -> tuple[str, str]:
    return type(error).__name__, str(error)


def _last(rows: list[Event], kind: str) -> int:
    return next((event.seq for event in reversed(rows) if event.kind == kind), 0)


def _end_of_kept(
    rows: list[Event],
    taken_back: set[int],
    put_right: bool,
    make: Callable[[], TracingKernel] | None,
) -> int:
    """The first row that is cut off; `put_right` says that the code raised, and has changed."""
    finish = _last(rows, ev.FINISH)
    if not finish:
        return rows[-1].seq + 1 if rows else 1  # it was cancelled as it stood
    last_input = next((event.seq for event in reversed(rows) if event.kind in ev.INPUTS), 1)
    own_error = last_input + 1 if last_input > 1 else 1
    if make is None:
        return min(taken_back, default=own_error)
    kernel = make()
    try:
        ahead = [
            Event(e.seq, ev.ATTEMPT, e.at_ms) if e.seq in taken_back else e
            for e in _until(rows, finish)
        ]
        end = followed(kernel, ahead)
        ended = end == finish and kernel.outcome is not None
    finally:
        kernel.discard()
    if taken_back and not put_right:
        return max(
            end, min(taken_back)
        )  # rows before the failure stay, also where the code does not follow them
    return own_error if ended else end


# --- both -----------------------------------------------------------------------------------------


def _until(rows: list[Event], seq: int) -> list[Event]:
    return [event for event in rows if event.seq < seq]


def _unanswered(kept: list[Event], kinds: Iterable[str]) -> list[Event]:
    answered = {event.ref for event in kept if event.kind in _ANSWERS or event.kind == ev.ABANDON}
    return [event for event in kept if event.kind in kinds and event.seq not in answered]


def _moved_timers(
    kept: list[Event], cut: list[Event], taken_back: set[int], at_ms: int
) -> list[tuple[int, bytes]]:
    """Deadlines that are ahead at the cut, moved by the time since then.

    A deadline that ended the run begins anew, and so does one that was due by then: it would end
    the run again at once.
    """
    if not cut:
        return []
    stood_still_ms = max(0, at_ms - cut[0].at_ms)
    gone_off = {event.ref for event in cut if event.seq in taken_back and event.kind == ev.FIRED}
    moved = []
    for timer in _unanswered(kept, (ev.TIMER,)):
        until_ms = msgspec.json.decode(_raw(timer))["until_ms"]
        if timer.seq in gone_off or (gone_off and until_ms <= cut[0].at_ms):
            moved.append((timer.seq, b'{"until_ms":%d}' % (at_ms + until_ms - timer.at_ms)))
        elif until_ms >= kept[-1].at_ms:
            moved.append((timer.seq, b'{"until_ms":%d}' % (until_ms + stood_still_ms)))
    return moved


def _raw(event: Event) -> bytes:
    data = event.data
    return b"{}" if data is None else data if isinstance(data, bytes) else data.read()
