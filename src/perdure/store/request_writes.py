"""Write types of requests and exposed values; `writes.StartAnd` starts a run with a request.

Rules: as in `writes`; `requests` says what each one does.
"""

from __future__ import annotations

import msgspec


class Ask(msgspec.Struct, gc=False):
    """A request for a run's inbox, on a channel; `value` is JSON.

    Gives `Asked`, `RunNotFound`, `RunFinished`, `InboxFull`, or `RequestKeyUsed`. A request with
    the key, the channel and the value of an earlier one is that one, also after the run has ended.
    """

    run_id: str
    channel: str
    key: str
    sender: str
    value: bytes
    at_ms: int


class Expose(msgspec.Struct, gc=False):
    """The exposed value `name` of a run is that in row `seq`. Gives None, or `LeaseLost`."""

    run: int
    owner: int
    seq: int
    name: str


class Reply(msgspec.Struct, gc=False):
    """The reply in row `seq` of a run to the request that its row `to` has.

    Gives `Replied`; `LeaseLost`; or None where that request does not wait for a reply: it was to
    another run, whose fork this one is, or had a reply before this run was retried.
    """

    run: int
    owner: int
    seq: int
    to: int
    refused: bool
    at_ms: int
