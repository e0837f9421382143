"""A store with something of everything, served: what the tests of the API ask."""

from __future__ import annotations

import pytest

from perdure import Queue, Schedule, emit, expose, receive, receive_request, step, workflow
from tests.http.support import Serve, Served


@step
async def look(n: int) -> int:
    return n * 2


@step(retry=None)
async def breaks() -> None:
    raise ValueError("broken")


@workflow
async def agent(goal: str, steps: int = 1) -> str:
    """Looks a few times, then waits for a person."""
    for n in range(steps):
        emit("words", f"{goal} {await look(n)}")
    expose(stage="asks", steps=steps)
    approved = await receive("approval", bool, prompt=f"Publish {goal}?")
    return goal if approved else "rejected"


@workflow
async def sums(total: int = 0) -> None:
    while True:
        request = await receive_request("add", int)
        total += request.value
        request.reply(total)


@workflow
async def fails() -> None:
    await breaks()


@pytest.fixture(scope="module")
def served(serve: Serve) -> Served:
    return serve(
        workflows=[agent, sums, fails],
        queues=[Queue("llm", concurrency=1)],
        schedules=[Schedule("nightly", "0 3 * * *", agent("report"), tz="Europe/Berlin")],
    )
