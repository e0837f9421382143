"""Single values as typed JSON.

Rules: what is encoded is decoded again and compared before it counts as stored, so a value either
comes back the same or is an error that names it; errors of the libraries below never get out.
"""

from __future__ import annotations

from typing import Any

from perdure.codec import marks
from perdure.codec.explain import explain_difference, explain_failure, tidy
from perdure.codec.pydantic import Unsupported
from perdure.codec.types import Slot, ordered, slot_of
from perdure.errors import DefinitionError, DoesNotFit, NotSerializable, PayloadTooLarge


def encode(
    value: Any, type_: Any = Any, where: str = "the value", *, limit_bytes: int | None = None
) -> bytes:
    """A value as JSON. Raises `NotSerializable` if it would not come back the same as `type_`."""
    return dump(slot_for(type_, where), value, where, "", limit_bytes)


def decode(raw: bytes, type_: Any = Any, where: str = "the value") -> Any:
    """JSON as a value of `type_`. Raises `DoesNotFit`, a `NotSerializable`, if it is something
    else.
    """
    return load(slot_for(type_, where), raw, where)


def slot_for(type_: Any, where: str) -> Slot:
    try:
        return slot_of(type_)
    except Unsupported as error:
        raise DefinitionError(no_form(where, type_, str(error))) from None


def no_form(what: str, type_: Any, reason: str) -> str:
    return (
        f"{what} is annotated as {type_!r}, which can't be stored: {reason.rstrip('.')}. Use "
        f"plain types, a dataclass, a msgspec "
        "Struct (tagged, in unions) or a pydantic model; files, locks and clients are made "
        "inside steps."
    )


def dump(slot: Slot, value: Any, where: str, place: str, limit_bytes: int | None) -> bytes:
    try:
        raw = slot.encode(value)
        if slot.surely_same(value):
            return (
                raw
                if limit_bytes is None or len(raw) <= limit_bytes
                else within(raw, where, limit_bytes)
            )
        found = slot.compare(value, slot.decode(raw))
        if found is not None and slot.times and marks.zones(value):
            raw = slot.encode(ordered(value))
            found = slot.compare(value, slot.decode(raw))
    except (DefinitionError, PayloadTooLarge):
        raise
    except Exception as error:
        raise NotSerializable(where, explain_failure(slot, value, error, place)) from None
    if found is not None:
        raise NotSerializable(where, explain_difference(slot, found, place))
    return within(raw, where, limit_bytes)


def load(slot: Slot, raw: bytes, where: str) -> Any:
    try:
        return slot.decode(raw)
    except DefinitionError:
        raise
    except Exception as error:
        raise DoesNotFit(where, f"{tidy(error)} (wanted: {slot.label})") from None


def within(raw: bytes, where: str, limit_bytes: int | None) -> bytes:
    if limit_bytes is not None and len(raw) > limit_bytes:
        raise PayloadTooLarge(where, len(raw), limit_bytes)
    return raw
