"""Declarations of workflows: what a process that executes runs says of them to those without code.

Rules: a workflow whose arguments have no schema, or a very large one, is left out; nothing here may
keep an engine from opening.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from perdure.api.definitions import Workflow
from perdure.codec.schemas import parameters_schema
from perdure.codec.secrets import Hides
from perdure.errors import DefinitionError
from perdure.store.answer_writes import DeclareWorkflows

SCHEMA_BYTES_MAX = 65_536
ABOUT_CHARS_MAX = 300


def declaration(
    workflows: Mapping[str, Workflow[..., Any]],
    names: Iterable[str],
    now_ms: int,
    hides: Hides | None = None,
) -> DeclareWorkflows:
    """What there is to say of these workflows."""
    found = [(name, about(workflows[name]), _schema(workflows[name], hides)) for name in names]
    return DeclareWorkflows([(name, text, raw) for name, text, raw in found if raw], now_ms)


def about(workflow: Workflow[..., Any]) -> str:
    """The first line of a workflow's documentation."""
    return (workflow.fn.__doc__ or "").strip().partition("\n")[0][:ABOUT_CHARS_MAX]


def _schema(workflow: Workflow[..., Any], hides: Hides | None) -> bytes:
    """Its schema as JSON; nothing where it has none."""
    try:
        raw = msgspec.json.encode(parameters_schema(workflow, hides))
    except (DefinitionError, TypeError, RecursionError):
        return b""
    return raw if len(raw) <= SCHEMA_BYTES_MAX else b""
