"""Perdure: durable workflows for Python in one SQLite file. Names only; see the modules for what
they are.
"""

from typing import TYPE_CHECKING, Any

from perdure.api.definitions import Call, Step, Workflow, step, workflow
from perdure.api.fan_out import gather_limited, poll_until
from perdure.api.queues import Queue, Rate
from perdure.api.requests import Request, expose, receive_request
from perdure.api.retention import Retention
from perdure.api.saga import Saga
from perdure.api.secret import Secret
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
    AlreadyReplied,
    ArchiveUnavailable,
    BadArchiveAddress,
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
    NotExposed,
    NotInWorkflow,
    NotSerializable,
    PayloadTooLarge,
    PerdureError,
    PollTimeout,
    PrunedElsewhere,
    QueueFull,
    QueueNotFound,
    RecordedError,
    ReplicaDamaged,
    ReplicaEmpty,
    ReplicaFull,
    ReplicaLeaseLost,
    ReplicaMismatch,
    ReplicaRefused,
    ReplicaRequired,
    ReplicaUnavailable,
    RequestKeyUsed,
    RequestRefused,
    RequestTimeout,
    RequestUnanswered,
    RetryAfter,
    RunBlocked,
    RunCancelled,
    RunExists,
    RunFailed,
    RunFinished,
    RunNotFound,
    ScheduleNotFound,
    SecretsMissing,
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
    VacuumRefused,
    WeightOverBurst,
    WriteRefused,
)
from perdure.replica.options import Replica
from perdure.runtime.engine import Engine
from perdure.runtime.info import (
    ErrorHead,
    HistoryEvent,
    OpenRequest,
    Progress,
    QueueInfo,
    RunInfo,
    RunSummary,
)
from perdure.runtime.log import RunContextFilter
from perdure.runtime.observer import Observer
from perdure.runtime.prune_report import PruneReport
from perdure.runtime.run_handle import Run
from perdure.runtime.schedule_handle import ScheduleHandle
from perdure.runtime.standing import ExposedValue, QueueKey, QueuePlace, Standing
from perdure.runtime.sync import SyncEngine, SyncRun, SyncScheduleHandle, run
from perdure.store.sqlite.connection import connect

if TYPE_CHECKING:
    from perdure.api.schedules import Every, Schedule, ScheduleInfo, TickTime
    from perdure.api.tokens import Token

__version__ = "0.1.0"

_LATE = {
    **dict.fromkeys(("Every", "Schedule", "ScheduleInfo", "TickTime"), "perdure.api.schedules"),
    "Token": "perdure.api.tokens",
}
"""Names that are loaded when they are first used."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(_LATE[name]), name)
    return found


__all__ = [
    "AlreadyReplied",
    "ArchiveUnavailable",
    "BadArchiveAddress",
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
    "ExposedValue",
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
    "NotExposed",
    "NotInWorkflow",
    "NotSerializable",
    "Observer",
    "OpenRequest",
    "PayloadTooLarge",
    "PerdureError",
    "PollTimeout",
    "Progress",
    "PruneReport",
    "PrunedElsewhere",
    "Queue",
    "QueueFull",
    "QueueInfo",
    "QueueKey",
    "QueueNotFound",
    "QueuePlace",
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
    "Request",
    "RequestKeyUsed",
    "RequestRefused",
    "RequestTimeout",
    "RequestUnanswered",
    "Retention",
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
    "ScheduleHandle",
    "ScheduleInfo",
    "ScheduleNotFound",
    "Secret",
    "SecretsMissing",
    "Standing",
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
    "SyncScheduleHandle",
    "TickTime",
    "Token",
    "TooManyFailures",
    "TouchedFromOutside",
    "TransactionEnded",
    "UnknownWorkflow",
    "UsedAfterFork",
    "VacuumRefused",
    "WeightOverBurst",
    "Workflow",
    "WriteRefused",
    "connect",
    "continue_as",
    "current_run",
    "current_step",
    "emit",
    "expose",
    "gather_limited",
    "now",
    "patched",
    "poll_until",
    "random",
    "receive",
    "receive_request",
    "run",
    "send",
    "start",
    "step",
    "tag",
    "uuid4",
    "workflow",
]
