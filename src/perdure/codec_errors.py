"""Errors as recorded data: written so that people can read them, rebuilt without running anyone's code.

Rules: never pickle, never an import, never a constructor: a class is looked up where it is loaded already, made
by `__new__`, and kept only if it then says the same as the original did; everything else is a `RecordedError`.
Writing an error never fails, however broken the error is.
"""

from __future__ import annotations

import asyncio
import operator
import sys
import traceback
from types import TracebackType
from typing import Any

import msgspec

from perdure import errors
from perdure.codec_types import ENCODER, same_plain
from perdure.errors import PerdureError, RecordedError, RunCancelled, RunFailed, StepFailed, StepTimeout

MESSAGE_BYTES_MAX = 8192
"""Longer messages and arguments are cut: an error page can be megabytes."""

TRACEBACK_BYTES_MAX = 8192
TRACEBACK_FRAMES_MAX = 20
CAUSES_MAX = 5
MEMBERS_MAX = 50


# --- writing --------------------------------------------------------------------------------------


def encode_error(error: BaseException) -> bytes:
    """An error as a JSON object: type, module, message, args, attributes, traceback, cause."""
    try:
        data = _described(error, 0) | {"traceback": _traceback(error), "cause": _cause(error, 0)}
    except Exception:  # its class has taken over what every error has
        data = {"type": type(error).__name__, "module": "", "message": _message(error), "traceback": _traceback(error), "cause": None}
    return ENCODER.encode(data)


def _described(error: BaseException, depth: int) -> dict[str, Any]:
    cls = type(error)
    data: dict[str, Any] = {"type": _clean(cls.__qualname__), "module": _clean(str(cls.__module__)), "message": _message(error)}
    data["args"] = _plain(list(_args(error)), None)
    if attributes := _attributes(error):
        data["attributes"] = attributes
    if isinstance(error, BaseExceptionGroup) and depth < CAUSES_MAX:
        data["errors"] = [_described(one, depth + 1) | {"cause": _cause(one, depth)} for one in error.exceptions[:MEMBERS_MAX]]
    return data


def _cause(error: BaseException, depth: int) -> dict[str, Any] | None:
    cause = error.__cause__
    if cause is None or depth >= CAUSES_MAX:
        return None
    return _described(cause, depth + 1) | {"cause": _cause(cause, depth + 1)}


def _args(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, OSError) and len(error.args) == 2 and error.filename is not None:
        return (*error.args, error.filename, None, error.filename2)  # `args` leaves the file names out
    return error.args


def _attributes(error: BaseException) -> dict[str, Any]:
    """What a handler may look at (`error.status`), as far as it is plain and small."""
    found = {_clean(str(name)): _plain(value, msgspec.UNSET) for name, value in getattr(error, "__dict__", {}).items()}
    return {name: value for name, value in found.items() if value is not msgspec.UNSET}


def _plain(value: Any, otherwise: Any) -> Any:
    """The value if it is plain JSON of reasonable size; a tuple counts as a list."""
    if isinstance(value, tuple):
        value = list(value)
    try:
        raw = ENCODER.encode(value)
        back = msgspec.json.decode(raw) if len(raw) <= MESSAGE_BYTES_MAX else otherwise
        return back if same_plain(value, back) is None else otherwise
    except Exception:
        return otherwise


def _message(error: BaseException) -> str:
    try:
        return _cut(_clean(str(error)), MESSAGE_BYTES_MAX)
    except Exception:
        return "(the error has no readable message)"


def _beyond_the_engine(frames: TracebackType | None) -> TracebackType | None:
    """The frames without the engine's own at the top, which tell nobody anything."""
    rest = frames
    while rest is not None and rest.tb_frame.f_globals.get("__name__", "").startswith("perdure."):
        rest = rest.tb_next
    return rest or frames


def _traceback(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, _beyond_the_engine(error.__traceback__), limit=-TRACEBACK_FRAMES_MAX)
        text = _clean("".join(lines))
    except Exception:
        return ""
    return text if len(text) <= TRACEBACK_BYTES_MAX else "...\n" + text[-TRACEBACK_BYTES_MAX:]


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[:size]}... ({len(text):,} characters)"


# --- reading --------------------------------------------------------------------------------------


def decode_error(raw: bytes) -> Exception:
    """The error that was recorded, or a `RecordedError` in its place."""
    try:
        data = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        data = raw.decode(errors="replace")
    return rebuilt(data)


def rebuilt(data: Any) -> Exception:
    """As `decode_error`, from decoded JSON of any shape: people write some of it by hand."""
    if not isinstance(data, dict):
        return RecordedError("Error", "" if data is None else str(data))
    error = _same_error(data) or RecordedError(_type_name(data), _text(data, "message"))
    if isinstance(data.get("cause"), dict):
        error.__cause__ = rebuilt(data["cause"])
    return error


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


def _same_error(data: dict[str, Any]) -> Exception | None:
    """The error rebuilt, if it then reads as the original did."""
    try:
        cls = operator.attrgetter(_text(data, "type"))(sys.modules[_text(data, "module")])
        if not (isinstance(cls, type) and issubclass(cls, Exception)) or issubclass(cls, asyncio.CancelledError):
            return None
        error = _made(cls, data)
        return error if str(error) == _text(data, "message") and repr(error) else None
    except Exception:
        return None


def _made(cls: type[Exception], data: dict[str, Any]) -> Exception:
    args = data.get("args")
    if issubclass(cls, BaseExceptionGroup):
        return cls.__new__(cls, args[0] if args else _text(data, "message").rpartition(" (")[0], [rebuilt(one) for one in data["errors"]])
    error: Exception = cls.__new__(cls, *(args or ()))
    if isinstance(args, list) and not (isinstance(error, OSError) and error.args):
        error.args = tuple(args)  # an OSError takes its file names out of them
    error.__dict__.update(_facts(cls, data.get("attributes")))
    return error


def _facts(cls: type, attributes: Any) -> dict[str, Any]:
    """Recorded attributes; the sequences in Perdure's own errors are tuples."""
    facts: dict[str, Any] = attributes if isinstance(attributes, dict) else {}
    if not issubclass(cls, PerdureError):
        return facts
    return {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}


# --- what a command failed with -------------------------------------------------------------------


def failure_of_step(error_raw: bytes, attempts: int, timeout: bool) -> bytes:
    """The data of a `failed` row that answers a step."""
    return b'{"error":%s,"attempts":%d,"timeout":%s}' % (error_raw, attempts, b"true" if timeout else b"false")


def failure_of_run(run_id: str, status: str, error_raw: bytes | None) -> bytes:
    """The data of a `failed` row that answers a child."""
    return b'{"error":%s,"run":%s,"status":%s}' % (error_raw or b"null", ENCODER.encode(run_id), ENCODER.encode(status))


def failure_of_verb(error: PerdureError) -> bytes:
    """The data of a `failed` row that answers a send or a start."""
    return ENCODER.encode({"perdure": type(error).__name__, "message": _message(error), "attributes": _attributes(error)})


def decode_failure(step: str, raw: bytes) -> Exception:
    """What awaiting the failed command raises; `step` is the name to tell when it was a step."""
    try:
        data = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        data = None
    match data:
        case {"perdure": str(name), "message": str(message)}:
            return _verb_error(name, message, data.get("attributes"))
        case {"run": str(run_id), "status": status}:
            failure: Exception = RunCancelled(run_id) if status == "cancelled" else RunFailed(run_id, one_line(data.get("error")))
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
    cls = getattr(errors, name, None)
    if not (isinstance(cls, type) and issubclass(cls, PerdureError)):
        return RecordedError(name, message)
    error = cls.__new__(cls, message)
    error.args = (message,)
    error.__dict__.update(_facts(cls, attributes))
    return error
