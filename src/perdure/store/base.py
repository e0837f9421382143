"""The seam between the runtime and a store, written for two backends.

Rules: what is to be written is a value; `Store.write` takes a batch of such values, applies them in
order in one transaction, and gives one result for each; a result is data, and a refused write is an
error value that leaves the rest of the batch alone. Reads see the last commit and never wait for a
writer. Times are given, never taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from perdure.core.events import Command, Event
from perdure.errors import PerdureError, StoreCorrupt

if TYPE_CHECKING:
    from perdure.store.sqlite.lease_connection import WorkerBeat

STATUSES = (
    "pending",
    "running",
    "waiting",
    "paused",
    "blocked",
    "completed",
    "failed",
    "cancelled",
)
FINAL = frozenset({"completed", "failed", "cancelled"})


# --- what is written ------------------------------------------------------------------------------


class StartRun(msgspec.Struct, gc=False):
    """A new run; `owner` is set when the writer executes it at once, else it is `due` for anybody.

    `root` is the first run of the family that it belongs to, where a run starts it. `first` are the
    rows of its first turn, written with it if it is new and its owner's.
    """

    id: str
    workflow: str
    args: bytes
    seed: int
    at_ms: int
    due_ms: int | None
    owner: int | None = None
    parent: int | None = None
    parent_seq: int | None = None
    tags: dict[str, Any] | None = None
    queue: str | None = None
    priority: int = 0
    timeout_ms: int | None = None
    durability: str | None = None
    python: str | None = None
    root: int | None = None
    first: list[Event | Command] | None = None


class Finish(msgspec.Struct, gc=False):
    """How a run ended: status, and its result or error as JSON. `successor` goes on under the same
    id.
    """

    status: str
    result: bytes | None = None
    error: bytes | None = None
    successor: StartRun | None = None
    leftovers: list[tuple[str, bytes]] = msgspec.field(default_factory=list)


class Park(msgspec.Struct, gc=False):
    """Where a run stands after a turn: its status (None: as it was), what it waits for, whether its
    owner lets go of it.
    """

    status: str | None
    waiting: bytes | None = None
    due_ms: int | None = None
    release: bool = False
    blocked_by: str | None = None
    reason: str | None = None


class Grow(msgspec.Struct, gc=False):
    """What most turns are: rows for the history of a run that goes on as it was. Refused unless
    `owner` owns it.
    """

    run: int
    owner: int
    rows: list[Event | Command]


class Turn(msgspec.Struct, gc=False):
    """Rows for a run's history, and what follows from them; refused with `LeaseLost` unless `owner`
    owns it.
    """

    run: int
    owner: int
    rows: list[Event | Command]
    at_ms: int
    taken: list[tuple[int, int]] = msgspec.field(default_factory=list)
    effects: list[Write] = msgspec.field(default_factory=list)
    park: Park | None = None
    finish: Finish | None = None
    tags: dict[str, Any] | None = None
    settled: bool = False
    """True when the run has got on since its last crash, so that its count of crashes starts anew.
    """
    unread: int | None = None
    """How many messages its history has that it has not received, where that has changed."""
    python: str | None = None
    """Which Python executes it, where that has changed."""


class Deliver(msgspec.Struct, gc=False):
    """Something for a run's inbox: kind message, cancel or resolve; `run_id` may be a full public
    id only.
    """

    run_id: str
    kind: str
    at_ms: int
    name: str | None = None
    ref: int | None = None
    key: str | None = None
    data: bytes | None = None
    verb: str = "send to"


class Steer(msgspec.Struct, gc=False):
    """A person's word about a run: pause, resume, retry or unblock."""

    run_id: str
    verb: str
    at_ms: int


class ForkRun(msgspec.Struct, gc=False):
    """A new run from the rows of another before `before_seq`, but those in `left_out`, with `extra`
    rows between and behind them.

    With `replace` it takes over the id of its source, whose own id gets a suffix: that is how a
    failed run is retried without touching its history. `edits` are new data of rows, by number;
    `returned` are inputs behind the cut that come back into the inbox. `parent` is the run and the
    row that wait for it; else a retried child answers nobody.
    """

    source: int
    id: str
    before_seq: int
    at_ms: int
    extra: list[Event] = msgspec.field(default_factory=list)
    args: bytes | None = None
    left_out: list[int] = msgspec.field(default_factory=list)
    edits: list[tuple[int, bytes]] = msgspec.field(default_factory=list)
    returned: list[Event] = msgspec.field(default_factory=list)
    replace: bool = False
    parent: tuple[int, int] | None = None


class AdoptChild(msgspec.Struct, gc=False):
    """`parent`, a later generation of a child's parent, is to be woken at the child's end; gives
    False if it has ended.
    """

    child: int
    parent: int


class Family(msgspec.Struct, frozen=True):
    """A run that an engine was asked for, and all that it starts: the runs with its `root`, in so
    far as they are not that root itself.
    """

    run: int
    root: int


class Claim(msgspec.Struct, gc=False):
    """Make `owner` the owner of up to `limit` runs that are due, and of no more than its share
    while other workers live.

    With `insists` it takes a part also beyond its share: the others have had their time and have
    left runs, so they can't take them. With `families` it takes runs of these only, whatever its
    share.
    """

    owner: int
    workflows: tuple[str, ...]
    limit: int
    now_ms: int
    insists: bool = False
    families: tuple[Family, ...] | None = None


class JoinWorker(msgspec.Struct, gc=False):
    """A process that wants to execute runs; with `asked` only what it is asked for, so that the
    others share the rest.
    """

    name: str
    host: str
    pid: int
    born: str
    now_ms: int
    ttl_ms: int
    asked: bool = False


class KeepLease(msgspec.Struct, gc=False):
    """Extend a worker's lease; gives False when it was declared dead meanwhile."""

    worker: int
    lease_ms: int


class WorkerEnded(msgspec.Struct, gc=False):
    """How many runs a worker had that go on, and those that do not because it died over them once
    too often: id, workflow, reason.
    """

    freed: int
    blocked: list[tuple[str, str, str]]


class EndWorker(msgspec.Struct, gc=False):
    """A worker leaves or was found dead; its runs become due at once. `crashed` counts against
    running ones.

    With `beats` it is refused if the worker has given a sign of life since.
    """

    worker: int
    now_ms: int
    crashed: bool
    crashes_max: int = 3
    beats: int | None = None


class WakeBlocked(msgspec.Struct, gc=False):
    """Give runs that were blocked by their code another try, now that other code may have been
    deployed, and those that wait although their history holds messages which that code did not
    receive. With `family` those of it only.
    """

    workflows: tuple[str, ...]
    now_ms: int
    family: Family | None = None


class MendDue(msgspec.Struct, gc=False):
    """The clock may have been set back: what was due at once by the old date is due now. Timers and
    `at=` keep theirs.
    """

    now_ms: int


class MoveSeal(msgspec.Struct, gc=False):
    """A replicated file goes on in another epoch; through the writer, because nobody else may use
    its connection meanwhile.
    """

    store_id: str
    address: str
    epoch: int


class Emit(msgspec.Struct, gc=False):
    """Items that a step's attempt emits: (stream, JSON); refused unless `owner` owns the run."""

    run: int
    owner: int
    seq: int
    attempt: int
    items: list[tuple[str, bytes]]
    at_ms: int


class Beat(msgspec.Struct, gc=False):
    """The last heartbeat of a step's attempt; refused unless `owner` owns the run."""

    run: int
    owner: int
    seq: int
    attempt: int
    data: bytes
    at_ms: int


class Transact(msgspec.Struct, gc=False):
    """A transactional step: `work` gets the store's connection; `conclude` makes its rows from what
    came of it.
    """

    run: int
    owner: int
    work: Callable[[Any], Any]
    conclude: Callable[[Any, BaseException | None], Event | None]


Write = (
    StartRun
    | Grow
    | Turn
    | Deliver
    | Steer
    | ForkRun
    | AdoptChild
    | Claim
    | JoinWorker
    | KeepLease
    | EndWorker
    | WakeBlocked
    | MendDue
    | MoveSeal
    | Emit
    | Beat
    | Transact
)


# --- what comes back ------------------------------------------------------------------------------


class Started(msgspec.Struct, gc=False):
    """The run's key; `created` is False when a run with this id, workflow and arguments was there
    already, `owned` is True when it is new and its writer executes it.
    """

    run: int
    id: str
    created: bool
    owned: bool = False


class Written(msgspec.Struct, gc=False):
    """A turn is in the file: results of its effects, and the keys of runs that have new things in
    their inbox.
    """

    effects: list[Any]
    woken: list[int]


class Woken(msgspec.Struct, gc=False):
    """The run with this key has something to look at, and so have `others`."""

    run: int
    others: list[int] = msgspec.field(default_factory=list)


class RunRow(msgspec.Struct, gc=False):
    """A run as the store has it; payloads are whole JSON."""

    run: int
    id: str
    workflow: str
    status: str
    args: bytes
    result: bytes | None
    error: bytes | None
    waiting: str | None
    blocked_by: str | None
    reason: str | None
    owner: int | None
    due_ms: int | None
    crashes: int
    priority: int
    queue: str | None
    tags: str | None
    parent: int | None
    parent_seq: int | None
    forked_from: str | None
    successor: int | None
    origin: int | None
    seed: int
    timeout_ms: int | None
    created_ms: int
    started_ms: int | None
    ended_ms: int | None
    durability: str | None
    parent_id: str | None
    history_rows: int
    python: str | None
    root: int | None


class RunHead(msgspec.Struct, gc=False):
    """A run without its arguments and its result, as lists show it. `error` is whole JSON, the
    `last_` fields are of its newest row: for an answer the name is that of the row it answers.
    """

    run: int
    id: str
    workflow: str
    status: str
    error: bytes | None
    waiting: str | None
    blocked_by: str | None
    reason: str | None
    owner: int | None
    due_ms: int | None
    priority: int
    queue: str | None
    tags: str | None
    parent_id: str | None
    forked_from: str | None
    created_ms: int
    started_ms: int | None
    ended_ms: int | None
    python: str | None
    history_rows: int
    last_kind: str | None
    last_name: str | None
    last_ms: int | None


class ProgressRow(msgspec.Struct, gc=False):
    """How far a run is: its status, its steps counted by state, and its newest recorded error.

    `open` names some of the steps and children that have not ended; `error` is the row of the
    newest failure or failed attempt, and `error_of` the name of the step that it is of.
    """

    status: str
    waiting: str | None
    reason: str | None
    scheduled: int
    completed: int
    failed: int
    abandoned: int
    open: list[str]
    error: Event | None
    error_of: str | None


class OutcomeRow(msgspec.Struct, gc=False):
    """How a run stands or ended; `result` and `error` are whole JSON."""

    status: str
    successor: int | None
    id: str
    workflow: str
    result: bytes | None
    error: bytes | None
    blocked_by: str | None
    reason: str | None
    durability: str | None


class InboxRow(msgspec.Struct, gc=False):
    """Something that a run has not taken into its history yet."""

    id: int
    run: int
    kind: str
    name: str | None
    ref: int | None
    data: bytes | None
    at_ms: int


class StreamItem(msgspec.Struct, gc=False):
    """One item of a stream, as JSON, with its position for reading on."""

    position: int
    data: bytes
    recorded: bool
    """Whether a workflow emitted it, so that it is part of the history; a step's items come as they
    are made.
    """


class WorkerRow(msgspec.Struct, gc=False):
    """A process that executes runs, or did."""

    worker: int
    name: str
    host: str
    pid: int
    born: str
    lease_ms: int
    ttl_ms: int
    beats: int
    asked: int
    """1 where it executes only what it is asked for."""


class Spoiled(Exception):
    """A batch was undone because one of its writes can't be applied; `index` is its place, or None
    where that is not known.

    The error is its `__cause__`, and is about that write only: the others can be applied without
    it.
    """

    def __init__(self, index: int | None) -> None:
        self.index = index
        super().__init__()


def worth_copying(batch: Sequence[Write]) -> bool:
    """Whether a transaction counts for a replica: a sign of life alone does not."""
    return len(batch) > 1 or type(batch[0]) is not KeepLease


def fresh_row(start: StartRun, run: int) -> RunRow:
    """The row of a run that has just been written, without reading it back."""
    return RunRow(
        run,
        start.id,
        start.workflow,
        "running",
        start.args,
        None,
        None,
        None,
        None,
        None,
        start.owner,
        None,
        0,
        start.priority,
        start.queue,
        None,
        start.parent,
        start.parent_seq,
        None,
        None,
        None,
        start.seed,
        start.timeout_ms,
        start.at_ms,
        start.at_ms,
        None,
        start.durability,
        None,
        0,
        start.python,
        start.root,
    )


class Store(Protocol):
    """What a backend does. `write` may be called from one thread at a time; reads from the owner's
    thread.
    """

    path: str
    commit_ms: float
    """How long the last commit took, from the last row to the disk's word."""
    damaged: StoreCorrupt | None
    """Set for good when damage was found: from then on the store gives and takes nothing more."""

    def write(self, batch: Sequence[Write], patient: bool) -> list[Any | PerdureError]: ...

    def changed_by_others(self) -> bool: ...

    def look_at_file(self) -> None: ...

    def has_run(self, run_id: str) -> bool: ...

    def durability(self, run_id: str) -> str | None: ...

    def run_key(self, run_id: str) -> int: ...

    def find_ids(self, prefix: str, limit: int) -> list[str]: ...

    def run_row(self, run: int) -> RunRow: ...

    def outcome(self, run: int) -> OutcomeRow: ...

    def run_rows(
        self,
        *,
        status: str | None,
        workflow: str | None,
        tags: dict[str, Any] | None,
        limit: int,
        before: int | None,
    ) -> list[RunRow]:
        """Runs older than the key `before`, newest first, in a fixed number of queries."""

    def run_heads(
        self,
        *,
        status: str | None,
        workflow: str | None,
        tags: dict[str, Any] | None,
        limit: int,
        before: int | None,
    ) -> list[RunHead]:
        """The same runs without reading their arguments and results."""

    def run_head(self, run_id: str) -> RunHead:
        """A run without its arguments and its result. Raises `RunNotFound`."""

    def status(self, run_id: str) -> str:
        """The status of a run, without reading anything else. Raises `RunNotFound`."""

    def arguments(self, run: int) -> bytes:
        """The arguments of a run as whole JSON."""

    def progress(self, run_id: str, open_max: int) -> ProgressRow:
        """How far a run is, with up to `open_max` names of open steps; reads no payload but its
        newest error. Raises `RunNotFound`.
        """

    def history_page(self, run: int, after_seq: int, limit: int | None) -> list[Event]:
        """Up to `limit` rows behind one, in order, with whole `data`; the others cost nothing."""

    def rows_about(self, run: int, seq: int) -> list[Event]:
        """A row and those that answer it, in order, with whole `data`; [] where there is none."""

    def row_names(self, run: int, seqs: Sequence[int]) -> dict[int, str]:
        """The names of rows by number: that of a step, say; the kind where a row has no name."""

    def history(self, run: int, after_seq: int = 0) -> list[Event]: ...

    def inbox(self, run: int, after: int) -> list[InboxRow]: ...

    def inboxes_of(self, owner: int) -> list[int]: ...

    def paused_of(self, owner: int) -> list[int]: ...

    def statuses(self, runs: Sequence[int]) -> dict[int, tuple[str, int | None, int | None]]: ...

    def stream(self, run: int, name: str, after: int, limit: int) -> list[StreamItem]: ...

    def stream_place(self, position: int) -> tuple[int, str, str] | None: ...

    def generation_after(self, run: int) -> int | None: ...

    def heartbeat(self, run: int, seq: int) -> bytes | None: ...

    def next_due_ms(
        self, workflows: tuple[str, ...], families: Sequence[Family] | None = None
    ) -> int | None: ...

    def family(self, run: int) -> Family: ...

    def due_count(self, workflows: tuple[str, ...], now_ms: int, limit: int) -> int: ...

    def blocked_in(self, family: Family, limit: int) -> list[tuple[str, str, str]]: ...

    def due_names(self, now_ms: int) -> list[tuple[str, str]]: ...

    def is_executed(self, workflow: str) -> bool: ...

    def workers(self) -> list[WorkerRow]: ...

    def facts(self, now_ms: int) -> dict[str, Any]: ...

    def worker_beat(self, busy_ms: int) -> WorkerBeat | None: ...

    def close(self) -> None: ...
