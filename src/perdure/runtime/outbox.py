"""What follows from a run's commands outside its own history: sends, starts, cancels, stream items,
its end.

Rules: an effect is a write in the same transaction as the row that asked for it; a child's id is
made from its parent's key, so that runs that follow each other by `continue_as` share no child; a
retried run takes over the children of its earlier generations.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.codec.error_encoder import failure_of_run, failure_of_verb
from perdure.core import events as ev
from perdure.core.events import Command
from perdure.core.lifecycle import FINAL
from perdure.errors import PerdureError, RunExists
from perdure.runtime import retry
from perdure.runtime.existing_run import found_again
from perdure.runtime.naming import message_key, run_id
from perdure.store.rows import RunRow, Started
from perdure.store.writes import Deliver, Emit, Finish, StartRun, Turn

if TYPE_CHECKING:
    from perdure.runtime.run import ActiveRun

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_words = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def add_effect(active: ActiveRun, command: Command, turn: Turn) -> bool:
    """Add the write that a command is to the turn; False where it is none."""
    match command.kind:
        case ev.SEND:
            turn.effects.append(_message(active, command, turn.at_ms))
        case ev.CHILD | ev.SPAWN:
            turn.effects.append(_start(active, command, turn.at_ms))
        case ev.EMIT:
            turn.effects.append(
                Emit(
                    active.run,
                    active.owner,
                    command.seq,
                    0,
                    [(command.name or "", b"null")],
                    command.at_ms,
                )
            )
        case ev.TAG:
            turn.tags = {**(turn.tags or {}), **_decode(command.data or b"{}")}
            return False
        case ev.ABANDON if command.call is not None and command.call.kind == ev.CHILD:
            child = _id_of(active, command.call, _words(command.call.data or b"{}"))
            turn.effects.append(Deliver(child, "cancel", turn.at_ms, verb="cancel"))
        case _:
            return False
    return True


def check_names(active: ActiveRun, commands: list[Command]) -> None:
    """Raise `DefinitionError` where a run would be started by a name that stands for other code
    here.
    """
    for command in commands:
        if command.kind == ev.CHILD or command.kind == ev.SPAWN:
            active.host.register(command.call.definition)
        elif command.kind == ev.FINISH and isinstance(
            outcome := active.kernel.outcome, ev.Continued
        ):
            active.host.register(outcome.call.definition)


def _message(active: ActiveRun, command: Command, at_ms: int) -> Deliver:
    word = _words(command.data or b"{}")
    key = command.key or active.sent(command.seq) or message_key(active.name_of(command.seq))
    return Deliver(
        command.name or "",
        "message",
        at_ms,
        _decode(word["channel"]),
        None,
        key,
        bytes(word["value"]),
    )


def _start(active: ActiveRun, command: Command, at_ms: int) -> StartRun:
    word = _words(command.data or b"{}")
    options = command.call.options
    start = StartRun(
        _id_of(active, command, word), command.name or "", bytes(word["args"]), 0, at_ms, at_ms
    )
    start.root, start.tags = (
        active.root or active.run,
        _decode(word["tags"]) if "tags" in word else None,
    )
    start.queue, start.timeout_ms, start.durability = (
        options.queue,
        options.timeout_ms,
        options.durability or active.durability,
    )
    if command.kind == ev.CHILD:
        start.parent, start.parent_seq = active.run, command.seq
    return active.host.new_run(start, at_ms)


def _id_of(active: ActiveRun, command: Command, word: dict[str, msgspec.Raw]) -> str:
    if "id" in word:
        return str(_decode(word["id"]))
    return active.sent(command.seq) or run_id(active.run_id, active.name_of(command.seq))


def finish_of(active: ActiveRun, outcome: ev.Outcome, at_ms: int) -> Finish:
    """The end of a run as a write; a continued one hands on its id, its parent, its tags and its
    unread messages.
    """
    match outcome:
        case ev.Completed(result):
            return Finish("completed", result)
        case ev.Failed(error):
            return Finish("failed", error=error)
        case ev.Cancelled():
            return Finish("cancelled")
        case ev.Continued(call, workflow, args):
            row = active.host.store.run_row(active.run)
            start = StartRun(
                active.run_id, workflow, args, 0, at_ms, at_ms, None, row.parent, row.parent_seq
            )
            start.root, start.tags = row.root or row.run, _decode(row.tags) if row.tags else None
            start.queue, start.timeout_ms = call.options.queue, call.options.timeout_ms
            start.durability = (
                row.durability or call.options.durability
            )  # who waits for this id was promised the first one's level
            return Finish(
                "completed",
                None,
                None,
                active.host.new_run(start, at_ms),
                active.kernel.leftovers(),
            )


def answer(active: ActiveRun, command: Command, result: Any) -> None:
    """Tell the workflow what became of its send, its spawn or its child's start."""
    if isinstance(result, RunExists) and command.call is not None:
        args = bytes(_words(command.data or b"{}")["args"])
        recorded = [active.host.store.arguments(run) for run in result.compare]
        result = found_again(command.call.definition, args, recorded, result)
    match command.kind, result:
        case ((ev.ABANDON | ev.EMIT), _):
            pass  # a child that ended first needs no cancelling
        case _, PerdureError():
            active.adopting.discard(command.seq)
            active.input(ev.FAILED, ref=command.seq, data=failure_of_verb(result))
        case ev.SEND, _:
            active.input(ev.COMPLETED, ref=command.seq, data=b"null")
        case ev.SPAWN, Started():
            active.input(ev.COMPLETED, ref=command.seq, data=_encode(result.id))
        case ev.CHILD, Started(created=False):
            adopt(active, command, result)
        case ev.CHILD, _:
            active.adopted(command.seq)


def adopt(active: ActiveRun, command: Command, found: Started) -> None:
    """The child's id was taken: its outcome is borrowed if it has one, unless it is of an earlier
    generation of ours.

    Such a child is retried if it failed or was cancelled, and waited for if it has not come to its
    end.
    """
    if command.seq not in active.kernel.open:
        active.adopted(command.seq)
        return
    row = active.host.store.run_row(found.run)
    if (row.parent, row.parent_seq) == (active.run, command.seq):
        active.adopted(command.seq)  # it is ours, and its answer comes through the inbox
        return
    ours = active.names is not None and _of_an_earlier_generation(active, command, row)
    if row.status == "completed":
        active.input(ev.COMPLETED, ref=command.seq, data=row.result or b"null")
    elif ours and row.status in FINAL:
        retry.retry_child(active, command, row, partial(_look_again, active, command, row.id))
    elif ours:
        retry.await_child(active, command, row.run, partial(_look_again, active, command, row.id))
    elif row.status in FINAL:
        active.input(ev.FAILED, ref=command.seq, data=failure_of_run(row.id, row.status, row.error))
    else:
        error = RunExists(row.id, "it is not a child of this run")
        active.input(ev.FAILED, ref=command.seq, data=failure_of_verb(error))
    if command.seq not in active.kernel.open:
        active.adopted(command.seq)


def _look_again(active: ActiveRun, command: Command, child: str) -> None:
    adopt(active, command, Started(active.host.store.run_key(child), child, False))


def _of_an_earlier_generation(active: ActiveRun, command: Command, row: RunRow) -> bool:
    if "id" not in _words(command.data or b"{}"):
        return True  # the id is made from our key
    parent = None if row.parent is None else active.host.store.run_row(row.parent)
    return parent is not None and (parent.origin or parent.run) == active.origin
