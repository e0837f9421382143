"""Whether a run that exists is the one that a start asks for: the same workflow with equal
arguments.

Rules: the store compares what is written; where that differs, arguments are compared as the values
that code gets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from perdure.api.definitions import Definition
from perdure.codec.equality import same_arguments
from perdure.errors import RunExists
from perdure.store.base import Store
from perdure.store.rows import Started


def found_again(
    definition: Definition[..., Any], args: bytes, recorded: Iterable[bytes], refused: RunExists
) -> Started | RunExists:
    """The run whose id was taken, if `args` equals one of the recorded arguments; else the refusal.

    `recorded` are the arguments of the runs in `refused.compare`.
    """
    if any(same_arguments(definition, known, args) for known in recorded):
        return Started(refused.run, refused.run_id, False)
    return refused


def true_arguments(store: Store, runs: Sequence[int]) -> list[bytes]:
    """The recorded arguments of runs, with their secrets."""
    return [store.arguments(run, true=True) for run in runs]
