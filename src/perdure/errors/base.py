"""The root of the error tree, and helpers for the texts of errors."""

from __future__ import annotations


class PerdureError(Exception):
    """Root of all errors of Perdure."""

    retried_by_members = False
    """Whether a retry takes back what its members failed with, and not what they grew out of."""


class DefinitionError(PerdureError, TypeError):
    """A decorator, an option or an argument that can't work."""


def brief(text: str, chars_max: int = 300) -> str:
    """The output of another program on one line, cut to a length that fits a message.

    >>> brief("502: <html>\\n  <body>\\x1b[1mBad Gateway", 20)
    '502: <html> <body> …'
    """
    line = " ".join(
        "".join(char if char.isprintable() else " " for char in text[: 10 * chars_max]).split()
    )
    return line if len(line) <= chars_max else line[: chars_max - 2].rstrip() + " …"


def chain(error: BaseException | None) -> list[BaseException]:
    """An error with its causes, its contexts and the members of its groups.

    >>> chain(ExceptionGroup("several", [ValueError("one")]))[1:]
    [ValueError('one')]
    """
    found: dict[int, BaseException] = {}
    todo = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in found:
            continue
        found[id(one)] = one
        todo += grown_from(one)
    return list(found.values())


def grown_from(error: BaseException) -> list[BaseException | None]:
    """What an error grew out of: what a retry takes back with it."""
    if isinstance(error, PerdureError) and error.retried_by_members:
        cause = error.__cause__
        nested = isinstance(cause, PerdureError) and cause.retried_by_members
        return [*members(error), *([cause] if nested else [])]
    return [error.__cause__, error.__context__, *members(error)]


def members(error: BaseException) -> list[BaseException]:
    """The members of a group; of any other error none."""
    return [*error.exceptions] if isinstance(error, BaseExceptionGroup) else []
