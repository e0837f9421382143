"""Mail of one run: messages and requests that have arrived, and the code that waits for them.

Rules: messages and requests of one channel are queues of their own, each in the order in which its
rows were recorded; each item goes to one receiver, in the order in which they began to wait; a
request is open until it has a reply, received or not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import msgspec

from perdure.core import events as ev
from perdure.core import names
from perdure.core.events import Codec, Command, Event
from perdure.core.loop import Future, WorkflowLoop
from perdure.errors import AlreadyReplied, NotSerializable


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """The data of a request's row: its key, the name of its sender, its value as JSON."""

    key: str
    sender: str
    value: msgspec.Raw


class Received(msgspec.Struct, frozen=True):
    """A request as its receiver gets it; `seq` is its row."""

    seq: int
    channel: str
    key: str
    sender: str
    value: Any


read_envelope = msgspec.json.Decoder(Envelope).decode


class _Receiver(msgspec.Struct, eq=False):
    """Code that waits for an item: since when, behind which row, and what it asks for."""

    future: Future
    type: Any
    prompt: str | None
    seq: int
    since_ms: int


class _Queue:
    """What has arrived on one channel, by row, and the receivers that wait for it."""

    __slots__ = ("items", "receivers")

    def __init__(self) -> None:
        self.items: deque[tuple[int, bytes]] = deque()
        self.receivers: deque[_Receiver] = deque()

    def wake(self) -> None:
        """Let the first receiver take the first item."""
        while self.receivers and self.items:
            future = self.receivers.popleft().future
            if not future.done():
                future.set_result(None)
                return


class Mail:
    """See the module's text. `unread` counts what was not received, or did not fit."""

    __slots__ = ("_codec", "_loop", "_open", "_queues", "unread")

    def __init__(self, loop: WorkflowLoop, codec: Codec) -> None:
        self._loop, self._codec = loop, codec
        self._queues: dict[tuple[str, str], _Queue] = {}
        self._open: dict[int, Event] = {}  # requests without a reply, by row
        self.unread = 0

    def put(self, row: Event, data: bytes) -> None:
        """Add what a row has, and wake a receiver."""
        self.unread += 1
        if row.kind == ev.REQUEST:
            self._open[row.seq] = row
        queue = self._queue(row.kind, row.name or "")
        queue.items.append((row.seq, data))
        queue.wake()

    # --- verbs of workflow code -------------------------------------------------------------------

    async def receive(self, channel: str, type_: Any, prompt: str | None) -> Any:
        """The next message of a channel that fits `type_`; the others are noted as rejected."""
        what = f"the message on channel {names.checked('channel', channel)!r}"
        self._codec.check_type(type_, what)  # now: the message may come in a week
        asks = type_, prompt, self._loop.owner.seq, self._loop.now_ms
        while True:
            _, data = await self._take(ev.MESSAGE, channel, asks)
            try:
                value = self._codec.decode(data, type_, what)
            except NotSerializable as error:
                reason = self._codec.encode(str(error), "the reason")
                self._loop.owner.command(ev.REJECT, channel, reason)
            else:
                self.unread -= 1
                return value

    async def receive_request(self, channel: str, type_: Any, prompt: str | None) -> Received:
        """The next request of a channel that fits `type_`; the others are refused."""
        what = f"the request on channel {names.checked('channel', channel)!r}"
        self._codec.check_type(type_, what)
        asks = type_, prompt, self._loop.owner.seq, self._loop.now_ms
        while True:
            seq, data = await self._take(ev.REQUEST, channel, asks)
            sent = read_envelope(data)
            self.unread -= 1
            got = Received(seq, channel, sent.key, sent.sender, None)
            try:
                value = self._codec.decode(bytes(sent.value), type_, what)
            except NotSerializable as error:
                self._answer(ev.REJECT, got, self._codec.encode(str(error), "the reason"))
            else:
                return msgspec.structs.replace(got, value=value)

    def reply(self, request: Received, result: Any) -> None:
        """Reply to a request. Raises `AlreadyReplied`; `NotSerializable` leaves it open."""
        data = self._codec.encode(result, f"the reply on channel {request.channel!r}")
        self._answer(ev.REPLY, request, data).cls = type(result)

    def refuse(self, request: Received, reason: str) -> None:
        """Refuse a request. Raises `AlreadyReplied`."""
        data = self._codec.encode(reason, f"the reason of a refusal on {request.channel!r}")
        self._answer(ev.REFUSE, request, data)

    def _answer(self, kind: str, request: Received, data: bytes) -> Command:
        kernel = self._loop.owner
        if request.seq not in self._open:
            raise AlreadyReplied(kernel.facts.run_id, request.channel, request.key)
        del self._open[request.seq]
        command: Command = kernel.command(kind, request.channel, data, request.seq)
        return command

    # --- what is left and what is awaited ---------------------------------------------------------

    def leftovers(self) -> list[tuple[str, bytes]]:
        """Messages that were never received, as channel and data, for the successor of a run."""
        return [
            (channel, data)
            for (kind, channel), queue in self._queues.items()
            if kind == ev.MESSAGE
            for _, data in queue.items
        ]

    def open_requests(self) -> list[Event]:
        """The rows of requests without a reply, received or not."""
        return list(self._open.values())

    @property
    def awaited(self) -> bool:
        """Whether code waits for an item."""
        return any(queue.receivers for queue in self._queues.values())

    def waiting_for(self) -> list[dict[str, Any]]:
        """What code waits for, human-readable, with what a form to answer it needs."""
        return [
            self._item(kind, channel, receiver)
            for (kind, channel), queue in self._queues.items()
            for receiver in queue.receivers
            if not receiver.future.done()
        ]

    def _item(self, kind: str, channel: str, receiver: _Receiver) -> dict[str, Any]:
        name = getattr(receiver.type, "__name__", str(receiver.type))
        item = {kind: channel, "type": name, "seq": receiver.seq, "since_ms": receiver.since_ms}
        return item | self._codec.form(receiver.type, receiver.prompt)

    # --- turns of receivers -----------------------------------------------------------------------

    def _queue(self, kind: str, channel: str) -> _Queue:
        queue = self._queues.get((kind, channel))
        if queue is None:
            queue = self._queues[kind, channel] = _Queue()
        return queue

    async def _take(self, kind: str, channel: str, asks: Any) -> tuple[int, bytes]:
        """The row and the data of the next item."""
        queue = self._queue(kind, channel)
        while not queue.items:
            await self._turn(queue, _Receiver(self._loop.create_future(), *asks))
        return queue.items.popleft()

    async def _turn(self, queue: _Queue, receiver: _Receiver) -> None:
        """Wait for the turn of this receiver."""
        future = receiver.future
        queue.receivers.append(receiver)
        try:
            await future
        except asyncio.CancelledError:
            if receiver in queue.receivers:
                queue.receivers.remove(receiver)
            if future.done() and not future.cancelled():
                queue.wake()  # pass the turn on
            raise
