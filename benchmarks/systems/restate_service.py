"""The handlers that the Restate server calls, served by hypercorn."""

from __future__ import annotations

from answering import gate, reached
from restate import Context, Service, Workflow, WorkflowContext, WorkflowSharedContext, app

sequence = Service("Sequence")
hold = Workflow("Hold")
park = Workflow("Park")


async def noop(n: int) -> int:
    return n


@sequence.handler("run")
async def sequence_run(ctx: Context, steps: int) -> int:
    for n in range(steps):
        await ctx.run_typed("noop", noop, n=n)
    return steps


@hold.main("run")
async def hold_run(ctx: WorkflowContext, nothing: int) -> int:
    await ctx.run_typed("noop", noop, n=nothing)
    await ctx.run_typed("gated", gate)
    return nothing


@park.main("run")
async def park_run(ctx: WorkflowContext, steps: int) -> str:
    for n in range(steps):
        await ctx.run_typed("noop", noop, n=n)
    reached()
    return str(await ctx.promise("go", type_hint=str).value())


@park.handler("wake")
async def park_wake(ctx: WorkflowSharedContext, word: str) -> None:
    await ctx.promise("go", type_hint=str).resolve(word)


application = app([sequence, hold, park])
