"""Plans for a run in memory: what it is to do next, as values.

Rules: a plan holds no run, no loop and no store; the functions that make plans (recovery, outbox,
transactional) are given values and read nothing; `run.ActiveRun.do` carries out every kind of plan.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from perdure.core.events import Command
from perdure.runtime.steps import Again
from perdure.store.rows import InboxRow, RunRow


class PendingAttempt(msgspec.Struct, frozen=True, gc=False):
    """The next attempt of a step: its number, how many have failed, and when it is due (ms UTC).

    `again_ms` of 0 means that it is due now.
    """

    command: Command
    attempt: int
    failures: int
    again_ms: int = 0


class Feed(msgspec.Struct, frozen=True, gc=False):
    """Record an input and let the workflow react.

    `taken` is the id of the inbox row that it came from. `progress` says whether it counts as
    progress of the run, which ends its count of crashes.
    """

    kind: str
    ref: int | None = None
    name: str | None = None
    data: bytes | None = None
    took_ms: int | None = None
    taken: int | None = None
    progress: bool = True


class Drop(msgspec.Struct, frozen=True, gc=False):
    """Take a row out of the inbox that means nothing any more; the history does not mention it."""

    taken: int


class EndWait(msgspec.Struct, frozen=True, gc=False):
    """Carry out a decision on a step that waits for its next attempt, if it waits still."""

    row: InboxRow


class Note(msgspec.Struct, frozen=True, gc=False):
    """Record something about a step, or without `ref` about the run; no workflow sees it."""

    ref: int | None
    data: bytes
    taken: int | None = None


class RetryAttempt(msgspec.Struct, frozen=True, gc=False):
    """Record that an attempt failed, and make the next one when it is due."""

    command: Command
    again: Again


class Begin(msgspec.Struct, frozen=True, gc=False):
    """Make an attempt now, or when it is due."""

    attempt: PendingAttempt


class BeginAfterCommit(msgspec.Struct, frozen=True, gc=False):
    """Make an attempt when everything recorded so far is committed."""

    attempt: PendingAttempt


class BackOff(msgspec.Struct, frozen=True, gc=False):
    """Let an attempt wait until it is due; it holds nothing meanwhile."""

    attempt: PendingAttempt


class Admit(msgspec.Struct, frozen=True, gc=False):
    """A queue has admitted an attempt that waited in line."""

    attempt: PendingAttempt


class Transact(msgspec.Struct, frozen=True, gc=False):
    """Give an attempt of a transactional step to the writer; other plans wait until it is done."""

    attempt: PendingAttempt


class Block(msgspec.Struct, frozen=True, gc=False):
    """Stop until a person decides."""

    by: str
    reason: str


class Reissue(msgspec.Struct, frozen=True, gc=False):
    """Write the effect of a recorded command again: it is not known whether it was answered."""

    command: Command


class ChildSettled(msgspec.Struct, frozen=True, gc=False):
    """The file says what becomes of the child in row `seq`: its end will wake this run."""

    seq: int


class RetryChild(msgspec.Struct, frozen=True, gc=False):
    """Retry a child that failed, or was cancelled, for an earlier generation of this run."""

    command: Command
    child: RunRow


class AwaitChild(msgspec.Struct, frozen=True, gc=False):
    """Look at a child again when it has ended: an earlier generation of this run cancelled it."""

    command: Command
    child: RunRow


class Release(msgspec.Struct, frozen=True, gc=False):
    """Leave memory; the run returns by replay when it is due."""


Plan: TypeAlias = (
    Feed
    | Drop
    | EndWait
    | Note
    | RetryAttempt
    | Begin
    | BeginAfterCommit
    | BackOff
    | Admit
    | Transact
    | Block
    | Reissue
    | ChildSettled
    | RetryChild
    | AwaitChild
    | Release
)

Todo: TypeAlias = list[Command | PendingAttempt]
"""What begins, or is sent, with the commit of a turn."""
