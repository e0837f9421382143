"""README and docs do what they say: their programs run, their commands run, no command goes
unmentioned, doctests pass.

How a page is read, by the words after the fence, which a reader of the rendered page never sees:

    ```python             runs as a program of its own and must succeed
    ```python file=app.py is written to that file, for the blocks after it, and must compile
    ```python no-run      is a fragment; it must compile
    ```console            its `$ ` lines run in bash, in order; the others show what is printed. A
                          line that ends in `# exits 3` must exit with 3, all others with 0;
                          background jobs end with the block
    ```sh paste           as console, without `$ `: every line is a command, to be pasted
    ```console no-run     needs what a test has not got (a machine, an hour); our commands
                          must exist

A page that serves does so at port 8000, which is a free one here. `sh` and `bash` read as `console`
does. A page is a story: its blocks share one temporary folder and run from top to bottom. A block
that fits none of this fails, so nothing is skipped in silence. README's two set-up lines are marked
by `<!-- command: NAME -->` in the line above and make a virtual environment; CI runs one of them,
so they are not run here.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from campaigns.forking import Forked

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
PAGES = [
    page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if page.exists()
]
PROGRAM, SHELL, TEXT = (
    {"python"},
    {"console", "sh", "bash"},
    {"", "text", "sql", "json", "toml", "mermaid", "diff", "pycon"},
)
SECONDS_MAX = 240

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
MARKER = re.compile(r"<!-- command: (\w+) -->\n\Z")
EXITS = re.compile(r"\s+# exits (\d+)$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    where: str  # page:line, for messages
    language: str
    words: tuple[str, ...]
    body: str
    marker: str | None  # the NAME of a set-up line

    @property
    def file(self) -> str | None:
        return next(
            (word.removeprefix("file=") for word in self.words if word.startswith("file=")), None
        )

    @property
    def runs(self) -> bool:
        return "no-run" not in self.words

    @property
    def commands(self) -> list[str]:
        """The lines after `$ `, or all lines to paste, each with what `\\` carries over."""
        lines = [line.strip() for line in self.body.replace("\\\n", " ").splitlines()]
        if "paste" in self.words:
            return [line for line in lines if line]
        return [line[2:] for line in lines if line.startswith("$ ")]


def blocks_of(text: str, page: str) -> list[Block]:
    return [block_of(found, text, page) for found in FENCE.finditer(text)]


def block_of(found: re.Match[str], text: str, page: str) -> Block:
    indent = len(found["indent"])
    body = "".join(
        line[indent:] if line.strip() else line for line in found["body"].splitlines(keepends=True)
    )
    language, *words = found["info"].split() or [""]
    marker = MARKER.search(text[: found.start()])
    return Block(
        f"{page}:{text.count(chr(10), 0, found.start()) + 1}",
        language,
        tuple(words),
        body,
        marker and marker[1],
    )


def complaints(block: Block) -> list[str]:
    """What is wrong with a block before it runs."""
    known = PROGRAM | SHELL | TEXT
    if block.language not in known:
        return [
            (
                f"{block.where}: language {block.language!r} is none of "
                f"{', '.join(sorted(known - {''}))}"
            )
        ]
    strange = [
        word
        for word in block.words
        if word != "no-run"
        and not (word.startswith("file=") and block.language in PROGRAM)
        and not (word == "paste" and block.language in SHELL)
    ]
    if strange:
        return [f"{block.where}: {strange[0]!r} after the fence means nothing here"]
    if block.language in PROGRAM:
        return broken_python(block)
    if block.language in SHELL and block.marker is None:
        return (
            []
            if block.commands
            else [f"{block.where}: a {block.language} block needs `$ ` before each command"]
        )
    return []


def broken_python(block: Block) -> list[str]:
    try:
        compile(block.body, block.where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    except SyntaxError as error:
        return [f"{block.where}: {error}"]
    return []


# Running a page -----------------------------------------------------------------------------------


def script_of(block: Block) -> str:
    """The commands of a block as one bash script that stops at the first surprise; jobs keep their
    shell.
    """
    lines = ["trap 'kill $(jobs -p) 2>/dev/null' EXIT"]
    for command in block.commands:
        exits = EXITS.search(command)
        bare, wanted = EXITS.sub("", command), int(exits[1]) if exits else 0
        lines += [
            f"echo {shlex.quote('$ ' + bare)}",
            bare,
            f'rc=$?; [ $rc = {wanted} ] || {{ echo "exited $rc, not {wanted}"; exit 99; }}',
        ]
    return "\n".join(lines) + "\n"


def run_block(block: Block, folder: Path, env: dict[str, str]) -> None:
    """Runs it, or writes its file; fails with what it printed."""
    if block.file:
        path = folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.body)
    elif block.runs and block.language in PROGRAM:
        (folder / "block.py").write_text(block.body)
        must_succeed([sys.executable, "block.py"], block, folder, env, Forked)
    elif block.runs and block.language in SHELL and block.marker is None:
        must_succeed(["bash", "-c", script_of(block)], block, folder, env, subprocess.Popen)


def must_succeed(
    command: list[str],
    block: Block,
    folder: Path,
    env: dict[str, str],
    begin: type[subprocess.Popen[str]],
) -> None:
    with begin(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=SECONDS_MAX)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"{block.where} was not done after {SECONDS_MAX} s")
    if process.returncode:
        pytest.fail(f"{block.where} exited with {process.returncode}:\n{printed}", pytrace=False)


def environment(folder: Path) -> dict[str, str]:
    """Ours, with `perdure` and `python` meaning the ones under test, and no store named from
    outside.
    """
    folder.mkdir()
    for name, arguments in {"perdure": "-m perdure.cli", "python": "", "python3": ""}.items():
        (folder / name).write_text(
            f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n'
        )
        (folder / name).chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")}
    paths = [str(SRC), *filter(None, [env.get("PYTHONPATH")])]
    path = f"{folder}{os.pathsep}{env.get('PATH', os.defpath)}"
    plugin = "perdure.testing.plugin"  # pytest finds it by itself where Perdure is installed
    return env | {
        "PATH": path,
        "PYTHONPATH": os.pathsep.join(paths),
        "COLUMNS": "120",
        "PYTEST_PLUGINS": plugin,
        "PYTEST_ADDOPTS": "-p no:schemathesis",  # 0.7 s of imports; no page is about it
    }


def free_port() -> int:
    """One that nobody listens at, in the place of the pages' 8000."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_page(text: str, name: str, folder: Path) -> None:
    text = text.replace("8000", str(free_port()))
    env = environment(folder / "bin")
    story = folder / "story"
    story.mkdir()
    for block in blocks_of(text, name):
        run_block(block, story, env)


every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@every_page
def test_blocks_are_marked_and_compile(page: Path) -> None:
    assert [
        complaint
        for block in blocks_of(page.read_text(), page.name)
        for complaint in complaints(block)
    ] == []


@every_page
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    run_page(page.read_text(), page.name, tmp_path)


def test_there_are_pages_that_run() -> None:
    assert ROOT / "README.md" in PAGES
    blocks = [block for page in PAGES for block in blocks_of(page.read_text(), page.name)]
    assert any(block.language in PROGRAM and block.runs for block in blocks)
    assert any(block.language in SHELL and block.runs and block.marker is None for block in blocks)


@pytest.mark.parametrize("name", ["survey", "test"])
def test_readme_gives_each_set_up_line_once_and_alone(name: str) -> None:
    marked = [
        block
        for block in blocks_of((ROOT / "README.md").read_text(), "README.md")
        if block.marker == name
    ]
    assert len(marked) == 1
    assert len(marked[0].body.splitlines()) == 1
    assert "-m venv" in marked[0].body


# Commands -----------------------------------------------------------------------------------------


def commands() -> dict[str, click.Command]:
    from perdure.cli import main

    context = click.Context(main)
    found = {name: main.get_command(context, name) for name in main.list_commands(context)}
    return {name: command for name, command in found.items() if command and not command.hidden}


def told_in(text: str) -> set[str]:
    """The commands that a page shows as code, in a line of prose or in a block."""
    spans = set(re.findall(r"`(?:\$ )?perdure ([a-z][\w-]*)", text))
    return spans.union(*(called_in(block) for block in blocks_of(text, "")))


def called_in(block: Block) -> set[str]:
    return set(
        re.findall(r"(?:^|[|&;(]\s*)perdure ([a-z][\w-]*)", "\n".join(block.commands), re.MULTILINE)
    )


def test_every_command_is_in_the_docs() -> None:
    told: set[str] = set().union(*(told_in(page.read_text()) for page in PAGES))
    assert set(commands()) - told == set()


def test_every_command_in_the_docs_exists() -> None:
    """Also in blocks that don't run."""
    shown = {
        (block.where, name)
        for page in PAGES
        for block in blocks_of(page.read_text(), page.name)
        for name in called_in(block)
    }
    assert {(where, name) for where, name in shown if name not in commands()} == set()


def test_every_command_helps() -> None:
    assert [
        name
        for name, command in commands().items()
        if not command.help or not command.get_short_help_str()
    ] == []


# Doctests -----------------------------------------------------------------------------------------


def modules() -> dict[str, str]:
    """Ours, but for the one that runs when imported and the app that `perdure init` writes: names
    and texts.
    """
    found = {}
    for path in sorted((SRC / "perdure").rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        if parts[-1] != "__main__" and "templates" not in parts:
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path.read_text()
    return found


def test_every_module_can_be_imported() -> None:
    for module in modules():
        importlib.import_module(module)


@pytest.mark.parametrize("module", [name for name, text in modules().items() if ">>>" in text])
def test_examples_in_docstrings_are_right(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS).failed == 0
    )


# The checkers, shown bad pages --------------------------------------------------------------------


def page(*lines: str) -> str:
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (page("```pyhton", "1", "```"), "language 'pyhton'"),
        (page("```python norun", "1", "```"), "'norun' after the fence"),
        (page("```console file=x", "$ ls", "```"), "'file=x' after the fence"),
        (page("```python paste", "1", "```"), "'paste' after the fence"),
        (page("```python no-run", "def f(:", "```"), "bad.md:1: "),
        (page("one", "```sh", "perdure ls", "```"), "bad.md:2: a sh block needs `$ `"),
    ],
)
def test_a_block_that_fits_no_rule_is_found(text: str, says: str) -> None:
    [block] = blocks_of(text, "bad.md")
    [complaint] = complaints(block)
    assert says in complaint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (page("```python", "raise SystemExit(3)", "```"), "bad.md:1 exited with 3"),
        (page("```python", "from perdure import nothing", "```"), "cannot import name 'nothing'"),
        (page("```console", "$ perdure no-such-verb", "```"), "exited 2, not 0"),
        (page("```console", "$ true  # exits 1", "```"), "exited 0, not 1"),
        (page("```console", "$ false", "$ true", "```"), "exited 1, not 0"),
        (page("```sh paste", "true", "false", "```"), "exited 1, not 0"),
        (page("- in a list", "  ```sh", "  $ false", "  ```"), "bad.md:2 exited with 99"),
    ],
)
def test_a_page_that_lies_is_found(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=re.escape(says)):
        run_page(text, "bad.md", tmp_path)


STORY = r"""
```python file=lib/hello.py
def hello():
    return "hello"
```
1. In a list:
   ```python
   import sys
   sys.path.insert(0, "lib")
   from hello import hello
   open("said", "w").write(hello())
   ```
```console
$ cat said
hello
$ export ASKED=1
$ sleep 600 &
$ test $ASKED = 1 \
    && perdure --version
$ (exit 3)  # exits 3
```
```python no-run
await nobody()
```
"""


def test_a_page_is_one_story(tmp_path: Path) -> None:
    assert [
        complaint for block in blocks_of(STORY, "good.md") for complaint in complaints(block)
    ] == []
    run_page(STORY, "good.md", tmp_path)
    assert (tmp_path / "story" / "said").read_text() == "hello"


def test_a_marked_set_up_line_is_not_run_here(tmp_path: Path) -> None:
    text = page("<!-- command: test -->", "```sh", "false", "```")
    assert [block.marker for block in blocks_of(text, "good.md")] == ["test"]
    run_page(text, "good.md", tmp_path)


def test_a_command_counts_as_told_where_it_is_code() -> None:
    assert told_in(
        "Use `perdure ls --json`, as perdure show does; `perdure-tail` is another program.\n"
    ) == {"ls"}
    assert told_in(
        page("```console no-run", "$ cd x && perdure gone", "see perdure ls", "```")
    ) == {"gone"}
