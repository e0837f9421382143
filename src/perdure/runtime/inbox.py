"""The inbox of one run in memory: read when there is news, and fed in its order.

Rules: one read is under way at a time, and news that comes meanwhile is read behind it; a long
inbox is fed in slices, so that the event loop gets its turn.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import Protocol

from perdure.process.slices import slice_end_s
from perdure.runtime.run_host import RunHost
from perdure.store.rows import INBOX_ROWS_MAX, InboxRow


class RunOfInbox(Protocol):
    """What an inbox needs of its run."""

    run: int

    @property
    def takes_inbox(self) -> bool:
        """Whether the run takes anything now; if not, it reads its inbox when it is resumed."""
        ...

    def feed_inbox(self, row: InboxRow) -> None: ...


class Inbox:
    """See the module's text."""

    __slots__ = ("_after", "_host", "_news", "_reading")

    def __init__(self, host: RunHost) -> None:
        self._host = host
        self._after = 0  # the last row that was fed
        self._reading = self._news = False

    def read(self, run: RunOfInbox) -> None:
        """Read and feed what has arrived since the last time."""
        if not run.takes_inbox:
            return
        if self._reading:
            self._news = True
            return
        self._reading, self._news = True, False
        arrived = partial(self._arrived, run)
        self._host.reads.then(arrived, self._host.store.inbox, run.run, self._after)

    def _arrived(self, run: RunOfInbox, rows: list[InboxRow]) -> None:
        self._reading = False
        self.take(run, rows)
        if self._news:
            self.read(run)

    def take(
        self, run: RunOfInbox, rows: list[InboxRow], later: list[InboxRow] | None = None
    ) -> None:
        """Feed rows; what does not fit into a slice is read again later.

        Decisions on steps are put into `later`, if it is given, and not fed.
        """
        if not run.takes_inbox:
            return
        until_s = slice_end_s(self._host.steps.loop)
        for row in rows:
            self._after = row.id
            if later is not None and row.kind == "resolve":
                later.append(row)
            else:
                run.feed_inbox(row)
            if perf_counter() > until_s:
                self._host.woken([run.run])
                return
        if len(rows) >= INBOX_ROWS_MAX:
            self._host.woken([run.run])
