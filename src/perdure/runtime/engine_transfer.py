"""Verbs of an engine that export runs to files and import them.

Rules: as in `engine`; files are read and written in threads.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from perdure.core import numbers
from perdure.errors import DefinitionError, ImportRefused, WriteRefused
from perdure.runtime.engine_parts import EngineParts
from perdure.store.import_writes import ImportRuns

if TYPE_CHECKING:
    from perdure.runtime.transfer import Exported, Imported


class TransferVerbs(EngineParts):
    """See the module's text."""

    async def export(
        self,
        ids: str | Iterable[str],
        path: str | os.PathLike[str],
        *,
        family: bool = True,
        secrets: bool = False,
    ) -> Exported:
        """Write runs to a new file: a store for `.db`, text for `.json`.

        With `family` those that went before them under their ids, by a retry or `continue_as`, and
        all their children are in it, too. Every `Secret` and all that `redact` hides is left out,
        unless `secrets` is given, for `.db` only; such runs can be shown, and not continued.
        The runs stay in this store as they are. `perdure show --store FILE`, `perdure ui FILE` and
        `import_` open the file.

        Returns its path, how many runs it has and its size. Raises `RunNotFound` and
        `ExportRefused`; then there is no file.

        >>> import tempfile
        >>> from perdure import Engine, workflow
        >>> @workflow
        ... async def double(n: int) -> int:
        ...     return n * 2
        >>> async def main(folder):
        ...     async with Engine(f"{folder}/one.db", workflows=[double]) as engine:
        ...         await engine.run(double(4), id="four")
        ...         exported = await engine.export("four", f"{folder}/four.json")
        ...     async with Engine(f"{folder}/two.db", workflows=[double]) as engine:
        ...         imported = await engine.import_(f"{folder}/four.json")
        ...         return exported.runs, imported.ids, await engine.run(double(4), id="four")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     asyncio.run(main(folder))
        (1, ['four'], 8)
        """
        from perdure.runtime import transfer  # late: few engines export

        to, store = _file(path), self._store.path
        numbers.flag(family, "family")
        numbers.flag(secrets, "secrets")
        wanted = [ids] if isinstance(ids, str) else ids
        if not isinstance(wanted, list | tuple | set) or not wanted:
            raise DefinitionError(
                f"ids is the id of a run, or a list of ids, not {numbers.shown(ids)}."
            )
        runs = [await self._read(self._queries.key, one) for one in wanted]
        export = partial(transfer.export, family=family, secrets=secrets)
        return await asyncio.to_thread(export, store, runs, to)

    async def import_(self, path: str | os.PathLike[str], *, go_on: bool = False) -> Imported:
        """Put the runs of a file that `export` has written into this store, under their ids.

        All of them or none: one transaction, for whose time other writes wait. With `go_on` those
        that have not ended are continued here, from where they were; see that they are not
        continued in the first store, too, where they stay. Without, they are paused: `resume`
        continues them. A run in a queue begins anew in the queue of that name, if there is one.

        Returns their ids, and how many have not ended. Raises `RunExists` where an id is taken,
        `ImportRefused` for a file that is damaged, is no export, or lacks what a run needs to go
        on, `StoreNotFound`, `StoreCorrupt` and `StoreTooNew`; then nothing was changed.
        """
        from perdure.runtime import transfer

        parts = self._parts()
        numbers.flag(go_on, "go_on")
        source = transfer.opened(_file(path))
        found = await asyncio.to_thread(source.__enter__)
        try:
            done = await parts.writer.ask(ImportRuns(found, go_on, self._clock.now_ms()))
        except WriteRefused as error:
            raise ImportRefused(found.name, _in_words(error.detail)) from error
        finally:
            await asyncio.to_thread(source.__exit__, None, None, None)
        parts.scheduler.claims.wake()
        await parts.control.store_confirmed()
        return transfer.Imported(done.ids, done.open)


def _file(path: Any) -> str:
    """The absolute path of a file. Raises `DefinitionError` for what is none."""
    if not isinstance(path, str | os.PathLike) or "\0" in os.fspath(path) or not os.fspath(path):
        raise DefinitionError(f"path is the path of a file, not {numbers.shown(path)}.")
    return os.path.abspath(path)


def _in_words(detail: str) -> str:
    """Why rows of a file were not taken. A `ValueError` says it; the text of others is for the log.

    >>> _in_words("ValueError: a row of history has the number 0")
    'a row of history has the number 0'
    >>> _in_words("KeyError: 84")
    'its rows do not fit together; the log has the traceback'
    """
    kind, _, text = detail.partition(": ")
    return (
        text if kind == "ValueError" else "its rows do not fit together; the log has the traceback"
    )
