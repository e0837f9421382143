"""Large payloads in chunks that a run shares, so that a store grows with what is new.

A payload column holds plain JSON, or, when that is large, `@`, the 32 hex digits of its digest and
a recipe: a JSON array of strings (literal text) and pairs `[a, b]` (chunks number a to b of the
run, joined by commas). The items in a row are the payload, byte for byte.

A payload with secrets is stored so whatever its size, with the mask in their place. Its recipe ends
with a pair `[n, n - 1]` for each chunk n that has a secret, which joins nothing, and with `""`; the
true text of these chunks is kept apart, and is found under `-n` where it was asked for.

Rules: pure functions; where a payload is cut depends only on its own text, and stays the
same when a list grows at its end, so the pieces of one call are found again in the next; a payload
that can't be put together from its pieces exactly is one piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from os import urandom
from typing import Any

import msgspec
from msgspec import Raw

from perdure.codec.secrets import Span, without
from perdure.core.limits import CHUNK_BYTES_MIN, INLINE_BYTES_MAX, WHOLE_BYTES_MAX

ELEMENT_BYTES_MIN = 64
"""List elements from this size on are pieces of their own.

Pieces are numbered in the order in which they appear, so that a long list of them is one range.
"""

PARTIAL_BYTES_MIN = 16
"""Less than this between two larger elements is cheaper as literal text."""

DEPTH_MAX = 24
"""What is nested deeper is not taken apart."""

NewChunk = tuple[int, bytes, str]
"""Number, digest and text of a piece that the run did not have."""

NewSecret = tuple[int, str]
"""Number and true text of a piece with a secret."""

Part = tuple[bool, bytes, bytes | None]
"""Whether it is a piece, what people read, and the true text where that is another."""

SECRET_ENDS = ',""]'
"""How a recipe with secrets ends; in another one a quotation mark has a backslash there."""

_list = msgspec.json.Decoder(list[Raw]).decode
_dict = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.encode
_decode = msgspec.json.decode


# --- writing --------------------------------------------------------------------------------------


def split(raw: bytes, known: dict[bytes, int], is_args: bool) -> tuple[str, list[NewChunk]]:
    """The column's text for a payload and the pieces to add; `known` maps digests to numbers, and
    gets them too.
    """
    if len(raw) <= INLINE_BYTES_MAX:
        return raw.decode(), []
    recipe = _recipe(raw, is_args)
    items, new = recipe.numbered(known)
    return f"@{digest_of(raw).hex()}{_encode(items).decode()}", new


def split_with_secrets(
    raw: bytes, hidden: list[Span], known: dict[bytes, int], kept: dict[bytes, int], is_args: bool
) -> tuple[str, list[NewChunk], list[NewSecret]]:
    """The same for a payload with secrets at `hidden`, with their true texts; `kept` maps digests
    of true texts to numbers, and gets them too. They are in no column: a secret may be guessed from
    its digest.
    """
    recipe = _Recipe() if len(raw) <= INLINE_BYTES_MAX else _recipe(raw, is_args)
    recipe.hide(raw, hidden)
    secrets: list[NewSecret] = []
    items, new = recipe.numbered(known, kept, secrets)
    return f"@{digest_of(recipe.shown()).hex()}{_encode(items).decode()}", new, secrets


def _recipe(raw: bytes, is_args: bool) -> _Recipe:
    recipe = _Recipe()
    if not recipe.takes_apart(raw, is_args):
        recipe = _Recipe()
        recipe.piece(raw)
    return recipe


class _Recipe:
    """The parts of one payload in order: literal text and pieces."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    def literal(self, text: bytes) -> None:
        self._parts.append((False, text, None))

    def piece(self, text: bytes) -> None:
        self._parts.append((True, text, None))

    def hide(self, raw: bytes, hidden: list[Span]) -> None:
        """Make a piece of each part with a secret, together with those that it reaches into."""
        if not self._parts:
            self.piece(raw)
        parts, at, spans = self._parts, 0, iter([*hidden, (len(raw) + 1, 0)])
        self._parts = []
        begin, end = next(spans)
        first, until, within = -1, 0, list[Span]()
        for one in parts:
            start, at = at, at + len(one[1])
            while begin < at:
                first, until = start if first < 0 else first, max(until, end)
                within.append((begin, end))
                begin, end = next(spans)
            if first < 0:
                self._parts.append(one)
            elif until <= at:
                text = raw[first:at]
                moved = [(a - first, b - first) for a, b in within]
                self._parts.append((True, without(text, moved), text))
                first, within = -1, []

    def shown(self) -> bytes:
        """What people read of the payload."""
        return b"".join([text for _, text, _ in self._parts])

    def takes_apart(self, raw: bytes, is_args: bool) -> bool:
        """Whether the parts found in the payload are exactly the payload, and at least one is a
        piece.
        """
        try:
            if raw[0] == b"{"[0] and (is_args or len(raw) > WHOLE_BYTES_MAX or _wraps_object(raw)):
                self._entries(raw, 0)
            elif raw[0] == b"["[0]:
                self._elements(raw, 0)
            else:
                self.piece(raw)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return False
        return any(one[0] for one in self._parts) and self._is_exactly(raw)

    def _is_exactly(self, raw: bytes) -> bool:
        """Whether the parts in a row are the payload: spaces, double keys and odd escapes get lost
        in parts.
        """
        at = 0
        for _, text, _ in self._parts:
            if not raw.startswith(text, at):
                return False
            at += len(text)
        return at == len(raw)

    def _entries(self, raw: bytes, depth: int) -> None:
        """An object: small entries in groups, the others as a literal key and what their value is
        made of.
        """
        self.literal(b"{")
        group = _Group(self, CHUNK_BYTES_MIN)
        at = 1
        for key, value in _dict(raw).items():
            mark = b" " if raw.startswith(b" ", at) else b""  # see codec_marks
            name, text = mark + _encode(key) + b":", bytes(value)
            at += len(name) + len(text) + 1
            if len(text) < CHUNK_BYTES_MIN:
                group.add(name + text)
            else:
                group.close()
                group.separate()
                self.literal(name)
                self._value(text, depth + 1)
        group.end()
        self.literal(b"}")

    def _elements(self, raw: bytes, depth: int) -> None:
        """An array: elements as pieces, small ones in groups."""
        self.literal(b"[")
        group = _Group(self, CHUNK_BYTES_MIN)
        for text in map(bytes, _list(raw)):
            if len(text) < ELEMENT_BYTES_MIN:
                group.add(text)
                continue
            group.close()
            group.separate()
            if len(text) > WHOLE_BYTES_MAX and text[0] == b"["[0] and depth < DEPTH_MAX:
                self._elements(text, depth + 1)
            else:
                self.piece(text)
        group.end()
        self.literal(b"]")

    def _value(self, text: bytes, depth: int) -> None:
        """A value of at least CHUNK_BYTES_MIN inside an object."""
        if text[0] == b"["[0] and depth < DEPTH_MAX:
            self._elements(text, depth)
        elif text[0] == b"{"[0] and len(text) > WHOLE_BYTES_MAX and depth < DEPTH_MAX:
            self._entries(text, depth)
        else:
            self.piece(text)

    def numbered(
        self,
        known: dict[bytes, int],
        kept: dict[bytes, int] | None = None,
        secrets: list[NewSecret] | None = None,
    ) -> tuple[list[Any], list[NewChunk]]:
        """The recipe's items: neighbours in literal text are joined, and so are ranges
        that go on.
        """
        items: list[Any] = []
        new: list[NewChunk] = []
        ends: list[Any] = []
        text = b""
        for is_piece, part, true in self._parts:
            if not is_piece:
                text += part
                continue
            if true is None or kept is None or secrets is None:
                n = _number(part, known, new)
            else:
                n = _number_of_secret(part, true, known, kept, new, secrets)
                ends.append([n, n - 1])
            if text == b"," and items and items[-1][1] == n - 1:
                items[-1][1] = n
            else:
                items += [text.decode(), [n, n]] if text else [[n, n]]
            text = b""
        if text:
            items.append(text.decode())
        return ([*items, *ends, ""] if ends else items), new


class _Group:
    """Gathers neighbours that are too small to be pieces, until together they are large enough."""

    def __init__(self, recipe: _Recipe, size: int) -> None:
        self._recipe, self._size = recipe, size
        self._texts: list[bytes] = []
        self._bytes = 0
        self._first = True

    def add(self, text: bytes) -> None:
        self._texts.append(text)
        self._bytes += len(text) + 1
        if self._bytes > self._size:
            self.close()

    def separate(self) -> None:
        """The comma in front of everything but the first."""
        if not self._first:
            self._recipe.literal(b",")
        self._first = False

    def close(self) -> None:
        """What was gathered becomes a piece: something larger follows, or it is large enough."""
        if self._texts:
            self.separate()
            emit = self._recipe.piece if self._bytes > PARTIAL_BYTES_MIN else self._recipe.literal
            emit(b",".join(self._texts))
            self._texts, self._bytes = [], 0

    def end(self) -> None:
        """A remainder at the end stays literal: the next call may add to it."""
        if self._texts:
            self.separate()
            self._recipe.literal(b",".join(self._texts))


def _number(text: bytes, known: dict[bytes, int], new: list[NewChunk]) -> int:
    digest = digest_of(text)
    n = known.get(digest)
    if n is None:
        n = known[digest] = len(known) + 1
        new.append((n, digest, text.decode()))
    return n


def _number_of_secret(
    shown: bytes,
    true: bytes,
    known: dict[bytes, int],
    kept: dict[bytes, int],
    new: list[NewChunk],
    secrets: list[NewSecret],
) -> int:
    digest = digest_of(true)
    n = kept.get(digest)
    if n is None:
        n = kept[digest] = len(known) + 1
        number = urandom(16)  # in the place of a digest
        known[number] = n
        new.append((n, number, shown.decode()))
        secrets.append((n, true.decode()))
    return n


def _wraps_object(raw: bytes) -> bool:
    """Whether most of an object is one inner object, as a reply is around its message: that one
    comes again.
    """
    return any(
        2 * len(value) > len(raw) and bytes(value)[:1] == b"{" for value in _dict(raw).values()
    )


# --- reading --------------------------------------------------------------------------------------


def digest_of(raw: bytes) -> bytes:
    """The digest of a payload or a piece: 16 bytes of SHA-256, which processors have built in."""
    return sha256(raw, usedforsecurity=False).digest()[:16]


def is_chunked(text: str) -> bool:
    """Whether a column holds a recipe instead of plain JSON."""
    return text.startswith("@")


def recorded_digest(text: str) -> bytes:
    """The digest of a payload that is stored in pieces, without reading them."""
    return bytes.fromhex(text[1:33])


def needs(text: str) -> list[tuple[int, int]]:
    """The ranges of chunk numbers that `join` will ask for, in order and without overlaps."""
    items = _decode(text[33:])
    return merged((one[0], one[1]) for one in items if type(one) is list and one[0] <= one[1])


def has_secrets(text: str) -> bool:
    """Whether a column holds a payload with secrets."""
    return text[:1] == "@" and text.endswith(SECRET_ENDS)


def secret_numbers(text: str) -> set[int]:
    """The numbers of the chunks that have secrets."""
    items = _decode(text[33:])
    return {one[0] for one in items if type(one) is list and one[0] > one[1]}


def merged(found: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, without overlaps and gaps of nothing."""
    ranges: list[tuple[int, int]] = []
    for first, last in sorted(found):
        if ranges and first <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
        else:
            ranges.append((first, last))
    return ranges


def join(text: str, bodies: Mapping[int, str]) -> bytes:
    """The payload, put together again, with the mask in the place of secrets.

    Raises `LookupError` where a piece is missing, `ValueError` where one is not what it was.
    """
    parts = (
        item
        if isinstance(item, str)
        else ",".join([bodies[n] for n in range(item[0], item[1] + 1)])
        for item in _decode(text[33:])
    )
    raw = "".join(parts).encode()
    if digest_of(raw) != recorded_digest(text):
        raise ValueError("it is not what was recorded")
    return raw


def join_true(text: str, bodies: Mapping[int, str]) -> bytes | None:
    """The payload with its secrets, which are in `bodies` under the negative numbers of their
    chunks. None where one is missing: they were left out of a copy. Raises as `join` does.
    """
    raw = join(text, bodies)
    if not has_secrets(text):
        return raw
    secret = secret_numbers(text)
    if any(-n not in bodies for n in secret):
        return None
    true = {n: bodies[-n] if n in secret else body for n, body in bodies.items()}
    parts = (
        item if isinstance(item, str) else ",".join([true[n] for n in range(item[0], item[1] + 1)])
        for item in _decode(text[33:])
    )
    return "".join(parts).encode()
