"""Errors of code that uses Perdure: misplaced verbs, bad names, values that can't be stored."""

from __future__ import annotations

from perdure.errors.base import DefinitionError, PerdureError


class NotInWorkflow(PerdureError, RuntimeError):
    """A verb of workflows or steps was used outside of one."""

    def __init__(self, verb: str, instead: str) -> None:
        super().__init__(f"{verb} works only inside a {instead}.")


class NotDeterministic(PerdureError, RuntimeError):
    """Workflow code tried what can't be replayed: I/O, a thread, a subprocess."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(
            f"{what} inside workflow code can't be replayed after a crash. Wrap this in a "
            f"@step and await the step instead."
        )


class TouchedFromOutside(PerdureError, RuntimeError):
    """Code outside of a run used an event, a future, a queue or a task of the run."""

    def __init__(self, run_id: str) -> None:
        self.run_id, self.what = (
            run_id,
            (
                f"Using an event, future, queue or task of run {run_id!r} outside of the "
                f"workflow's own code"
            ),
        )
        super().__init__(
            f"An event, future, queue or task of run {run_id!r} was used outside of the "
            f"workflow's own code. No row would record that, and "
            "a replay would not know of it. Send a message: engine.send(id, value, "
            "channel=...), and receive() it in the workflow."
        )


class BadName(DefinitionError, ValueError):
    """A name that can't be stored: of a channel, stream, queue, tag, message key or run."""

    ADVICE = "Give it a name of printable text."

    def __init__(self, what: str, detail: str, advice: str = ADVICE) -> None:
        self.what, self.detail = what, detail
        article = "an" if what.startswith(("a", "e", "i", "o", "u")) else "a"
        super().__init__(f"This can't be {article} {what}: {detail}. {advice}")


class BadPosition(DefinitionError, ValueError):
    """A position of a stream at which it has no item, so that reading can't go on from there."""

    def __init__(self, run_id: str, stream: str, position: int, detail: str) -> None:
        self.run_id, self.stream, self.position = run_id, stream, position
        super().__init__(
            f"Stream {stream!r} of run {run_id!r} can't be read on from position {position}: "
            f"{detail}. Pass one that "
            "stream_with_positions() returned for it in this store, or 0 for all items."
        )


class NotSerializable(PerdureError, TypeError):
    """A value can't be stored, or would not come back the same."""

    def __init__(self, where: str, detail: str) -> None:
        self.where, self.detail = where, detail
        super().__init__(f"{where} can't be stored: {detail}")


class DoesNotFit(NotSerializable):
    """Recorded or received data is not of the type that code asks for."""

    def __init__(self, where: str, detail: str) -> None:
        self.where, self.detail = where, detail
        PerdureError.__init__(self, f"{where} does not fit: {detail}")


class PayloadTooLarge(PerdureError, ValueError):
    """A value is larger than the limit for one payload."""

    def __init__(self, where: str, size_bytes: int, limit_bytes: int) -> None:
        self.where, self.size_bytes, self.limit_bytes = where, size_bytes, limit_bytes
        super().__init__(
            f"{where} is {size_bytes:,} bytes as JSON; the limit is {limit_bytes:,}. Keep large "
            f"data in a file "
            "or bucket and pass its name, or raise Limits(payload_bytes_max=...)."
        )
