"""Perdure: durable workflows for Python in one SQLite file. Names only; see the modules for what
they are.
"""

from typing import TYPE_CHECKING, Any

from perdure.api.definitions import Call, Step, Workflow, step, workflow
from perdure.api.fan_out import gather_limited, poll_until
from perdure.api.queues import Queue, Rate
from perdure.api.saga import Saga
from perdure.api.verbs import (
    continue_as,
    current_run,
    current_step,
    emit,
    now,
    patched,
    random,
    receive,
    send,
    start,
    tag,
    uuid4,
)
from perdure.core.limits import Limits
from perdure.core.retry import Retry
from perdure.errors import (
    BadName,
    BadPosition,
    BadReplicaAddress,
    BadSchedule,
    BucketUnusable,
    CallCancelled,
    CompensationFailed,
    DefinitionError,
    EngineClosed,
    HistoryTooLong,
    InboxFull,
    LeaseLost,
    LitestreamUnusable,
    Nondeterminism,
    NoReplicaEngine,
    NotAllowedInStep,
    NotDeterministic,
    NotInWorkflow,
    NotSerializable,
    PayloadTooLarge,
    PerdureError,
    PollTimeout,
    RecordedError,
    ReplicaDamaged,
    ReplicaEmpty,
    ReplicaFull,
    ReplicaLeaseLost,
    ReplicaMismatch,
    ReplicaRefused,
    ReplicaRequired,
    ReplicaUnavailable,
    RetryAfter,
    RunBlocked,
    RunCancelled,
    RunExists,
    RunFailed,
    RunFinished,
    RunNotFound,
    ScheduleNotFound,
    StepFailed,
    StepTimeout,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreNotFound,
    StoreReadOnly,
    StoreReplaced,
    StoreTooNew,
    StoreUnavailable,
    TooManyFailures,
    TouchedFromOutside,
    TransactionEnded,
    UnknownWorkflow,
    UsedAfterFork,
    WriteRefused,
)
from perdure.replica.options import Replica
from perdure.runtime.engine import Engine
from perdure.runtime.info import ErrorHead, HistoryEvent, Progress, QueueInfo, RunInfo, RunSummary
from perdure.runtime.log import RunContextFilter
from perdure.runtime.observer import Observer
from perdure.runtime.run_handle import Run
from perdure.runtime.sync import SyncEngine, SyncRun, run
from perdure.store.sqlite.connection import connect

if TYPE_CHECKING:
    from perdure.api.schedules import Every, Schedule, ScheduleInfo, TickTime

__version__ = "0.1.0"

_LATE = dict.fromkeys(("Every", "Schedule", "ScheduleInfo", "TickTime"), "perdure.api.schedules")
"""Names that are loaded when they are first used."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(_LATE[name]), name)
    return found


__all__ = [
    "BadName",
    "BadPosition",
    "BadReplicaAddress",
    "BadSchedule",
    "BucketUnusable",
    "Call",
    "CallCancelled",
    "CompensationFailed",
    "DefinitionError",
    "Engine",
    "EngineClosed",
    "ErrorHead",
    "Every",
    "HistoryEvent",
    "HistoryTooLong",
    "InboxFull",
    "LeaseLost",
    "Limits",
    "LitestreamUnusable",
    "NoReplicaEngine",
    "Nondeterminism",
    "NotAllowedInStep",
    "NotDeterministic",
    "NotInWorkflow",
    "NotSerializable",
    "Observer",
    "PayloadTooLarge",
    "PerdureError",
    "PollTimeout",
    "Progress",
    "Queue",
    "QueueInfo",
    "Rate",
    "RecordedError",
    "Replica",
    "ReplicaDamaged",
    "ReplicaEmpty",
    "ReplicaFull",
    "ReplicaLeaseLost",
    "ReplicaMismatch",
    "ReplicaRefused",
    "ReplicaRequired",
    "ReplicaUnavailable",
    "Retry",
    "RetryAfter",
    "Run",
    "RunBlocked",
    "RunCancelled",
    "RunContextFilter",
    "RunExists",
    "RunFailed",
    "RunFinished",
    "RunInfo",
    "RunNotFound",
    "RunSummary",
    "Saga",
    "Schedule",
    "ScheduleInfo",
    "ScheduleNotFound",
    "Step",
    "StepFailed",
    "StepTimeout",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreNotFound",
    "StoreReadOnly",
    "StoreReplaced",
    "StoreTooNew",
    "StoreUnavailable",
    "SyncEngine",
    "SyncRun",
    "TickTime",
    "TooManyFailures",
    "TouchedFromOutside",
    "TransactionEnded",
    "UnknownWorkflow",
    "UsedAfterFork",
    "Workflow",
    "WriteRefused",
    "connect",
    "continue_as",
    "current_run",
    "current_step",
    "emit",
    "gather_limited",
    "now",
    "patched",
    "poll_until",
    "random",
    "receive",
    "run",
    "send",
    "start",
    "step",
    "tag",
    "uuid4",
    "workflow",
]
