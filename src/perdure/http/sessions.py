"""Sessions: cookies that the login page gives to browsers.

Rules: a cookie names its token and its end, and is signed with a key made from the secret of that
token, so that it holds over restarts and in every worker process, and ends when the secret changes;
nothing is stored, and what was logged out is remembered in this process alone; the time is an
argument.
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
LOGGED_OUT_MAX = 10_000


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
            return token if _end_s(cookie) > now_s else None
    return None


class LoggedOut:
    """Sessions that were ended by hand, until they end by themselves. Where there are too many, all
    sessions up to now are ended: a copied cookie never comes back to life.
    """

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}
        self._until_s = 0

    def add(self, cookie: str, now_s: int) -> None:
        """End the session of a cookie that `holder` knows."""
        if len(self._ends) >= LOGGED_OUT_MAX:
            self._ends = {key: end_s for key, end_s in self._ends.items() if end_s > now_s}
        if len(self._ends) >= LOGGED_OUT_MAX:
            self._ends, self._until_s = {}, now_s + LASTS_S
        self._ends[cookie] = _end_s(cookie)

    def has(self, cookie: str) -> bool:
        """Whether the session of a cookie that `holder` knows was ended."""
        return cookie in self._ends or _end_s(cookie) <= self._until_s


def _end_s(cookie: str) -> int:
    return int(cookie.split(".")[1])


def _signature(token: Token, text: str) -> str:
    key = hmac.digest(token.secret.encode(), b"perdure session", "sha256")
    return hmac.new(key, f"{token.name}\n{token.role}\n{text}".encode(), "sha256").hexdigest()
