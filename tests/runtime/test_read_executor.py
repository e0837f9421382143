"""The executor of reads: inline or in a thread, in order, and again after an error that passes."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from perdure.errors import StoreUnavailable
from perdure.runtime import read_executor
from perdure.runtime.read_executor import ReadExecutor
from tests.runtime.support import awaited

VARIABLE = contextvars.ContextVar("VARIABLE", default="of nobody")


def executor(*, inline: bool) -> ReadExecutor:
    store: Any = SimpleNamespace(inline=inline, damaged=None)
    return ReadExecutor(store)


@awaited
async def test_inline_reads_are_made_and_handled_at_once() -> None:
    reads, seen = executor(inline=True), list[int]()
    reads.then(seen.append, int, "5")
    assert seen == [5]
    assert await reads.get(threading.get_ident) == threading.get_ident()


@awaited
async def test_results_of_reads_in_a_thread_are_handled_in_order_in_an_empty_context() -> None:
    reads, seen = executor(inline=False), list[tuple[int, str]]()
    VARIABLE.set("of the caller")
    for n in range(50):
        reads.then(lambda found: seen.append((found, VARIABLE.get())), int, str(n))
    assert seen == []
    await reads.idle()
    assert seen == [(n, "of nobody") for n in range(50)]
    assert await reads.get(threading.get_ident) != threading.get_ident()
    reads.close()


@pytest.mark.parametrize("inline", [True, False])
def test_a_read_that_fails_is_tried_again_until_the_engine_closes(
    inline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_executor, "AGAIN_S", 0.001)

    async def main() -> None:
        reads, errors = executor(inline=inline), iter([StoreUnavailable("x", "busy")] * 3)
        done = asyncio.Event()

        def read() -> str:
            for error in errors:
                raise error
            return "read"

        reads.then(lambda _: done.set(), read)
        await done.wait()
        tries = []

        def never() -> str:
            tries.append(1)
            raise StoreUnavailable("x", "gone")

        reads.stop_trying()
        reads.then(print, never)
        await reads.idle()
        assert tries == [1]
        reads.close()

    asyncio.run(main())
