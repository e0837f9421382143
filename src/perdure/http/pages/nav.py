"""Parts of the head of every page that change: what waits in the inbox, how old the data is."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perdure.http.site import site_of
from perdure.http.templating import page

SHOWN_MAX = 99


async def nav(request: Request) -> Response:
    """The badge beside "Inbox"."""
    count = await site_of(request).reader.inbox_count()
    return page(request, "_inbox_count.html", count=count.number, most=SHOWN_MAX)


async def about(request: Request) -> Response:
    """The line on what is looked at, which grows old as the list below it goes on."""
    return page(request, "_about.html")


ROUTES = [Route("/nav", nav, name="nav"), Route("/about", about, name="about")]
