"""Write types of answers and forms: links that answer once, their use, and the declarations of
workflows that start forms are made from.

Rules: as in `writes`; `answers` says what each one does.
"""

from __future__ import annotations

import msgspec


class MakeLink(msgspec.Struct, gc=False):
    """A link to answer what a run waits for on a channel at row `wait`, until `expires_ms`.

    Gives None; `RunNotFound`, `RunFinished` or `NotAwaited`; or `TooManyLinks`. `digest` is that of
    the token, which is not stored.
    """

    run_id: str
    channel: str
    wait: int
    digest: str
    recipient: str | None
    at_ms: int
    expires_ms: int


class AnswerByLink(msgspec.Struct, gc=False):
    """A message that comes by a link, which is used up by it. `data` is JSON.

    Gives what `Deliver` gives, or `LinkUnknown`, `LinkUsed`, `LinkExpired`.
    """

    digest: str
    data: bytes
    at_ms: int


class DeclareWorkflows(msgspec.Struct, gc=False):
    """What a process says of its workflows: name, the first line of its documentation, and JSON
    Schema of its arguments, of each. Gives None.
    """

    workflows: list[tuple[str, str, bytes]]
    at_ms: int
