"""Visitors: who a request comes from, and what that one may do.

Rules: every request has one visitor, set before any handler runs; without tokens it is "local".
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

KEY = "perdure.visitor"
VIEW, OPERATE = "view", "operate"


@dataclass(frozen=True)
class Visitor:
    """Who asks. `name` is that of the token, "local" where none is needed, "link" for the holder
    of a signed link; `session` says that it came with the cookie of the login page.
    """

    name: str
    role: str
    session: bool = False


LOCAL = Visitor("local", OPERATE)
LINK = Visitor("link", VIEW)
STRANGER = Visitor("", VIEW)
"""The visitor of the login page."""


def visitor_of(connection: HTTPConnection) -> Visitor:
    """Who a request comes from."""
    found: Visitor = connection.scope.get(KEY, STRANGER)
    return found


def person(connection: HTTPConnection) -> str:
    """The name to record with what a request changes."""
    return visitor_of(connection).name
