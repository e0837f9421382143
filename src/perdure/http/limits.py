"""Limits of requests: bytes of a body, and the time until the answer begins.

Rules: a body is counted while it is read, whatever its headers say; the time ends with the first
byte of the answer, so that streams may last; a handler that has to wait asks for more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

BODY_BYTES_MAX = 16 * 1024 * 1024
LOGIN_BYTES_MAX = 64 * 1024
"""Of a body that comes without a token: many of them at once must not fill the memory."""
ANSWER_S_MAX = 30.0
TIMEOUT = "perdure.timeout"


def time_limit(connection: HTTPConnection, seconds: float | None) -> None:
    """Give a request another time, from now on, until its answer begins; None for any."""
    limit: asyncio.Timeout | None = connection.scope.get(TIMEOUT)
    if limit is not None:
        now_s = asyncio.get_running_loop().time()
        limit.reschedule(None if seconds is None else now_s + seconds)


@contextlib.asynccontextmanager
async def in_time(scope: Scope, send: Send) -> AsyncIterator[Send]:
    """Limit the time until the answer begins. Raises `HTTPException` where it does not."""

    async def sent(message: Message) -> None:
        limit.reschedule(None)
        await send(message)

    async with asyncio.timeout(ANSWER_S_MAX) as limit:
        scope[TIMEOUT] = limit
        try:
            yield sent
        except asyncio.CancelledError:
            if not limit.expired():
                raise
            raise HTTPException(
                503,
                f"This took longer than {ANSWER_S_MAX:g} s, so it was given up. What was asked for "
                "may have been done: look before you ask again.",
            ) from None


def counted(scope: Scope, receive: Receive, most: int = BODY_BYTES_MAX) -> Receive:
    """A `receive` that refuses a body above the limit. Raises `HTTPException`, 413."""
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if length.isdigit() and int(length) > most:
        raise _too_large(most)
    total = 0

    async def received() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > most:
            raise _too_large(most)
        return message

    return received


def _too_large(most: int) -> HTTPException:
    return HTTPException(
        413,
        f"The body is larger than {most // 1024:,} KiB. Hand large data over as a "
        "path or an address.",
    )
