"""Gate: everything that stands between a server and the handlers of a site.

Rules: plain ASGI, so that streams pass as they are; a request is refused before any handler sees
it; what changes something is checked in one place: the visitor's role, the origin, the form key;
every answer carries the headers that keep it in its place.
"""

from __future__ import annotations

import contextlib
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perdure.http import assets, body, csrf, limits, problems, visitors
from perdure.http.access import Access, unknown
from perdure.http.site import ROOT, Site, url
from perdure.http.templating import here_of
from perdure.http.visitors import ANONYMOUS, LINK, LOCAL, OPERATE, Visitor, visitor_of

SAFE = ("GET", "HEAD", "OPTIONS")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer, forms would be sent with `Origin: null`
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Gate:
    """The outermost part of a site's application. `prefix` is what its addresses begin with where
    a proxy in front has taken that away.
    """

    def __init__(self, app: ASGIApp, site: Site, access: Access, prefix: str = "") -> None:
        self._app, self._site, self._access, self._prefix = app, site, access, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                scope = {**self._rooted(scope), csrf.NEW: {}}
                await self._answer(scope, receive, _with_headers(scope, send))
            case "lifespan":
                await self._live(receive, send)
            case _:
                await send({"type": "websocket.close", "code": 1000})

    def _rooted(self, scope: Scope) -> Scope:
        root = scope.get("root_path", "") + self._prefix
        return {**scope, "root_path": root, ROOT: root, "app": self._app}

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        request = Request(scope)
        try:
            async with limits.in_time(scope, sent) as sent_in_time:
                receive = limits.counted(scope, receive)
                app, receive = await self._admitted(request, receive)
                await app(scope, receive, sent_in_time)
        except Exception as error:
            if begun:  # Starlette has answered, and logged what was not foreseen
                return
            await problems.response(request, error)(scope, receive, send)

    async def _admitted(self, request: Request, receive: Receive) -> tuple[ASGIApp, Receive]:
        """What answers the request. Raises `HTTPException` for what is refused."""
        path = problems.route_path(request)
        request.scope["perdure.access"] = self._access
        if path.startswith("/static/") and request.method in SAFE:  # what refusals are made of, too
            return self._app, receive
        visitor = self._access.visitor(request) or _public(path)
        if visitor is None:
            return _to_login(request), receive
        request.scope[visitors.KEY] = visitor
        if request.method in SAFE:
            check_embedding(request)
            return self._app, receive
        check_origin(request)
        if visitor is ANONYMOUS:
            receive = limits.counted(request.scope, receive, limits.LOGIN_BYTES_MAX)
        if path not in ("/login", "/logout") and not path.startswith("/answer/"):
            self._check_role(visitor)  # first: who may not do it is not helped by a form key
        if not path.startswith(("/api/", "/answer/")) and not _is_bearer(request):
            receive = await _check_form_key(request, receive)
        return self._app, receive

    def _check_role(self, visitor: Visitor) -> None:
        if self._site.read_only:
            raise HTTPException(
                403, "This store is only looked at here, so nothing can be changed through it."
            )
        if visitor.role != OPERATE:
            raise HTTPException(
                403, f"The token {visitor.name!r} may look, and change nothing (its role is view)."
            )

    async def _live(self, receive: Receive, send: Send) -> None:
        """Open the engine while the server lives, where nobody else has opened it."""
        engine = self._site.engine
        async with contextlib.AsyncExitStack() as stack:
            await receive()
            try:
                if engine is not None and not engine.is_open:
                    await stack.enter_async_context(engine)
            except Exception as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


def _public(path: str) -> Visitor | None:
    """The visitor of what needs no token: the login page, and links that answer."""
    if path.startswith("/answer/"):
        return LINK
    return ANONYMOUS if path == "/login" else None


def _to_login(request: Request) -> ASGIApp:
    """The login page for browsers, a refusal for programs. Raises `HTTPException`."""
    if problems.wants_json(request) or "text/html" not in request.headers.get("accept", ""):
        raise unknown("A token is needed here. Send it as `Authorization: Bearer TOKEN`.")
    if request.method == "GET" and _is_foreign(request):
        # A link of another site comes without the cookie; from this page on it is sent.
        return HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0">')
    login = url(request, "login", next=here_of(request) if request.method == "GET" else None)
    if "hx-request" in request.headers:  # a part of a page: the browser has to go there as a whole
        return Response(status_code=401, headers={"HX-Redirect": login})
    return RedirectResponse(login, 303)


def check_embedding(connection: HTTPConnection) -> None:
    """Raises `HTTPException`, 403, where a page of another site embeds an address or fetches it; a
    link may lead here.
    """
    if _is_foreign(connection) and connection.headers.get("sec-fetch-mode") != "navigate":
        raise HTTPException(403, "A page of another site asked for this; open it by itself.")


def _is_foreign(connection: HTTPConnection) -> bool:
    """Whether a browser says that a page of another site asks."""
    return connection.headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


def check_origin(connection: HTTPConnection) -> None:
    """Raises `HTTPException`, 403, for what a page of another site has sent."""
    origin = connection.headers.get("origin")
    if "sec-fetch-site" in connection.headers:
        own = not _is_foreign(connection)
    else:  # browsers that send neither do not exist any more; programs do
        own = origin is None or urlsplit(origin).netloc == connection.headers.get("host", "")
    if not own:
        raise HTTPException(403, "This was sent by a page of another site, so nothing was done.")


def _is_bearer(request: Request) -> bool:
    """Whether it came with a token of its own, which no page of another site can send."""
    visitor = visitor_of(request)
    return visitor not in (LOCAL, LINK, ANONYMOUS) and not visitor.session


async def _check_form_key(request: Request, receive: Receive) -> Receive:
    """A `receive` that gives the body again. Raises `HTTPException`, 403, without the form key."""
    given = request.headers.get(csrf.HEADER)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given is None and kind == body.FORM:
        content, receive = await body.body_of(receive)
        given = body.fields_of(content).get(csrf.FIELD)
    if given is None or not csrf.is_repeated(request, given):
        raise HTTPException(
            403,
            "The form key is missing or not that of this browser, so nothing was done. Load the "
            "page again (cookies must be allowed) and repeat it.",
        )
    return receive


def _with_headers(scope: Scope, send: Send) -> Send:
    """A `send` that adds the headers of every answer."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            more = {name: value for name, value in HEADERS.items() if name.encode() not in names}
            if b"cache-control" not in names:
                more["cache-control"] = _caching(scope, message["status"])
            if (key := scope[csrf.NEW].get(csrf.COOKIE)) is not None:
                more["set-cookie"] = cookie(scope, csrf.COOKIE, key)
            given += [(name.encode(), value.encode()) for name, value in more.items()]
            message = {**message, "headers": given}
        await send(message)

    return sent


def _caching(scope: Scope, status: int) -> str:
    """Files whose address has a mark of their content may be kept; nothing else is."""
    path = scope["path"].removeprefix(scope[ROOT])
    found = path.startswith(assets.STATIC) and status in (200, 304)
    kept = found and assets.is_marked(path, scope.get("query_string", b""))
    return "public, max-age=31536000, immutable" if kept else "no-store"


def cookie(scope: Scope, name: str, value: str, age_s: int | None = None) -> str:
    """A Set-Cookie header: for this site's addresses only, unseen by scripts and other sites."""
    path = scope.get(ROOT) or "/"
    parts = [f"{name}={value}", f"Path={path}", "HttpOnly", "SameSite=Strict"]
    parts += [] if age_s is None else [f"Max-Age={age_s}"]
    parts += ["Secure"] if scope.get("scheme") == "https" else []
    return "; ".join(parts)
