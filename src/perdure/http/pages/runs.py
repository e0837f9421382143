"""Page of runs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perdure.http.site import site_of
from perdure.http.templating import page
from perdure.runtime.queries import Filter


async def runs(request: Request) -> Response:
    """The list of runs."""
    return page(
        request, "runs.html", area="runs", runs=await site_of(request).reader.summaries(Filter())
    )


ROUTES = [Route("/", runs, name="runs")]
