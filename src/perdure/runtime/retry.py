"""Retry of a failed or cancelled run: planned by replaying its history with the present code.

Rules: the plan is a write, and nothing of the run is executed before its commit.
"""

from __future__ import annotations

from typing import Any

from perdure.api.definitions import Workflow
from perdure.codec.json_codec import JsonCodec
from perdure.core.events import Event
from perdure.runtime.kernels import make_kernel
from perdure.store.rows import RunRow
from perdure.store.writes import ForkRun


def plan_retry(
    row: RunRow,
    history: list[Event],
    definition: Workflow[..., Any] | None,
    codec: JsonCodec,
    now_ms: int,
) -> ForkRun:
    """The retry of a run with this history. Call it from a plain callback.

    `definition` is None where the code of the workflow is not known; the recorded error then has to
    say what ended the run.
    """
    from perdure.runtime import fork  # late: most processes never plan a retry
    from perdure.runtime.end_cause import TracingKernel

    if definition is None:
        return fork.retry(row, history, now_ms, None)
    return fork.retry(
        row, history, now_ms, lambda: make_kernel(TracingKernel, row, definition, codec)
    )
