"""Visitors: the name and the role that a request comes with.

Rules: every request has one visitor, set before any handler runs; without tokens it is "local".
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

KEY = "perdure.visitor"
VIEW, OPERATE = "view", "operate"


@dataclass(frozen=True)
class Visitor:
    """The sender of a request. `name` is that of the token, "local" where none is needed, "link"
    for the holder of a link that answers once; `session` says that it came with the cookie of the
    login page.
    """

    name: str
    role: str
    session: bool = False


LOCAL = Visitor("local", OPERATE)
LINK = Visitor("link", VIEW)
ANONYMOUS = Visitor("", VIEW)
"""The visitor of the login page."""


def visitor_of(connection: HTTPConnection) -> Visitor:
    """The visitor that a request comes from."""
    found: Visitor = connection.scope.get(KEY, ANONYMOUS)
    return found


def person(connection: HTTPConnection) -> str:
    """The name to record with what a request changes."""
    return visitor_of(connection).name
