"""Page of runs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perdure.http.site import site_of
from perdure.http.templating import page
from perdure.reader.values import RunQuery


async def runs(request: Request) -> Response:
    """The list of runs."""
    found = await site_of(request).reader.runs(RunQuery())
    return page(request, "runs.html", area="runs", runs=found.runs)


ROUTES = [Route("/", runs, name="runs")]
