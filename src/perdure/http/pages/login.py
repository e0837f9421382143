"""Login page: a token is traded for a cookie.

Rules: the token comes in the body of a form and is in no address and no log; the page leads back to
where the visitor was, on this site only.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from perdure.http import gate, sessions
from perdure.http.access import Access, session
from perdure.http.body import form_of
from perdure.http.site import root_of, url
from perdure.http.templating import page


async def login(request: Request) -> Response:
    """The form, and what it sends."""
    access: Access = request.scope["perdure.access"]
    wanted = request.query_params.get("next", "")
    if request.method in gate.SAFE:
        return _form(request, wanted, needed=bool(access.tokens))
    form = await form_of(request)
    wanted = form.get("next", "")
    try:
        token = access.checked(request, form.get("token", "").strip())
    except HTTPException as refused:
        answer = _form(request, wanted, refused.detail, refused.status_code)
        answer.headers.update(refused.headers or {})
        return answer
    back = RedirectResponse(own_address(request, wanted) or url(request), 303)
    back.headers.append(
        "set-cookie",
        gate.cookie(request.scope, access.cookie, session(token), sessions.LASTS_S),
    )
    return back


async def logout(request: Request) -> Response:
    """End of a session, of copies of its cookie too."""
    access: Access = request.scope["perdure.access"]
    access.log_out(request)
    away = RedirectResponse(url(request, "login"), 303)
    away.headers.append("set-cookie", gate.cookie(request.scope, access.cookie, "", 0))
    return away


def own_address(request: Request, wanted: str) -> str | None:
    """An address that was handed in, where it is one of this site and nothing else."""
    if not wanted.isprintable() or "\\" in wanted:
        return None
    try:
        parts = urlsplit(wanted)
    except ValueError:  # such as //[
        return None
    if parts.scheme or parts.netloc or not wanted.startswith(f"{root_of(request)}/"):
        return None
    return None if wanted.startswith("//") or "/../" in f"{parts.path}/" else wanted


def _form(
    request: Request, wanted: str, refused: str = "", status: int = 200, needed: bool = True
) -> Response:
    return page(request, "login.html", status, next=wanted, refused=refused, needed=needed)


ROUTES = [
    Route("/login", login, methods=["GET", "POST"], name="login"),
    Route("/logout", logout, methods=["POST"], name="logout"),
]
