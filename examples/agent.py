"""An agent with tools and a human approval. Its model is a fake one, so it runs anywhere, offline.

    perdure run examples/agent.py "write the report"
    perdure send agent approval true     # in another terminal; the beginning of an id is enough

Or all in one: python examples/agent.py
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from perdure import Engine, Retry, emit, receive, step, workflow

APPROVAL_SECONDS = 3 * 24 * 3600


@dataclass
class ToolCall:
    tool: str
    text: str


@dataclass
class Message:
    role: Literal["user", "model", "tool"]
    text: str


@dataclass
class Reply:
    """What the model said: a message, and the tools that it wants to have called before
    it goes on.
    """

    message: Message
    tool_calls: list[ToolCall] = field(default_factory=list)


@step(retry=Retry(attempts=5), timeout=60)
async def think(messages: list[Message]) -> Reply:
    """Ask the model. A real one would be asked here, over the network."""
    reply = fake_model(messages)
    for word in reply.message.text.split():
        emit("tokens", word)  # `perdure tail ID --stream tokens` shows them
        await asyncio.sleep(0.01)
    return reply


@step
def call_tool(call: ToolCall) -> Message:
    """Run one tool; a plain function, so it runs in a thread."""
    match call.tool:
        case "search":
            return Message("tool", f"3 sources on {call.text!r}")
        case "count_words":
            return Message("tool", f"{len(call.text.split())} words")
        case _:
            return Message("tool", f"there is no tool {call.tool!r}")


@workflow
async def agent(goal: str) -> str:
    """Think and call tools until the model is done, then ask a person."""
    messages = [Message("user", goal)]
    while (reply := await think(messages)).tool_calls:
        messages += [reply.message, *await asyncio.gather(*map(call_tool, reply.tool_calls))]
    try:
        async with asyncio.timeout(APPROVAL_SECONDS):  # durable: survives restarts and deploys
            approved = await receive("approval", bool)
    except TimeoutError:
        return "no answer"
    return reply.message.text if approved else "rejected"


def fake_model(messages: list[Message]) -> Reply:
    """Wants two tools, then one more, then has its answer."""
    goal = messages[0].text
    heard = [message.text for message in messages if message.role == "tool"]
    if not heard:
        return Reply(
            Message("model", "Let me look around."),
            [ToolCall("search", goal), ToolCall("count_words", goal)],
        )
    if len(heard) == 2:
        return Reply(
            Message("model", "One more source."), [ToolCall("search", "durable workflows")]
        )
    return Reply(Message("model", f"Done: {goal}, from {heard[0]} and {heard[2]}."))


async def demo() -> None:
    """Start a run, answer as the person that it asks, print the result."""
    with tempfile.TemporaryDirectory() as folder:
        async with Engine(str(Path(folder, "agents.db")), workflows=[agent]) as engine:
            run = await engine.start(agent("write the report"), id="report-1")
            async for word in run.stream("tokens"):
                print(word, end=" ", flush=True)
                if word == "workflows'.":
                    break
            print("\n(a person approves)")
            await engine.send("report-1", True, channel="approval")
            print(await run.result())


if __name__ == "__main__":
    asyncio.run(demo())
