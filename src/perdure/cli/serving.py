"""Serving of pages: options, sockets and messages of the commands that show pages.

Rules: elsewhere than on this machine nothing is served without a token; a secret is never printed.
"""

from __future__ import annotations

import os
import secrets
import socket
import webbrowser
from importlib.util import find_spec

import click

from perdure.api.tokens import Token, tokens_of
from perdure.cli.common import F, misuse, with_options
from perdure.cli.output import say
from perdure.errors import DefinitionError

LONG_CHARS = 16
_OPTIONS = (
    click.option(
        "--host",
        default="127.0.0.1",
        show_default=True,
        metavar="ADDRESS",
        help="Where to listen. Others than this machine need a token.",
    ),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        metavar="N",
        help="Default: the first free one from 8642 on. 0 takes any.",
    ),
    click.option(
        "--token",
        envvar="PERDURE_TOKEN",
        show_envvar=True,
        metavar="SECRET",
        help="What opens the pages and the API. Other users of this machine see what is typed "
        "here; the variable they don't.",
    ),
    click.option(
        "--view-token",
        envvar="PERDURE_VIEW_TOKEN",
        show_envvar=True,
        metavar="SECRET",
        help="A second token, for those that may look and change nothing.",
    ),
    click.option("--open", "open_it", is_flag=True, help="Open the pages in a browser."),
)


def serve_options(command: F) -> F:
    """The options of commands that show pages: host, port, token, view_token, open_it."""
    return with_options(command, _OPTIONS)


def tokens_given(token: str | None, view_token: str | None) -> list[Token]:
    """The tokens of the command line. Raises `Misuse`."""
    if view_token is not None and token is None:
        raise misuse("--view-token is for a second token; give the first one with --token.")
    try:
        found = [*tokens_of(token)]
        if view_token is not None:
            found.append(Token(name="view", secret=view_token, role="view"))
        return [*tokens_of(found)] if found else []
    except DefinitionError as error:
        raise misuse(str(error)) from error


def listening(host: str, port: int | None, tokens: list[Token]) -> socket.socket:
    """A socket to serve at. Raises `Misuse`, also where a token is needed and there is none."""
    check_installed()
    from perdure.http import server
    from perdure.http.access import is_loopback

    if not tokens and not is_loopback(host):
        raise misuse(
            f"At {host} others can reach the pages, so they need a token. One that was made just "
            f"now:\n  PERDURE_TOKEN={secrets.token_urlsafe(24)}\nSet it and give the command "
            "again. Or stay on 127.0.0.1 and come through a tunnel: ssh -L 8642:localhost:8642 "
            "HOST."
        )
    if any(len(one.secret) < LONG_CHARS for one in tokens):
        say(f"A token of less than {LONG_CHARS} characters can be guessed; take a longer one.")
    try:
        return server.listen(host, port)
    except OSError as error:
        at = f"port {port}" if port else "any of the ports from 8642 on"
        raise misuse(
            f"Can't listen at {host}, {at}: {error.strerror or error}. --port N takes another "
            "one, --port 0 any that is free."
        ) from error


def check_installed() -> None:
    """Raises `Misuse` where the packages of the extra are missing."""
    for name in ("starlette", "uvicorn", "jinja2"):
        if find_spec(name) is None:
            raise misuse(f"The pages need {name}: pip install 'perdure[ui]'.")


def tell(address: str, tokens: list[Token], open_it: bool) -> None:
    """Say where the pages are, and open them where that is asked for."""
    say(f"Pages: {address}" + ("" if not tokens else "  (log in with the token)"))
    if "SSH_CONNECTION" in os.environ and "localhost" in address:
        port = address.rstrip("/").rpartition(":")[2]
        say(f"From your own machine: ssh -L {port}:localhost:{port} {socket.gethostname()}")
    if open_it and not webbrowser.open(address):
        say("No browser could be opened here.")
