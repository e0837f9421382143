"""Events, commands and outcomes: the only values that enter or leave the kernel.

A history is one sequence of rows, numbered from 1 without gaps. Three families of kinds:

- **inputs** are what happened; each one is fed alone and the loop runs until quiet;
- **commands** are what workflow code then asked for; they follow their input, or the notes behind
  it where new code asked for more in the last turn of a history;
- **notes** are for readers and for recovery (an attempt failed); workflow code never sees them.

So the order of rows is the order of execution, and replay needs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol

import msgspec

# inputs
START = "start"
COMPLETED = "completed"
FAILED = "failed"
FIRED = "fired"
MESSAGE = "message"
REQUEST = "request"
CANCEL = "cancel"
INPUTS = frozenset({START, COMPLETED, FAILED, FIRED, MESSAGE, REQUEST, CANCEL})

# commands
STEP = "step"
CHILD = "child"
SPAWN = "spawn"
SEND = "send"
TIMER = "timer"
EMIT = "emit"
TAG = "tag"
EXPOSE = "expose"
REPLY = "reply"
REFUSE = "refuse"
PATCH = "patch"
REJECT = "reject"
ABANDON = "abandon"
FINISH = "finish"
COMMANDS = frozenset(
    {
        STEP, CHILD, SPAWN, SEND, TIMER, EMIT, TAG, EXPOSE, REPLY, REFUSE, PATCH, REJECT, ABANDON,
        FINISH,
    }
)  # fmt: skip
REPLIES = frozenset({REPLY, REFUSE, REJECT})
"""What ends a request, whose row they refer to. A rejected message is referred to by none."""

# notes
ATTEMPT = "attempt"


class Chunked(Protocol):
    """Recorded data that is stored in chunks: comparable by digest, read on demand."""

    def same_as(self, raw: bytes) -> bool: ...

    def read(self) -> bytes: ...


class Event(msgspec.Struct, gc=False):
    """One row of a history.

    `ref` is the `seq` of the command that an input or a note answers, or of the request that a
    reply answers. `name` is a step, workflow, channel, stream, exposed value or change id. `data`
    is JSON, `at_ms` milliseconds UTC, `took_ms` the length of a step's last attempt. `edited` marks
    a step whose arguments a fork has changed, which then runs with the recorded ones, and a timer
    whose deadline a retry or a fork has moved.
    """

    seq: int
    kind: str
    at_ms: int
    ref: int | None = None
    name: str | None = None
    data: bytes | Chunked | None = None
    took_ms: int | None = None
    edited: bool = False


class Command(msgspec.Struct, gc=False):
    """What workflow code asked for; its first fields are those of an event.

    `call` is the live call of a step, child, spawn or successor, or of what a send may start.
    `edited`: `data` is from the history and the call's own arguments do not count. `context` has
    the context variables of the code that asked for a step, `cls` the class of what is sent,
    emitted, exposed or replied. `key` is that of a message that is sent.
    """

    seq: int
    kind: str
    at_ms: int = 0
    ref: int | None = None
    name: str | None = None
    data: bytes | None = None
    took_ms: int | None = None
    edited: bool = False
    call: Any = None
    key: str | None = None
    context: Context | None = None
    cls: type = object


class Completed(msgspec.Struct, frozen=True, gc=False):
    """The workflow returned; `result` is JSON."""

    result: bytes


class Failed(msgspec.Struct, frozen=True, gc=False):
    """The workflow raised; `error` is the recorded error as JSON."""

    error: bytes


class Cancelled(msgspec.Struct, frozen=True, gc=False):
    """The workflow was cancelled and did not catch it."""


class Continued(msgspec.Struct, frozen=True, gc=False):
    """The workflow asked for a successor under the same id; `call` is the successor's call."""

    call: Any
    workflow: str
    args: bytes


Outcome = Completed | Failed | Cancelled | Continued


class Codec(Protocol):
    """How the kernel encodes and decodes calls, values and errors."""

    def encode_call(self, call: Any) -> bytes: ...
    def same_call(self, call: Any, recorded: bytes, asked: bytes) -> bool: ...
    def same_message(self, cls: type, start: Any, recorded: bytes, asked: bytes) -> bool: ...
    def same_value(self, cls: type, recorded: bytes, asked: bytes) -> bool: ...
    def decode_result(self, call: Any, raw: bytes) -> Any: ...
    def encode_output(self, definition: Any, value: Any) -> bytes: ...
    def encode(self, value: Any, where: str) -> bytes: ...
    def encode_tags(self, tags: dict[str, Any]) -> bytes: ...
    def shown(self, raw: bytes) -> bytes: ...
    def encode_item(self, value: Any, where: str) -> bytes: ...
    def decode(self, raw: bytes, type_: Any, where: str) -> Any: ...
    def check_type(self, type_: Any, where: str) -> None: ...
    def form(self, type_: Any, prompt: str | None) -> dict[str, Any]: ...
    def encode_error(self, error: BaseException) -> bytes: ...
    def decode_failure(self, call: Any, raw: bytes) -> Exception: ...


class RunFacts(msgspec.Struct, frozen=True, gc=False):
    """What the kernel knows of its run: public id, seed of `random()`, the run's own time limit.

    `forked`: a note with a name ends the rows that were recorded under that id. `old`: its history
    is from before the Python was recorded, so asyncio keeps the order that 3.11 had.
    """

    run_id: str
    workflow: str
    seed: int
    timeout_ms: int | None = None
    forked: bool = False
    old: bool = False
    scheduled_ms: int | None = None


Main = Callable[[], Any]
