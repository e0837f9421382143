"""Errors of requests and exposed values: refusals, replies that don't come, misused keys."""

from __future__ import annotations

from shlex import quote

from perdure.errors.base import PerdureError


class RequestRefused(PerdureError):
    """The run refused a request; `reason` is what it said, or why the value does not fit."""

    def __init__(self, run_id: str, channel: str, reason: str) -> None:
        self.run_id, self.channel, self.reason = run_id, channel, reason
        why = f": {reason.rstrip('.')}" if reason.strip(". ") else " without a reason"
        super().__init__(
            f"Run {run_id!r} refused the request on channel {channel!r}{why}. "
            "Ask again with another value and another key."
        )


class RequestTimeout(PerdureError, TimeoutError):
    """No reply came in time. The request stays; asking again with the same `key` waits for it."""

    def __init__(
        self, run_id: str, channel: str, key: str, timeout_s: float, standing: str
    ) -> None:
        self.run_id, self.channel, self.key = run_id, channel, key
        super().__init__(
            f"Run {run_id!r} has not replied on channel {channel!r} within {timeout_s:g} s: "
            f"{standing}. The request stays with the run, and asking again with key={key!r} "
            "waits for its reply."
        )


class RequestUnanswered(PerdureError):
    """The run ended without a reply to a request; `status` is how it ended."""

    def __init__(
        self, run_id: str, channel: str, key: str, status: str, *, error: str = "", retry: bool
    ) -> None:
        self.run_id, self.channel, self.key, self.status = run_id, channel, key, status
        how = f"{status}: {error.rstrip('.')}" if error else status
        more = (
            f"After `perdure retry {quote(run_id)}` the same request, asked again with "
            f"key={key!r}, waits for the reply of the retried run."
            if retry
            else f"`perdure show {quote(run_id)}` shows what it did."
        )
        super().__init__(
            f"Run {run_id!r} ended ({how}) before it replied to the request on channel "
            f"{channel!r}. {more}"
        )


class RequestKeyUsed(PerdureError):
    """The key of a request is that of another request to this run."""

    def __init__(self, run_id: str, key: str, difference: str) -> None:
        self.run_id, self.key = run_id, key
        super().__init__(
            f"Run {run_id!r} has a request with key {key!r} already, and {difference}. Ask with "
            "another key, or for the same reply with the same channel and value."
        )


class AlreadyReplied(PerdureError, RuntimeError):
    """Workflow code replied to a request, or refused it, a second time."""

    def __init__(self, run_id: str, channel: str, key: str) -> None:
        self.run_id, self.channel, self.key = run_id, channel, key
        super().__init__(
            f"The request {key!r} on channel {channel!r} of run {run_id!r} has a reply already, "
            "and a request gets one. Reply or refuse on one path only."
        )


class NotExposed(PerdureError, LookupError):
    """The run ended without setting an exposed value."""

    def __init__(self, run_id: str, name: str, status: str, names: tuple[str, ...] = ()) -> None:
        self.run_id, self.name, self.status = run_id, name, status
        have = f"It set: {', '.join(names[:20])}." if names else "It set none."
        super().__init__(
            f"Run {run_id!r} ended ({status}) without expose({name}=...). {have} "
            "exposed() without a name gives all of them."
        )
