"""Comparison of a recorded row with the command of today's code, and a readable difference.

Rules: recorded data that means the same in other bytes stays; a difference shows both rows, long
arguments only around the place where they differ.
"""

from __future__ import annotations

from perdure.core import events as ev
from perdure.core.events import Chunked, Codec, Command, Event

_AROUND = 60
_VALUES = frozenset({ev.EMIT, ev.EXPOSE, ev.REPLY, ev.FINISH})


def fits(row: Event, command: Command, codec: Codec) -> bool:
    """Whether a row records this command, by bytes or by meaning; then the recorded data stays."""
    asked = (command.seq, command.kind, command.name, command.ref)
    if (row.seq, row.kind, row.name, row.ref) != asked:
        return False
    if row.edited or row.kind == ev.REJECT or (row.kind == ev.FINISH and row.name == "failed"):
        return True  # tracebacks move with every line, and reasons may be texts of libraries
    if row.data is None or command.data is None:
        return row.data is command.data
    if row.data == command.data if isinstance(row.data, bytes) else row.data.same_as(command.data):
        return True
    recorded = row.data if isinstance(row.data, bytes) else row.data.read()
    if row.kind == ev.SEND:
        same = codec.same_message(command.cls, command.call, recorded, command.data)
    elif command.call is not None:
        same = codec.same_call(command.call, recorded, command.data)
    elif row.kind in _VALUES:
        same = codec.same_value(command.cls, recorded, command.data)
    else:
        same = False
    if same:
        command.data, command.edited = recorded, True
    return same


def difference(row: Event, command: Command | None, codec: Codec) -> str:
    """Human-readable lines: what the history has, what the code asks for, and what to do."""
    recorded = _text(row.data, codec)
    asked = _text(command.data, codec) if command is not None else ""
    if command is not None and (row.kind, row.name) == (command.kind, command.name):
        asked += " (another secret)" if recorded == asked and "•••" in asked else ""
        recorded, asked = _focus(recorded, asked)
    have = f"  history, row {row.seq}: {_label(row.kind, row.name)} {_short(recorded)}".rstrip()
    want = "nothing"
    if command is not None:
        want = f"{_label(command.kind, command.name)} {_short(asked)}".rstrip()
    return (
        "the code does not fit the history.\n"
        f"{have}\n  code now asks for: {want}\n"
        "Nothing was changed. Fix the code and start it again, guard the change with patched(), "
        "or fork the run before this row."
    )


def _label(kind: str, name: str | None) -> str:
    return kind if name is None else f"{kind} {name}"


def _text(data: bytes | Chunked | None, codec: Codec) -> str:
    if data is None:
        return ""
    return codec.shown(data if isinstance(data, bytes) else data.read()).decode()


def _short(text: str) -> str:
    return text if len(text) <= 4 * _AROUND else text[: 4 * _AROUND] + " …"


def _focus(one: str, other: str) -> tuple[str, str]:
    """Both texts cut to the place where they start to differ."""
    pairs = enumerate(zip(one, other, strict=False))
    same = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
    begin = max(0, same - _AROUND)
    lead = "… " if begin else ""
    return lead + one[begin:], lead + other[begin:]
