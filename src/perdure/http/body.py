"""Bodies of requests: forms, and a body that is read twice.

Rules: forms are urlencoded, as pages send them; there are no uploads.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.datastructures import ImmutableMultiDict
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

FORM = "application/x-www-form-urlencoded"
FIELDS_MAX = 10_000
Form = ImmutableMultiDict[str, str]


async def form_of(request: Request) -> Form:
    """The fields of a form; `getlist` gives all of one name. Raises `HTTPException`, 400 or 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if body and kind != FORM:
        raise HTTPException(415, f"A form is sent as {FORM}, not as {kind or 'nothing'}.")
    return fields_of(body)


def fields_of(body: bytes) -> Form:
    """The fields of an urlencoded body. Raises `HTTPException`, 400."""
    try:
        text = body.decode()
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError as error:
        raise HTTPException(400, f"The form can't be read: {error}.") from error
    return ImmutableMultiDict(pairs)


async def body_of(receive: Receive) -> tuple[bytes, Receive]:
    """The whole body of a request, and a `receive` that gives it again."""
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HTTPException(400, "The request broke off.")
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body, given = b"".join(parts), False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return body, again
