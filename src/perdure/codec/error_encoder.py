"""Errors as recorded JSON, bounded and human-readable.

Rules: no pickle. Recording an error never fails, however broken the error is. The size is bounded:
texts are cut and fields left out one by one, and the record says so, before a class, a cause or a
line of code is lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import msgspec

from perdure.codec import frames
from perdure.codec.errors import class_of, listed, made, same_error, slots_of
from perdure.codec.types import ENCODER, same_plain
from perdure.errors import PerdureError

ERROR_BYTES_MAX = 64 * 1024
"""All of a recorded error, with causes and members; less where a payload may not be as large."""


ERROR_BYTES_MIN = 4096
"""The least that an error may take, however small payloads have to be: it has to be readable."""


WRAPPING_BYTES = 1024  # what the row of a step or a child adds


class Budget(msgspec.Struct, frozen=True):
    """Limits of one recorded error: bytes of a text or a field, members, causes, notes, frames,
    errors.
    """

    text_bytes: int = 8192
    members: int = 50
    causes: int = 10
    notes: int = 10
    frames: int = frames.FRAMES_MAX
    errors: int = 100


BUDGETS = (
    Budget(),
    Budget(2048, 20),
    Budget(512, 8, 5, 3, 10, 30),
    Budget(128, 3, 3, 1, 4, 8),
    Budget(48, 1, 1, 0, 1, 3),
)
"""Tried in this order until the record is small enough."""


def encode_error(error: BaseException, payload_bytes_max: int | None = None) -> bytes:
    """An error as a JSON object: type, module, message, args, attributes, notes, frames, cause, and
    what was left out.
    """
    limit = ERROR_BYTES_MAX
    if payload_bytes_max is not None:
        limit = min(limit, max(payload_bytes_max - WRAPPING_BYTES, ERROR_BYTES_MIN))
    for budget in BUDGETS:
        try:
            raw = ENCODER.encode(_Record(budget).chain(error, frozenset(), 0))
        except Exception:  # its class has taken over what every error has
            break
        if len(raw) <= limit:
            return raw
    name = _cut(_clean(type(error).__name__), 100)
    return ENCODER.encode(
        {"type": name, "module": "", "message": _message(error, 100), "cause": None}
    )


class _Record:
    """The record of one error and its causes, within a budget."""

    def __init__(self, budget: Budget) -> None:
        self.budget, self.left, self.fields_max = budget, budget.errors, budget.text_bytes // 16

    def chain(self, error: BaseException, above: frozenset[int], depth: int) -> dict[str, Any]:
        """An error with its causes. Of a long chain the last one, its origin, is kept."""
        links = list(_links(error, above))
        left_out = max(0, len(links) - 1 - self.budget.causes)
        if left_out:
            links = [*links[: self.budget.causes], links[-1]]
        above = above.union(id(one) for _, one in links)
        data: dict[str, Any] | None = None
        key = "cause"
        for number, (link, one) in reversed([*enumerate(links)]):
            found = self._described_safely(one, above, depth) | {"cause": None}
            if data is not None:
                found[key] = data
            if left_out and number == len(links) - 2:
                found.setdefault("left_out", {})["causes"] = (
                    f"{left_out:,} errors between this one and its cause"
                )
            data, key = found, link
        assert data is not None
        return data

    def _described_safely(
        self, error: BaseException, above: frozenset[int], depth: int
    ) -> dict[str, Any]:
        self.left -= 1
        try:
            return self._described(error, above, depth)
        except Exception:  # its class has taken over what every error has
            return {
                "type": _clean(type(error).__name__),
                "module": "",
                "message": _message(error, self.budget.text_bytes),
            }

    def _described(self, error: BaseException, above: frozenset[int], depth: int) -> dict[str, Any]:
        cls, budget = type(error), self.budget
        left_out: dict[str, str] = {}
        data: dict[str, Any] = {
            "type": _clean(cls.__qualname__),
            "module": _clean(str(cls.__module__)),
        }
        data["message"] = _message(error, budget.text_bytes)
        args = _args(error)
        data["args"] = [
            self._argument(n, value, left_out) for n, value in enumerate(args[: self.fields_max])
        ]
        _short_of(left_out, "args", len(data["args"]), len(args))
        fields = _fields(error)
        if attributes := self._attributes(fields, left_out):
            data["attributes"] = attributes
        if notes := [text for text in listed(fields.get("__notes__")) if isinstance(text, str)]:
            data["notes"] = [
                _cut(_clean(text), budget.text_bytes) for text in notes[: budget.notes]
            ]
            _short_of(left_out, "notes", len(data["notes"]), len(notes))
        if isinstance(error, BaseExceptionGroup):
            self._add_members(data, error, above, depth, left_out)
        shown, frames_left_out = frames.recorded(error.__traceback__, budget.frames)
        if shown:
            data["frames"] = [
                {name: _clean(one) if isinstance(one, str) else one for name, one in frame.items()}
                for frame in shown
            ]
        cut = data["message"] != _text_of(error) or "errors" in left_out
        if left_out or cut:
            data = _keeping_class(data, cut=cut)
        _short_of(left_out, "frames", len(shown), len(shown) + frames_left_out)
        if left_out:
            data["left_out"] = left_out
        return data

    def _argument(self, number: int, value: Any, left_out: dict[str, str]) -> Any:
        """An argument as it is if it is plain and small, else as text."""
        plain = _plain(value, self.budget.text_bytes)
        if plain is not msgspec.UNSET:
            return plain
        text = _cut(
            _clean(value if isinstance(value, str) else _safely_text(value)), self.budget.text_bytes
        )
        if text != value:
            left_out[f"args[{number}]"] = _why(value, "recorded as a text")
        return text

    def _attributes(self, fields: dict[Any, Any], left_out: dict[str, str]) -> dict[str, Any]:
        """Attributes for handlers (`error.status`): plain and small ones as they are, long texts
        cut.
        """
        found: dict[str, Any] = {}
        for key, value in fields.items():
            name = _cut(_clean(str(key)), 100)
            if key == "__notes__" or len(found) + len(left_out) > self.fields_max:
                continue
            plain = _plain(value, self.budget.text_bytes)
            if plain is not msgspec.UNSET:
                found[name] = plain
                continue
            if type(value) is str:
                found[name] = _cut(_clean(value), self.budget.text_bytes)
            left_out[name] = _why(value, "cut" if name in found else "left out")
        return found

    def _add_members(
        self,
        data: dict[str, Any],
        group: BaseExceptionGroup[Any],
        above: frozenset[int],
        depth: int,
        left_out: dict[str, str],
    ) -> None:
        """The members of a group; of its arguments only the text is kept."""
        data["args"] = [_cut(_clean(str(group.message)), self.budget.text_bytes)]
        left_out.pop("args[0]", None)
        left_out.pop("args[1]", None)
        there = group.exceptions[: self.budget.members] if depth < self.budget.causes else ()
        members = [
            self.chain(one, above, depth + 1)
            for one in there
            if self.left > 0 and id(one) not in above
        ]
        data["errors"] = members
        _short_of(left_out, "errors", len(members), len(group.exceptions))


def _links(error: BaseException, above: frozenset[int]) -> Iterable[tuple[str, BaseException]]:
    """An error with its causes and contexts, and the kind of each link; a circle is walked once."""
    seen = set(above)
    link, one = "", error
    while one is not None and id(one) not in seen:
        yield link, one
        seen.add(id(one))
        if one.__cause__ is not None or one.__suppress_context__:
            link, one = "cause", one.__cause__  # type: ignore[assignment]
        else:
            link, one = "context", one.__context__  # type: ignore[assignment]


def _keeping_class(data: dict[str, Any], *, cut: bool) -> dict[str, Any]:
    """The record, changed so that its class can be rebuilt: the rebuilt error reads as recorded.

    If its text was cut, the record has the text that the class makes of what is left; else the text
    may become the only argument.
    """
    candidates = [data]
    if cut:
        try:
            text = str(made(class_of(data), data))
        except Exception:
            text = ""
        if text:
            candidates.append(data | {"message": text})
    candidates.append(data | {"args": [data["message"]]})
    return next((one for one in candidates if same_error(one) is not None), data)


def _fields(error: BaseException) -> dict[Any, Any]:
    """The attributes of an error, from its dict and its slots."""
    fields = dict(vars(error)) if isinstance(getattr(error, "__dict__", None), dict) else {}
    for name, slot in slots_of(type(error)).items():
        with contextlib.suppress(AttributeError):
            fields[name] = slot.__get__(error)
    return fields


def _args(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, OSError) and len(error.args) == 2 and error.filename is not None:
        return (
            *error.args,
            error.filename,
            None,
            error.filename2,
        )  # `args` leaves the file names out
    return error.args


def _plain(value: Any, bytes_max: int) -> Any:
    """The value if it is plain JSON of reasonable size, else UNSET; a tuple counts as a list."""
    if isinstance(value, tuple):
        value = list(value)
    try:
        raw = ENCODER.encode(value)
        back = msgspec.json.decode(raw) if len(raw) <= bytes_max else msgspec.UNSET
        return back if same_plain(value, back) is None else msgspec.UNSET
    except Exception:
        return msgspec.UNSET


def _why(value: Any, what: str) -> str:
    """What happened to a value that is not recorded as it is: `left out: 123,456 bytes`, `left
    out: a Socket`.
    """
    try:
        return f"{what}: {len(ENCODER.encode(value)):,} bytes"
    except Exception:
        return f"{what}: a {_clean(type(value).__qualname__)[:100]}"


def _short_of(left_out: dict[str, str], name: str, kept: int, there: int) -> None:
    if kept < there:
        left_out[name] = f"{kept:,} of {there:,} are recorded"


def _message(error: BaseException, bytes_max: int) -> str:
    text = _text_of(error)
    return "(the error has no readable message)" if text is None else _cut(_clean(text), bytes_max)


def _text_of(value: Any) -> str | None:
    try:
        return str(value)
    except Exception:
        return None


def _safely_text(value: Any) -> str:
    text = _text_of(value)
    return f"(a {type(value).__qualname__} without a readable text)" if text is None else text


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _cut(text: str, bytes_max: int) -> str:
    """A text of at most so many bytes as JSON; a cut one says how long it was."""
    if len(text) <= bytes_max // 6 or len(ENCODER.encode(text)) <= bytes_max:
        return text
    kept = text[:bytes_max]
    while (size := len(ENCODER.encode(kept)) - 2) > bytes_max:
        kept = kept[: len(kept) * bytes_max // size]
    return f"{kept}... ({len(text):,} characters)"


def failure_of_step(error_raw: bytes, attempts: int, timeout: bool) -> bytes:
    """The data of a `failed` row that answers a step."""
    return b'{"error":%s,"attempts":%d,"timeout":%s}' % (
        error_raw,
        attempts,
        b"true" if timeout else b"false",
    )


def failure_of_run(run_id: str, status: str, error_raw: bytes | None) -> bytes:
    """The data of a `failed` row that answers a child."""
    return b'{"error":%s,"run":%s,"status":%s}' % (
        error_raw or b"null",
        ENCODER.encode(run_id),
        ENCODER.encode(status),
    )


def failure_of_verb(error: PerdureError) -> bytes:
    """The data of a `failed` row that answers a send or a start."""
    budget = Budget()
    attributes = _Record(budget)._attributes(vars(error), {})
    return ENCODER.encode(
        {
            "perdure": type(error).__name__,
            "message": _message(error, budget.text_bytes),
            "attributes": attributes,
        }
    )
