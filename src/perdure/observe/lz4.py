"""LZ4 as Litestream writes it: blocks, and the frames of its earlier versions, decoded.

Rules: a length is checked before it is believed; damaged data is a `ValueError`, not a wrong page.
"""

from __future__ import annotations

_FRAME = bytes.fromhex("04224d18")
_UNCOMPRESSED = 1 << 31
_MATCH_MIN = 4
_MORE = 15
"""A length of this value in a token goes on in the bytes behind it."""


def block(data: bytes, size: int) -> bytes:
    """The `size` bytes that a block holds. Raises `ValueError` for another number of bytes, or for
    what is no block.
    """
    out = bytearray()
    try:
        _decode(data, out, size)
    except IndexError:
        raise ValueError("an LZ4 block is cut off") from None
    if len(out) != size:
        raise ValueError(f"an LZ4 block has {len(out):,} bytes, and {size:,} were expected")
    return bytes(out)


def _decode(data: bytes, out: bytearray, size: int) -> None:
    """Sequences of literal bytes and of a match, which repeats what is `distance` bytes back."""
    at, end = 0, len(data)
    while at < end:
        token = data[at]
        length, at = _length(data, at + 1, token >> 4)
        if at + length > end:
            raise ValueError("an LZ4 block is cut off")
        out += data[at : at + length]
        at += length
        if at == end:
            return  # the last sequence has no match
        distance = data[at] | data[at + 1] << 8
        length, at = _length(data, at + 2, token & 15)
        _repeat(out, distance, length + _MATCH_MIN, size)


def _length(data: bytes, at: int, length: int) -> tuple[int, int]:
    """A length, and where its bytes end."""
    if length == _MORE:
        while (more := data[at]) == 255:
            length, at = length + 255, at + 1
        length, at = length + more, at + 1
    return length, at


def _repeat(out: bytearray, distance: int, length: int, size: int) -> None:
    start = len(out) - distance
    if not distance or start < 0 or len(out) + length > size:
        raise ValueError("an LZ4 block repeats what it does not have")
    if distance >= length:
        out += out[start : start + length]
    else:  # the match overlaps what it writes: a pattern
        pattern = out[start:]
        out += (pattern * (length // distance + 1))[:length]


def frame(data: bytes, size: int) -> bytes:
    """The `size` bytes of a frame, whose blocks are independent of each other or of 64 KiB at most.

    Raises `ValueError`.
    """
    if len(data) < 7 or data[:4] != _FRAME:
        raise ValueError("it is not an LZ4 frame")
    flags = data[4]
    at = 7 + (8 if flags & 0x08 else 0) + (4 if flags & 0x01 else 0)
    out = bytearray()
    while word := int.from_bytes(data[at : at + 4], "little"):
        length, at = word & (_UNCOMPRESSED - 1), at + 4
        part = data[at : at + length]
        if len(part) != length:
            raise ValueError("an LZ4 frame is cut off")
        if word & _UNCOMPRESSED:
            out += part
        else:
            _decode(part, out, size)
        at += length + (4 if flags & 0x10 else 0)
    if len(out) != size:
        raise ValueError(f"an LZ4 frame has {len(out):,} bytes, and {size:,} were expected")
    return bytes(out)
