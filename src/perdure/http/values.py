"""JSON values as HTML: indented, with the parts of a line marked for colours.

Rules: everything is escaped; integers of any size stay exact; a line of text is a line of HTML.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from markupsafe import Markup, escape

_TOKENS = re.compile(
    r"""(?P<key>"(?:[^"\\]|\\.)*")(?=\s*:) | (?P<str>"(?:[^"\\]|\\.)*")
    | (?P<num>-?\d[\d.eE+-]*) | (?P<word>true|false|null)""",
    re.VERBOSE,
)
COLOURED_MAX = 200_000


def text(value: Any) -> str:
    """A value as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode()


def lines(value: Any) -> list[Markup]:
    """The lines of a value as HTML; beyond 200,000 characters without colours."""
    whole = text(value)
    colour = _coloured if len(whole) <= COLOURED_MAX else escape
    return [colour(line) for line in whole.split("\n")]


def _coloured(line: str) -> Markup:
    made, done = Markup(), 0
    for found in _TOKENS.finditer(line):
        made += escape(line[done : found.start()])
        made += Markup('<span class="j-{}">{}</span>').format(found.lastgroup, found.group())
        done = found.end()
    return made + escape(line[done:])
