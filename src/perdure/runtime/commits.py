"""What follows from the commit of a run's turn: attempts begin, effects are answered, runs wake.

Rules: nothing that a turn asked for begins before its commit; where the store refuses a turn,
nothing of it has happened and the run leaves memory; an error of Perdure's costs the run that it
happened to, which is blocked as the file has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from perdure.core import events as ev
from perdure.core.events import Command
from perdure.core.replay import Kernel
from perdure.errors import LeaseLost, PerdureError, RunExists
from perdure.runtime import block_reason, log
from perdure.runtime.attempts import Attempts
from perdure.runtime.children import Children
from perdure.runtime.outbox import Outbox
from perdure.runtime.plans import Block, Plan, Todo
from perdure.runtime.queues import Asked
from perdure.runtime.run_host import HostedRun, RunHost
from perdure.runtime.turns import blocked
from perdure.store.rows import Replied, Started, Written
from perdure.store.writes import Finish, Turn


class RunOfCommits(HostedRun, Protocol):
    """What a commit needs of its run. `adopting` are rows of children whose run may exist."""

    host: RunHost
    kernel: Kernel
    attempts: Attempts
    outbox: Outbox
    adopting: set[int]

    def do(self, plan: Plan) -> None: ...

    def drop(self) -> None: ...


def appended(
    run: RunOfCommits,
    todo: Todo,
    result: Written | PerdureError | None,
    places: Sequence[Asked] = (),
) -> None:
    """Rows were committed, or refused. `places` are those that were asked for."""
    if result is not None and isinstance(result, PerdureError):
        refused(run, result)
        return
    try:
        if result is not None:
            placed(run, places, result)
        run.attempts.begin_all(todo)
    except Exception as error:
        failed(run, error)


def placed(run: RunOfCommits, asked: Sequence[Asked], written: Written | Started) -> None:
    """What became of places that were asked for, and who waits no longer."""
    for one, answer in zip(asked, written.places, strict=True):
        run.attempts.placed(one, answer)
    if written.queue_due or (isinstance(written, Written) and written.admitted):
        run.host.released(written)


def committed(
    run: RunOfCommits, asked: list[Command], todo: Todo, end: Finish | bool, result: Any,
    places: Sequence[Asked] = (),
) -> None:  # fmt: skip
    """A turn was committed, or refused. `asked` are the commands of its first effects, in their
    order, and `places` what it asked queues for; `end` says whether the run has left memory with
    it, and how it ended.
    """
    if isinstance(result, PerdureError):
        refused(run, result)
        return
    try:
        if asked:
            replied = [one.request for one in result.effects if isinstance(one, Replied)]
            for command, answer in zip(asked, result.effects, strict=False):
                _answered(run, command, answer)
                if isinstance(answer, Started) and answer.created:
                    result.woken.append(answer.run)
            run.host.emitted(replied)
        if places or result.admitted or result.queue_due:
            placed(run, places, result)
        run.attempts.begin_all(todo)
    except Exception as error:
        failed(run, error)
    if result.woken:
        run.host.woken(result.woken)
    if end:  # of this turn: the end of a later one is not in the file yet
        run.host.ended(run, end)


def left(run: RunOfCommits, result: Written | PerdureError) -> None:
    """The turn was written with which a run has left memory: who waited may go on."""
    run.host.released(result)
    run.host.ended(run)


def _answered(run: RunOfCommits, command: Command, answer: Any) -> None:
    """What became of the effect of a command."""
    if isinstance(answer, RunExists) and command.kind in (ev.CHILD, ev.SPAWN):
        run.adopting.add(command.seq)
        children_of(run).compare(command, answer)
    else:
        _settled(run, command, answer)


def _settled(run: RunOfCommits, command: Command, answer: Any) -> None:
    if command.kind == ev.CHILD and isinstance(answer, Started) and not answer.created:
        run.adopting.add(command.seq)
        children_of(run).look_at(command, answer.run)
    elif (plan := run.outbox.answered(command, answer)) is not None:
        run.do(plan)


def children_of(run: RunOfCommits) -> Children:
    """What carries out plans about children that exist already."""
    return Children(run.host, run.outbox, run.kernel.open, run.do, partial(_settled, run))


def refused(run: RunOfCommits, error: PerdureError) -> None:
    """Nothing of a turn is in the file: another worker owns the run, or it can't continue."""
    first = not run.gone
    if first:
        log.run_refused(run, error)
        run.drop()
    if isinstance(error, LeaseLost):
        run.host.lease_lost(run)
    else:
        _block_in_file(run, f"its history could not be written: {error}", news=first)


def failed(run: RunOfCommits, error: BaseException) -> None:
    """An error of Perdure's in the middle of a turn: the run is blocked as the file has it."""
    if not run.gone:
        log.run_stopped(run, error)
        run.drop()
        if run.run:
            text = block_reason.as_text(error)
            _block_in_file(run, f"Perdure failed in the middle of a turn: {text}", news=True)


def _block_in_file(run: RunOfCommits, reason: str, *, news: bool) -> None:
    """`news` is whether nobody has heard yet that the run is blocked."""
    block, host = Block("store", reason), run.host
    suspend = blocked(block)
    turn = Turn(run.run, host.owner, [], host.steps.clock.now_ms(), suspend=suspend)
    if (places := run.attempts.places) is not None:
        run.attempts.give_up_places()
        turn.released = places.take_released()
    host.writer.put(turn, partial(_blocked_in_file, run, block if news else False), keep=True)


def _blocked_in_file(run: RunOfCommits, how: Block | bool, result: Written | PerdureError) -> None:
    """The writer has blocked it already where it has refused its rows; then this write was late."""
    run.host.released(result)
    run.host.ended(run, how)
