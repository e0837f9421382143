"""Log records as JSON: what is kept of a line that a step logs.

Rules: nothing is raised, whatever the record holds; the text is UTF-8 and has a bound in bytes; of
a message the beginning is kept, of a traceback the end. Secrets have the mask, as they have when
they are printed.
"""

from __future__ import annotations

import json
import logging
import re
import traceback

import msgspec

from perdure.api.secret import MARK, MASK

NAME_CHARS_MAX = 200
_MARKS = (MARK, ascii(MARK)[1:-1], json.dumps(MARK)[1:-1])
"""As it is, as `repr` writes it, and as JSON in ASCII has it."""
_MARKED = re.compile(f"(?:{'|'.join(map(re.escape, _MARKS))})" + r"[^\s\"',;)}\]]*")
_encode = msgspec.json.Encoder().encode


class LogText(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A line. `left_out` is how many characters of message and traceback it lacks."""

    level: str
    logger: str
    message: str
    traceback: str | None = None
    left_out: int = 0


class Dropped(msgspec.Struct, frozen=True, gc=False):
    """In the place of as many lines that were not kept."""

    dropped: int


def line(record: logging.LogRecord, bytes_max: int) -> bytes:
    """A record as JSON. The texts in it have up to `bytes_max` bytes together."""
    message = _message(record)
    shown, beyond = _clean(message[:bytes_max]), max(0, len(message) - bytes_max)
    kept = _first(shown, bytes_max)
    left_out = beyond + len(shown) - len(kept)
    trace = None
    if record.exc_info or record.stack_info:
        whole = _clean(_trace(record))
        trace = _last(whole, max(bytes_max - len(kept.encode()), bytes_max // 2))
        left_out += len(whole) - len(trace)
    level, logger = _name(record.levelname), _name(record.name)
    return _encode(LogText(level, logger, kept, trace, left_out))


def dropped(count: int) -> bytes:
    """What is kept of lines that were not."""
    return _encode(Dropped(count))


def _message(record: logging.LogRecord) -> str:
    try:
        return str(record.getMessage())
    except Exception as error:
        try:
            return f"{record.msg!r} % {record.args!r} ({type(error).__name__}: {error})"
        except Exception:
            return f"(a message that can't be shown: {type(error).__name__})"


def _trace(record: logging.LogRecord) -> str:
    parts = []
    if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
        try:
            parts += traceback.format_exception(record.exc_info[1])
        except Exception as error:
            parts.append(f"(an error that can't be shown: {type(error).__name__})")
    if record.stack_info:
        parts.append(str(record.stack_info))
    return "".join(parts).rstrip("\n")


def _name(name: object) -> str:
    return _clean(str(name)[:NAME_CHARS_MAX])


def _clean(text: str) -> str:
    """Text that can be stored, without marks of secrets."""
    if any(mark in text for mark in _MARKS):
        text = _MARKED.sub(MASK, text)
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _first(text: str, bytes_max: int) -> str:
    if 4 * len(text) <= bytes_max or len(raw := text.encode()) <= bytes_max:
        return text
    return raw[:bytes_max].decode(errors="ignore")


def _last(text: str, bytes_max: int) -> str:
    if 4 * len(text) <= bytes_max or len(raw := text.encode()) <= bytes_max:
        return text
    return raw[-bytes_max:].decode(errors="ignore")
