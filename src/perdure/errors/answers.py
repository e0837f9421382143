"""Errors of answers: waits that are over, links that open nothing any more."""

from __future__ import annotations

from datetime import datetime
from shlex import quote

from perdure.errors.base import PerdureError


class NotAwaited(PerdureError):
    """The run does not wait for this answer, or not any more. `by` and `at` are the sender
    and the time of the answer that was given, where they are known.
    """

    def __init__(
        self, run_id: str, channel: str | None, status: str, by: str | None = None,
        at: datetime | None = None,
    ) -> None:  # fmt: skip
        self.run_id, self.channel, self.status, self.by, self.at = run_id, channel, status, by, at
        why = f"it is {status}" if at is None else f"{by or 'somebody'} answered at {_clock(at)}"
        what = "an answer" if channel is None else f"this answer on channel {channel!r}"
        super().__init__(
            f"Run {run_id!r} does not wait for {what} now: {why}. "
            f"`perdure show {quote(run_id)}` shows what it does."
        )


class LinkUnknown(PerdureError, LookupError):
    """No link has this token: it was cut short, its run was pruned, or it is of another store."""

    def __init__(self) -> None:
        super().__init__(
            "There is no such link in this store. Open it exactly as it was sent, or ask for a new "
            "one; `perdure inbox link ID` makes one."
        )


class LinkUsed(PerdureError):
    """The link has been used: it gives one answer."""

    def __init__(self, run_id: str, at: datetime) -> None:
        self.run_id, self.at = run_id, at
        super().__init__(
            f"This link to run {run_id!r} was used at {_clock(at)}, and a link gives one answer. "
            f"`perdure inbox link {quote(run_id)}` makes a new one, if the run waits again."
        )


class LinkExpired(PerdureError):
    """The time of the link is over."""

    def __init__(self, run_id: str, at: datetime) -> None:
        self.run_id, self.at = run_id, at
        super().__init__(
            f"This link to run {run_id!r} was good until {_clock(at)}. "
            f"`perdure inbox link {quote(run_id)}` makes a new one."
        )


class TooManyLinks(PerdureError):
    """A run has as many links as one may have."""

    def __init__(self, run_id: str, limit: int) -> None:
        self.run_id, self.limit = run_id, limit
        super().__init__(
            f"Run {run_id!r} has {limit:,} links already, which is the limit. Send one of those, "
            f"or answer it with `perdure inbox answer {quote(run_id)}`."
        )


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
