"""What a run waits for as text, and the command that answers it.

Rules: one line; no colours; a command is shell-quoted; a place in a queue comes first, because it
is what keeps a run from going on.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from perdure.core import lifecycle
from perdure.runtime.info import ErrorHead, RunInfo, RunSummary
from perdure.runtime.standing import Standing
from perdure.runtime.workers import NO_WORKER
from perdure.views import format
from perdure.views.standing import standing

_EXAMPLES = {"bool": "true", "int": "1", "float": "1.5", "str": "TEXT"}
_SHOWN_MAX = 5
_BY_OTHERS = frozenset({"concurrency", "line"})
"""Reasons for a place in line that say nothing of why those before it do not get on."""


class Places(msgspec.Struct, frozen=True):
    """Where a run and its steps stand in queues, as of a moment."""

    standings: Sequence[Standing]
    now: datetime

    def of(self, queue: str, seq: int | None) -> str | None:
        """The text for one of them; None where it is unknown."""
        found = (one for one in self.standings if (one.queue, one.seq) == (queue, seq))
        return next((standing(one, self.now) for one in found), None)


NO_PLACES = Places((), datetime(1970, 1, 1, tzinfo=UTC))


def needs(info: RunInfo | RunSummary, places: Places = NO_PLACES) -> str | None:
    """Why a run does not go on by itself right now; None while it runs or when it has ended."""
    if info.ended_at is not None:
        return None
    if info.status == lifecycle.WAITING and info.waiting_for:
        return waiting_text(info.waiting_for, places)
    if info.status == lifecycle.PENDING and info.due_at is not None:
        return _pending(info, info.due_at, places.now)
    return info.reason


def _pending(info: RunInfo | RunSummary, due_at: datetime, now: datetime) -> str | None:
    """When a run begins that nothing keeps waiting; None where that is as soon as it is taken."""
    if due_at > now > NO_PLACES.now:
        return f"begins at {format.clock(due_at)}"
    return None if info.queue is None else f"a worker puts it into queue {info.queue}"


class Sent(msgspec.Struct, frozen=True):
    """A message that was sent and not received yet: its channel, who sent it, and when."""

    channel: str
    sender: str | None
    at: datetime


class Situation(msgspec.Struct, frozen=True):
    """What is known around a run, to say why it does not go on: its places in queues, the time,
    whether a worker is there that takes what is due, whether its owner is (None: it has none), the
    error of the last attempt, where it waits for the next one, what was sent that it waits for, and
    why queues stand still, by name, and when it was asked to end, as long as it has not seen that.
    """

    places: Places
    now: datetime
    workers: bool
    owner_alive: bool | None = None
    last_error: ErrorHead | None = None
    answers: Sequence[Sent] = ()
    stuck: Mapping[str, str] = {}
    asked_to_end: datetime | None = None


def why(run: RunSummary, known: Situation) -> str | None:
    """Why a run does not go on right now, in a sentence or two; None where it has ended, and where
    it is at work.
    """
    if run.ended_at is not None:
        return None
    if known.asked_to_end is not None:
        return _ending(run, known, known.asked_to_end)
    match run.status:
        case lifecycle.RUNNING:
            return _left(run, known)
        case lifecycle.PENDING:
            return _not_begun(run, known)
        case lifecycle.PAUSED:
            blocked = f" Before that it was blocked: {run.reason}" if run.reason else ""
            return f"Somebody has paused it: resume it to let it go on.{blocked}"
        case lifecycle.WAITING:
            return _waits(run, known)
        case _:
            return f"Blocked: {run.reason}" if run.reason else "Blocked."


def _ending(run: RunSummary, known: Situation, at: datetime) -> str:
    """A run in whose inbox a cancel waits."""
    text = f"Asked to end at {format.clock_near(at, known.now)}"
    match run.status:
        case lifecycle.PAUSED:
            return f"{text}: it is paused, and ends when it is resumed.{_no_worker(known)}"
        case lifecycle.RUNNING if known.owner_alive is not False:
            return f"{text}: it ends when its code has seen that."
        case _:
            after = _no_worker(known) or " A worker takes it next."
            return f"{text}.{after}"


def _left(run: RunSummary, known: Situation) -> str | None:
    """A run that counts as running, and that no process executes."""
    if known.owner_alive is not False:
        return None
    return f"Its process ({run.owner}) has gone: another worker takes it over.{_no_worker(known)}"


def _not_begun(run: RunSummary, known: Situation) -> str:
    if run.due_at is not None and run.due_at > known.now:
        return f"Begins at {format.clock_near(run.due_at, known.now)}."
    text = f"Due since {format.clock_near(run.due_at or run.created_at, known.now)}."
    if run.queue is not None and run.started_at is None:
        text = f"It is for queue {run.queue}: a worker puts it there."
    return text + (_no_worker(known) or " A worker takes it next, if one knows its workflow.")


def _waits(run: RunSummary, known: Situation) -> str:
    if not run.waiting_for:
        return "It waits." + _no_worker(known)
    if known.last_error is not None and (again := _again(run.waiting_for, known)):
        return again
    if known.answers:
        return _answered(known)
    text = format.sentence(waiting_text(run.waiting_for, known.places))
    if run.due_at is not None and run.due_at <= known.now:
        return text + (_no_worker(known) or " It is due: a worker goes on with it next.")
    if any("message" in item for item in run.waiting_for):
        return text + " Nobody has sent one."
    if any("request" in item for item in run.waiting_for):
        return text + " Nobody has asked."
    queues = {one.queue for one in known.places.standings if one.why in _BY_OTHERS}
    reasons = (known.stuck[name] for name in sorted(queues) if name in known.stuck)
    return " ".join([text, *(format.sentence(reason) for reason in reasons)])


def _answered(known: Situation) -> str:
    """A run that has not received yet what was sent: it waits for a worker alone."""
    sent = known.answers[0]
    by = f" by {sent.sender}" if sent.sender else ""
    text = f"Answered on {sent.channel}{by} at {format.clock_near(sent.at, known.now)}."
    return text + (_no_worker(known) or " A worker goes on with it next.")


def _again(waiting_for: list[dict[str, Any]], known: Situation) -> str | None:
    """A run that waits for another attempt: what the last one failed with, and when."""
    item = next((one for one in waiting_for if "again_ms" in one), None)
    if item is None:
        return None
    at = datetime.fromtimestamp(item["again_ms"] / 1000, UTC)
    when = f"at {format.clock_near(at, known.now)}" if at > known.now else "now"
    error = format.error_line(known.last_error).rstrip(".")
    more = sum("again_ms" in one for one in waiting_for) - 1
    others = f", and {format.count(more, 'more step')} too" if more else ""
    return (
        f"Step {item['step']} failed: {error}. Attempt {item['attempt']} of {item['attempts']} "
        f"begins {when}{others}." + ("" if at > known.now else _no_worker(known))
    )


def _no_worker(known: Situation) -> str:
    return "" if known.workers else f" {NO_WORKER}"


def is_retrying(run: RunSummary | RunInfo) -> bool:
    """Whether a run waits for another attempt of a step that failed."""
    waits = run.status == lifecycle.WAITING
    return waits and any("again_ms" in item for item in run.waiting_for)


def in_queue(waiting_for: Iterable[dict[str, Any]]) -> bool:
    """Whether one of the things that a run waits for is a place in a queue."""
    return any("queue" in item for item in waiting_for)


def waiting_text(waiting_for: list[dict[str, Any]], places: Places = NO_PLACES) -> str:
    """Everything that the run waits for, on one line."""
    others = [item for item in waiting_for if "queue" not in item]
    parts = [_one(item) for item in others[:_SHOWN_MAX]]
    more = len(others) - len(parts)
    texts = _in_queues([item for item in waiting_for if "queue" in item], places)
    if parts:
        texts.append("waits for " + ", ".join(parts) + (f" and {more:,} more" if more else ""))
    return "; ".join(texts)


def _in_queues(waiting_for: list[dict[str, Any]], places: Places) -> list[str]:
    """A text for each queue that a run waits in: of its first place there that is known, and how
    many more.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for item in waiting_for:
        found.setdefault(item["queue"], []).append(item)
    texts = []
    for queue, items in list(found.items())[:_SHOWN_MAX]:
        known = ((item, places.of(queue, item.get("seq"))) for item in items)
        first, text = next((pair for pair in known if pair[1]), (items[0], None))
        text = text or f"waits in queue {queue}"
        text = f"step {first['step']}: {text}" if "step" in first else text
        more = len(items) - 1
        texts.append(f"{text}, and {format.count(more, 'more step')}" if more else text)
    return texts


def attempt_awaited(waiting_for: list[dict[str, Any]]) -> int | None:
    """The attempt of a failed step that the run waits for; None where it waits for none."""
    return next((item["attempt"] for item in waiting_for if "again_ms" in item), None)


def send_hint(run_id: str, waiting_for: list[dict[str, Any]], store_option: str) -> str | None:
    """The command that sends the message or the request that the run waits for; None where it
    waits for none.
    """
    for item in waiting_for:
        example = _EXAMPLES.get(str(item.get("type")), "JSON")
        if channel := item.get("message"):
            return (
                f"perdure send {shlex.quote(run_id)} {shlex.quote(channel)} {example}{store_option}"
            )
        if channel := item.get("request"):
            words = f"{shlex.quote(run_id)} {example} --channel {shlex.quote(channel)}"
            return f"perdure ask {words}{store_option}"
    return None


def _one(item: dict[str, Any]) -> str:
    match item:
        case {"message": channel, "type": kind} if kind != "Any":
            return f"a message on {channel} ({kind})"
        case {"message": channel}:
            return f"a message on {channel}"
        case {"request": channel, "type": kind} if kind != "Any":
            return f"a request on {channel} ({kind})"
        case {"request": channel}:
            return f"a request on {channel}"
        case {"timer": None}:
            return "a timer that is never due"
        case {"timer": ms}:
            return f"a timer until {format.clock(datetime.fromtimestamp(ms / 1000, UTC))}"
        case {"child": name}:
            return f"child {name}"
        case {"step": name, "again_ms": ms}:
            at = format.clock(datetime.fromtimestamp(ms / 1000, UTC))
            return f"attempt {item['attempt']} of {item['attempts']} of {name} at {at}"
        case _:
            return ", ".join(f"{key} {thing}" for key, thing in item.items() if key != "seq")
