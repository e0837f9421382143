"""Events, commands and outcomes: the only values that enter or leave the kernel.

A history is one sequence of rows, numbered from 1 without gaps. Three families of kinds:

- **inputs** tell workflow code what happened; each one is fed alone and the loop runs until quiet;
- **commands** are what that code then asked for; they follow the input that led to them, or, where
  new code asked for more in the last turn of a history, the notes that were there already;
- **notes** are for people and for recovery (an attempt failed); workflow code never sees them.

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
CANCEL = "cancel"
INPUTS = frozenset({START, COMPLETED, FAILED, FIRED, MESSAGE, CANCEL})

# commands
STEP = "step"
CHILD = "child"
SPAWN = "spawn"
SEND = "send"
TIMER = "timer"
EMIT = "emit"
TAG = "tag"
PATCH = "patch"
REJECT = "reject"
ABANDON = "abandon"
FINISH = "finish"
COMMANDS = frozenset({STEP, CHILD, SPAWN, SEND, TIMER, EMIT, TAG, PATCH, REJECT, ABANDON, FINISH})

# notes
ATTEMPT = "attempt"


class Chunked(Protocol):
    """Recorded data that is stored in pieces: comparable by digest, readable on demand."""

    def same_as(self, raw: bytes) -> bool: ...

    def read(self) -> bytes: ...


class Event(msgspec.Struct, gc=False):
    """One row of a history.

    `ref` is the `seq` of the command that an input or a note answers; `name` is a step, workflow,
    channel, stream or change id; `data` is JSON; `at_ms` is milliseconds UTC; `took_ms` is how long
    the last attempt of a step ran. `edited` marks a step whose arguments a person changed in a
    fork: replay then compares kind and name only, and the step runs with the recorded arguments. On
    a timer it marks a deadline that a retry or a fork has moved.
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
    """What workflow code asked for; becomes a row as it is. `call` is the live call of a step,
    child or spawn, or of the successor.

    `edited` says that `data` is what the history has for it and the call's own arguments do not
    count. `context` has the context variables of the code that asked for a step, `cls` the class of
    what is sent or emitted. The first fields are those of an event, in the same order.
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
    """The workflow was cancelled and let it happen."""


class Continued(msgspec.Struct, frozen=True, gc=False):
    """The workflow asked for a successor under the same id; `call` is the successor's call."""

    call: Any
    workflow: str
    args: bytes


Outcome = Completed | Failed | Cancelled | Continued


class Codec(Protocol):
    """How the kernel turns calls and values into JSON and back; given to it, so that it
    stays pure.
    """

    def encode_call(self, call: Any) -> bytes: ...

    def same_call(self, call: Any, recorded: bytes, asked: bytes) -> bool: ...

    def same_message(self, cls: type, recorded: bytes, asked: bytes) -> bool: ...

    def same_value(self, cls: type, recorded: bytes, asked: bytes) -> bool: ...

    def decode_result(self, call: Any, raw: bytes) -> Any: ...

    def encode_output(self, definition: Any, value: Any) -> bytes: ...

    def encode(self, value: Any, where: str) -> bytes: ...

    def encode_item(self, value: Any, where: str) -> bytes: ...

    def decode(self, raw: bytes, type_: Any, where: str) -> Any: ...

    def check_type(self, type_: Any, where: str) -> None: ...

    def encode_error(self, error: BaseException) -> bytes: ...

    def decode_failure(self, call: Any, raw: bytes) -> Exception: ...


class RunFacts(msgspec.Struct, frozen=True, gc=False):
    """What the kernel knows of its run: the public id, the seed of `random()`, the run's own time
    limit.

    `forked` says that it is a fork: a note with a name ends the rows that were recorded under that
    id. `old` says that its history is from before the Python was recorded: under 3.11,
    `asyncio.wait_for` asked in another order then.
    """

    run_id: str
    workflow: str
    seed: int
    timeout_ms: int | None = None
    forked: bool = False
    old: bool = False


Main = Callable[[], Any]
