"""Output of the commands: the only module of the command line that writes to stdout, stderr or the
terminal.

Rules: text is shown, never obeyed: control characters in it are escaped, and only `style` makes
escape sequences, where the terminal wants them; one argument is one line, `as_lines` says where
text is meant to be several; what an encoding lacks is shown in ASCII; a command whose results have
no reader ends, one whose messages have none goes on.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import re
import shutil
import sys
import unicodedata
from typing import TYPE_CHECKING, Any, TextIO

import click
import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "magenta": 35, "cyan": 36}
# Styles are lone surrogates until they are written: text of a store is UTF-8 and can't hold one, so
# it can't pretend to be ours.
_END, *_BEGIN = map(chr, range(0xD800, 0xD801 + len(_CODES)))
_MARKS = dict(zip(_CODES, _BEGIN, strict=True))
_SEQUENCES = {
    ord(_END): "\033[0m",
    **{ord(_MARKS[name]): f"\033[{code}m" for name, code in _CODES.items()},
}
_UNSTYLED = dict.fromkeys(_SEQUENCES)

# What a terminal obeys or does not show: controls, separators of lines and paragraphs, directions,
# invisible characters. A carriage return at the end of a line is a part of that end; joiners belong
# to emoji and to several scripts.
_ACTIVE = re.compile(
    "[\x00-\x08\x0a-\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb"
    f"{chr(0xD801 + len(_CODES))}-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e007f]|\r(?!\\Z)"
)
_ASCII = {
    "…": "...",
    "✓": "+",
    "✗": "x",
    "└": "`",
    "├": "|",
    "⋮": ":",
    "←": "<-",
    "→": "->",
    "↻": "~",
    "×": "x",
    # waterfalls
    "█": "#",
    "░": ".",
    "╌": "-",
    "▒": "%",
    "✕": "x",
    "▏": "|",
    "│": "|",
    "·": ".",
    "⋯": "~",
    "⟨": "<",
    "⟩": ">",
    "≤": "<",
}


class OutputLost(Exception):
    """Results can't be written any more."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error


# --- text -----------------------------------------------------------------------------------------


def visible(text: str) -> str:
    """Text as one line that does nothing to a terminal, with escapes as JSON has them.

    >>> visible("one\\x1b[2J\\ntwo")
    'one\\\\u001b[2J\\\\ntwo'
    """
    return (
        text
        if text.isascii() and text.isprintable()
        else _ACTIVE.sub(lambda found: _escaped(found[0]), text)
    )


def _escaped(character: str) -> str:
    if character in "\n\r":
        return "\\n" if character == "\n" else "\\r"
    return "".join(
        f"\\u{unit:04x}"
        for unit in memoryview(character.encode("utf-16", "surrogatepass")[2:]).cast("H")
    )


def as_lines(text: str) -> list[str]:
    """Text that is meant to be several lines, as these."""
    return text.split("\n")


def style(text: str, name: str | None) -> str:
    """Text in a style: bold, dim or a colour; None is plain."""
    return text if name is None else f"{_MARKS[name]}{text}{_END}"


def plain(text: str) -> str:
    """Text without its styles."""
    return text.translate(_UNSTYLED)


def width(text: str) -> int:
    """How many columns a terminal needs for it."""
    shown = visible(plain(text))
    return len(shown) if shown.isascii() else sum(_columns_of(character) for character in shown)


def _columns_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _narrowed(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(
        _ASCII.get(one) or _escaped(one) for one in error.object[error.start : error.end]
    ), error.end


def _escaped_only(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_escaped(one) for one in error.object[error.start : error.end]), error.end


codecs.register_error("perdure-text", _narrowed)
codecs.register_error("perdure-json", _escaped_only)


# --- terminals ------------------------------------------------------------------------------------


def is_terminal(stream: TextIO | None) -> bool:
    """Whether it is one; a stream that was closed before we began is None."""
    return stream is not None and stream.isatty()


def styled(stream: TextIO) -> bool:
    """Whether escape sequences are wanted: NO_COLOR and a dumb terminal refuse them, FORCE_COLOR
    has them in a pipe, too.
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", "unknown"):
        return False
    forced = os.environ.get("FORCE_COLOR")
    return forced != "0" if forced else is_terminal(stream)


def live() -> bool:
    """Whether stderr is a terminal on which lines can be drawn anew."""
    return (
        is_terminal(sys.stderr) and styled(sys.stderr) and _encoding(sys.stderr).startswith("utf")
    )


def room() -> int | None:
    """How many columns a line of results has; None is any number."""
    if os.environ.get("COLUMNS", "").isdecimal() or is_terminal(sys.stdout):
        return max(shutil.get_terminal_size().columns, 20)
    return None


def _encoding(stream: TextIO) -> str:
    # Python takes the C locale for UTF-8; a user who asked for it may have a terminal that knows
    # ASCII only.
    c_locale = (os.environ.get("LC_ALL") or os.environ.get("LANG")) in (
        "C",
        "POSIX",
    ) and sys.flags.utf8_mode
    return (
        "ascii"
        if c_locale and is_terminal(stream) and not os.environ.get("PYTHONUTF8")
        else (stream.encoding or "utf-8").lower()
    )


# --- writing --------------------------------------------------------------------------------------


def echo(*results: str) -> None:
    """Write results to stdout, each as a line. Raises `OutputLost`."""
    _write(sys.stdout, "".join(f"{visible(line)}\n" for line in results), "perdure-text")


def echo_json(value: Any, *, indent: int = 2) -> None:
    """Write a value to stdout as JSON, records as objects, times as ISO 8601; an indent of 0 is one
    line. Raises `OutputLost`.
    """
    raw = msgspec.json.encode(value, enc_hook=str)
    text = msgspec.json.format(raw, indent=indent).decode() if indent else raw.decode()
    _write(sys.stdout, "".join(f"{visible(line)}\n" for line in as_lines(text)), "perdure-json")


def echo_result(value: Any) -> None:
    """Write a human-readable result: strings as they are, everything else as JSON. Raises
    `OutputLost`.
    """
    if isinstance(value, str):
        echo(*as_lines(value))
    else:
        echo_json(value)


def say(*messages: str) -> None:
    """Write messages, which are never part of the results,
    to stderr.
    """
    _write_message("".join(f"{visible(line)}\n" for line in messages))


def say_anew(text: str) -> None:
    """Write one line that the next one overwrites, on a terminal for which `live` is true."""
    _write_message(f"{visible(text)[: shutil.get_terminal_size().columns - 1]}\033[K\r")


def confirmed(question: str) -> bool:
    """Whether the answer is yes; no answer is no."""
    _write_message(f"{visible(question)} [y/N] ")
    return sys.stdin is not None and sys.stdin.readline().strip().lower() in ("y", "yes")


def _write_message(text: str) -> None:
    with contextlib.suppress(OutputLost):
        _write(sys.stderr, text, "perdure-text")


def _write(stream: TextIO | None, text: str, errors: str) -> None:
    if stream is None:  # it was closed before we began
        return
    encoding = _encoding(stream)
    text = (
        text.translate(_SEQUENCES if styled(stream) else _UNSTYLED)
        .encode(encoding, errors)
        .decode(encoding)
    )
    try:
        click.echo(text, file=stream, nl=False, color=True)
    except OSError as error:
        discard(stream)
        raise OutputLost(error) from error


def discard(stream: TextIO) -> None:
    """Let what is left of a stream that failed go nowhere, so that the interpreter does not fail at
    it again when it ends.
    """
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def console() -> Console:
    """What rich draws on where `live` is true; what it is given to draw has to be `rich_text`."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False)


def rich_text(text: str, style: str = "", *, cut: bool = False) -> Text:
    """Text for rich, which escapes little by itself; `cut` keeps it on one line."""
    from rich.text import Text

    return Text(visible(text), style=style, no_wrap=cut, overflow="ellipsis" if cut else None)


class LogFormat(logging.Formatter):
    """Log records as lines that do nothing to a terminal; what belongs to the line above is
    indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        return "\n    ".join(visible(line) for line in as_lines(super().format(record)))
