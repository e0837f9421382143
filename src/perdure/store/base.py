"""Store protocol: what the runtime asks of a database.

Rules: writes are values, applied in order in one transaction; each gives one result, and a refused
write is an error value that leaves the rest of its batch alone. Reads give the last commit and
never wait for a writer. Times are arguments. Every error of a database leaves as a `StoreError`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from perdure.core.events import Event
from perdure.errors import PerdureError, StoreCorrupt
from perdure.store.log_reads import LogRow
from perdure.store.retention_writes import Prunable, PrunablePage, PruningState
from perdure.store.rows import (
    AnswerRow,
    ExposedRow,
    InboxRow,
    LinkRow,
    LoadedRun,
    OutcomeRow,
    PlaceRow,
    ProgressRow,
    QueueKeyRow,
    QueueRow,
    ReplyRow,
    RequestRow,
    RunFilter,
    RunHead,
    RunRow,
    StandingRow,
    StreamItem,
    UnansweredRow,
    WorkerRow,
)
from perdure.store.schedule_writes import DueSchedule, ScheduleRow
from perdure.store.writes import Family, Write


class LeaseConnection(Protocol):
    """A connection that does nothing but renew a worker's lease, for a thread of its own."""

    def renew(self, worker: int, lease_ms: int) -> bool:
        """Extend a worker's lease to `lease_ms`. Returns False where others have ended it."""

    def close(self) -> None:
        """Close the connection, from the thread that used it, before the store is closed."""


class PruningReads(Protocol):
    """Reads of retention, which may take long."""

    def prunable(
        self, status: str, before_ms: int, after: tuple[int, int], limit: int
    ) -> PrunablePage:
        """Runs that ended with a status before a time, and may be deleted with all that goes with
        them: the oldest first, behind `after` (a time and a key), up to `limit` looked at.
        """


class Export(Protocol):
    """A new file that gets runs of a store; for a thread of its own."""

    def add(self, found: Sequence[Prunable]) -> int:
        """Copy runs with all that goes with them. Returns the size of the file in bytes."""

    def close(self) -> None:
        """Make the file whole and durable."""


class Store(Protocol):
    """A database of runs.

    One thread at a time calls `write`; reads come from the thread that owns the store. Any method
    may raise a `StoreError`. `run` is always a run's key, `run_id` its public id.
    """

    path: str
    """The name of the database, for messages."""
    commit_ms: float
    """How long the last commit took, until the database said that it is durable."""
    held_ms: float
    """For how long the last transaction held the store, its commit included."""
    inline: bool
    """Whether reads and short writes take microseconds, so that an event loop may make them itself.
    Where it is False they are made in threads, one read at a time.
    """
    damaged: StoreCorrupt | None
    """Set for good when damage was found: the store then refuses reads and writes."""
    when_damaged: Callable[[], None] | None
    """Called once damage was found, from any thread."""
    watched: tuple[str, ...]
    """Files that are written to when another process commits."""

    # --- writing ----------------------------------------------------------------------------------

    def write(self, batch: Sequence[Write], wait_for_lock: bool) -> list[Any | PerdureError]:
        """Apply a batch in one transaction and return one result each; see `writes`.

        With `wait_for_lock` False a database that another writer has locked raises `StoreLocked` at
        once. Raises `BatchRolledBack` where one write can't be applied, a `StoreError` where none
        can; then nothing was written.
        """

    def lease_connection(self, busy_ms: int) -> LeaseConnection | None:
        """A connection to renew leases, which waits up to `busy_ms` for another writer.

        None where no other process can see the store.
        """

    def changed_by_others(self) -> bool:
        """Whether another connection has committed since the last call. Not during a `write`."""

    def check_identity(self) -> None:
        """Check that the store's name still means the database that is open.

        Raises `StoreReplaced`, or `StoreTooNew` where a newer Perdure has migrated it.
        """

    def rest(self) -> None:
        """Give back memory and connections until the next use, which takes a little longer."""

    def close(self) -> None:
        """Close all connections. The store is not used afterwards."""

    # --- one run ----------------------------------------------------------------------------------

    def has_run(self, run_id: str) -> bool:
        """Whether a run with this id exists."""

    def run_key(self, run_id: str) -> int:
        """The key of a run by its full id. Raises `RunNotFound`."""

    def run_row(self, run: int, *, true: bool = False) -> RunRow:
        """The run with its payloads; with `true` their secrets, else the mask.

        With `true` raises `SecretsMissing` where an export has left them out; so do all methods
        that say that they give secrets.
        """

    def run_head(self, run_id: str) -> RunHead:
        """A run without its arguments and its result. Raises `RunNotFound`."""

    def status(self, run_id: str) -> str:
        """The status of a run, without reading anything else. Raises `RunNotFound`."""

    def arguments(self, run: int, *, true: bool = False) -> bytes:
        """The arguments of a run as whole JSON; with `true` their secrets."""

    def progress(self, run_id: str, open_max: int) -> ProgressRow:
        """How far a run is, with up to `open_max` names of open steps.

        Reads no payload but that of its newest error. Raises `RunNotFound`.
        """

    def outcome(self, run: int, *, true: bool = False) -> OutcomeRow:
        """How a run ended or what its state is, with result or error and no arguments; with `true`
        their secrets.
        """

    def durability(self, run_id: str) -> str | None:
        """The durability level that the run was started with; None: the engine's own."""

    def load(self, run: int, owner: int, rows_max: int) -> LoadedRun | None:
        """What `owner` needs to go on with a run, with its secrets; None where it has ended or is
        not this worker's.

        A history of more than `rows_max` rows is not read.
        """

    def history(self, run: int, after_seq: int = 0) -> list[Event]:
        """The rows of a run behind row `after_seq`, in order, with their secrets.

        Large arguments are read on use where the store is `inline`; else they come with the chunks
        that they are made of, so that nothing is read later.
        """

    def history_page(self, run: int, after_seq: int, limit: int | None) -> list[Event]:
        """Up to `limit` rows behind `after_seq`, in order, with whole `data`."""

    def history_outline(self, run: int, after_seq: int, limit: int | None) -> list[Event]:
        """The same rows without `data`, which is not read; that of an attempt says whether it
        failed: `{"error": {}}` does.
        """

    def rows_about(self, run: int, seq: int) -> list[Event]:
        """A row and those that answer it, in order, with whole `data`; [] where it is missing."""

    def row_names(self, run: int, seqs: Sequence[int]) -> dict[int, str]:
        """Names of rows by number: that of a step, say; the kind where a row has no name."""

    def inbox(self, run: int, after: int) -> list[InboxRow]:
        """Untaken inbox rows of a run behind row `after`, in order, at most a thousand, with their
        secrets.
        """

    def heartbeat(self, run: int, seq: int) -> bytes | None:
        """The last heartbeat of the step at row `seq`, as JSON with its secrets; None where there
        is none.
        """

    def stream(self, run: int, name: str, after: int, limit: int) -> list[StreamItem]:
        """Items of a stream behind the position `after`, in order."""

    def stream_place(self, position: int) -> tuple[int, str, str] | None:
        """Key and id of the run, and the stream's name, of an item; None where it is unknown."""

    def log_lines(
        self,
        run: int,
        after: int,
        limit: int,
        seq: int | None = None,
        attempt: int | None = None,
        *,
        newest: bool = False,
    ) -> list[LogRow]:
        """Lines that steps of a run have logged behind the position `after`, in order; of one step
        or one attempt where that is given. `newest`: the last ones instead of the first.
        """

    def last_log_line(self, run: int) -> int:
        """The position of the newest of them; 0 where there is none."""

    def exposed(self, run: int) -> list[ExposedRow]:
        """The exposed values of a run, those set last at the end."""

    def exposed_value(self, run: int, name: str) -> bytes | None:
        """An exposed value of a run as JSON; None where it is not set."""

    def reply(self, request: int) -> ReplyRow | None:
        """The reply to a request, with its secrets; None where it has none, or there is no such
        request.
        """

    def have_reply(self, requests: Sequence[int]) -> list[int]:
        """Those of these requests that wait for no reply any more."""

    def open_requests(self, run: int, limit: int) -> list[RequestRow]:
        """Up to `limit` requests to a run, or to those before it under its id, without a reply."""

    def link(self, digest: str) -> LinkRow | None:
        """The link whose token has this digest."""

    def links_of(self, run: int, limit: int) -> list[LinkRow]:
        """Links to a run, the newest first; without status and `waiting`."""

    def answers(self, before: int, limit: int) -> list[AnswerRow]:
        """What senders with a name have sent or decided, the newest first, before inbox row
        `before`.
        """

    def senders(self, run: int, first: int, last: int) -> dict[int, str]:
        """The senders of rows `first` to `last` of a history, by row, where one is known."""

    def declared_workflows(self, limit: int) -> list[tuple[str, str, str]]:
        """Name, first line of the documentation and JSON Schema of the arguments of workflows that
        processes have declared, by name.
        """

    def unanswered(self, before_ms: int, limit: int) -> list[UnansweredRow]:
        """Requests from before `before_ms` without a reply, the oldest first, to runs that have not
        ended.
        """

    def first_generation(self, run: int) -> int:
        """The oldest run that is there of those that went on under one id to this one."""

    def generation_after(self, run: int) -> int | None:
        """The run that continued under a run's id, by `continue_as` or by a retry.

        None where the run has the id itself.
        """

    def family(self, run: int) -> Family:
        """The family that begins at a run."""

    # --- many runs --------------------------------------------------------------------------------

    def find_ids(self, prefix: str, limit: int) -> list[str]:
        """Ids that begin with `prefix`, sorted.

        Children and earlier generations count only where no other run matches.
        """

    def run_rows(self, asked: RunFilter) -> list[RunRow]:
        """Runs that match all given filters, the newest first."""

    def run_heads(self, asked: RunFilter) -> list[RunHead]:
        """The same runs without reading their arguments and results."""

    def unfinished(self, workflows: tuple[str, ...], limit: int | None) -> list[int]:
        """Keys of runs that have not ended, the newest first; without `workflows` of all."""

    def statuses(self, runs: Sequence[int]) -> dict[int, tuple[str, int | None, int | None]]:
        """Status, successor and owner of each run that exists."""

    def inboxes_of(self, owner: int) -> list[int]:
        """Runs of a worker with untaken inbox rows."""

    def paused_of(self, owner: int) -> list[int]:
        """Runs of a worker that are paused."""

    def blocked_in(self, family: Family, limit: int) -> list[tuple[str, str, str]]:
        """Blocked runs of a family: id, blocked by, reason."""

    # --- what is due ------------------------------------------------------------------------------

    def next_due_ms(
        self,
        workflows: tuple[str, ...],
        families: Sequence[Family] | None = None,
        worker: int | None = None,
    ) -> int | None:
        """When the next run without an owner is due, or a queue may admit something by a claim of
        this worker; of these families only, if given.
        """

    def due_count(self, workflows: tuple[str, ...], now_ms: int, limit: int) -> int:
        """How many runs are due and have no owner, counted up to `limit`."""

    def due_names(self, now_ms: int) -> list[tuple[str, str]]:
        """Workflows with due runs that have no owner, each with the id of one of these runs."""

    def is_executed(self, workflow: str) -> bool:
        """Whether a worker owns a run of this workflow."""

    # --- queues -----------------------------------------------------------------------------------

    def queue_rows(self) -> list[QueueRow]:
        """All queues, by name. Counts stop at `QUEUE_COUNT_MAX`."""

    def queue_row(self, name: str) -> QueueRow:
        """One queue. Raises `QueueNotFound`."""

    def queue_keys(self, name: str, limit: int) -> list[QueueKeyRow]:
        """Keys with places in a queue, those with the most first. Raises `QueueNotFound`."""

    def places(self, name: str, limit: int, admitted: bool) -> list[PlaceRow]:
        """Places of a queue: admitted ones, the oldest first, or those that wait, about in the
        order of admission. Raises `QueueNotFound`.
        """

    def place_of(self, run: int) -> list[StandingRow]:
        """Where the places of a run stand that wait: its own and those of its steps, at most 8."""

    def line_of(self, run: int, seq: int) -> str | None:
        """The queue in whose line the step in row `seq` waits; None where it waits in none."""

    def places_of(self, runs: Sequence[int]) -> dict[int, list[StandingRow]]:
        """The same for several runs, by run: a queue's order is read once."""

    def admitted(self, worker: int) -> list[tuple[int, int, int]]:
        """Steps of a worker's runs that queues have admitted, as (run, row, place)."""

    # --- schedules --------------------------------------------------------------------------------

    def next_fire_ms(self) -> int | None:
        """When to look at a schedule next: a tick is due, or what one waited for has ended."""

    def any_held(self) -> bool:
        """Whether a tick waits for the end of a run."""

    def due_schedules(self, now_ms: int, limit: int) -> list[DueSchedule]:
        """Schedules to look at, those that are due for the longest first."""

    def schedules_ahead(self, now_ms: int, limit: int) -> list[DueSchedule]:
        """Schedules whose last tick is behind `now_ms`: the clock was set back."""

    def schedule_row(self, name: str) -> ScheduleRow:
        """A schedule. Raises `ScheduleNotFound`."""

    def schedule_rows(self, after: str, limit: int) -> list[ScheduleRow]:
        """Schedules by name, those behind the name `after`."""

    # --- retention --------------------------------------------------------------------------------

    def prunable(
        self, status: str, before_ms: int, after: tuple[int, int], limit: int
    ) -> PrunablePage:
        """See `PruningReads`."""

    def pruning(self) -> PruningState:
        """What retention has done, and what is left to sweep."""

    def reads_apart(self) -> AbstractContextManager[PruningReads] | None:
        """The same reads on a connection of their own, for another thread; None where the database
        has only one.
        """

    def export(self, path: str) -> AbstractContextManager[Export]:
        """A new store in a file at `path`, to copy runs to; from any thread. What is not closed is
        no whole file. Raises a `StoreError`, and an `OSError` of that file's disk.
        """

    # --- workers and the database -----------------------------------------------------------------

    def workers(self) -> list[WorkerRow]:
        """Workers that have not ended."""

    def status_counts(self) -> dict[str, int]:
        """How many runs have each status that any has; reads no row of a run that has completed."""

    def facts(self, now_ms: int) -> dict[str, Any]:
        """What `perdure doctor` shows of the database: versions, size, integrity, stuck runs."""
