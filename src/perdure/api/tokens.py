"""Tokens: secrets that open an engine over HTTP, each with a name and a role."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from perdure.errors import DefinitionError

ROLES = ("view", "operate")
NAME_CHARS_MAX = 100
SECRET_CHARS_MAX = 1_000


@dataclass(frozen=True, kw_only=True)
class Token:
    """A secret that opens the pages and the API of an engine, for `Engine.asgi`.

    `name` is recorded with what its bearer answers; `role` is "operate", or "view" for one that
    may look and change nothing. `secret` is printable ASCII without spaces; it is never shown.
    Raises `DefinitionError`.

    >>> Token(name="ada", secret="r4Xo0nLq", role="view")
    Token(name='ada', role='view')
    """

    name: str
    secret: str = field(repr=False)
    role: str = "operate"

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise DefinitionError(
                f"Token: name is printable text of 1 to {NAME_CHARS_MAX} characters, not "
                f"{self.name!r}."
            )
        if not _is_secret(self.secret):  # which the message must not hold
            raise DefinitionError(
                f"Token {self.name!r}: secret is printable ASCII without spaces, of 1 to "
                f"{SECRET_CHARS_MAX:,} characters. `python -c 'import secrets; "
                "print(secrets.token_urlsafe())'` makes one."
            )
        if self.role not in ROLES:
            raise DefinitionError(
                f"Token {self.name!r}: role is {' or '.join(map(repr, ROLES))}, not {self.role!r}."
            )


def _is_name(given: Any) -> bool:
    return isinstance(given, str) and given.isprintable() and 0 < len(given) <= NAME_CHARS_MAX


def _is_secret(given: Any) -> bool:
    return (
        isinstance(given, str)
        and 0 < len(given) <= SECRET_CHARS_MAX
        and all("!" <= char <= "~" for char in given)
    )


Tokens = str | Token | Iterable[Token] | None
"""What an option `token` takes."""


def tokens_of(given: Any) -> tuple[Token, ...]:
    """What an option `token` holds: none, a string that opens everything, a `Token`, or several.

    Raises `DefinitionError` for anything else, and for two tokens of one name or one secret.
    """
    match given:
        case None:
            return ()
        case str():
            return (Token(name="token", secret=given),)
        case Token():
            return (given,)
    try:
        found = tuple(given)
    except TypeError:
        found = (given,)
    if not found or not all(isinstance(one, Token) for one in found):
        raise DefinitionError("token is a string, a perdure.Token, or a list of those.")
    if len({one.name for one in found}) + len({one.secret for one in found}) < 2 * len(found):
        raise DefinitionError("Two tokens have the same name, or the same secret.")
    return found
