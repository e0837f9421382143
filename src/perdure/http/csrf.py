"""CSRF tokens: proof that a form was sent by a page of this site.

Rules: the key of a browser is in a cookie that scripts can't read and other sites don't send; a
form or a header repeats it; several processes need no common key for that.
"""

from __future__ import annotations

import hmac
import secrets

from markupsafe import Markup
from starlette.requests import HTTPConnection

COOKIE, FIELD, HEADER = "perdure_csrf", "csrf", "x-csrf-token"
NEW = "perdure.csrf"
"""Where a request keeps the key that its answer gives to the browser: in a dict, which all copies
of its scope share.
"""
CHARS = 32


def csrf_token(connection: HTTPConnection) -> str:
    """The form key of this browser; it gets one with the answer where it has none."""
    known = connection.cookies.get(COOKIE, "")
    if _is_key(known):
        return known
    kept: dict[str, str] = connection.scope.setdefault(NEW, {})
    return kept.setdefault(COOKIE, secrets.token_urlsafe(CHARS * 3 // 4))


def csrf_field(connection: HTTPConnection) -> Markup:
    """The hidden field of a form."""
    return Markup('<input type="hidden" name="{}" value="{}">').format(
        FIELD, csrf_token(connection)
    )


def is_repeated(connection: HTTPConnection, given: str) -> bool:
    """Whether a form or a header has the key of this browser's cookie."""
    known = connection.cookies.get(COOKIE, "")
    return _is_key(known) and hmac.compare_digest(known.encode(), given.encode())


def _is_key(text: str) -> bool:
    return len(text) == CHARS and text.isascii()
