"""Starts by name: a workflow and its arguments as text and JSON, as clients of another language, a
form or the command line have them.

Rules: where the code is known the arguments are checked and typed by its signature; where it is
not, a client stores them as they are, for a process that knows it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import msgspec

from perdure.api.definitions import Workflow
from perdure.api.definitions import workflow as as_workflow
from perdure.api.options import StartOptions
from perdure.codec.secrets import refuse_masks, restored
from perdure.codec.signature import signature_of
from perdure.core import names
from perdure.errors import DefinitionError, UnknownWorkflow
from perdure.runtime.engine_parts import EngineParts
from perdure.runtime.run_handle import Run

if TYPE_CHECKING:
    from perdure.api.definitions import Call


DECLARED_MAX = 1_000
"""Workflows whose declarations are looked through."""


class StartsByName(EngineParts):
    """See the module's text."""

    async def start_by_name(
        self,
        workflow: str,
        args: dict[str, Any],
        *,
        like: str | None = None,
        **options: Unpack[StartOptions],
    ) -> Run[Any]:
        """Start a run of the workflow with this name. `args` are JSON values by parameter name; the
        options are those of `start`.

        `like` is the id of a run of this workflow whose secrets stand where `args` has the mask, as
        that run shows it. An engine that executes runs has to know the workflow. A client
        (`execute=False`) need not: then the arguments are stored unchecked, and a worker that knows
        it executes the run. Raises `UnknownWorkflow`, `DefinitionError` for arguments that it does
        not have or that are missing, `DoesNotFit` for values that are of another type, and what
        `start` raises.

        >>> import asyncio
        >>> from perdure import Engine, workflow
        >>> @workflow
        ... async def double(n: int) -> int:
        ...     return n * 2
        >>> async def main():
        ...     async with Engine(":memory:", workflows=[double]) as engine:
        ...         run = await engine.start_by_name("double", {"n": 4}, id="four")
        ...         return await run.result()
        >>> asyncio.run(main())
        8
        """
        raw = self._codec.encode(_checked(args), "the arguments")
        if like is not None:
            args, raw = await self._with_secrets(workflow, raw, like)
        refuse_masks(raw, "the arguments")
        parts = self._parts()
        known = parts.scheduler.workflows.get(names.checked("name of a workflow", workflow))
        if known is not None:
            return await self._start(call_of(known, args, raw), options)
        if parts.scheduler.execute:
            raise UnknownWorkflow(workflow, tuple(sorted(parts.scheduler.workflows)))
        stand_in = as_workflow(name=workflow)(_stands_for)
        start = parts.control.new_run(stand_in(), known=False, **options)
        declared = await self._read(self._store.declared_workflows, DECLARED_MAX)
        schemas = [schema for name, _, schema in declared if name == workflow]
        if schemas:
            schema = msgspec.json.decode(schemas[0])
            raw = self._codec.encode_marked(msgspec.json.decode(raw), schema, "the arguments")
        start.args = raw
        started = await parts.control.start(start, stand_in)
        await parts.control.confirmed(start.id, start.durability)
        return Run(self, start.id, started.run)  # type: ignore[arg-type]

    async def _with_secrets(
        self, workflow: str, raw: bytes, like: str
    ) -> tuple[dict[str, Any], bytes]:
        """Arguments with those secrets of a run that they show masked."""
        row = await self._read(partial(self._store.run_row, true=True), await self._key(like))
        given = msgspec.json.decode(raw)
        if row.workflow == workflow:
            given = restored(
                given, *map(msgspec.json.decode, (self._codec.shown(row.args), row.args))
            )
        return given, msgspec.json.encode(given)

    async def _key(self, id: str) -> int:
        return await self._read(self._parts().queries.key, id)

    async def _start(self, call: Call[Any], options: StartOptions) -> Run[Any]:
        """`Engine.start`."""
        raise NotImplementedError


def call_of(definition: Workflow[..., Any], args: dict[str, Any], raw: bytes) -> Call[Any]:
    """The call of a workflow with arguments by name, `raw` as JSON. Raises `DefinitionError` and
    `DoesNotFit`.
    """
    parameters = definition.signature.parameters
    have = f"It takes {', '.join(parameters)}." if parameters else "It takes none."
    if unknown := [name for name in args if name not in parameters]:
        raise DefinitionError(
            f"Workflow {definition.name} has no argument {', '.join(unknown)}. {have}"
        )
    missing = [
        one.name
        for one in parameters.values()
        if one.default is one.empty
        and one.name not in args
        and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    if missing:
        raise DefinitionError(
            f"Workflow {definition.name} needs {', '.join(missing)}, which was not given. {have}"
        )
    positional, named = signature_of(definition).decode_args(raw)
    return definition(*positional, **named)


def _checked(args: Any) -> dict[str, Any]:
    if not isinstance(args, dict) or not all(isinstance(name, str) for name in args):
        raise DefinitionError(
            f'args is a dict of JSON values by parameter name, such as {{"n": 4}}, not '
            f"{type(args).__name__}."
        )
    return args


async def _stands_for() -> None: ...
