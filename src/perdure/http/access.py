"""Access: which visitor a request comes from, by bearer token, by cookie or by loopback.

Rules: without tokens only this machine is answered, under its own name, so that neither another
machine nor a page whose name was bent to this address reaches it; secrets are compared in constant
time and never logged; guesses of one address are limited in number, and keep out no secret that is
too long to be guessed, because many may share an address.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from perdure.api.tokens import Token
from perdure.http import sessions
from perdure.http.visitors import LOCAL, Visitor

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
GUESSES_MAX = 10
GUESSABLE_CHARS_MAX = 15
"""A secret that is no longer than this may be guessed, where nothing slows that down."""
GUESS_S = 6.0
"""How long until another guess is allowed, when all are used up."""
ADDRESSES_MAX = 1_000


class Access:
    """The visitors that a site lets in; without tokens, every one on this machine."""

    def __init__(self, site: str, tokens: Sequence[Token]) -> None:
        self.tokens = tuple(tokens)
        self.cookie = sessions.cookie_name(site)
        self.guesses = Guesses()
        self._logged_out = sessions.LoggedOut()

    def visitor(self, connection: HTTPConnection) -> Visitor | None:
        """The visitor of a request; None without a valid token. Raises `HTTPException`."""
        if not self.tokens:
            _check_local(connection)
            return LOCAL
        scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return _visitor(self.checked(connection, secret.strip()))
        cookie = connection.cookies.get(self.cookie, "")
        token = sessions.holder(cookie, self.tokens, _now_s())
        if token is None or self._logged_out.has(cookie):
            return None
        return _visitor(token, session=True)

    def log_out(self, connection: HTTPConnection) -> None:
        """End the session of a request, if it has one."""
        cookie, now_s = connection.cookies.get(self.cookie, ""), _now_s()
        if sessions.holder(cookie, self.tokens, now_s) is not None:
            self._logged_out.add(cookie, now_s)

    def checked(self, connection: HTTPConnection, secret: str) -> Token:
        """The token with this secret. Raises `HTTPException`: 401, or 429 after many guesses."""
        address = connection.client.host if connection.client else ""
        given = secret.encode()
        found = [one for one in self.tokens if hmac.compare_digest(one.secret.encode(), given)]
        if found and len(found[0].secret) > GUESSABLE_CHARS_MAX:
            return found[0]
        if self.guesses.is_known(address, given):  # a program with an old token guesses nothing
            raise unknown("This token is not known here.")
        self.guesses.check(address, time.monotonic())
        if not found:
            self.guesses.failed(address, given, time.monotonic())
            raise unknown("This token is not known here.")
        return found[0]


class Guesses:
    """Wrong secrets by address: a bucket of ten, into which one comes back each six seconds. The
    same wrong secret again is no guess.
    """

    def __init__(self) -> None:
        self._used: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._last: dict[str, bytes] = {}
        self._key = secrets.token_bytes(16)

    def check(self, address: str, now_s: float) -> None:
        """Raises `HTTPException`, 429, where all are used up."""
        over = self._at(address, now_s) - (GUESSES_MAX - 1)
        if over > 0:
            wait_s = max(1, round(over * GUESS_S))
            raise HTTPException(
                429,
                f"Too many wrong tokens came from this address. Try again in {wait_s} s.",
                {"Retry-After": str(wait_s)},
            )

    def is_known(self, address: str, secret: bytes) -> bool:
        """Whether this secret is the last wrong one of the address."""
        return hmac.compare_digest(self._last.get(address, b""), self._digest(secret))

    def failed(self, address: str, secret: bytes, now_s: float) -> None:
        """Count a wrong secret."""
        self._last[address] = self._digest(secret)
        self._used[address] = self._at(address, now_s) + 1, now_s
        self._used.move_to_end(address)
        if len(self._used) > ADDRESSES_MAX:
            self._last.pop(self._used.popitem(last=False)[0], None)

    def _digest(self, secret: bytes) -> bytes:
        return hmac.digest(self._key, secret, "sha256")

    def _at(self, address: str, now_s: float) -> float:
        used, at_s = self._used.get(address, (0.0, now_s))
        return max(0.0, used - (now_s - at_s) / GUESS_S)


def session(token: Token) -> str:
    """A cookie for the bearer of a token, from now on."""
    return sessions.issue(token, _now_s())


def unknown(detail: str) -> HTTPException:
    return HTTPException(401, detail, {"WWW-Authenticate": 'Bearer realm="perdure"'})


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, and can be nobody else's.

    >>> [is_loopback(host) for host in ["localhost", "127.0.0.1", "[::1]", "evil.example"]]
    [True, True, True, False]
    """
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or (mapped is not None and mapped.is_loopback)


def host_name(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.rpartition(":")[0] if ":" in host else host


def _check_local(connection: HTTPConnection) -> None:
    """Raises `HTTPException`, 403, for a request that is not this machine's own."""
    client = connection.client.host if connection.client else ""
    names = connection.headers.getlist("host")
    forwarded = [name for name in FORWARDED if name in connection.headers]
    if not is_loopback(client):
        why = "it comes from another machine"
    elif len(names) != 1 or not is_loopback(host_name(names[0])):
        why = "its Host header is not localhost, 127.0.0.1 or [::1]"
    elif forwarded:
        why = f"it was forwarded by a proxy ({forwarded[0]})"
    else:
        return
    raise HTTPException(
        403,
        f"Without a token only this machine is answered, and this request is refused because "
        f"{why}. Give the server a token: `engine.asgi(token=...)`, `perdure ui --token` or "
        "`PERDURE_TOKEN`. Or come through a tunnel: `ssh -L 8642:localhost:8642 HOST`.",
    )


def _visitor(token: Token, session: bool = False) -> Visitor:
    return Visitor(token.name, token.role, session)


def _now_s() -> int:
    return int(time.time())
