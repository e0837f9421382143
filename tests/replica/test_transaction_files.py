"""What the files of an epoch say of themselves: that one follows the other, and how far
they reach."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from perdure.replica import transaction_files


def ltx(folder: Path, txid: int, offset: int, size: int, salts: tuple[int, int]) -> None:
    (folder / "ltx" / "0").mkdir(parents=True, exist_ok=True)
    head = struct.pack(">48xQQII", offset, size, *salts)
    (folder / "ltx" / "0" / f"{txid:016x}-{txid:016x}.ltx").write_bytes(head + b"pages")


def test_a_file_follows_where_the_last_one_ended_or_where_a_wal_begins(tmp_path: Path) -> None:
    found = transaction_files.Chain(tmp_path)
    ltx(tmp_path, 1, 32, 4_120, (7, 1))
    ltx(tmp_path, 2, 4_152, 8_240, (7, 1))
    ltx(tmp_path, 3, 32, 4_120, (8, 99))  # Litestream's own checkpoint
    ltx(tmp_path, 4, 32, 8_240, (8, 99))  # read again from its beginning
    assert found.broken_before(4) == ""
    ltx(tmp_path, 5, 12_392, 4_120, (8, 99))
    assert "can't be read" not in str(found.broken_before(5))
    assert found.broken_before(5)  # one frame is missing


def test_a_wal_that_has_begun_twice_between_two_files_is_a_hole(tmp_path: Path) -> None:
    found = transaction_files.Chain(tmp_path)
    ltx(tmp_path, 1, 32, 4_120, (0xFFFFFFFF, 1))
    ltx(tmp_path, 2, 32, 4_120, (0, 5))  # the number wraps
    assert found.broken_before(2) == ""
    ltx(tmp_path, 3, 32, 4_120, (2, 6))
    assert "before transaction 3" in str(found.broken_before(3))


def test_after_a_new_process_only_an_exact_continuation_is_proof(tmp_path: Path) -> None:
    found = transaction_files.Chain(tmp_path)
    ltx(tmp_path, 1, 32, 4_120, (7, 1))
    assert found.broken_before(1) == ""
    ltx(tmp_path, 2, 32, 4_120, (8, 2))  # by the old process, and not looked at yet
    found.litestream_begins()
    ltx(tmp_path, 3, 4_152, 4_120, (8, 2))
    assert found.broken_before(3) == ""
    found.litestream_begins()
    ltx(tmp_path, 4, 32, 4_120, (9, 3))
    assert "before transaction 4" in str(found.broken_before(4))


def test_what_is_cut_off_or_gone_can_not_be_shown_to_follow(tmp_path: Path) -> None:
    found = transaction_files.Chain(tmp_path)
    ltx(tmp_path, 1, 32, 4_120, (7, 1))
    (tmp_path / "ltx" / "0" / f"{2:016x}-{2:016x}.ltx").write_bytes(b"LTX1")
    assert "can't be read" in str(found.broken_before(2))
    assert "can't be read" in str(transaction_files.Chain(tmp_path / "none").broken_before(1))


def test_the_reach_of_an_epoch_is_where_its_first_gap_is() -> None:
    """Law: against the plain definition, over random files."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(300):
        spans = []
        for _ in range(rng.randrange(8)):
            first = rng.randrange(1, 12)
            spans.append((first, first + rng.randrange(4)))
        held = {txid for first, last in spans for txid in range(first, last + 1)}
        end = next(txid for txid in range(1, 20) if txid not in held) - 1
        assert transaction_files.reach(spans) == end
