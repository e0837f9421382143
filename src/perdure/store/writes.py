"""Write types: what the runtime asks a store to change, as values.

Rules: a write names everything that it needs, times included; `Store.write` applies a batch of them
in order in one transaction and gives one result each. `transitions` says what each one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from perdure.core.events import Command, Event
from perdure.store.answer_writes import AnswerByLink, DeclareWorkflows, MakeLink
from perdure.store.import_writes import ImportRuns
from perdure.store.log_writes import AddLogLines
from perdure.store.request_writes import Ask, Expose, Reply
from perdure.store.retention_writes import (
    ForgetIdle,
    GiveBackSpace,
    HoldPruning,
    NoteArchive,
    PruneRuns,
    SweepPruned,
)
from perdure.store.schedule_writes import (
    ControlSchedule,
    DeclareSchedules,
    FireSchedule,
    RemoveSchedule,
    SetSchedule,
    StartTicks,
)

# --- places in queues -----------------------------------------------------------------------------


class AskPlace(msgspec.Struct, gc=False):
    """A place in a queue for a step of a run, before an attempt of it begins.

    Gives `Place`, which is admitted at once where the queue has room and no place waits;
    `QueueNotFound`, `QueueFull`, `WeightOverBurst`, or `LeaseLost` where `owner` does not own the
    run. A step has one place at most: asked again, it is the one that it has. In `StartRun.places`
    `run` is 0: the new one. `key` is None for a step that is for nobody in particular.
    """

    run: int
    owner: int
    seq: int
    queue: str
    key: str | None
    weight: int
    priority: int
    at_ms: int


class ReleasePlaces(msgspec.Struct, gc=False):
    """Attempts have ended, perhaps after their run: their places are free. Gives `Written`.

    `places` are numbers of places, of which others than those of `worker` stay as they are.
    """

    places: list[int]
    worker: int
    at_ms: int


class Spend(msgspec.Struct, gc=False):
    """Draw tokens from a queue's rates, also where there are none: then it admits later.

    Gives whether others may go on sooner by that, or `QueueNotFound`. A negative `amount` gives
    tokens back. What the admission of `place` drew is counted in: the first spending draws what it
    is over that, or gives it back.
    """

    queue: str
    key: str | None
    amount: int
    at_ms: int
    place: int | None = None


class HoldQueue(msgspec.Struct, gc=False):
    """Admit nothing from a queue before `until_ms`. Gives None, or `QueueNotFound`.

    A hold that ends later already stays.
    """

    queue: str
    until_ms: int
    at_ms: int


class QueueLimits(msgspec.Struct, gc=False):
    """What a queue allows; None is no limit. A rate is tokens in `per_ms`, `burst` of them at once.

    What begins with `key_` is for each key, `per_worker` for each worker.
    """

    concurrency: int | None = None
    per_worker: int | None = None
    rate_limit: int | None = None
    rate_per_ms: int | None = None
    rate_burst: int | None = None
    key_concurrency: int | None = None
    key_rate_limit: int | None = None
    key_rate_per_ms: int | None = None
    key_rate_burst: int | None = None
    waiting_max: int | None = None
    paused: bool = False


class SetQueue(msgspec.Struct, gc=False):
    """Create a queue, or change the limits in `given`. Gives `QueueRow`, or a `DefinitionError`.

    `given` are fields of `QueueLimits` by name. `declared` is the definition in code as JSON: where
    it is the one that was last declared, nothing is changed.
    """

    name: str
    given: dict[str, Any]
    at_ms: int
    declared: str | None = None
    check: Callable[[QueueLimits], None] | None = None
    """Raises a `PerdureError` for limits that contradict each other; nothing is changed then."""


# --- runs -----------------------------------------------------------------------------------------


class StartRun(msgspec.Struct, gc=False):
    """A new run. Gives `Started`, or `RunExists`; with a queue `QueueNotFound`, `QueueFull` or
    `WeightOverBurst`, too.

    With `owner` that worker executes it at once, and `first` are the rows of its first turn.
    Without, any worker may claim it from `due_ms` on. `parent` is the run that waits for it, at row
    `parent_seq`; `root` is the first run of the family that it belongs to.
    With a `queue` that does not admit it at once it waits there without an owner, and `first` and
    `places` (of the steps of the first turn) are left out; with a `due_ms` behind `at_ms` it asks
    for its place when it is due. `scheduled_ms` is the nominal time of the tick that starts it.
    With `debounce_ms` a run with this id that has not begun gets these arguments and is put off by
    so much, until `debounce_until_ms` of its first start at most.
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
    key: str | None = None
    weight: int = 1
    scheduled_ms: int | None = None
    places: Sequence[AskPlace] = ()
    debounce_ms: int | None = None
    debounce_until_ms: int | None = None


class Finish(msgspec.Struct, gc=False):
    """The end of a run: its status, and its result or error as JSON.

    `successor` is the run that continues under the same id, `leftovers` are the messages (channel,
    JSON) that it receives again, `requests` the rows of requests without a reply.
    """

    status: str
    result: bytes | None = None
    error: bytes | None = None
    successor: StartRun | None = None
    leftovers: list[tuple[str, bytes]] = msgspec.field(default_factory=list)
    requests: list[Event] = msgspec.field(default_factory=list)


class Suspend(msgspec.Struct, gc=False):
    """The state of a run after a turn: its status and what it waits for.

    A `status` of None leaves status, `waiting` and `due_ms` as they are. With `release` the run has
    no owner afterwards.
    """

    status: str | None
    waiting: bytes | None = None
    due_ms: int | None = None
    release: bool = False
    blocked_by: str | None = None
    reason: str | None = None
    places: bool = False
    """Whether steps of the run wait in queues: a run that is released waits for them there."""


class Append(msgspec.Struct, gc=False):
    """Rows for the history of a run that stays as it is: the write of most turns.

    Gives None, or `LeaseLost` where `owner` does not own the run. With places it gives `Written`:
    those in `released` are free, then `places` are asked for.
    """

    run: int
    owner: int
    rows: list[Event | Command]
    at_ms: int = 0
    """Only looked at with places."""
    places: Sequence[AskPlace] = ()
    released: Sequence[int] = ()
    kept: Sequence[int] = ()


class Turn(msgspec.Struct, gc=False):
    """Rows for a run's history, and what follows from them.

    Gives `Written`; `LeaseLost` where `owner` does not own the run; `PayloadTooLarge` for tags.
    `taken` are inbox rows with the row of history that each became. `effects` are writes to other
    runs, applied in the same transaction.
    """

    run: int
    owner: int
    rows: list[Event | Command]
    at_ms: int
    taken: list[tuple[int, int]] = msgspec.field(default_factory=list)
    effects: list[Write] = msgspec.field(default_factory=list)
    suspend: Suspend | None = None
    finish: Finish | None = None
    tags: dict[str, Any] | None = None
    settled: bool = False
    """True when the run has made progress since its last crash: its crash count starts anew."""
    unread: int | None = None
    """Messages in its history that it has not received, where that number has changed."""
    python: str | None = None
    """The Python that executes it, where that has changed."""
    places: Sequence[AskPlace] = ()
    """Places that its steps ask for, after those in `released` are free."""
    released: Sequence[int] = ()
    kept: Sequence[int] = ()
    """Places of attempts that have ended and whose threads have not: the next attempt of the step
    needs another one.
    """


class ForkRun(msgspec.Struct, gc=False):
    """A new run from the rows of `source` before `before_seq`. Gives `Started`, or `RunExists`.

    The rows `left_out` are not copied; `extra` rows are added; `edits` replaces the data of rows.
    With `replace` the new run takes over the id of its source, whose own id gets a suffix: a retry
    leaves the failed history as it was. `returned` are inputs behind the cut that go back to the
    inbox. `parent` is the run and the row that wait for it.
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
    """`parent`, a later generation of the parent of `child`, is woken at the child's end.

    Gives True, or False where the child has ended.
    """

    child: int
    parent: int


# --- messages and control -------------------------------------------------------------------------


class Deliver(msgspec.Struct, gc=False):
    """A row for a run's inbox: a message, a cancel or a resolve.

    Gives `Woken`, `RunNotFound`, `RunFinished` or `InboxFull`. A message with a `key` arrives once.
    `verb` is the word of the error message for a run that has ended; `sender` is recorded. With
    `wait` it is for the wait that began at that row only, and else gives `NotAwaited`.
    """

    run_id: str
    kind: str
    at_ms: int
    name: str | None = None
    ref: int | None = None
    key: str | None = None
    data: bytes | None = None
    verb: str = "send to"
    sender: str | None = None
    wait: int | None = None


class StartAnd(msgspec.Struct, gc=False):
    """A message or a request for a run that is started where there is none with its id.

    Gives what `then` gives; the refusal of the start; or `RunExists` where the id is that of a run
    of another workflow.
    """

    start: StartRun
    then: Deliver | Ask


class ControlRun(msgspec.Struct, gc=False):
    """A verb for a run: pause, resume or retry.

    Gives `Woken`, `RunNotFound`, `RunFinished` or `RunBlocked`.
    """

    run_id: str
    verb: str
    at_ms: int


# --- workers --------------------------------------------------------------------------------------


class Family(msgspec.Struct, frozen=True):
    """A run and the runs that it started, directly or through others: those with its `root`."""

    run: int
    root: int


class Claim(msgspec.Struct, gc=False):
    """Make `owner` the owner of runs that are due. Gives `Claimed`.

    At most `limit` runs, and no more than the worker's share while other workers are alive. With
    `insists` it takes a part beyond its share: the others have left these runs long enough. With
    `families` it takes runs of these only, whatever its share.
    Queues admit what waits in them as far as their limits allow: runs and steps of runs without an
    owner within `limit`, steps of owned runs also for their owners.
    """

    owner: int
    workflows: tuple[str, ...]
    limit: int
    now_ms: int
    insists: bool = False
    families: tuple[Family, ...] | None = None


class JoinWorker(msgspec.Struct, gc=False):
    """Register a process that executes runs. Gives its number, which is never used again.

    With `asked` it executes only what it is asked for, so that it counts for no share.
    """

    name: str
    host: str
    pid: int
    born: str
    now_ms: int
    ttl_ms: int
    asked: bool = False


class RenewLease(msgspec.Struct, gc=False):
    """Extend a worker's lease to `lease_ms`, and give it the length `ttl_ms` from here on.

    Gives True, or False where the worker has been ended, or would get a longer lease and owns runs.
    """

    worker: int
    lease_ms: int
    ttl_ms: int | None = None


class EndWorker(msgspec.Struct, gc=False):
    """A worker leaves, or its lease has expired; its runs are due at once.

    Gives `WorkerEnded`, or None where the worker has ended before. `crashed` counts a crash against
    each run that it was executing; `crashes_max` of them block the run. With `beats` the worker is
    ended only if it has not renewed its lease since.
    """

    worker: int
    now_ms: int
    crashed: bool
    crashes_max: int = 3
    beats: int | None = None


class WakeBlocked(msgspec.Struct, gc=False):
    """Make runs due that other code may continue: the code may have been deployed since.

    These are runs that their code blocked, and waiting runs with messages in their history that the
    code did not receive. With `family` only those of it.
    """

    workflows: tuple[str, ...]
    now_ms: int
    family: Family | None = None


class ClockMovedBack(msgspec.Struct, gc=False):
    """The clock may have been set back: what was due at once by the old time is due now.

    Timers and runs with a start time keep theirs.
    """

    now_ms: int


class BeginEpoch(msgspec.Struct, gc=False):
    """A replicated store continues in another epoch, or at another address. Gives None."""

    store_id: str
    address: str
    epoch: int


# --- steps ----------------------------------------------------------------------------------------


class Emit(msgspec.Struct, gc=False):
    """Items (stream, JSON) that an attempt of a step emits. Gives None, or `LeaseLost`."""

    run: int
    owner: int
    seq: int
    attempt: int
    items: list[tuple[str, bytes]]
    at_ms: int


class RecordHeartbeat(msgspec.Struct, gc=False):
    """The last heartbeat of an attempt of a step. Gives None, or `LeaseLost`."""

    run: int
    owner: int
    seq: int
    attempt: int
    data: bytes
    at_ms: int


class Transact(msgspec.Struct, gc=False):
    """A transactional step. Gives the row that `conclude` made, None, or `LeaseLost`.

    `work` gets the store's own connection; `conclude` makes the step's row from its value or error.
    """

    run: int
    owner: int
    work: Callable[[Any], Any]
    conclude: Callable[[Any, BaseException | None], Event | None]


Write = (
    StartRun | Append | Turn | Deliver | ControlRun | ForkRun | AdoptChild | Claim | JoinWorker
    | RenewLease | EndWorker | WakeBlocked | ClockMovedBack | BeginEpoch | Emit | RecordHeartbeat
    | Transact | AskPlace | ReleasePlaces | Spend | HoldQueue | SetQueue
    | DeclareSchedules | SetSchedule | FireSchedule | StartTicks | ControlSchedule | RemoveSchedule
    | PruneRuns | SweepPruned | ForgetIdle | GiveBackSpace | HoldPruning | NoteArchive
    | Ask | StartAnd | Expose | Reply | MakeLink | AnswerByLink | DeclareWorkflows | ImportRuns
    | AddLogLines
)  # fmt: skip


class BatchRolledBack(Exception):
    """A batch was rolled back because one of its writes can't be applied; its error is the cause.

    `index` is the place of that write, or None where that is not known. The other writes of the
    batch can be applied without it.
    """

    def __init__(self, index: int | None) -> None:
        self.index = index
        super().__init__()


def counts_for_replica(batch: Sequence[Write]) -> bool:
    """Whether a replica must have a transaction of these writes: a renewed lease is no history."""
    return len(batch) > 1 or type(batch[0]) is not RenewLease
