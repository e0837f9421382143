"""Litestream's transaction files (LTX), read in parts: header, page index, pages, checksum.

Rules: an index and a page are found without the rest of the file; what a file says of itself is
checked against its name and its size; a version that is not known is refused.

A file is a header of 100 bytes, one frame for each page (number, flags, LZ4), an empty frame, the
page index (three varints a page: number, offset, size), the index's size, and a trailer of two
checksums. The format is that of github.com/superfly/ltx 0.5.
"""

from __future__ import annotations

import struct
from functools import cache

import msgspec

from perdure.observe import lz4

HEADER_BYTES, TRAILER_BYTES = 100, 16
TAIL_BYTES = 8 + TRAILER_BYTES
"""The size of the page index, and the trailer."""
FLAG_SIZED = 1
"""Of a page: its size and an LZ4 block follow; without it a whole LZ4 frame does."""

_HEADER = struct.Struct(">4sIIIQQq")
_FRAME = struct.Struct(">IH")
_CHECKSUM_FLAG = 1 << 63
_NO_CHECKSUM = 2
_VARINT_BITS = 63
_POLYNOMIAL = 0xD800000000000000
"""CRC-64 of ISO 3309, reflected."""


class BadFile(ValueError):
    """A file is not LTX, or is damaged."""


class Header(msgspec.Struct, frozen=True):
    """What a file holds: transactions `first` to `last`, after which the database has `pages`."""

    page_bytes: int
    pages: int
    first: int
    last: int
    at_ms: int


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where in a file a page's frame is."""

    offset: int
    size: int


def header(data: bytes) -> Header:
    """The header in the first bytes of a file. Raises `BadFile`."""
    if len(data) < HEADER_BYTES:
        raise BadFile("it is shorter than a header")
    magic, flags, page_bytes, pages, first, last, at_ms = _HEADER.unpack_from(data)
    if magic != b"LTX1":
        raise BadFile("it is not an LTX file")
    if flags & ~_NO_CHECKSUM:
        raise BadFile(f"its flags {flags:#x} are of a newer format")
    if page_bytes < 512 or page_bytes > 65536 or page_bytes & (page_bytes - 1):
        raise BadFile(f"its pages have {page_bytes:,} bytes")
    if not 0 < first <= last:
        raise BadFile(f"it holds transactions {first} to {last}")
    return Header(page_bytes, pages, first, last, at_ms)


def index_bytes(tail: bytes) -> int:
    """How long the page index is, by the end of a file. Raises `BadFile`."""
    if len(tail) < TAIL_BYTES:
        raise BadFile("it is shorter than a trailer")
    return int.from_bytes(tail[-TAIL_BYTES:-TRAILER_BYTES])


def page_index(data: bytes, file_bytes: int) -> dict[int, Place]:
    """The places of the pages by their numbers, from the bytes of an index. Raises `BadFile` for
    one that is damaged, or names places outside of its file.
    """
    places: dict[int, Place] = {}
    at = 0
    try:
        while True:
            number, at = _varint(data, at)
            if not number:
                break
            offset, at = _varint(data, at)
            size, at = _varint(data, at)
            if offset < HEADER_BYTES or size <= _FRAME.size or offset + size > file_bytes:
                raise BadFile(f"its index puts page {number} outside of it")
            places[number] = Place(offset, size)
    except IndexError:
        raise BadFile("its page index is cut off") from None
    if at != len(data):
        raise BadFile("its page index is longer than it says")
    return places


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = data[at]
    at += 1
    if value < 0x80:
        return value, at
    value, shift = value & 0x7F, 7
    while (byte := data[at]) >= 0x80:
        if shift > _VARINT_BITS:  # a longer one takes time that grows with its square
            raise BadFile("its page index has a number that is too long")
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | byte << shift, at + 1


def page(frame: bytes, number: int, page_bytes: int) -> bytes:
    """The page in a frame. Raises `BadFile` for another page, and for one that is damaged."""
    if len(frame) < _FRAME.size:
        raise BadFile(f"the frame of page {number} is cut off")
    found, flags = _FRAME.unpack_from(frame)
    if found != number:
        raise BadFile(f"page {found} is where page {number} should be")
    if flags & ~FLAG_SIZED:
        raise BadFile(f"the flags {flags:#x} of page {number} are of a newer format")
    try:
        if not flags & FLAG_SIZED:
            return lz4.frame(frame[_FRAME.size :], page_bytes)
        start = _FRAME.size + 4
        size = int.from_bytes(frame[_FRAME.size : start])
        if start + size > len(frame):
            raise BadFile(f"the frame of page {number} is cut off")
        return lz4.block(frame[start : start + size], page_bytes)
    except BadFile:
        raise
    except ValueError as error:
        raise BadFile(f"page {number} is damaged: {error}") from error


def verify(data: bytes) -> None:
    """Compare a whole file with its checksum, which covers its pages as they are when decoded.

    Raises `BadFile`. Takes about 0.1 s for each megabyte.
    """
    about = header(data)
    length = index_bytes(data)
    end = len(data) - TAIL_BYTES - length
    if end < HEADER_BYTES:
        raise BadFile("its page index is longer than the file")
    places = page_index(data[end : end + length], len(data))
    crc = _crc(data[:HEADER_BYTES], 0)
    for number, place in sorted(places.items(), key=lambda one: one[1].offset):
        frame = data[place.offset : place.offset + place.size]
        sized = int.from_bytes(frame[4:6]) & FLAG_SIZED
        crc = _crc(frame[: _FRAME.size + (4 if sized else 0)], crc)
        crc = _crc(page(frame, number, about.page_bytes), crc)
    crc = _crc(data[end - _FRAME.size : len(data) - 8], crc)
    if crc | _CHECKSUM_FLAG != int.from_bytes(data[-8:]):
        raise BadFile("its content does not match its checksum")


def _crc(data: bytes, crc: int) -> int:
    table, crc = _table(), ~crc & 0xFFFFFFFFFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return ~crc & 0xFFFFFFFFFFFFFFFF


@cache
def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return table
