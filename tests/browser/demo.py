"""A store as somebody has it after an hour: agents, refunds, a nightly sync, limits, schedules.

Rules: every status is there; steps take milliseconds, so that the store is filled in seconds.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Literal

import msgspec

from perdure import (
    Engine,
    Every,
    Queue,
    Rate,
    Retry,
    Schedule,
    emit,
    expose,
    receive,
    step,
    workflow,
)
from perdure.errors import RunFailed


class Approval(msgspec.Struct):
    """What somebody says to a report."""

    verdict: Literal["publish", "revise", "drop"]
    remark: str = ""


@step
async def think(messages: list[dict[str, Any]]) -> dict[str, Any]:
    await asyncio.sleep(0.12)
    if len(messages) > 1:
        return {"role": "assistant", "content": "Eleven of fourteen sources agree."}
    calls = [{"id": f"call_{n}", "name": "search", "arguments": {"page": n}} for n in range(2)]
    return {"role": "assistant", "content": "I look at the sources first.", "tool_calls": calls}


@step(retry=Retry(attempts=3, delay=0.01, max_delay=0.01))
async def search(topic: str, page: int) -> list[str]:
    await asyncio.sleep(0.02 + page % 5 * 0.02)
    return [f"{topic}: source {page}.{n}" for n in range(3)]


@step
async def write(topic: str, sources: int) -> str:
    for word in f"{topic} is what {sources} sources say it is.".split():
        await emit("draft", word + " ")
        await asyncio.sleep(0.01)
    return f"# {topic}\n\n{sources} sources."


@workflow
async def research(topic: str) -> str:
    expose(stage="reading")
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"Write about {topic}."}]
    messages.append(await think(messages))
    found = await asyncio.gather(*(search(topic, page) for page in range(14)))
    messages.append({"role": "tool", "tool_call_id": "call_0", "content": str(found[0])})
    messages.append(await think(messages))
    text = await write(topic, sum(map(len, found)))
    expose(stage="waits for a person")
    said = await receive("approval", Approval, prompt=f"Publish the report about {topic}?")
    return text if said.verdict == "publish" else said.remark


@step(retry=Retry(attempts=5, delay=900, max_delay=3600))
async def charge(order: str, cents: int) -> str:
    if cents > 5_000:
        raise ConnectionError("503 Service Unavailable: the bank does not answer")
    return f"receipt-{order}"


@workflow
async def refund(order: str, cents: int) -> str:
    return await charge(order, cents)


@step(retry=Retry(attempts=1))
async def parse(line: str) -> int:
    return int(line)


@workflow
async def imported(lines: list[str]) -> int:
    return sum([await parse(line) for line in lines])


@workflow
async def digest() -> int:
    return 7


@step(queue="model", key=lambda tenant, **_: tenant)
async def answer(tenant: str, question: str) -> str:
    await asyncio.Event().wait()  # a model that thinks for long
    return question


@workflow
async def support(tenant: str, question: str) -> str:
    return await answer(tenant, question)


@workflow(name="sync")
async def sync_before(day: str) -> str:
    await parse("28")
    return await receive("go", str)


@workflow(name="sync")
async def sync_now(day: str) -> str:
    await search(day, 1)
    return await receive("go", str)


OPTIONS: dict[str, Any] = {
    "workflows": [research, refund, imported, digest, support, sync_now],
    "queues": [
        Queue("model", concurrency=4, rate=Rate(120, per=60), key_concurrency=2),
        Queue("mail", concurrency=10),
        Queue("night", paused=True),
    ],
    "schedules": [
        Schedule("digest", "30 2 * * *", digest(), tz="Europe/Berlin"),
        Schedule("sync", Every(timedelta(minutes=15)), digest(), overlap="wait"),
        Schedule("report", "0 7 * * mon-fri", digest(), tz="Europe/Berlin", paused=True),
    ],
}


async def before(path: str) -> None:
    """What an earlier version of the code has left."""
    async with Engine(path, workflows=[sync_before]) as engine:
        await engine.start(sync_before("2026-11-28"), id="sync-28", tags={"tenant": "acme"})
        await _until_it_waits(engine, "sync-28")


async def fill(engine: Engine) -> None:
    """Fill the store; what waits for a person goes on waiting."""
    tenants = ("acme", "globex", "initech")
    for n in range(40):
        await engine.start(digest(), id=f"digest-{n:02}", tags={"tenant": tenants[n % 3]})
    await engine.send("sync-28", "now", channel="go")
    runs = [
        await engine.start(refund(f"o-{n}", 1_200 + 900 * n), id=f"refund-{n}",
                           tags={"tenant": tenants[n % 3]})
        for n in range(6)
    ]  # fmt: skip
    bad = await engine.start(imported(["7", "12", "3O"]), id="import-0412")
    for n in range(9):
        await engine.start(support(tenants[n % 2], "Where is my parcel?"), id=f"ask-{n}",
                           tags={"tenant": tenants[n % 2]})  # fmt: skip
    for topic in ("Litestream", "Otters", "Tides"):
        await engine.start(research(topic), id=f"report-{topic.lower()}", tags={"tenant": "acme"})
    for run in runs[:4]:
        await run.result()
    try:
        await bad.result()
    except RunFailed:
        pass
    for topic in ("litestream", "otters", "tides"):
        await engine.exposed(f"report-{topic}", "stage", timeout=30)
        await _until_it_waits(engine, f"report-{topic}")
    await engine.cancel("ask-8")
    await engine.pause("report-tides")


async def _until_it_waits(engine: Engine, id: str) -> None:
    while (await engine.info(id)).status != "waiting":  # noqa: ASYNC110
        await asyncio.sleep(0.05)
