"""JSON values as HTML: indented, with the parts of a line marked for colours.

Rules: everything is escaped; integers of any size stay exact; a line of text is a line of HTML;
characters that turn the direction of text, and control characters, are shown and never obeyed.
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
_ACTIVE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
COLOURED_MAX = 200_000
LINES_MAX = 2_000
LINE_CHARS_MAX = 10_000


def calm(text: str) -> str:
    """Text in which characters that act are escapes, as JSON has them.

    >>> calm("pay \\u202e04")
    'pay \\\\u202e04'
    """
    if text.isascii() and text.isprintable():
        return text
    return _ACTIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shown(value: Any) -> Any:
    """What a template puts out: its own markup as it is, any other text calm."""
    return calm(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def text(value: Any) -> str:
    """A value as indented JSON."""
    return calm(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode())


def lines(value: Any) -> list[Markup]:
    """The lines of a value as HTML, as many as a page bears; the last one says what is left out,
    which the `.json` of the page has. Beyond 200,000 characters without colours.
    """
    whole = text(value).split("\n")
    shown = [_cut(line) for line in whole[:LINES_MAX]]
    colour = _coloured if sum(map(len, shown)) <= COLOURED_MAX else escape
    found = [colour(line) for line in shown]
    if len(whole) > LINES_MAX:
        found.append(
            escape(f"… {len(whole) - LINES_MAX:,} more lines are in the .json of this page")
        )
    return found


def _cut(line: str) -> str:
    if len(line) <= LINE_CHARS_MAX:
        return line
    return f"{line[:LINE_CHARS_MAX]}… ({len(line):,} characters)"


def _coloured(line: str) -> Markup:
    made, done = Markup(), 0
    for found in _TOKENS.finditer(line):
        made += escape(line[done : found.start()])
        made += Markup('<span class="j-{}">{}</span>').format(found.lastgroup, found.group())
        done = found.end()
    return made + escape(line[done:])
