"""Problems: errors as statuses of HTTP, as problem documents (RFC 9457) and as pages.

Rules: one `match` decides the status of every error; an error of Perdure's is shown with its own
text, any other one with a number only, under which the log has it.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import Response

from perdure import errors
from perdure.errors import PerdureError
from perdure.http.site import root_of
from perdure.http.templating import page
from perdure.http.values import calm

log = logging.getLogger("perdure")

_IN_A_DATABASE = re.compile(r"/db/[^/]+/api/")
"""The API of one of the databases of `perdure observe`."""
PROBLEM_JSON = "application/problem+json"


class Problem(msgspec.Struct, frozen=True):
    """A problem document. `error` is the class of the error; `number` finds it in the log."""

    type: str
    title: str
    status: int
    detail: str
    error: str | None = None
    number: str | None = None


def status_of(error: PerdureError) -> int:
    """The status of an error of Perdure's."""
    match error:
        case (
            errors.RunNotFound()
            | errors.QueueNotFound()
            | errors.ScheduleNotFound()
            | errors.UnknownWorkflow()
            | errors.NotExposed()
            | errors.LinkUnknown()
        ):
            return 404
        case (
            errors.RunExists()
            | errors.RunFinished()
            | errors.RunBlocked()
            | errors.RunFailed()
            | errors.RunCancelled()
            | errors.RequestKeyUsed()
            | errors.RequestRefused()
            | errors.RequestUnanswered()
            | errors.AlreadyReplied()
            | errors.RetryFailed()
            | errors.NotAwaited()
            | errors.StepNotWaiting()
            | errors.SecretsMissing()
        ):
            return 409
        case errors.LinkUsed() | errors.LinkExpired():
            return 410
        case errors.PayloadTooLarge():
            return 413
        case errors.NotSerializable() | errors.DefinitionError() | errors.BadPosition():
            return 422
        case errors.QueueFull() | errors.InboxFull() | errors.TooManyLinks():
            return 429
        case errors.RequestTimeout():
            return 504
        case errors.StoreFull():
            return 507
        case errors.StoreError() | errors.EngineClosed():
            return 503
        case _:
            return getattr(type(error), "http_status", 500)


def problem_of(error: Exception) -> Problem:
    """What is shown of an error; one that nobody foresaw gets a number."""
    match error:
        case HTTPException(status_code=status, detail=detail):
            return Problem("about:blank", _phrase(status), status, _sentence(status, detail))
        case ClientDisconnect():  # nobody reads it
            return Problem("about:blank", _phrase(400), 400, "The request broke off.")
        case PerdureError():
            status, name = status_of(error), type(error).__name__
            return Problem(f"urn:perdure:error:{name}", _phrase(status), status, str(error), name)
        case _:
            number = secrets.token_hex(4)
            text = f"Something went wrong here. The log of the server has it under {number}."
            return Problem("about:blank", _phrase(500), 500, text, number=number)


def response(connection: HTTPConnection, error: Exception) -> Response:
    """The answer for an error: a problem document for programs, a page for people."""
    problem = problem_of(error)
    if problem.number is not None:
        log.error(
            "%s: %s %s", problem.number, connection.scope.get("method", ""), loggable(connection),
            exc_info=error,
        )  # fmt: skip
    headers = dict(getattr(error, "headers", None) or {})
    if wants_json(connection):
        return Response(msgspec.json.encode(problem), problem.status, headers, PROBLEM_JSON)
    text = with_code(problem.detail)
    answer = page(connection, "problem.html", problem.status, problem=problem, text=text)
    answer.headers.update(headers)
    return answer


async def answer(request: Request, error: Exception) -> Response:
    """A handler of errors, as Starlette takes it."""
    return response(request, error)


HANDLERS: Mapping[Any, Any] = dict.fromkeys(
    (HTTPException, ClientDisconnect, PerdureError, Exception), answer
)


def with_code(text: str) -> Markup:
    """A text of an error for a page: what stands between backticks is code.

    >>> with_code("`perdure ls` lists <runs>")
    Markup('<code>perdure ls</code> lists &lt;runs&gt;')
    """
    parts = calm(text).split("`")
    if len(parts) % 2 == 0:  # a backtick too many: it is the text's own
        return escape(calm(text))
    code = Markup("<code>{}</code>")
    return Markup("").join(code.format(one) if i % 2 else one for i, one in enumerate(parts))


def wants_json(connection: HTTPConnection) -> bool:
    """Whether a program asks: for the API, for the twin of a page, or by its Accept header."""
    path, accept = route_path(connection), connection.headers.get("accept", "")
    return (
        path.startswith("/api/")
        or _IN_A_DATABASE.match(path) is not None
        or path.endswith(".json")
        or ("text/html" not in accept and "json" in accept)
    )


def route_path(connection: HTTPConnection) -> str:
    """The path below the root of this application."""
    path: str = connection.scope["path"]
    root = root_of(connection)
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def loggable(connection: HTTPConnection) -> str:
    """The path for the log: without the query, and without the token of a link that answers."""
    path = route_path(connection)
    return "/answer/…" if path.startswith("/answer/") else quote(path)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _sentence(status: int, detail: str) -> str:
    if detail != _phrase(status):
        return detail
    match status:
        case 404:
            return "There is nothing at this address."
        case 405:
            return "This address does not take this method."
        case _:
            return f"{detail}."
