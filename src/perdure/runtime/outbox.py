"""The outbox: the writes that follow from a run's commands, and plans for what becomes of them.

Rules: functions from commands, rows and answers to writes and plans; nothing is read here. An
effect is a write in the same transaction as the row that asked for it. The id of a child is made
from its parent's key, so that runs that follow each other by `continue_as` share no child. A
retried run takes over the children of its earlier generations.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.api import queues
from perdure.codec.error_encoder import failure_of_run, failure_of_verb
from perdure.core import events as ev
from perdure.core import lifecycle
from perdure.core.events import Command
from perdure.core.lifecycle import FINAL
from perdure.errors import PerdureError, RunExists
from perdure.runtime.naming import Names, message_key, run_id
from perdure.runtime.plans import AwaitChild, ChildSettled, Feed, Plan, RetryChild
from perdure.store.request_writes import Expose, Reply
from perdure.store.rows import RunRow, Started
from perdure.store.writes import Deliver, Emit, Finish, StartAnd, StartRun

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_arguments = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

Effect = Deliver | StartAnd | StartRun | Emit | Expose | Reply


class Outbox(msgspec.Struct):
    """What the writes of one run are made of: its key and id, and the names of its commands.

    `origin` is the key of its first generation. `names` is None for a run that was neither retried
    nor forked. `key` and `priority` are those of its steps in queues, and of its children.
    """

    run: int
    run_id: str
    origin: int
    root: int | None
    durability: str | None
    names: Names | None
    key: str | None = None
    priority: int = 0

    def name_of(self, seq: int) -> str:
        """The name by which the command in row `seq` is known outside."""
        return f"{self.origin}/{seq}" if self.names is None else self.names.of(seq)

    def _sent(self, seq: int) -> str | None:
        """The key or the id under which the source of this fork has sent or started it."""
        return None if self.names is None else self.names.sent(seq)

    # --- writes -----------------------------------------------------------------------------------

    def effect(self, command: Command, owner: int, at_ms: int) -> Effect | None:
        """The write that a command asks for; None where it asks for none. A start has no seed."""
        match command.kind:
            case ev.SEND:
                return self._message(command, at_ms)
            case ev.CHILD | ev.SPAWN:
                return self._start(command, at_ms)
            case ev.EMIT:
                items = [(command.name or "", b"null")]
                return Emit(self.run, owner, command.seq, 0, items, command.at_ms)
            case ev.EXPOSE:
                return Expose(self.run, owner, command.seq, command.name or "")
            case ev.REPLY | ev.REFUSE | ev.REJECT if command.ref is not None:
                to, refused = command.ref, command.kind != ev.REPLY
                return Reply(self.run, owner, command.seq, to, refused, command.at_ms)
            case ev.ABANDON if command.call is not None and command.call.kind == ev.CHILD:
                child = self._id_of(command.call, _arguments(command.call.data or b"{}"))
                return Deliver(child, "cancel", at_ms, verb="cancel")
        return None

    def _message(self, command: Command, at_ms: int) -> Deliver | StartAnd:
        sent = _arguments(command.data or b"{}")
        key = command.key or self._sent(command.seq) or message_key(self.name_of(command.seq))
        channel, value = _decode(sent["channel"]), bytes(sent["value"])
        message = Deliver(command.name or "", "message", at_ms, channel, None, key, value)
        if "start" not in sent:
            return message
        asked = _arguments(sent["start"])
        start = self._new_run(command.name or "", _decode(asked["workflow"]), command, asked, at_ms)
        return StartAnd(start, message)

    def _start(self, command: Command, at_ms: int) -> StartRun:
        asked = _arguments(command.data or b"{}")
        run_id = self._id_of(command, asked)
        return self._new_run(run_id, command.name or "", command, asked, at_ms)

    def _new_run(
        self, run_id: str, workflow: str, command: Command, asked: dict[str, msgspec.Raw],
        at_ms: int,
    ) -> StartRun:  # fmt: skip
        options = command.call.options
        start = StartRun(run_id, workflow, bytes(asked["args"]), 0, at_ms, at_ms)
        start.root = self.root or self.run
        start.tags = _decode(asked["tags"]) if "tags" in asked else None
        start.queue, start.timeout_ms = options.queue, options.timeout_ms
        start.key, start.weight = start_in_queue(command.call)
        start.durability = options.durability or self.durability
        if command.kind == ev.CHILD:
            start.parent, start.parent_seq = self.run, command.seq
            start.key, start.priority = start.key or self.key, self.priority
        return start

    def _id_of(self, command: Command, asked: dict[str, msgspec.Raw]) -> str:
        if "id" in asked:
            return str(_decode(asked["id"]))
        return self._sent(command.seq) or run_id(self.run_id, self.name_of(command.seq))

    # --- answers ----------------------------------------------------------------------------------

    def answered(self, command: Command, result: Any) -> Plan | None:
        """The plan for what became of a send, a start or a child's start; None: there is none.

        A child whose id was taken (`Started` that is not created) needs its row: see `found`.
        """
        match command.kind, result:
            case ((ev.ABANDON | ev.EMIT | ev.EXPOSE | ev.REPLY | ev.REFUSE | ev.REJECT), _):
                return None  # a child that ended first needs no cancelling
            case _, PerdureError():
                return Feed(ev.FAILED, command.seq, data=failure_of_verb(result))
            case ev.SEND, _:
                return Feed(ev.COMPLETED, command.seq, data=b"null")
            case ev.SPAWN, Started():
                return Feed(ev.COMPLETED, command.seq, data=_encode(result.id))
        return ChildSettled(command.seq)

    def found(self, command: Command, child: RunRow, child_parent: RunRow | None) -> Plan:
        """The plan for a child whose id was taken: its outcome is borrowed if it has one, unless it
        is of an earlier generation of this run.

        Such a child is retried if it failed or was cancelled, and waited for if it has not ended.
        """
        if (child.parent, child.parent_seq) == (self.run, command.seq):
            return ChildSettled(command.seq)  # ours: its answer comes through the inbox
        if child.status == lifecycle.COMPLETED:
            return Feed(ev.COMPLETED, command.seq, data=child.result or b"null")
        if self.names is not None and self._of_our_family(command, child_parent):
            done = child.status in FINAL
            return RetryChild(command, child) if done else AwaitChild(command, child)
        if child.status in FINAL:
            data = failure_of_run(child.id, child.status, child.error)
            return Feed(ev.FAILED, command.seq, data=data)
        error = RunExists(child.id, "it is not a child of this run")
        return Feed(ev.FAILED, command.seq, data=failure_of_verb(error))

    def _of_our_family(self, command: Command, parent: RunRow | None) -> bool:
        """Whether a child is of this run in an earlier generation, or may be."""
        if not may_exist(command):
            return True  # its id is made from our key
        return parent is not None and (parent.origin or parent.run) == self.origin

    # --- the end ----------------------------------------------------------------------------------

    def finish(self, outcome: ev.Outcome, at_ms: int) -> Finish:
        """The end of the run as a write.

        A run that continues hands on its id and the messages that it has not received; the caller
        completes the successor, which has no seed, and adds the messages.
        """
        match outcome:
            case ev.Completed(result):
                return Finish("completed", result)
            case ev.Failed(error):
                return Finish("failed", error=error)
            case ev.Cancelled():
                return Finish(lifecycle.CANCELLED)
            case ev.Continued(call, workflow, args):
                start = StartRun(self.run_id, workflow, args, 0, at_ms, at_ms)
                start.queue, start.timeout_ms = call.options.queue, call.options.timeout_ms
                start.key, start.weight = start_in_queue(call)
                # callers that wait for this id were promised the level of the first run
                start.durability = self.durability or call.options.durability
                return Finish("completed", successor=start)


def start_in_queue(call: Any) -> tuple[str | None, int]:
    """Key and weight of a run that is started by a call. Raises what their functions raise, and
    `DefinitionError` for what they must not return.
    """
    options, definition = call.options, call.definition
    if not callable(options.key) and not callable(options.weight):
        return options.key, options.weight
    what = f"workflow {definition.name}"
    key = queues.chosen(options.key, definition, call.args, call.kwargs)
    weight = queues.chosen(options.weight, definition, call.args, call.kwargs)
    return queues.checked_key(key, f"{what}: key"), queues.checked_weight(weight, f"{what}: weight")


def args_of(command: Command) -> bytes:
    """The arguments of a child or of a run that is started."""
    return bytes(_arguments(command.data or b"{}")["args"])


def may_exist(command: Command) -> bool:
    """Whether the run that a command starts may belong to another caller: its id was chosen."""
    return "id" in _arguments(command.data or b"{}")


def tags_of(commands: list[Command]) -> dict[str, Any] | None:
    """The tags that these commands set, the last one of a name; None where they set none."""
    tags: dict[str, Any] = {}
    for command in commands:
        if command.kind == ev.TAG:
            tags.update(_decode(command.data or b"{}"))
    return tags or None
