"""Sessions: cookies that the login page gives to browsers.

Rules: a cookie names its token and its end, and is signed with a key made from the secret of that
token, so that it holds over restarts and in every worker process, and ends when the secret changes;
nothing is stored; the time is an argument.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable

from perdure.api.tokens import Token

LASTS_S = 12 * 3600
COOKIE_CHARS_MAX = 1_000


def cookie_name(site: str) -> str:
    """The name of the cookie of a site: several on one host, at several ports, share cookies."""
    return f"perdure_{hashlib.blake2b(site.encode(), digest_size=4).hexdigest()}"


def issue(token: Token, now_s: int) -> str:
    """A cookie for the bearer of a token."""
    name = base64.urlsafe_b64encode(token.name.encode()).decode().rstrip("=")
    signed = f"{name}.{now_s + LASTS_S}.{secrets.token_urlsafe(12)}"
    return f"{signed}.{_signature(token, signed)}"


def holder(cookie: str, tokens: Iterable[Token], now_s: int) -> Token | None:
    """The token of a cookie that is signed and has not ended."""
    signed, _, signature = cookie.rpartition(".")
    if len(cookie) > COOKIE_CHARS_MAX or not cookie.isascii():
        return None
    for token in tokens:
        if hmac.compare_digest(signature, _signature(token, signed)):
            return token if int(signed.split(".")[1]) > now_s else None
    return None


def _signature(token: Token, text: str) -> str:
    key = hmac.digest(token.secret.encode(), b"perdure session", "sha256")
    return hmac.new(key, f"{token.name}\n{token.role}\n{text}".encode(), "sha256").hexdigest()
