"""Perdure: durable workflows for Python in one SQLite file. Names only; see the modules for what they are."""

from perdure.api import Call, Step, Workflow, step, workflow
from perdure.api_verbs import continue_as, current_run, current_step, emit, now, patched, random, receive, send, start, tag, uuid4
from perdure.core.limits import Limits
from perdure.core.retry import Retry
from perdure.errors import (
    BadName,
    BadPosition,
    DefinitionError,
    EngineClosed,
    HistoryTooLong,
    InboxFull,
    LeaseLost,
    Nondeterminism,
    NotAllowedInStep,
    NotDeterministic,
    NotInWorkflow,
    NotSerializable,
    PayloadTooLarge,
    PerdureError,
    RecordedError,
    RunBlocked,
    RunCancelled,
    RunExists,
    RunFailed,
    RunFinished,
    RunNotFound,
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
    TouchedFromOutside,
    TransactionEnded,
    UnknownWorkflow,
    UsedAfterFork,
    WriteRefused,
)
from perdure.errors_replica import ReplicaUnavailable
from perdure.runtime.engine import Engine
from perdure.runtime.log import RunContextFilter
from perdure.runtime.run_handle import Run
from perdure.runtime.sync import SyncEngine, SyncRun, run
from perdure.runtime.views import HistoryEvent, Progress, RunInfo
from perdure.store.connection import connect

__version__ = "0.1.0"

__all__ = [
    "BadName", "BadPosition", "Call", "DefinitionError", "Engine", "EngineClosed", "HistoryEvent", "HistoryTooLong", "InboxFull",
    "LeaseLost", "Limits",
    "Nondeterminism", "NotAllowedInStep", "NotDeterministic", "NotInWorkflow", "NotSerializable", "PayloadTooLarge", "PerdureError",
    "Progress",
    "RecordedError", "ReplicaUnavailable", "Retry", "Run", "RunBlocked", "RunCancelled", "RunContextFilter", "RunExists", "RunFailed",
    "RunFinished", "RunInfo", "RunNotFound", "Step", "StepFailed", "StepTimeout", "StoreCorrupt", "StoreError", "StoreFull", "StoreLocked",
    "StoreNotFound", "StoreReadOnly", "StoreReplaced", "StoreTooNew", "StoreUnavailable",
    "SyncEngine", "SyncRun", "TouchedFromOutside", "TransactionEnded", "UnknownWorkflow", "UsedAfterFork", "Workflow", "WriteRefused",
    "connect", "continue_as", "current_run", "current_step", "emit", "now", "patched", "random", "receive", "run", "send", "start",
    "step", "tag", "uuid4", "workflow",
]  # fmt: skip
