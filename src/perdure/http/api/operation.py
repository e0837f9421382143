"""Operations of the API: a row of the table that makes routes, the OpenAPI document and the page.

Rules: query, body and answer are types, so that they are checked and described by the same thing;
an unknown field is refused; integers are exact, and are text where a client asks for that.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Any, Generic, TypeVar, cast, get_origin

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import perdure.http.paths  # noqa: F401 - it makes {id:name} known
from perdure.http.site import Site, site_of
from perdure.http.visitors import person
from perdure.process.clock import SystemClock
from perdure.reader import StoreReader
from perdure.runtime.engine import Engine
from perdure.runtime.info import instant

ROOT = "/api/v1"
EXACT_MAX = 2**53 - 1
"""The largest integer that every JSON reader keeps."""
INTEGERS = "integers"

Position = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
UpTo500 = Annotated[int, msgspec.Meta(ge=1, le=500)]
UpTo1000 = Annotated[int, msgspec.Meta(ge=1, le=1_000)]
UpTo10000 = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
WaitSeconds = Annotated[float, msgspec.Meta(ge=0, le=60)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3.2e8)]


Q = TypeVar("Q")
B = TypeVar("B")


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class Call(Generic[Q, B]):
    """What a handler gets: the site, the parts of the path, the query and the body, checked."""

    def __init__(self, request: Request, query: Q, body: B) -> None:
        self.request, self.query, self.body = request, query, body
        self.site: Site = site_of(request)
        self.headers: dict[str, str] = {}
        """Of the answer."""
        self.status: int | None = None
        """Of the answer, where it is not the operation's own."""

    @property
    def reader(self) -> StoreReader:
        return self.site.reader

    @property
    def engine(self) -> Engine:
        """Raises 403 where the site is only looked at."""
        return self.site.operated

    @property
    def person(self) -> str:
        """The sender of a change: the name of the token, "local" where none is needed."""
        return person(self.request)

    @property
    def idempotency_key(self) -> str | None:
        """The client's name for this request. Raises 400 for one that can't be kept."""
        key = self.request.headers.get("idempotency-key")
        if key is not None and not (1 <= len(key) <= 200 and key.isascii() and key.isprintable()):
            raise HTTPException(400, "Idempotency-Key is 1 to 200 printable ASCII characters.")
        return key

    def part(self, name: str) -> str:
        """A part of the path, decoded."""
        return cast("str", self.request.path_params[name])


Handler = Callable[[Any], Awaitable[Any]]


@dataclass(frozen=True)
class Operation:
    """One thing that the API does. The first paragraph of the handler's docstring is its summary,
    its name is the operation's id. `errors` are the statuses that it can answer besides those that
    every operation can. `safe` says that it changes nothing.
    """

    method: str
    path: str
    handler: Handler
    answer: Any
    query: type[msgspec.Struct] = Nothing
    body: type[msgspec.Struct] | None = None
    status: int = 200
    errors: tuple[int, ...] = ()
    group: str = "Runs"
    media: str = "application/json"
    """What it answers with; handlers of other media give a whole `Response`."""
    takes: str | None = None
    """What the body is, where it is a file and no JSON."""

    @property
    def id(self) -> str:
        return self.handler.__name__

    @property
    def safe(self) -> bool:
        return self.method == "GET"

    @property
    def summary(self) -> str:
        return _paragraphs(self.handler)[0]

    @property
    def description(self) -> str:
        of_query = [] if self.query is Nothing else [inspect.cleandoc(self.query.__doc__ or "")]
        return "\n\n".join([*_paragraphs(self.handler)[1:], *of_query])

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it."""
        return self.path.replace(":name}", "}")

    @property
    def parts(self) -> list[str]:
        """Names of the parts of the path, each a `NameConvertor`'s."""
        return re.findall(r"{(\w+)}", self.template)

    def route(self) -> Route:
        """The route of this operation."""
        return Route(ROOT + self.path, self._serve, methods=[self.method], name=f"api.{self.id}")

    async def _serve(self, request: Request) -> Response:
        query = _query(request, self.query)
        body = None if self.body is None else await _body(request, self.body)
        call: Call[Any, Any] = Call(request, query, body)
        value = await self.handler(call)
        return value if isinstance(value, Response) else _answer(call, value, self)


def now() -> datetime:
    """The time, for filters."""
    return instant(SystemClock().now_ms())


def _paragraphs(handler: Handler) -> list[str]:
    text = inspect.cleandoc(handler.__doc__ or handler.__name__)
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


# --- requests -------------------------------------------------------------------------------------


def _query(request: Request, type_: type[msgspec.Struct]) -> Any:
    given: dict[str, Any] = {}
    lists = {
        field.encode_name
        for field in msgspec.structs.fields(type_)
        if get_origin(field.type) is list
    }
    for name, text in request.query_params.multi_items():
        if name in lists:
            given.setdefault(name, []).append(text)
        elif name in given:
            raise HTTPException(422, f"The parameter {name[:50]!r} is given twice.")
        elif name != INTEGERS:
            given[name] = text
    try:
        return msgspec.convert(given, type_, strict=False)
    except msgspec.ValidationError as error:
        raise HTTPException(422, f"The query does not fit: {_told(error)}") from None


async def _body(request: Request, type_: type[msgspec.Struct]) -> Any:
    raw = await request.body()
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if raw and media != "application/json" and not media.endswith("+json"):
        raise HTTPException(415, "The body is JSON: send it with Content-Type: application/json.")
    try:
        return msgspec.json.decode(raw or b"{}", type=type_)
    except msgspec.ValidationError as error:
        raise HTTPException(422, f"The body does not fit: {_told(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPException(400, f"The body is no JSON: {error}") from None


def _told(error: msgspec.ValidationError) -> str:
    """What msgspec says, with JSON's words for types."""
    return str(error).replace("`", "'").rstrip(".") + "."


# --- answers --------------------------------------------------------------------------------------


def encoded(value: Any, *, integers_as_text: bool = False) -> bytes:
    """A value as JSON, as the command line writes it."""
    raw = msgspec.json.encode(value, enc_hook=str)
    if integers_as_text:
        return msgspec.json.encode(_exact(msgspec.json.decode(raw)))
    return raw


def _exact(value: Any) -> Any:
    match value:
        case bool():
            return value
        case int() if not -EXACT_MAX <= value <= EXACT_MAX:
            return str(value)
        case list():
            return [_exact(item) for item in value]
        case dict():
            return {key: _exact(item) for key, item in value.items()}
        case _:
            return value


def _answer(call: Call[Any, Any], value: Any, operation: Operation) -> Response:
    request = call.request
    raw = encoded(value, integers_as_text=request.query_params.get(INTEGERS) == "text")
    headers = {"cache-control": "private, no-cache", **call.headers}
    if operation.safe:
        tag = f'W/"{blake2b(raw, digest_size=9).hexdigest()}"'
        headers["etag"] = tag
        known = request.headers.get("if-none-match", "")
        if tag in (one.strip() for one in known.split(",")):
            return Response(None, 304, headers)
    status = operation.status if call.status is None else call.status
    return Response(raw, status, headers, media_type="application/json")
