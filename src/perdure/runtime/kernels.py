"""Kernels of runs: the code of a workflow together with the facts and arguments of one run.

Rules: arguments are decoded when the kernel starts the code, so what is wrong with them is an error
of the run.
"""

from __future__ import annotations

from typing import Any, TypeVar

from perdure.api.definitions import Workflow
from perdure.codec.json_codec import JsonCodec
from perdure.codec.signature import signature_of
from perdure.core.events import RunFacts
from perdure.core.replay import Kernel
from perdure.store.rows import RunRow

K = TypeVar("K", bound=Kernel)


def kernel_of(row: RunRow, definition: Workflow[..., Any], codec: JsonCodec) -> Kernel:
    """The kernel of a run, with the code that its workflow has here."""
    return make_kernel(Kernel, row, definition, codec)


def make_kernel(kind: type[K], row: RunRow, definition: Workflow[..., Any], codec: JsonCodec) -> K:
    """The kernel of a run, as `kernel_of` makes it, of a class derived from `Kernel`."""

    def main() -> Any:
        args, kwargs = signature_of(definition).decode_args(row.args)
        return definition.fn(*args, **kwargs)

    old = row.python is None and row.history_rows > 0
    return kind(
        main,
        definition,
        RunFacts(row.id, row.workflow, row.seed, row.timeout_ms, row.forked_from is not None, old),
        codec,
    )
