"""State of a server under `perdure dev`: which start of it answers.

Rules: a page asks for it and loads itself again when another start answers; elsewhere there is no
such address.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from perdure.http.site import site_of


async def dev(request: Request) -> Response:
    """The mark of this start."""
    if (start := site_of(request).dev) is None:
        raise HTTPException(404)
    return JSONResponse({"start": start})


ROUTES = [Route("/dev", dev, name="dev")]
