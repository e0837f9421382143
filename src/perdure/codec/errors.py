"""Errors rebuilt from recorded JSON, without running code of their classes.

Rules: no pickle, no import, no constructor. A class is looked up where it is loaded already, made
by `__new__`, and kept only if it then reads as recorded; everything else is a `RecordedError`.
"""

from __future__ import annotations

import asyncio
import operator
import sys
from types import MemberDescriptorType
from typing import Any

import msgspec

from perdure import errors
from perdure.codec import frames
from perdure.core import lifecycle
from perdure.errors import (
    PerdureError,
    RecordedError,
    RunCancelled,
    RunFailed,
    StepFailed,
    StepTimeout,
    former,
)


def slots_of(cls: type) -> dict[str, MemberDescriptorType]:
    members = [
        (name, member)
        for base in reversed(cls.__mro__)
        if "__slots__" in vars(base)
        for name, member in vars(base).items()
    ]
    return {name: member for name, member in members if isinstance(member, MemberDescriptorType)}


def listed(value: Any) -> list[Any]:
    """A list as it is, an empty one for anything else."""
    return value if isinstance(value, list) else []


def decode_error(raw: bytes) -> Exception:
    """The error that was recorded, or a `RecordedError` in its place."""
    try:
        data = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        data = raw.decode(errors="replace")
    return rebuilt(data)


def rebuilt(data: Any) -> Exception:
    """As `decode_error`, from decoded JSON of any shape: some is written by hand."""
    if not isinstance(data, dict):
        return RecordedError("Error", "" if data is None else str(data))
    error = same_error(data) or RecordedError(
        _type_name(data), _text(data, "message"), data.get("attributes")
    )
    _set(error, "__traceback__", frames.rebuilt(data.get("frames")))
    if notes := [
        text for text in [*listed(data.get("notes")), *_left_out(data)] if isinstance(text, str)
    ]:
        error.__dict__["__notes__"] = notes
    for link in ("cause", "context"):
        if isinstance(data.get(link), dict):
            _set(error, f"__{link}__", rebuilt(data[link]))
    return error


def _left_out(data: dict[str, Any]) -> list[str]:
    found = data.get("left_out")
    if not isinstance(found, dict) or not found:
        return []
    return ["Not recorded in full: " + "; ".join(f"{name} ({why})" for name, why in found.items())]


def one_line(data: Any) -> str:
    """`ValueError: no such file`, for the text of another error."""
    if not isinstance(data, dict):
        return str(data)
    name, message = _type_name(data), _text(data, "message")
    return f"{name}: {message}" if message else name


def _type_name(data: dict[str, Any]) -> str:
    return _text(data, "type").rpartition(".")[2] or "Error"


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""


def class_of(data: dict[str, Any]) -> Any:
    module, name = _text(data, "module"), _text(data, "type")
    if (today := former.name_today(module, name)) is not None:
        return getattr(errors, today)
    return operator.attrgetter(name)(sys.modules[module])


def same_error(data: dict[str, Any]) -> Exception | None:
    """The error rebuilt, if it then reads as the original did."""
    try:
        cls = class_of(data)
        if not (isinstance(cls, type) and issubclass(cls, Exception)) or issubclass(
            cls, asyncio.CancelledError
        ):
            return None
        error = made(cls, data)
        return error if str(error) == _text(data, "message") and repr(error) else None
    except Exception:
        return None


def made(cls: type[Exception], data: dict[str, Any]) -> Exception:
    args = data.get("args")
    error: Exception
    if issubclass(cls, BaseExceptionGroup):
        text = args[0] if args else _text(data, "message").rpartition(" (")[0]
        error, args = cls.__new__(cls, text, [rebuilt(one) for one in data["errors"]]), None
    else:
        error = cls.__new__(cls, *(args or ()))
    if isinstance(args, list) and not (isinstance(error, OSError) and error.args):
        _set(error, "args", tuple(args))  # an OSError takes its file names out of them
    slots = slots_of(cls)
    for name, value in _facts(cls, data.get("attributes")).items():
        if name in slots:
            slots[name].__set__(error, value)
        else:
            error.__dict__[name] = value
    return error


def _set(error: Exception, name: str, value: Any) -> None:
    """Set an attribute as Python does; the class may override that, as a frozen dataclass does."""
    BaseException.__setattr__(error, name, value)


def _facts(cls: type, attributes: Any) -> dict[str, Any]:
    """Recorded attributes; the sequences in Perdure's own errors are tuples."""
    facts: dict[str, Any] = attributes if isinstance(attributes, dict) else {}
    if not issubclass(cls, PerdureError):
        return facts
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()
    }


# --- what a command failed with -------------------------------------------------------------------


def decode_failure(step: str, raw: bytes) -> Exception:
    """The error that awaiting a failed command raises; `step` is the name of a step."""
    try:
        data = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        data = None
    match data:
        case {"perdure": str(name), "message": str(message)}:
            return _verb_error(name, message, data.get("attributes"))
        case {"run": str(run_id), "status": status}:
            failure: Exception = (
                RunCancelled(run_id)
                if status == lifecycle.CANCELLED
                else RunFailed(run_id, one_line(data.get("error")))
            )
        case {"error": error}:
            cls = StepTimeout if data.get("timeout") is True else StepFailed
            attempts = data.get("attempts")
            failure = cls(step, attempts if isinstance(attempts, int) else 1, one_line(error))
        case _:
            return rebuilt(data)
    if data.get("error") is not None:
        failure.__cause__ = rebuilt(data["error"])
    return failure


def _verb_error(name: str, message: str, attributes: Any) -> Exception:
    cls = getattr(errors, former.name_today(errors.__name__, name) or name, None)
    if not (isinstance(cls, type) and issubclass(cls, PerdureError)):
        return RecordedError(name, message)
    error = cls.__new__(cls, message)
    error.args = (message,)
    error.__dict__.update(_facts(cls, attributes))
    return error
