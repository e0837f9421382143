"""Workflows for the tests of the command line; a copy of this file lies in each test's folder."""

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from perdure import Retry, emit, expose, receive, receive_request, step, tag, workflow


@dataclass
class Point:
    x: int
    y: int


@step(retry=None)
def note(text: str) -> str:
    """Leaves a line behind, so that a test can count how often it ran."""
    with Path("notes.txt").open("a") as notes:
        notes.write(f"{text}\n")
    return f"noted {text}"


@step(retry=None)
def break_unless(path: str) -> str:
    if not Path(path).exists():
        raise ValueError(f"{path} is missing")
    return "mended"


@step(retry=None, on_crash="ask")
def launch(path: str) -> str:
    """Kills its own process the first time."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "launched"


@step
async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)


@step
def doze(seconds: float) -> None:
    """Keeps its thread for so long."""
    Path("dozing.txt").touch()
    time.sleep(seconds)


@step
async def doze_elsewhere(seconds: float) -> None:
    """Keeps a thread of asyncio's default executor for so long."""
    Path("dozing.txt").touch()
    await asyncio.to_thread(time.sleep, seconds)


@workflow
async def dozes_elsewhere(seconds: float) -> None:
    await doze_elsewhere(seconds)


@workflow
async def dozes(seconds: float) -> None:
    await doze(seconds)


@workflow
async def listens() -> str:
    return await receive("answer", str)


@workflow
async def spins() -> None:
    await doze(0)
    while True:
        pass


@workflow
async def hello(name: str, times: int = 1) -> str:
    for number in range(times):
        await note(f"{name} {number}")
    return f"hello {name}"


@workflow
async def shapes(
    when: date, corners: list[Point], label: str | None = None, *, scale: float = 1.0
) -> list[str]:
    return [f"{when:%d %b %Y}", str(sum(point.x for point in corners)), repr(label), repr(scale)]


@workflow
async def fragile(path: str = "mended.txt") -> str:
    await note("before")
    return await break_unless(path)


@workflow
async def asks(question: str) -> str:
    await tag(question=question)
    await note(question)
    answer = await receive("answer", str)
    emit("words", answer)
    return f"{question}: {answer}"


@workflow
async def desk(name: str) -> int:
    """Replies with what it is asked, and refuses numbers, until it is asked to close."""
    replies = 0
    while True:
        expose(replies=replies, stage="open")
        request = await receive_request("question", str)
        if request.value == "nothing":
            continue
        replies += 1
        request.reply({"to": request.sender, "said": request.value})
        if request.value == "close":
            return replies


@workflow
async def rocket() -> str:
    return await launch("fuse.txt")


@workflow
async def naps(times: int, seconds: float) -> int:
    for number in range(times):
        await note(str(number))
        await nap(seconds)
    return times


@workflow
async def alone(name: str) -> None:
    await note(f"begin {name}")
    await nap(0.02)
    await note(f"end {name}")


@workflow
async def wide(files: int) -> int:
    return len(await asyncio.gather(*(note(str(number)) for number in range(files))))


@step(retry=Retry(attempts=9, delay=3_600, max_delay=3_600))
def charge(path: str) -> str:
    note.fn(f"charging with {path}")
    return str(break_unless.fn(path))


@workflow
async def patient(path: str = "mended.txt") -> str:
    return await charge(path)
