"""`perdure completion`: what a real shell completes with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.cli.conftest import Terminal


def test_bash_completes_commands_and_ids(terminal: Terminal) -> None:
    if shutil.which("bash") is None:
        pytest.skip("There is no bash on this machine.")
    terminal("run", "flows.py:alone", "x", "--id", "report-17", "--quiet")
    script = terminal("completion", "bash").out
    shim = terminal.folder / "perdure"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m perdure.cli "$@"\n')
    shim.chmod(0o755)

    def completed(*words: str) -> list[str]:
        line = f"COMP_WORDS=(perdure {' '.join(words)}); COMP_CWORD={len(words)}"
        asked = f'{script}\n{line}\n_perdure_completion perdure; echo "${{COMPREPLY[@]}}"'
        env = os.environ | {"PATH": f"{terminal.folder}:{os.environ['PATH']}"}
        return subprocess.run(
            ["bash", "--norc", "-c", asked], cwd=terminal.folder, env=env, check=True,
            capture_output=True, text=True,
        ).stdout.split()  # fmt: skip

    assert completed("compl") == ["completion"]
    assert completed("show", "rep") == ["report-17"]
    assert completed("show", "--store", "none.db", "rep") == []
    assert completed("queue", "pa") == ["pause"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script_too(terminal: Terminal, shell: str) -> None:
    assert "_PERDURE_COMPLETE" in terminal("completion", shell).out
    assert terminal("completion", "powershell").code == 2
