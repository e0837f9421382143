"""A forked process is a real one: what it is given, what it says and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from campaigns import forking
from campaigns.forking import Forked

SHOWS = """
import os, sys
assert "perdure.cli" in sys.modules, "it was forked"
print(sys.argv, os.getcwd(), dict(os.environ), os.getsid(0) == os.getpid())
"""


def code(text: str, *words: str) -> list[str]:
    return [sys.executable, "-c", text, *words]


def test_it_has_words_a_folder_variables_and_a_session_of_its_own(tmp_path: Path) -> None:
    done = forking.run(
        code(SHOWS, "a", "b"), cwd=tmp_path, env={"A": "1"}, start_new_session=True, timeout=60
    )
    assert done.stdout == f"['-c', 'a', 'b'] {tmp_path} {{'A': '1'}} True\n", done.stderr


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("", 0),
        ("raise SystemExit(7)", 7),
        ("1 / 0", 1),
        ("import os; os._exit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT),
    ],
)
def test_it_ends_as_an_interpreter_does(text: str, ends: int) -> None:
    done = forking.run(code(text), timeout=60)
    started = subprocess.run(code(text), capture_output=True, check=False)
    assert done.returncode == started.returncode == ends
    assert ("ZeroDivisionError" in done.stderr) == ("/" in text)
    assert (
        done.returncode == subprocess.run(code(text), capture_output=True, check=False).returncode
    )


def test_modules_and_scripts_are_main(tmp_path: Path) -> None:
    (tmp_path / "near.py").write_text("NAME = 'near'\n")
    (tmp_path / "far.py").write_text("import near, sys; print(__name__, near.NAME, *sys.argv[1:])")
    for words in (["-m", "far"], [str(tmp_path / "far.py")]):
        done = forking.run([sys.executable, *words, "x"], cwd=tmp_path, timeout=60)
        assert done.stdout == "__main__ near x\n", done.stderr


def test_it_is_spoken_to_stopped_and_killed(tmp_path: Path) -> None:
    echo = "for line in open(0): print(line, end='', flush=True)"
    pipe = subprocess.PIPE
    with (tmp_path / "said").open("wb") as said:
        process = Forked(code(echo), stdin=pipe, stdout=pipe, stderr=said)
        said.write(b"still open")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"hello\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"hello\n"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait() == process.poll() == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    process.stdin.close()
    process.stdout.close()
