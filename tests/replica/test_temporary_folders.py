"""Temporary folders: those of living processes stay, those of dead ones go, and no file goes that
is not named.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from perdure.replica.temporary_folders import TempFolder, remove_if_left, sweep
from tests.runtime.support import environment

LEAVES = """
import os, sys
from pathlib import Path
from perdure.replica.temporary_folders import TempFolder
folder = TempFolder(Path(sys.argv[1]), "tmp-")
for name in ("copy.db", "copy.db-wal", "copy.db.tmp", "copy.db.litestream.yml", "copy.log",
             "control", *sys.argv[2:]):
    (folder.path / name).write_text("left")
print(folder.path, flush=True)
os.kill(os.getpid(), 9)
"""


def left(parent: Path, *more: str) -> Path:
    """A folder of a process that was killed."""
    words = [sys.executable, "-c", LEAVES, str(parent), *more]
    run = subprocess.run(words, check=False, env=environment(), capture_output=True, text=True)
    return Path(run.stdout.strip())


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    folder = left(tmp_path)
    assert (folder / "copy.db").exists()
    assert sweep(tmp_path, "tmp-") == [folder]
    assert not list(tmp_path.iterdir())


def test_a_folder_of_a_living_process_stays(tmp_path: Path) -> None:
    with TempFolder(tmp_path, "tmp-") as folder:
        (folder.path / "copy.db").write_text("mine")
        assert sweep(tmp_path, "tmp-") == []
        assert (folder.path / "copy.db").exists()
    assert not folder.path.exists()


FORKS = """
import os, sys
from pathlib import Path
from perdure.replica.temporary_folders import TempFolder
folder = TempFolder(Path(sys.argv[1]), "tmp-")
told, tell = os.pipe()
if os.fork() == 0:
    folder.remove()
    os.write(tell, b"x")
    sys.stdin.read()
    os._exit(0)
os.read(told, 1)
print(folder.path, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_forked_child_neither_removes_a_folder_nor_keeps_it_after_its_parent(
    tmp_path: Path,
) -> None:
    words = [sys.executable, "-c", FORKS, str(tmp_path)]
    with subprocess.Popen(
        words, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        folder = Path(parent.stdout.readline().strip())
        parent.wait()
        assert folder.exists()
        assert sweep(tmp_path, "tmp-") == [folder]
        parent.stdin.close()  # only now the child ends


def test_files_of_other_names_and_folders_stay(tmp_path: Path) -> None:
    folder = left(tmp_path, "thesis.txt")
    assert sweep(tmp_path, "tmp-") == []
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["tmp-foreign", "other-tmp"])
def test_a_folder_that_is_not_ours_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "copy.db").write_text("theirs")
    assert sweep(tmp_path, "tmp-") == []
    assert (tmp_path / name / "copy.db").exists()


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = left(tmp_path / "elsewhere")
    (tmp_path / "tmp-link").symlink_to(folder)
    assert not remove_if_left(tmp_path / "tmp-link")
    assert (folder / "copy.db").exists()
