"""The errors of retention: an archive that can't be used, a store that another process prunes.

Rules: a run is never deleted before its archive is durable, and each message says so.
"""

from __future__ import annotations

from perdure.errors.base import DefinitionError, brief
from perdure.errors.store import StoreError


class BadArchiveAddress(DefinitionError):
    """The address of an archive can't be understood."""

    def __init__(self, text: str, detail: str) -> None:
        super().__init__(
            f"The archive's address {text!r} can't be used: {detail}. Right ones look like "
            "file:///folder, s3://bucket/prefix, or "
            "s3://bucket/prefix?endpoint=https://host&region=name; credentials come from "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )


class ArchiveUnavailable(StoreError):
    """The archive can't be written, so the runs stay in the store."""

    def __init__(self, where: str, detail: str) -> None:
        self.where, self.detail = where, brief(detail)
        super().__init__(
            f"The archive {where} can't be written: {self.detail}. No run was deleted that is not "
            "in it; they stay in the store, and are archived when it can be written again. "
            "`perdure doctor` shows since when."
        )


class PrunedElsewhere(StoreError):
    """Another process prunes the store at this moment."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"Another process prunes the store {path!r} at this moment. Nothing was done; try "
            "again when it has ended, or in a minute if it was killed."
        )


class VacuumRefused(StoreError):
    """The whole file can't be written anew while others use it."""

    def __init__(self, path: str, detail: str) -> None:
        self.path, self.detail = path, detail
        super().__init__(
            f"The store {path!r} can't be written anew: {detail}. Nothing was changed; free space "
            "in it is used for new runs in any case."
        )
