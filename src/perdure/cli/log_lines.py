"""Log records on stderr: what `run` and `worker` show of them.

Rules: handlers are set here and nowhere else in Perdure; a line of user code says which run, step
and attempt it is of; `run` shows what happens on the way, and leaves to its report how the run
ended.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from perdure.cli.output import LogFormat, say
from perdure.runtime.log import RunContextFilter


class _Where(RunContextFilter):
    """Adds to a line of user code its run, step and attempt, which our own lines have already."""

    def filter(self, record: logging.LogRecord) -> bool:
        passes = super().filter(record)
        run_id, step, attempt = (
            getattr(record, name, None) for name in ("run_id", "step", "attempt")
        )
        names = (run_id, step if attempt in (None, 1) else f"{step}#{attempt}")
        own = record.name == "perdure" or record.name.startswith("perdure.")
        record.where = (
            "" if own or run_id is None else f" [{' '.join(str(name) for name in names if name)}]"
        )
        return passes


def show_all(*, quiet: bool) -> None:
    """Show every record, with time and level, as the log of a worker."""
    handler = logging.StreamHandler()
    handler.addFilter(_Where(default=None))
    handler.setFormatter(LogFormat("%(asctime)s %(levelname)s %(name)s%(where)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, handlers=[handler])


class WhileRunning(logging.Handler):
    """Warnings about runs and steps as messages on stderr; `run_id` is the run whose end the
    command reports itself, and before that is known no end is shown.
    """

    run_id: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.ERROR or self.run_id not in (
            None,
            getattr(record, "run_id", None),
        ):
            say(record.getMessage())


@contextlib.contextmanager
def while_running(*, quiet: bool) -> Iterator[WhileRunning]:
    """Show what happens to runs and steps until the context ends; nothing if `quiet`."""
    logging.getLogger("perdure").addHandler(logging.NullHandler())  # the report has the rest
    handler, loggers = (
        WhileRunning(logging.WARNING),
        [] if quiet else [logging.getLogger(f"perdure.{name}") for name in ("run", "step")],
    )
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield handler
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
