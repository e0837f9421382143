"""The life cycle of a run as a table: what each verb makes of each status, and who may use it.

Rules: a final status never changes, and what comes after it is another run; the owner of a run
alone moves it on, by its fence; whatever a table says here, the store does and the docs show, and
tests compare both with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from perdure.errors import (
    InboxFull,
    LeaseLost,
    PerdureError,
    QueueFull,
    QueueNotFound,
    RequestKeyUsed,
    RunBlocked,
    RunExists,
    RunFinished,
    RunNotFound,
)

PENDING = "pending"
RUNNING = "running"
WAITING = "waiting"
PAUSED = "paused"
BLOCKED = "blocked"
COMPLETED = "completed"
FAILED = "failed"
CANCELLED = "cancelled"

STATUSES = (PENDING, RUNNING, WAITING, PAUSED, BLOCKED, COMPLETED, FAILED, CANCELLED)
FINAL = frozenset({COMPLETED, FAILED, CANCELLED})
OPEN = frozenset(STATUSES) - FINAL
OWNABLE = OPEN - {BLOCKED}
"""A run that is blocked, or has ended, has no owner."""
NEW = "new"
"""In place of a status: there is no run with this id."""

# Who uses a verb.
CLIENT = "a client"
ENGINE = "any engine"
OWNER = "the owner"

# What an outcome depends on besides the status.
NOT_STARTED = "it has not started"
WAS_BLOCKED = "it was blocked when it was paused"
BY_CODE = "other code may let it go on"
DUE = "it is due and has no owner"
EXECUTED = "the engine that starts it executes it"
SAME_CALL = "workflow and arguments are the same"
KEY_USED = "its key has arrived before"
OTHER_KEY = "its key is that of another request"
FULL = "the inbox is full"
CANCEL_WAITS = "a cancel is in the inbox"
LAST_CRASH = "it has now crashed too often"
NO_QUEUE = "there is no such queue"
LINE_FULL = "too many wait in its queue"
NO_ROOM = "its queue does not admit it"
ADMITTED = "it waits in a queue that admits it"

Outcome = str | type[PerdureError]
"""The status afterwards, or the error that refuses the verb."""
Cases = dict[tuple[str, ...], Outcome]
"""Outcomes by facts: the first whose facts all hold. The last has none."""


class Verb(NamedTuple):
    """What may be done to a run: by whom, what it means, and the outcome for each status."""

    by: str
    meaning: str
    outcomes: dict[str, Cases]


class Move(NamedTuple):
    """One cell of the table."""

    verb: str
    status: str
    facts: tuple[str, ...]
    outcome: Outcome


_SAME = "same"


def _verb(by: str, meaning: str, *rows: tuple[Collection[str], Outcome | Cases]) -> Verb:
    """Later rows win. Where no row says otherwise, the status stays as it is; an ended run refuses
    a client, and a run without an owner its owner.
    """
    outcomes: dict[str, Cases] = {status: {(): status} for status in STATUSES}
    refused: dict[str, Outcome] = {}
    if by is OWNER:
        refused = dict.fromkeys((NEW, BLOCKED, *FINAL), LeaseLost)
    elif by is CLIENT:
        refused = {NEW: RunNotFound, **dict.fromkeys(FINAL, RunFinished)}
    for statuses, then in (*(((status,), error) for status, error in refused.items()), *rows):
        cases = then if isinstance(then, dict) else {(): then}
        for one in statuses:
            outcomes[one] = {facts: one if to is _SAME else to for facts, to in cases.items()}
    return Verb(by, meaning, outcomes)


VERBS = {
    "start": _verb(
        CLIENT,
        "Begin a run under an id.",
        (
            (NEW,),
            {
                (NO_QUEUE,): QueueNotFound,
                (LINE_FULL,): QueueFull,
                (NO_ROOM,): WAITING,
                (EXECUTED,): RUNNING,
                (): PENDING,
            },
        ),
        (STATUSES, {(SAME_CALL,): _SAME, (): RunExists}),
    ),
    "fork": _verb(
        CLIENT, "Begin a run from rows of another.", ((NEW,), PENDING), (STATUSES, RunExists)
    ),
    "send": _verb(
        CLIENT,
        "Put a message into the inbox.",
        (OPEN, {(KEY_USED,): _SAME, (FULL,): InboxFull, (): _SAME}),
        (FINAL, {(KEY_USED,): _SAME, (): RunFinished}),
    ),
    "ask": _verb(
        CLIENT,
        "Put a request into the inbox, which gets a reply.",
        (OPEN, {(KEY_USED,): _SAME, (OTHER_KEY,): RequestKeyUsed, (FULL,): InboxFull, (): _SAME}),
        (FINAL, {(KEY_USED,): _SAME, (OTHER_KEY,): RequestKeyUsed, (): RunFinished}),
    ),
    "cancel": _verb(
        CLIENT,
        "Ask for its end. Code that has begun is unwound first.",
        ((PENDING, WAITING), {(NOT_STARTED,): CANCELLED, (): _SAME}),
        ((PAUSED,), {(NOT_STARTED,): CANCELLED, (WAS_BLOCKED,): CANCELLED, (): PENDING}),
        ((BLOCKED, CANCELLED), CANCELLED),
    ),
    "pause": _verb(CLIENT, "Stop it before its next step.", (OPEN, PAUSED)),
    "resume": _verb(CLIENT, "End a pause.", ((PAUSED,), PENDING), ((BLOCKED,), RunBlocked)),
    "retry": _verb(
        CLIENT,
        "Try again: a run that has ended is kept, and another goes on under its id; of one that is "
        "under way, steps that wait for their next attempt begin it.",
        ((PAUSED, BLOCKED, FAILED, CANCELLED), PENDING),
    ),
    "resolve": _verb(
        CLIENT,
        "Say what became of a step whose process died, or what becomes of one that waits for its "
        "next attempt.",
        ((PAUSED, BLOCKED), PENDING),
    ),
    "claim": _verb(
        ENGINE,
        "Become the owner of runs that are due, or that their queues admit.",
        ((PENDING,), {(DUE, NO_ROOM): WAITING, (DUE,): RUNNING, (): PENDING}),
        (
            (WAITING,),
            {(DUE, NO_ROOM): WAITING, (DUE,): RUNNING, (ADMITTED,): RUNNING, (): WAITING},
        ),
    ),
    "worker leaves": _verb(ENGINE, "A worker gives up its runs.", ((RUNNING,), PENDING)),
    "worker died": _verb(
        ENGINE,
        "A worker was found dead; its runs are free.",
        (
            (RUNNING,),
            {(LAST_CRASH, CANCEL_WAITS): CANCELLED, (LAST_CRASH,): BLOCKED, (): PENDING},
        ),
    ),
    "wake blocked": _verb(
        ENGINE,
        "Try runs again with the code of a new process.",
        ((BLOCKED,), {(BY_CODE,): PENDING, (): _SAME}),
    ),
    "clock moved back": _verb(ENGINE, "What was due at once is due at once by the new time."),
    "append": _verb(OWNER, "Add to its history, its streams and its heartbeats."),
    "work": _verb(OWNER, "A step begins.", (OWNABLE - {PAUSED}, RUNNING)),
    "wait": _verb(OWNER, "Nothing to do before something happens.", (OWNABLE - {PAUSED}, WAITING)),
    "put off": _verb(OWNER, "Give it back, for later.", (OWNABLE - {PAUSED}, PENDING)),
    "block": _verb(
        OWNER,
        "Stop it until a person decides.",
        (OWNABLE - {PAUSED}, {(CANCEL_WAITS,): CANCELLED, (): BLOCKED}),
        ((PAUSED,), {(CANCEL_WAITS,): CANCELLED, (): PAUSED}),
    ),
    "finish": _verb(OWNER, "The workflow returned.", (OWNABLE, COMPLETED)),
    "fail": _verb(OWNER, "The workflow raised.", (OWNABLE, FAILED)),
    "end cancelled": _verb(OWNER, "The workflow was unwound.", (OWNABLE, CANCELLED)),
    "continue as": _verb(OWNER, "Another run goes on under its id.", (OWNABLE, COMPLETED)),
}


def outcome(verb: str, status: str, facts: Collection[str] = ()) -> Outcome:
    """What a verb makes of a run. Raises `KeyError` for a verb that makes nothing of no run."""
    cases = VERBS[verb].outcomes[status]
    return next(then for wanted, then in cases.items() if all(one in facts for one in wanted))


def moves() -> Iterator[Move]:
    """Every cell of the table, by verb and status."""
    for name, verb in VERBS.items():
        for status in (NEW, *STATUSES):
            for facts, then in verb.outcomes.get(status, {}).items():
                yield Move(name, status, facts, then)
