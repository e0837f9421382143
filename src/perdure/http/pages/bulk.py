"""Pages of one verb for many runs: what it will do, and what it has done."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perdure.core import lifecycle
from perdure.errors import DefinitionError
from perdure.http import bulk
from perdure.http.addresses import Address
from perdure.http.body import form_of
from perdure.http.run_query import run_query
from perdure.http.site import site_of, url
from perdure.http.templating import page
from perdure.http.visitors import person

SHOWN_MAX = 100


async def many(request: Request) -> Response:
    """Say what a verb will do to the runs that were selected; with `sure`, do it."""
    form, site = await form_of(request), site_of(request)
    verb, query = str(form.get("verb") or ""), parse_qsl(str(form.get("query") or ""))
    back = Address(url(request), query)
    ids = [str(id) for id in form.getlist("id")]
    if verb not in bulk.VERBS:
        raise DefinitionError(f"{verb!r} is no verb for many runs: {', '.join(bulk.VERBS)} are.")
    if form.get("sure") and site.engine is not None:
        doing = bulk.carry_out(site.engine, verb, ids[: bulk.RUNS_MAX], person(request))
        done = [one async for one in doing]
        failed = [one for one in done if one.error is not None]
        return page(request, "bulk_done.html", area="runs", verb=verb, back=str(back),
                    done=len(done) - len(failed), failed=failed, query=back.query,
                    next=form.get("next"), most=bulk.RUNS_MAX)  # fmt: skip
    if form.get("all"):
        asked = run_query([*query, ("after", str(form.get("after") or ""))], datetime.now(UTC))
        plan = await bulk.plan_of_query(site.reader, verb, asked)
    else:
        plan = await bulk.plan_of_ids(site.reader, verb, ids)
    return page(
        request, "bulk.html", area="runs", plan=plan, back=str(back), query=back.query,
        meaning=lifecycle.VERBS[verb].meaning, shown=plan.acts[:SHOWN_MAX],
        acts=Counter(run.status for run in plan.acts).most_common(),
        leaves=Counter((run.status, run.refused) for run in plan.leaves).most_common(),
        most=bulk.RUNS_MAX, later=bool(form.get("after")),
    )  # fmt: skip


ROUTES = [Route("/bulk", many, methods=["POST"], name="bulk")]
