"""Page of workers: which processes execute runs, and whether they are alive."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perdure.http.site import site_of, url
from perdure.http.templating import page
from perdure.runtime.workers import NO_WORKER


async def workers(request: Request) -> Response:
    """Workers that have not ended."""
    found = await site_of(request).reader.workers()
    there = any(one.alive and not one.asked_only for one in found)
    return page(request, "workers.html", area="workers", workers=found,
                no_worker=None if there else NO_WORKER,
                json=url(request, "api", "v1", "workers"))  # fmt: skip


ROUTES = [Route("/workers", workers, name="workers")]
