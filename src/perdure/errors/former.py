"""Names of recorded errors in histories that earlier versions wrote.

Rules: a row stays for ever, because histories do; it names a class of `perdure.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping

FORMER: Mapping[tuple[str, str], str] = {
    ("perdure.core.loop", "EndlessTurn"): "EndlessTurn",
    ("perdure.runtime.steps", "AttemptTimeout"): "AttemptTimeout",
    ("perdure.runtime.steps", "CancelledByItself"): "CancelledByItself",
    ("perdure.runtime.steps", "LeftTheProcess"): "LeftTheProcess",
    ("perdure.runtime.steps", "ProcessDied"): "ProcessDied",
    ("perdure.runtime.steps", "RetryFailed"): "RetryFailed",
}
"""Recorded module and class, and the name of the class today."""

FORMER_MODULES = frozenset({"perdure.errors", "perdure.errors_replica"})
"""Modules in which every class was, or is, one of `perdure.errors`."""

RENAMED: Mapping[str, str] = {
    "BucketDenied": "BucketUnusable",
    "BucketMissing": "BucketUnusable",
    "FencingUnsupported": "BucketUnusable",
    "LeaseHeld": "ReplicaUnavailable",
    "LitestreamMissing": "LitestreamUnusable",
    "LitestreamTooOld": "LitestreamUnusable",
    "ReplicaCorrupt": "ReplicaDamaged",
    "ReplicaNeeded": "ReplicaRequired",
    "ReplicaOfAnother": "ReplicaMismatch",
    "ReplicaUnattended": "NoReplicaEngine",
}
"""Former names of classes of `FORMER_MODULES`, and the name today."""


def name_today(module: str, name: str) -> str | None:
    """The class of `perdure.errors` that a recorded error is; None if it is none of ours.

    >>> name_today("perdure.runtime.steps", "ProcessDied")
    'ProcessDied'
    >>> name_today("builtins", "ValueError")
    """
    if module in FORMER_MODULES:
        return RENAMED.get(name, name)
    return FORMER.get((module, name))
