"""Whether a run that exists is the one that a start asks for: the same workflow with equal
arguments.

Rules: the store compares what is written; where that differs, arguments are compared as the values
that code gets.
"""

from __future__ import annotations

from typing import Any

from perdure.api.definitions import Definition
from perdure.codec.equality import same_arguments
from perdure.errors import RunExists
from perdure.store.base import Store
from perdure.store.rows import Started


def found_again(
    store: Store, definition: Definition[..., Any], args: bytes, refused: RunExists
) -> Started | RunExists:
    """The run whose id was taken, if its arguments, or those that it began with, are equal to
    these; else the refusal.

    Raises what the store can't be read for.
    """
    if any(same_arguments(definition, store.run_row(run).args, args) for run in refused.compare):
        return Started(refused.run, refused.run_id, False)
    return refused
