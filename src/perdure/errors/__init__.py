"""The error tree. Each class owns its message, and each message says what to do next.

Rules: import errors from here, not from the modules below. Errors carry their facts as attributes.
Histories record an error by module and name, so every class says `perdure.errors` as its module,
whatever file it is in. A class that is renamed or merged gets a row in `former.py`: histories that
name the old one still decode. Nothing here imports anything else of Perdure.
"""

from __future__ import annotations

from perdure.errors.answers import LinkExpired as LinkExpired
from perdure.errors.answers import LinkUnknown as LinkUnknown
from perdure.errors.answers import LinkUsed as LinkUsed
from perdure.errors.answers import NotAwaited as NotAwaited
from perdure.errors.answers import TooManyLinks as TooManyLinks
from perdure.errors.base import DefinitionError as DefinitionError
from perdure.errors.base import PerdureError as PerdureError
from perdure.errors.base import brief as brief
from perdure.errors.base import chain as chain
from perdure.errors.base import grown_from as grown_from
from perdure.errors.code import BadName as BadName
from perdure.errors.code import BadPosition as BadPosition
from perdure.errors.code import DoesNotFit as DoesNotFit
from perdure.errors.code import NotDeterministic as NotDeterministic
from perdure.errors.code import NotInWorkflow as NotInWorkflow
from perdure.errors.code import NotSerializable as NotSerializable
from perdure.errors.code import PayloadTooLarge as PayloadTooLarge
from perdure.errors.code import TouchedFromOutside as TouchedFromOutside
from perdure.errors.fan_out import CallCancelled as CallCancelled
from perdure.errors.fan_out import CompensationFailed as CompensationFailed
from perdure.errors.fan_out import ErrorGroup as ErrorGroup
from perdure.errors.fan_out import PollTimeout as PollTimeout
from perdure.errors.fan_out import TooManyFailures as TooManyFailures
from perdure.errors.queues import QueueFull as QueueFull
from perdure.errors.queues import QueueNotFound as QueueNotFound
from perdure.errors.queues import TooManyQueues as TooManyQueues
from perdure.errors.queues import WeightOverBurst as WeightOverBurst
from perdure.errors.replica import BadReplicaAddress as BadReplicaAddress
from perdure.errors.replica import BucketUnusable as BucketUnusable
from perdure.errors.replica import DatabaseNotFound as DatabaseNotFound
from perdure.errors.replica import LitestreamUnusable as LitestreamUnusable
from perdure.errors.replica import NoReplicaEngine as NoReplicaEngine
from perdure.errors.replica import ReplicaDamaged as ReplicaDamaged
from perdure.errors.replica import ReplicaEmpty as ReplicaEmpty
from perdure.errors.replica import ReplicaFull as ReplicaFull
from perdure.errors.replica import ReplicaLeaseLost as ReplicaLeaseLost
from perdure.errors.replica import ReplicaMismatch as ReplicaMismatch
from perdure.errors.replica import ReplicaRefused as ReplicaRefused
from perdure.errors.replica import ReplicaRequired as ReplicaRequired
from perdure.errors.replica import ReplicaUnavailable as ReplicaUnavailable
from perdure.errors.replica import ReplicaUnreadable as ReplicaUnreadable
from perdure.errors.replica import SeveralDatabases as SeveralDatabases
from perdure.errors.requests import AlreadyReplied as AlreadyReplied
from perdure.errors.requests import NotExposed as NotExposed
from perdure.errors.requests import RequestKeyUsed as RequestKeyUsed
from perdure.errors.requests import RequestRefused as RequestRefused
from perdure.errors.requests import RequestTimeout as RequestTimeout
from perdure.errors.requests import RequestUnanswered as RequestUnanswered
from perdure.errors.retention import ArchiveUnavailable as ArchiveUnavailable
from perdure.errors.retention import BadArchiveAddress as BadArchiveAddress
from perdure.errors.retention import PrunedElsewhere as PrunedElsewhere
from perdure.errors.retention import VacuumRefused as VacuumRefused
from perdure.errors.runs import CrashLoop as CrashLoop
from perdure.errors.runs import EndlessTurn as EndlessTurn
from perdure.errors.runs import EngineClosed as EngineClosed
from perdure.errors.runs import HistoryTooLong as HistoryTooLong
from perdure.errors.runs import InboxFull as InboxFull
from perdure.errors.runs import Nondeterminism as Nondeterminism
from perdure.errors.runs import RefusalIgnored as RefusalIgnored
from perdure.errors.runs import RunBlocked as RunBlocked
from perdure.errors.runs import RunCancelled as RunCancelled
from perdure.errors.runs import RunExists as RunExists
from perdure.errors.runs import RunFailed as RunFailed
from perdure.errors.runs import RunFinished as RunFinished
from perdure.errors.runs import RunNotFound as RunNotFound
from perdure.errors.runs import UnknownWorkflow as UnknownWorkflow
from perdure.errors.schedules import BadSchedule as BadSchedule
from perdure.errors.schedules import ScheduleNotFound as ScheduleNotFound
from perdure.errors.steps import AttemptTimeout as AttemptTimeout
from perdure.errors.steps import CancelledByItself as CancelledByItself
from perdure.errors.steps import LeftTheProcess as LeftTheProcess
from perdure.errors.steps import NotAllowedInStep as NotAllowedInStep
from perdure.errors.steps import ProcessDied as ProcessDied
from perdure.errors.steps import RecordedError as RecordedError
from perdure.errors.steps import RetryAfter as RetryAfter
from perdure.errors.steps import RetryFailed as RetryFailed
from perdure.errors.steps import StepFailed as StepFailed
from perdure.errors.steps import StepNotWaiting as StepNotWaiting
from perdure.errors.steps import StepTimeout as StepTimeout
from perdure.errors.steps import TransactionEnded as TransactionEnded
from perdure.errors.store import LeaseLost as LeaseLost
from perdure.errors.store import SecretsMissing as SecretsMissing
from perdure.errors.store import StoreCorrupt as StoreCorrupt
from perdure.errors.store import StoreError as StoreError
from perdure.errors.store import StoreFull as StoreFull
from perdure.errors.store import StoreLocked as StoreLocked
from perdure.errors.store import StoreNotFound as StoreNotFound
from perdure.errors.store import StoreReadOnly as StoreReadOnly
from perdure.errors.store import StoreReplaced as StoreReplaced
from perdure.errors.store import StoreTooNew as StoreTooNew
from perdure.errors.store import StoreUnavailable as StoreUnavailable
from perdure.errors.store import UsedAfterFork as UsedAfterFork
from perdure.errors.store import WriteRefused as WriteRefused
from perdure.errors.transfer import ExportRefused as ExportRefused
from perdure.errors.transfer import ImportRefused as ImportRefused

for _error in [*globals().values()]:
    if isinstance(_error, type) and issubclass(_error, PerdureError):
        _error.__module__ = __name__
