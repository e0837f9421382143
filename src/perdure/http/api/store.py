"""The store as a whole: workers, system, doctor, SQL, retention, workflows."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from perdure.api.definitions import Workflow
from perdure.api.retention import Retention
from perdure.codec.schemas import parameters_schema
from perdure.errors import DefinitionError, UnknownWorkflow
from perdure.http.api.control import Body
from perdure.http.api.operation import Call, Nothing, Operation, Seconds, UpTo10000
from perdure.http.limits import time_limit
from perdure.reader.values import Declared, SystemFacts, Table, WorkerInfo
from perdure.runtime.prune_report import PruneReport
from perdure.views.shapes import Doctor


class Sql(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query that only reads, and how many rows at most."""

    q: str
    limit: UpTo10000 = 1_000


class Prune(Body, frozen=True, kw_only=True):
    """How many seconds runs are kept that ended so; null keeps them for ever. Nothing is done
    unless `dry_run` is false.
    """

    completed: Seconds | None = 30 * 86_400.0
    failed: Seconds | None = 90 * 86_400.0
    cancelled: Seconds | None = 30 * 86_400.0
    dry_run: bool = True


class WorkflowInfo(msgspec.Struct, frozen=True):
    """A workflow. With `known` its code is in this process. `inputs` is the JSON Schema of its
    arguments, as an object by parameter name, and `description` its docstring; of one whose code is
    elsewhere they are what a process with the code has declared, the docstring by its first line.
    """

    name: str
    known: bool
    inputs: dict[str, Any] | None = None
    description: str = ""


async def list_workers(call: Call[Nothing, None]) -> list[WorkerInfo]:
    """List workers that have not ended."""
    return await call.reader.workers()


async def get_system(call: Call[Nothing, None]) -> SystemFacts:
    """Get sizes, versions, counts and the oldest due time of the store."""
    return await call.reader.system()


async def doctor(call: Call[Nothing, None]) -> dict[str, Any]:
    """Check the whole file, and list what stands still and why, as `perdure doctor --json`.

    It takes as long as the file is large.
    """
    time_limit(call.request, 600)
    return await call.reader.doctor()


async def run_sql(call: Call[Sql, None]) -> Table:
    """Run an SQL query that only reads, for at most two seconds."""
    return await call.reader.sql(call.query.q, call.query.limit)


async def prune(call: Call[Nothing, Prune]) -> PruneReport:
    """Delete runs that ended long ago, after a dry run that says which, as `perdure prune --json`.

    An archive is the business of the command line and of the engine's own retention.
    """
    asked = call.body
    retention = Retention(asked.completed, asked.failed, asked.cancelled)
    time_limit(call.request, None)
    return await call.engine.prune(retention, dry_run=asked.dry_run)


# --- workflows ------------------------------------------------------------------------------------


async def list_workflows(call: Call[Nothing, None]) -> list[WorkflowInfo]:
    """List workflows: those whose code is here or that were declared by a process with their code,
    with the schema of their inputs, and those that the store has runs of.
    """
    known = {} if call.site.engine is None else call.site.engine.workflows
    seen, declared = await call.reader.workflows(), await call.reader.declared()
    names = sorted({*known, *seen, *declared})
    return [workflow_info(name, known.get(name), declared.get(name)) for name in names]


async def get_workflow(call: Call[Nothing, None]) -> WorkflowInfo:
    """Get a workflow with the JSON Schema of its inputs."""
    name = call.part("name")
    known = {} if call.site.engine is None else call.site.engine.workflows
    declared = await call.reader.declared()
    if name not in {*known, *declared} and name not in await call.reader.workflows():
        raise UnknownWorkflow(name, tuple(sorted({*known, *declared})))
    return workflow_info(name, known.get(name), declared.get(name))


def workflow_info(
    name: str, definition: Workflow[..., Any] | None, declared: Declared | None = None
) -> WorkflowInfo:
    """What there is to know of a workflow; without a definition its code is not here."""
    if definition is None and declared is not None:
        return WorkflowInfo(name, False, declared.schema, declared.about)
    if definition is None:
        return WorkflowInfo(name, False)
    try:
        inputs = parameters_schema(definition)
    except DefinitionError:  # annotations that can't be resolved: it can't be started either
        inputs = None
    return WorkflowInfo(name, True, inputs, inspect.cleandoc(definition.__doc__ or ""))


def _get(path: str, handler: Any, answer: Any, query: Any = Nothing, *errors: int) -> Operation:
    return Operation("GET", path, handler, answer, query, errors=errors, group="Store")


OPERATIONS = [
    _get("/workflows", list_workflows, list[WorkflowInfo]),
    _get("/workflows/{name:name}", get_workflow, WorkflowInfo, Nothing, 404),
    _get("/workers", list_workers, list[WorkerInfo]),
    _get("/system", get_system, SystemFacts),
    _get("/doctor", doctor, Doctor),
    _get("/sql", run_sql, Table, Sql),
    Operation("POST", "/prune", prune, PruneReport, body=Prune, group="Store", errors=(403, 409)),
]
