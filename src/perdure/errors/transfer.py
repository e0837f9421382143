"""The errors of exports and imports.

Rules: an import that is refused has mostly changed nothing, and an export replaces no file; each
message says so.
"""

from __future__ import annotations

from perdure.errors.base import brief
from perdure.errors.store import StoreError


class ImportRefused(StoreError):
    """The file can't be imported: it is no export, is damaged, or lacks what a run needs."""

    def __init__(self, path: str, detail: str, before: int = 0) -> None:
        self.path, self.detail = path, brief(detail)
        changed = f"{before:,} runs before it were imported" if before else "Nothing was changed"
        super().__init__(f"{path!r} can't be imported: {self.detail}. {changed}.")


class ExportRefused(StoreError):
    """The file of an export can't be written, or the store has no file to copy from."""

    def __init__(self, path: str, detail: str) -> None:
        self.path, self.detail = path, brief(detail)
        super().__init__(f"The export {path!r} can't be written: {self.detail}.")
