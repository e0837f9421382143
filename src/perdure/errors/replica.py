"""The errors of replicas: of their lease, their bucket, their copies and Litestream.

Rules: an error says whether time may resolve it (`ReplicaUnavailable`), or only a person can
(`ReplicaRefused`).
"""

from __future__ import annotations

from typing import Self

from perdure.errors.base import DefinitionError, PerdureError, brief
from perdure.errors.store import LeaseLost, StoreError


class ReplicaUnavailable(StoreError):
    """The replica does not confirm what was written; time may resolve it."""

    def __init__(self, where: str, detail: str) -> None:
        self.where, self.detail = where, brief(detail)
        super().__init__(
            f"The replica {where} does not answer: {self.detail}. What was recorded is on this "
            "disk; effects and answers wait, and continue by themselves when the replica is there "
            "again."
        )


class NoReplicaEngine(ReplicaUnavailable):
    """No engine on this machine copies the store, so nothing can be confirmed."""

    def __init__(self, where: str) -> None:
        self.where, self.detail = where, "no engine that copies this store runs on this machine"
        StoreError.__init__(
            self,
            f"No engine that copies this store to {where} runs on this machine. What was asked for "
            "is on this disk, once, and nowhere else yet; do not ask again. It is copied and done "
            f"when an engine starts here: `perdure worker FILE --replica {where}`. If another "
            "machine has taken over meanwhile, ask there: this file is out of date then.",
        )


class ReplicaFull(ReplicaUnavailable):
    """What waits for the replica fills the disk, so nothing new is begun."""

    def __init__(self, where: str, size_bytes: int, limit_bytes: int) -> None:
        self.where, self.size_bytes, self.limit_bytes = where, size_bytes, limit_bytes
        self.detail = f"{size_bytes:,} bytes wait for it, and {limit_bytes:,} may"
        StoreError.__init__(
            self,
            f"The replica {where} takes nothing, and what waits for it needs {size_bytes:,} bytes "
            f"of this disk; the limit is {limit_bytes:,}, so nothing new is begun. It continues by "
            "itself when the replica is there again; Limits(replica_bytes_max=...) is the limit.",
        )


class ReplicaLeaseLost(LeaseLost):
    """Another engine holds the replica's lease."""

    def __init__(self, where: str, detail: str) -> None:
        self.where, self.detail = where, detail
        StoreError.__init__(
            self,
            f"The lease of the replica {where} is no longer ours: {detail}. This engine has "
            "stopped, and what it had not confirmed was not acknowledged. Start it again to wait "
            "for the lease.",
        )


class BadReplicaAddress(DefinitionError):
    """The address of a replica can't be understood."""

    def __init__(self, text: str, detail: str) -> None:
        super().__init__(
            f"The replica's address {text!r} can't be used: {detail}. Right ones look like "
            "s3://bucket/prefix, s3://bucket/prefix?endpoint=https://host&region=name, or "
            "file:///folder; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )


# --- what only a person can put right -------------------------------------------------------------


class ReplicaUnreadable(ReplicaUnavailable):
    """A replica that is only looked at does not answer; time may resolve it."""

    def __init__(self, where: str, detail: str) -> None:
        self.where, self.detail = where, detail
        StoreError.__init__(
            self,
            f"The replica {where} can't be read now: {brief(detail)}. Nothing is wrong with what "
            "is in it; look again when its bucket answers.",
        )


class ReplicaRefused(StoreError):
    """Something about the replica that only a person can put right."""


class ReplicaMismatch(ReplicaRefused):
    """The replica belongs to another database."""

    def __init__(self, where: str, detail: str) -> None:
        self.where, self.detail = where, detail
        super().__init__(
            f"The replica {where} belongs to another database: {detail}. Nothing was written. Give "
            "each database a prefix of its own; to continue with what is in the replica, move the "
            "local file away."
        )


class ReplicaRequired(ReplicaRefused):
    """A replicated store was opened for execution without its replica."""

    def __init__(self, path: str, address: str) -> None:
        self.path, self.address = path, address
        super().__init__(
            f"The store {path!r} is replicated to {address}. Without its replica, what it does "
            f"next would be copied nowhere: open it with --replica, or replica={address!r}, or end "
            f"the replication with `perdure replica detach --store {path}`."
        )


class ReplicaEmpty(ReplicaRefused):
    """There is nothing at the replica's address, or nothing of the moment that was asked for."""

    def __init__(self, where: str, asked: str = "") -> None:
        self.where, self.asked = where, asked
        super().__init__(
            f"The replica {where} has nothing {asked and f'of {asked} '}that could be restored. "
            f"Check {'that number' if asked else 'its bucket and prefix'}; "
            "an engine that was started with this address writes there, and keeps a week."
        )


class ReplicaDamaged(ReplicaRefused):
    """What the replica holds is not what was written: a copy, or its lease, is damaged."""

    def __init__(self, where: str, detail: str) -> None:
        self.where, self.detail = where, detail
        super().__init__(
            f"The copy in {where} can't be trusted: {detail}. Nothing was overwritten. "
            "`perdure replica restore --at TIME` may give an earlier one; a local file, if there "
            "is one, has what the copy lacks."
        )

    @classmethod
    def lease(cls, where: str, detail: str) -> Self:
        """The lease object holds something that is not a lease."""
        error = cls.__new__(cls)
        error.where, error.detail = where, detail
        StoreError.__init__(
            error,
            f"The lease of the replica {where} can't be understood: {detail}. Another program has "
            "written lease.json there. If no engine runs on it, delete that object: the next "
            "engine begins above the newest epoch that it finds.",
        )
        return error


class BucketUnusable(ReplicaRefused):
    """The bucket is missing, denies what a replica needs, or can't keep a lease."""

    def __init__(self, where: str, detail: str, advice: str) -> None:
        self.where, self.detail = where, detail
        super().__init__(f"The replica {where} can't be used: {detail}. {advice}")

    @classmethod
    def missing(cls, where: str) -> Self:
        """There is no such bucket or folder."""
        advice = "Create it first, or fix its name, endpoint or region; nothing was written."
        return cls(where, "there is no such bucket or folder", advice)

    @classmethod
    def denied(cls, where: str, what: str, detail: str) -> Self:
        """`what` is what was to be done: read, write, list or delete."""
        return cls(
            where,
            f"it does not let us {what}: {detail}",
            "It needs to read, write, list and delete below its prefix; credentials come from "
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or from the role of "
            "the machine.",
        )

    @classmethod
    def without_conditions(cls, where: str, detail: str) -> Self:
        """It ignores conditions on writes, so two engines could both hold the lease."""
        return cls(
            where,
            f"it can't keep a lease: {detail}",
            "Two machines could then both execute the same runs. Use a server that honours "
            "conditional writes; if you make sure yourself that there is never a second engine, "
            "say fencing=False.",
        )

    @classmethod
    def without_library(cls, where: str) -> Self:
        """The client library for buckets is not installed."""
        advice = "Install it: pip install 'perdure[replica]'."
        return cls(where, "a replica in a bucket needs one more library", advice)


class LitestreamUnusable(ReplicaRefused):
    """The Litestream program is missing, too old, or can't be executed."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(
            f"A replica needs the program `litestream`, and {detail}. "
            "`pip install 'perdure[replica]'` brings it, and PERDURE_LITESTREAM names another one."
        )


class DatabaseNotFound(PerdureError):
    """An observer has no database of this name."""

    http_status = 404

    def __init__(self, name: str, where: str) -> None:
        self.name, self.where = name, where
        super().__init__(
            f"There is no database {name!r} at {where}. `perdure observe` lists those that are; "
            "one appears when an engine with a replica there has made its first copy."
        )


class SeveralDatabases(DefinitionError):
    """An address was given where one database is meant, and it has several."""

    def __init__(self, where: str, names: list[str]) -> None:
        from urllib.parse import quote  # slow to import, and this is rare

        self.where, self.names = where, names
        some = ", ".join(names[:3])
        place, query, options = where.partition("?")
        one = f"{place.rstrip('/')}/{quote(names[0])}{query}{options}"
        super().__init__(
            f"{where} has {len(names):,} databases ({some}{', …' if len(names) > 3 else ''}). Name "
            f"one of them: {one}. `perdure observe {where}` shows all."
        )
