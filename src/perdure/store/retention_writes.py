"""Write types of retention, with what they give: runs that ended long ago are deleted.

Rules: a write does a bounded part of the work and says what is left; `enough` is asked between
small steps, and ends the write where it says so, so that the caller bounds the time for which a
write holds the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

HOLD_MS_MAX = 120_000


class Prunable(msgspec.Struct, frozen=True):
    """A run that may be deleted, with all that goes with it.

    `earlier` are the runs that went before it under its id, the oldest first; `below` is how many
    runs all of them have started as children.
    """

    run: int
    id: str
    ended_ms: int
    earlier: tuple[int, ...] = ()
    below: int = 0

    @property
    def runs(self) -> int:
        """How many runs go."""
        return 1 + len(self.earlier) + self.below


class PrunablePage(msgspec.Struct):
    """Runs that may be deleted, the oldest first, and what keeps others that are as old.

    `after` is where to read on; None at the end.
    """

    found: list[Prunable]
    kept: list[tuple[str, str]]
    after: tuple[int, int] | None


class PruningState(msgspec.Struct, frozen=True):
    """What retention has done in a store: `runs` and `rows` so far, and `left` to sweep.

    `error` is why the archive can't be written, since `error_ms`.
    """

    runs: int = 0
    rows: int = 0
    at_ms: int | None = None
    archive: str | None = None
    archived_ms: int | None = None
    error: str | None = None
    error_ms: int | None = None
    left: int = 0


class PruneRuns(msgspec.Struct, gc=False):
    """Runs stop to exist, each with the runs before it under its id. Gives `Pruned`.

    One that has been retried meanwhile stays, and so does the newest run of the store, because its
    key must not be given again. What they consist of is deleted by `SweepPruned`.
    """

    found: Sequence[Prunable]
    at_ms: int
    enough: Callable[[], bool]


class Pruned(msgspec.Struct, gc=False):
    """How many of the asked runs are done, and how many runs exist no more. `earlier` is how many
    of the runs before the next asked one are done already.
    """

    looked_at: int
    runs: int
    earlier: int


class SweepPruned(msgspec.Struct, gc=False):
    """Delete what pruned runs consist of, up to `rows_max` rows. Gives `Swept`.

    Their children go, too, but not one that has not ended before `before_ms`: it was retried after
    the runs were found, and no archive has it.
    """

    rows_max: int
    at_ms: int
    before_ms: int
    enough: Callable[[], bool]


class Swept(msgspec.Struct, gc=False):
    """How many rows were deleted, children's own among them, and whether any are left."""

    rows: int
    runs: int
    done: bool


class ForgetIdle(msgspec.Struct, gc=False):
    """Delete what outlives its runs and has been idle since before `before_ms`, such as workers
    that have ended. Gives the number of rows, up to `rows_max` of each kind.
    """

    before_ms: int
    rows_max: int


class GiveBackSpace(msgspec.Struct, gc=False):
    """Give free pages back to the file system, but for `pages_kept`, or a share of the file where
    that is more: new rows need them soon. Gives `Space`.
    """

    pages_kept: int
    share_kept: float
    enough: Callable[[], bool]


class Space(msgspec.Struct, gc=False):
    """Free bytes and all bytes of a file, and how many were given back; zeros where the database
    sees to that by itself, or can't give any back. `done`: there is no more to give.
    """

    free_bytes: int
    file_bytes: int
    given_bytes: int
    done: bool


class HoldPruning(msgspec.Struct, gc=False):
    """One process prunes a store at a time: `holder` does until `until_ms`, if no other one does.

    Gives True, or False. With `until_ms` None it lets go. An end that is further away than
    `HOLD_MS_MAX` is that of a clock which was set back since, and holds nothing.
    """

    holder: str
    until_ms: int | None
    at_ms: int


class NoteArchive(msgspec.Struct, gc=False):
    """Where runs are archived, when the last file was written, or why none can be. Gives None."""

    archive: str | None
    archived_ms: int | None
    error: str | None
    at_ms: int
