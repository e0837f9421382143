"""Verbs of an engine that delete runs which ended long ago.

Rules: what is deleted was asked for, by the engine's own retention or by that of the call.
"""

from __future__ import annotations

from collections.abc import Callable

from perdure.api.retention import Retention
from perdure.core import numbers
from perdure.errors import DefinitionError
from perdure.runtime import retention as retentions
from perdure.runtime.engine_parts import EngineParts
from perdure.runtime.prune_report import PruneReport


class RetentionVerbs(EngineParts):
    """See the module's text."""

    async def prune(
        self,
        retention: Retention | None = None,
        *,
        dry_run: bool = False,
        vacuum: bool = False,
        on_progress: Callable[[PruneReport], None] | None = None,
    ) -> PruneReport:
        """Delete the runs now that ended long enough ago, by `retention` or by the engine's own.

        With `dry_run` nothing is written: the report says what would be done. With `vacuum` all
        free space is given back to the file system, where usually a tenth of the file is kept for
        new runs. `on_progress` is called with the report as it grows. A run is deleted only after
        the file with it is durable in the archive, if there is one.
        Raises `DefinitionError` where neither has a retention, `ArchiveUnavailable`, after which
        what is not archived is still there, and `PrunedElsewhere`.

        >>> import asyncio
        >>> from perdure import Engine, Retention, workflow
        >>> @workflow
        ... async def double(n: int) -> int:
        ...     return n * 2
        >>> async def main():
        ...     async with Engine(":memory:", workflows=[double]) as engine:
        ...         for n in range(3):
        ...             await engine.run(double(n), id=f"run-{n}")
        ...         report = await engine.prune(Retention(completed=0), dry_run=True)
        ...         return report.by_status, report.kept
        >>> asyncio.run(main())
        ({'completed': 2}, [('run-2', 'it has the newest run, whose number stays taken')])
        """
        if retention is None and self._options.retention is None:
            raise DefinitionError(
                "prune() needs a retention to know what is old: give it a Retention(completed=…), "
                "or give the engine one."
            )
        given = retentions.checked(retention or self._options.retention, self.path)
        numbers.flag(dry_run, "dry_run")
        numbers.flag(vacuum, "vacuum")
        if on_progress is not None and not callable(on_progress):
            raise DefinitionError(
                f"on_progress is a function of a PruneReport, not {numbers.shown(on_progress)}."
            )
        from perdure.runtime.pruning import Pruning  # late: few engines prune

        parts = self._parts()
        pruning = Pruning(
            parts.store, parts.scheduler.reads, parts.writer, self._clock, given,
            all_space=vacuum, on_progress=on_progress,
        )  # fmt: skip
        return await (pruning.look() if dry_run else pruning.prune())
