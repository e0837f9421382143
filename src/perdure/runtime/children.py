"""Runs and children whose id was taken: compared, and retried or awaited for a retried parent.

Rules: what follows from an existing run is decided in `outbox`; this module reads it and writes
what was decided, and looks again when something else has changed it meanwhile. The command is in
the parent's set of unsettled ones until then, so the parent stays in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from perdure.core.events import Command
from perdure.errors import PerdureError, RunExists
from perdure.runtime.existing_run import found_again, true_arguments
from perdure.runtime.outbox import Outbox, args_of
from perdure.runtime.plans import AwaitChild, ChildSettled, Plan, RetryChild
from perdure.runtime.retry import plan_retry
from perdure.runtime.run_host import RunHost
from perdure.store.base import Store
from perdure.store.rows import RunRow
from perdure.store.writes import AdoptChild


class Children:
    """What is done about existing runs for one run; `answer` and `do` are its reactions."""

    __slots__ = ("_answer", "_do", "_host", "_open", "_outbox")

    def __init__(
        self, host: RunHost, outbox: Outbox, open_commands: dict[int, Command],
        do: Callable[[Plan], None], answer: Callable[[Command, Any], None],
    ) -> None:  # fmt: skip
        self._host, self._outbox, self._open = host, outbox, open_commands
        self._do, self._answer = do, answer

    def compare(self, command: Command, refused: RunExists) -> None:
        """Answer a start whose id was taken: the run is the same where its arguments are equal."""

        def known(recorded: list[bytes]) -> None:
            found = found_again(command.call.definition, args_of(command), recorded, refused)
            self._answer(command, found)

        self._host.reads.then(known, true_arguments, self._host.store, refused.compare)

    def look_at(self, command: Command, child: int | str) -> None:
        """Plan for a child that exists, by its key, or by its id as it is now."""
        if command.seq not in self._open:
            self._do(ChildSettled(command.seq))
            return

        def known(rows: tuple[RunRow, RunRow | None]) -> None:
            self._do(self._outbox.found(command, *rows))

        self._host.reads.then(known, _with_parent, self._host.store, child)

    def retry(self, plan: RetryChild) -> None:
        """Retry a child that failed or was cancelled."""
        host, row, command = self._host, plan.child, plan.command

        def known(history: list[Any]) -> None:
            definition, now_ms = host.workflows.get(row.workflow), host.steps.clock.now_ms()
            made = plan_retry(row, history, definition, host.codec, now_ms)
            made.parent = self._outbox.run, command.seq
            host.writer.put(made, done, keep=True)

        def done(result: Any) -> None:
            if isinstance(result, PerdureError):  # it has been retried meanwhile
                self.look_at(command, row.id)
            else:
                self._do(ChildSettled(command.seq))
                host.woken([result.run])

        host.reads.then(known, host.store.history, row.run)

    def wait_for(self, plan: AwaitChild) -> None:
        """Look at a child again when it has ended."""
        host, row, command = self._host, plan.child, plan.command

        def adopted(found: Any) -> None:
            if found is True:
                self._do(ChildSettled(command.seq))
                host.when_news(row.run, lambda: self.look_at(command, row.id))
            else:
                self.look_at(command, row.id)

        host.writer.put(AdoptChild(row.run, self._outbox.run), adopted, keep=True)


def _with_parent(store: Store, run: int | str) -> tuple[RunRow, RunRow | None]:
    row = store.run_row(run if isinstance(run, int) else store.run_key(run), true=True)
    return row, None if row.parent is None else store.run_row(row.parent, true=True)
