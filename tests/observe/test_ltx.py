"""Litestream's format: what its files say is read in parts, and a damaged one is never believed."""

from __future__ import annotations

import random

import pytest

from perdure.observe import ltx, lz4
from tests.observe.support import replicate


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("ltx")
    replicate(folder / "a.db", f"file://{folder}/replica")
    return [path.read_bytes() for path in sorted(folder.glob("replica/000001/ltx/*/*.ltx"))]


def index_of(data: bytes) -> dict[int, ltx.Place]:
    end = len(data) - ltx.TAIL_BYTES
    return ltx.page_index(data[end - ltx.index_bytes(data) : end], len(data))


def test_the_checksum_of_every_file_is_that_of_what_is_read_from_it(files: list[bytes]) -> None:
    assert len(files) >= 2
    for data in files:
        ltx.verify(data)
        about = ltx.header(data)
        assert about.page_bytes == 4096 and max(index_of(data)) <= about.pages


def test_a_changed_byte_is_found_by_the_checksum_or_before(files: list[bytes]) -> None:
    data, chance = min(files, key=len), random.Random(1)
    for _ in range(60):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        with pytest.raises(ltx.BadFile):
            ltx.verify(bytes(changed))


def test_a_file_that_is_cut_off_anywhere_is_refused(files: list[bytes]) -> None:
    data = min(files, key=len)
    for length in [0, 3, 99, 100, 120, len(data) // 2, len(data) - 24, len(data) - 1]:
        with pytest.raises(ltx.BadFile):
            ltx.verify(data[:length])


def test_numbers_of_an_index_have_a_length() -> None:
    with pytest.raises(ltx.BadFile, match="too long"):
        ltx.page_index(b"\xff" * 1_000_000, 10**9)


def test_rubbish_in_a_block_is_an_error_and_ends() -> None:
    chance = random.Random(2)
    for _ in range(300):
        data = chance.randbytes(chance.randrange(60))
        try:
            assert len(lz4.block(data, 64)) == 64
        except ValueError:
            continue


def test_blocks_and_frames_of_the_format_s_own_description() -> None:
    assert lz4.block(bytes([0x11]) + b"a" + bytes([1, 0]) + bytes([0x50]) + b"hello", 11) == (
        b"aaaaaahello"
    )
    long = bytes([0xF0, 255, 3]) + b"x" * (15 + 255 + 3)
    assert lz4.block(long, 273) == b"x" * 273
    head = bytes.fromhex("04224d18") + bytes([0x60, 0x40, 0x82])
    stored = (1 << 31 | 3).to_bytes(4, "little") + b"abc" + bytes(4)
    assert lz4.frame(head + stored, 3) == b"abc"
    for bad in (b"", head, head + (1 << 31 | 9).to_bytes(4, "little") + b"abc"):
        with pytest.raises(ValueError, match="LZ4"):
            lz4.frame(bad, 3)
    with pytest.raises(ValueError, match="does not have"):
        lz4.block(bytes([0x11]) + b"a" + bytes([9, 0]), 8)
