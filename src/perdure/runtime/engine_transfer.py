"""Verbs of an engine that export runs to files and import them.

Rules: as in `engine`; files are read and written in threads.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from perdure.core import numbers
from perdure.errors import DefinitionError, ImportRefused, WriteRefused
from perdure.runtime.engine_parts import EngineParts
from perdure.store.import_writes import ImportRuns
from perdure.store.importing import ANOTHER, taken

if TYPE_CHECKING:
    from perdure.runtime import transfer
    from perdure.runtime.transfer import Exported, Imported
    from perdure.store.parcels import Head

IDS_AT_ONCE = 50
"""Ids that are looked up before the event loop gets its turn."""


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
        wanted = _ids(ids, "ids")
        runs = [await self._read(self._queries.key, one) for one in wanted]
        export = partial(transfer.export, family=family, secrets=secrets)
        return await asyncio.to_thread(export, store, runs, to)

    async def import_(
        self,
        path: str | os.PathLike[str],
        *,
        go_on: bool = False,
        runs: str | Iterable[str] | None = None,
    ) -> Imported:
        """Put the runs of a file that `export` has written into this store, under their ids.

        The file is read and checked before anything is written. A run and all that belong to it,
        its children and the runs before it under its id, are imported in one transaction, or not at
        all; a file with many of them is in several transactions, so that other writes get their
        turn. What is here already, as a second import of a file has it, is left as it is. With
        `go_on` runs that have not ended are continued here, from where they were; see that they are
        not continued in the first store, too, where they stay. Without, they are paused: `resume`
        continues them. A run in a queue begins anew in the queue of that name, if there is one.
        With `runs` only these and what belongs to them are taken, also from a store that is no
        export.

        Returns their ids, how many have not ended, and the ids that were here already. Raises
        `RunExists` where an id is taken by another run, `ImportRefused` for a file that is damaged,
        is no export, or lacks what a run needs to go on, `StoreNotFound`, `StoreCorrupt` and
        `StoreTooNew`; then nothing was changed, if the message does not say otherwise.
        """
        from perdure.runtime import transfer

        self._parts()
        numbers.flag(go_on, "go_on")
        file, wanted = _file(path), None if runs is None else _ids(runs, "runs")
        pool = ThreadPoolExecutor(1, thread_name_prefix="perdure-import")
        in_thread = partial(asyncio.get_running_loop().run_in_executor, pool)
        opened: asyncio.Future[transfer.Source] = in_thread(
            partial(transfer.Source, file, self._store.path, wanted, go_on=go_on)
        )
        try:
            return await self._import(await asyncio.shield(opened), in_thread)
        finally:
            opened.add_done_callback(partial(_close, pool))

    async def _import(self, source: transfer.Source, in_thread: Any) -> Imported:
        from perdure.runtime.transfer import Imported

        parts, ids, already, open_ = self._parts(), list[str](), list[str](), 0
        for number, head in enumerate(head for family in source.families for head in family):
            if number % IDS_AT_ONCE == 0:
                await asyncio.sleep(0)
            await self._check_id(source.name, head)
        while (parcel := await in_thread(source.next)) is not None:
            now_ms = self._clock.now_ms()
            write = ImportRuns(source.name, parcel, source.go_on, now_ms, source.without, len(ids))
            try:
                done = await parts.writer.ask_apart(write)
            except WriteRefused as error:
                raise ImportRefused(source.name, _in_words(error.detail), len(ids)) from error
            parcel.close()
            ids, already, open_ = ids + done.ids, already + done.already, open_ + done.open
            parts.scheduler.claims.wake()
        await parts.control.store_confirmed()
        return Imported(ids, open_, already)

    async def _check_id(self, name: str, head: Head) -> None:
        """Raise `RunExists` for an id that is clearly another run's, before anything is written."""
        if await self._read(self._store.has_run, head.id):
            here = await self._read(self._store.run_head, head.id)
            if (here.workflow, here.created_ms) != (head.workflow, head.created_ms):
                raise taken(name, head.id, ANOTHER)


def _ids(given: str | Iterable[str], what: str) -> list[str]:
    """Ids, as they may be given. Raises `DefinitionError`."""
    found = [given] if isinstance(given, str) else given
    listed = isinstance(found, list | tuple | set) and found
    if not listed or not all(isinstance(one, str) for one in found):
        raise DefinitionError(
            f"{what} is the id of a run, or a list of ids, not {numbers.shown(given)}."
        )
    return list(found)


def _close(pool: ThreadPoolExecutor, opened: asyncio.Future[transfer.Source]) -> None:
    """Close a file once its thread is ready; it may just read on."""
    if not opened.cancelled() and opened.exception() is None:
        pool.submit(opened.result().close)
    pool.shutdown(wait=False)


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
