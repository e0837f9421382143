"""Secrets in JSON text: how they are found and hidden.

Rules: inside the process a secret is a JSON string that begins with `MARK`, or the value of a
member whose name a redaction hides; what people read has `MASK` in its place; text without either
costs one search of its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fnmatch import translate
from typing import Any

import msgspec

from perdure.api.secret import MARK, MASK
from perdure.core.numbers import shown
from perdure.errors import DefinitionError, NotSerializable

MARK_BYTES = MARK.encode()
MASK_JSON = f'"{MASK}"'.encode()
MASKS = (MASK_JSON, b'"\\u2022\\u2022\\u2022"')
"""As we write it, and as programs that write ASCII do."""

Span = tuple[int, int]
"""Where the text of a secret begins and ends."""
Says = Callable[[str], bool]
"""Whether the value of a member with this name is hidden."""

STRUCTURE = frozenset(
    {
        "args", "attempt", "attempts", "attributes", "cause", "channel", "context", "error",
        "errors", "frames", "left_out", "message", "module", "notes", "run", "start", "status",
        "type", "value", "workflow",
    }
)  # fmt: skip
"""Names of members of what Perdure itself records, which its readers rely on."""

NAMES_MAX = 10_000
ALTERNATIVES_MAX = 100
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"')
_SIMPLE = re.compile(r"[A-Za-z0-9_.*?-]+")
_NAME_ENDS = re.compile(rb"\s*:\s*")
_PLAIN = re.compile(rb"[^\s,\]}]+")
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]')
_text = msgspec.json.Decoder(str).decode


class Redaction:
    """What is hidden by the names of members: by `names`, which a store keeps for all that write
    to it, or by a function, which is this engine's own.
    """

    def __init__(self, names: Iterable[str] = (), function: Says | None = None) -> None:
        self.names, self._function = tuple(dict.fromkeys(names)), function
        self.hides = self._compiled()
        """Says it of a name; None where nothing is hidden."""

    def _compiled(self) -> Hides | None:
        if not self.names:
            return None if self._function is None else Hides(self._function)
        found, function = _pattern(self.names), self._function
        if function is None:
            return Hides(lambda name: found.match(name) is not None, _anywhere(self.names))
        return Hides(lambda name: found.match(name) is not None or function(name))

    def joined(self, names: Iterable[str]) -> Redaction:
        """With more names."""
        more = tuple(names)
        return Redaction((*self.names, *more), self._function) if more else self


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, names)), re.IGNORECASE)


def redaction(given: Iterable[str] | Says | None) -> Redaction:
    """What an engine's option `redact` hides. Raises `DefinitionError`.

    >>> hides = redaction(["password", "*_token"]).hides
    >>> hides("Password"), hides("api_token"), hides("tokens")
    (True, True, False)
    """
    if given is None:
        return Redaction()
    if callable(given):
        return Redaction(function=given)
    names = tuple(given) if isinstance(given, Iterable) else (None,)
    if isinstance(given, str) or not all(isinstance(one, str) and one for one in names):
        example = 'redact=["password", "*_token"]'
        raise DefinitionError(
            f"redact is a list of names of members, such as {example}, or a function of a name, "
            f"not {shown(given)}."
        )
    if ours := sorted(name for name in STRUCTURE if names and _pattern(names).match(name)):
        raise DefinitionError(
            f"redact hides {', '.join(ours)}, which Perdure itself records: name members of your "
            "own values, or make the value a perdure.Secret."
        )
    return Redaction(names)


class Hides:
    """Says of the name of a member whether its value is hidden; remembers what it has said.

    `anywhere` finds such a member in a JSON text, or nothing that could be one; None: not known.
    """

    def __init__(self, says: Says, anywhere: re.Pattern[bytes] | None = None) -> None:
        self._says, self._anywhere = says, anywhere
        self._known: dict[str, bool] = dict.fromkeys(STRUCTURE, False)

    def __call__(self, name: str) -> bool:
        found = self._known.get(name)
        if found is None:
            if len(self._known) > NAMES_MAX:
                self._known = dict.fromkeys(STRUCTURE, False)
            found = self._known[name] = bool(self._says(name))
        return found

    def may_be_in(self, raw: bytes) -> bool:
        """Whether a text may have a member that is hidden: one search, for most texts the last."""
        return self._anywhere is None or self._anywhere.search(raw) is not None


def _anywhere(names: Iterable[str]) -> re.Pattern[bytes] | None:
    """Finds members with these names; None where a name may be written in several ways."""
    if not all(_SIMPLE.fullmatch(name) for name in names):
        return None
    each = [name.replace(".", r"\.").replace("*", '[^"]*').replace("?", '[^"]') for name in names]
    return re.compile(f'"(?:{"|".join(each)})"\\s*:'.encode(), re.IGNORECASE)


def spans(raw: bytes, hides: Hides | None = None) -> list[Span]:
    """Where the secrets of a JSON text are, in order and without overlaps."""
    if MARK_BYTES not in raw and (hides is None or not hides.may_be_in(raw)):
        return []
    found: list[Span] = []
    at = 0
    while (string := _STRING.search(raw, at)) is not None:
        begin, at = string.span()
        if raw.startswith(MARK_BYTES, begin + 1):
            found.append((begin, at))
        elif hides is not None and (value := _NAME_ENDS.match(raw, at)) is not None:
            at = value.end()
            if hides(_text(string[0])):
                found.append((at, at := _end_of_value(raw, at)))
    return found


def marked(value: Any, schema: Any, defs: Any = None) -> Any:
    """A plain JSON value with marks at the texts that its JSON Schema calls passwords."""
    if not isinstance(schema, dict):
        return value
    defs = schema.get("$defs", defs) or {}
    if isinstance(value, str):
        return MARK + value if _is_password(schema, defs) and not value.startswith(MARK) else value
    if not isinstance(value, dict | list):
        return value
    for one in _alternatives(schema, defs):
        if isinstance(value, dict):
            inner, rest = one.get("properties", {}), one.get("additionalProperties")
            value = {
                name: marked(item, inner.get(name, rest), defs) for name, item in value.items()
            }
        else:
            first, rest = one.get("prefixItems", []), one.get("items")
            each = [*first, *[rest] * len(value)]
            value = [marked(item, each[n], defs) for n, item in enumerate(value)]
    return value


def _is_password(schema: dict[str, Any], defs: dict[str, Any]) -> bool:
    return any(one.get("format") == "password" for one in _alternatives(schema, defs))


def _alternatives(schema: dict[str, Any], defs: dict[str, Any]) -> list[dict[str, Any]]:
    """The schemas that one stands for, itself or those of a union, without references."""
    ahead, found = [schema], list[dict[str, Any]]()
    while ahead and len(found) < ALTERNATIVES_MAX:
        one = ahead.pop()
        if not isinstance(one, dict):
            continue
        ahead += [*one.get("anyOf", []), *one.get("oneOf", []), *one.get("allOf", [])]
        if "$ref" in one:
            ahead.append(defs.get(str(one["$ref"]).rpartition("/")[2], {}))
        found.append(one)
    return found


def restored(edited: Any, shown: Any, true: Any) -> Any:
    """An edited JSON value with the secrets again that it has masked: those at the same places of
    what was shown.
    """
    if edited == MASK and shown == MASK:
        return true
    if isinstance(edited, dict) and isinstance(shown, dict) and isinstance(true, dict):
        return {
            name: restored(one, shown.get(name), true.get(name)) for name, one in edited.items()
        }
    if isinstance(edited, list) and isinstance(shown, list) and isinstance(true, list):
        there = [*zip(shown, true, strict=False), *[(None, None)] * len(edited)]
        return [restored(one, *there[n]) for n, one in enumerate(edited)]
    return edited


def refuse_masks(raw: bytes, where: str) -> None:
    """Raise `NotSerializable` where people have given the mask as a value."""
    if places_of_masks(raw.replace(MARK_BYTES, b"")):
        raise NotSerializable(where, f"it has {MASK} in the place of a secret: give its text")


def places_of_masks(raw: bytes) -> list[Span]:
    """Where a JSON text has the mask instead of a secret that was left out."""
    if all(mask not in raw for mask in MASKS):
        return []
    return [found.span() for found in _STRING.finditer(raw) if found[0] in MASKS]


def _end_of_value(raw: bytes, at: int) -> int:
    """Where the value ends that begins at a place."""
    if raw[at : at + 1] not in (b"{", b"["):
        found = _STRING.match(raw, at) or _PLAIN.match(raw, at)
        return len(raw) if found is None else found.end()
    depth = 0
    for token in _BRACKETS.finditer(raw, at):
        if token[0] in (b"{", b"["):
            depth += 1
        elif token[0] in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return token.end()
    return len(raw)


def masked(raw: bytes, hides: Hides | None = None) -> bytes:
    """The text that people read.

    >>> masked(b'{"key":"' + MARK_BYTES + b'abc","n":1}').decode()
    '{"key":"•••","n":1}'
    """
    return without(raw, spans(raw, hides))


def without(raw: bytes, hidden: Iterable[Span]) -> bytes:
    """A text with the mask in the place of these spans."""
    parts: list[bytes] = []
    at = 0
    for begin, end in hidden:
        parts += (raw[at:begin], MASK_JSON)
        at = end
    return b"".join((*parts, raw[at:])) if parts else raw
