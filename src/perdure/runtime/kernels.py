"""Kernels of runs: the code of a workflow together with the facts and arguments of one run.

Rules: arguments are decoded when the kernel starts the code, so what is wrong with them is an error
of the run; kernels are entered from plain callbacks only, because Python 3.14 refuses to enter one
task from another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, TypeVar

from perdure.api.definitions import Workflow
from perdure.codec.json_codec import JsonCodec
from perdure.codec.signature import signature_of
from perdure.core.events import Event, RunFacts
from perdure.core.replay import Kernel
from perdure.store.rows import RunRow

K = TypeVar("K", bound=Kernel)
T = TypeVar("T")


def kernel_of(row: RunRow, definition: Workflow[..., Any], codec: JsonCodec) -> Kernel:
    """The kernel of a run, with the code that its workflow has here."""
    return make_kernel(Kernel, row, definition, codec)


def make_kernel(kind: type[K], row: RunRow, definition: Workflow[..., Any], codec: JsonCodec) -> K:
    """The kernel of a run, as `kernel_of` makes it, of a class derived from `Kernel`."""
    return kind(recorded_call(definition, row.args), definition, _facts(row), codec)


def recorded_call(definition: Workflow[..., Any], recorded: bytes) -> Callable[[], Any]:
    """What calls the code of a workflow with recorded arguments."""

    def main() -> Any:
        args, kwargs = signature_of(definition).decode_args(recorded)
        return definition.fn(*args, **kwargs)

    return main


def _facts(row: RunRow) -> RunFacts:
    old, forked = row.python is None and row.history_rows > 0, row.forked_from is not None
    return RunFacts(row.id, row.workflow, row.seed, row.timeout_ms, forked, old, row.scheduled_ms)


async def in_callback(act: Callable[[], T]) -> T:
    """The result of a call made from a plain callback, where kernels may be entered."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def call() -> None:
        try:
            result = act()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    loop.call_soon(call, context=Context())
    return await future


async def check_result(kernel: Kernel, rows: Sequence[Event], seq: int, data: bytes) -> None:
    """Check a result that was given for the step in row `seq`. Raises what decoding it raises."""

    def check() -> None:
        try:
            kernel.replay(rows)
            kernel.codec.decode_result(kernel.open[seq].call, data)
        finally:
            kernel.discard()

    await in_callback(check)


async def check_arguments(kernel: Kernel, rows: Sequence[Event], seq: int, data: bytes) -> None:
    """Check arguments that were given for the step in row `seq`. Raises what decoding raises."""

    def check() -> None:
        try:
            kernel.replay(rows)
            signature_of(kernel.open[seq].call.definition).decode_args(data)
        finally:
            kernel.discard()

    await in_callback(check)
