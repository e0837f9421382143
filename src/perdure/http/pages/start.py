"""Start page: a form from a workflow's signature, the options of a start, and the same as code.

Rules: a workflow whose code this process does not know is started with JSON; a refusal is shown on
the form, with everything kept that was typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from perdure.codec.schemas import parameters_schema
from perdure.errors import DefinitionError, PerdureError
from perdure.http.access import Access
from perdure.http.body import form_of
from perdure.http.filling import Filled, filled, unfilled, with_secrets
from perdure.http.problems import status_of
from perdure.http.site import site_of, url
from perdure.http.start_code import as_curl, as_python
from perdure.http.templating import page
from perdure.reader.values import Declared
from perdure.runtime.declared import about
from perdure.views import typed

OPTIONS = ("id", "at", "queue", "key", "priority", "tags")
LABEL = "Arguments"
_ANY_ARGUMENTS: dict[str, Any] = {
    "type": "object", "description": "By name, as JSON.", "default": {},
}  # fmt: skip


class Options(msgspec.Struct):
    """The options of a start as they were typed, what they mean, and what is wrong with them."""

    typed: dict[str, str]
    given: dict[str, Any]
    errors: dict[str, str]


async def workflows(request: Request) -> Response:
    """The workflows that can be started."""
    forms = await _forms(request)
    names = sorted({*forms, *await site_of(request).reader.workflows()})
    found = [(name, forms.get(name)) for name in names]
    twin = url(request, "api", "v1", "workflows")
    return page(request, "start.html", area="start", json=twin, workflows=found)


async def form(request: Request) -> Response:
    """The form of one workflow; `again` names a run whose arguments fill it in."""
    name = request.path_params["workflow"]
    declared, again = await _form(request, name), request.query_params.get("again")
    schema = _schema(declared)
    if again is None:
        return await _drawn(request, name, declared, _blank(schema), Options({}, {}, {}))
    info = await site_of(request).reader.run(again)
    typed = {"queue": info.queue or "", "key": info.key or "", "tags": _tags_text(info.tags)}
    typed["priority"] = str(info.priority) if info.priority else ""
    drawn = unfilled(schema, info.args, label=LABEL) if info.workflow == name else _blank(schema)
    return await _drawn(request, name, declared, drawn, _options(typed), again=again)


async def start(request: Request) -> Response:
    """Start a run."""
    name, sent = request.path_params["workflow"], await form_of(request)
    declared, options = await _form(request, name), _options(sent)
    again = sent.get("again") or None
    form = filled(_schema(declared), sent, label=LABEL, masks=again is not None)
    if form.again or not form.fits or options.errors:
        status = 200 if form.again else 422
        return await _drawn(request, name, declared, form, options, status, again=again)
    engine = site_of(request).operated
    at = options.given.get("at")
    given = options.given | ({} if at is None else {"at": datetime.fromisoformat(at)})
    try:
        args = with_secrets(_schema(declared), form.value)
        run = await engine.start_by_name(name, args, like=again, **given)
    except PerdureError as error:
        return await _drawn(
            request,
            name,
            declared,
            form,
            options,
            status_of(error),
            again=again,
            refused=str(error),
        )
    return RedirectResponse(url(request, "runs", run.id), 303)


def _blank(schema: dict[str, Any]) -> Filled:
    return unfilled(schema, label=LABEL)


# --- parts ----------------------------------------------------------------------------------------


async def _forms(request: Request) -> dict[str, Declared]:
    """What is known of workflows: by the code that is here, else as another process declared it."""
    site = site_of(request)
    found = await site.reader.declared()
    for name, definition in ({} if site.engine is None else site.engine.workflows).items():
        try:
            found[name] = Declared(name, about(definition), parameters_schema(definition))
        except DefinitionError:  # its annotations can't be resolved, so it is started with JSON
            found.pop(name, None)
    return found


async def _form(request: Request, name: str) -> Declared | None:
    """The form of a workflow, None where nothing is known of its arguments. Raises `HTTPException`,
    404, for an unknown one.
    """
    form = (await _forms(request)).get(name)
    if form is None and name not in await site_of(request).reader.workflows():
        raise HTTPException(404, f"No workflow is called {name!r} here.")
    return form


def _schema(form: Declared | None) -> dict[str, Any]:
    return _ANY_ARGUMENTS if form is None else form.schema


async def _drawn(
    request: Request, name: str, declared: Declared | None, form: Filled, options: Options,
    status: int = 200, *, again: str | None = None, refused: str | None = None,
) -> Response:  # fmt: skip
    value = with_secrets(_schema(declared), form.value, masks=True)
    args = value if isinstance(value, dict) else {}
    needed = _schema(declared).get("required", [])
    access = request.scope.get("perdure.access")
    address = f"{request.url.scheme}://{request.url.netloc}{url(request, 'api', 'v1', 'runs')}"
    needs_token = isinstance(access, Access) and bool(access.tokens)
    queues = [one.name for one in await site_of(request).reader.queues()]
    return page(
        request, "start_form.html", status, area="start",
        json=url(request, "api", "v1", "workflows", name), name=name, form=form, options=options,
        again=again, refused=refused, queues=queues, known=declared is not None,
        about="" if declared is None else declared.about,
        python=as_python(name, args, options.given, [one for one in needed if one not in args]),
        curl=as_curl(address, name, args, options.given, token=needs_token),
    )  # fmt: skip


def _options(sent: Mapping[str, str]) -> Options:
    """What was typed of the options."""
    typed = {name: sent.get(name, "").strip() for name in OPTIONS}
    found = Options(typed, {}, {})
    for name, text in typed.items():
        if text:
            try:
                found.given[name] = _option(name, text)
            except ValueError as error:
                found.errors[name] = str(error)
    return found


def _option(name: str, text: str) -> Any:
    """The meaning of an option. Raises `ValueError` with what is wrong."""
    match name:
        case "priority":
            try:
                return int(text)
            except ValueError:
                raise ValueError("This is a whole number.") from None
        case "at":
            try:
                at = datetime.fromisoformat(text)
            except ValueError:
                raise ValueError("This is a date and a time, such as 2026-11-30T14:00.") from None
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()
        case "tags":
            # `tenant=acme large=true`, or a line each
            parts = text.splitlines() if "\n" in text else text.split()
            return typed.tags(part.strip() for part in parts)
        case _:
            return text


def _tags_text(tags: Mapping[str, Any]) -> str:
    shown = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in tags.items()
    }
    return "\n".join(f"{name}={value}" for name, value in shown.items())


ROUTES = [
    Route("/start", workflows, name="start"),
    Route("/start/{workflow:name}", form, methods=["GET"], name="start_form"),
    Route("/start/{workflow:name}", start, methods=["POST"]),
]
