"""What reaches a terminal: no byte that it obeys but our own styles, nothing that its encoding
lacks, and no word when nobody reads.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec
import pytest

from perdure import (
    Engine,
    RequestTimeout,
    RunFailed,
    emit,
    expose,
    receive,
    receive_request,
    step,
    workflow,
)
from perdure.cli import main, output, progress
from perdure.cli.output import as_lines, plain, style, visible, width
from tests.cli.conftest import COMMAND, Terminal, type_here

ACTIVE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj\u2028new\x00\r\x08\x7f\u200b\U000e0041"
"""A title, an erased screen, a colour, a reversed direction, a line of its own, and what can't be
seen.
"""
WORD = ACTIVE.replace("\0", "")
"""The same as an argument of a command, which can't hold a NUL."""

OURS = re.compile(r"\x1b\[(?:0|1|2|3[1-6])m")
FORBIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
)
COLOURED = {"NO_COLOR": "", "TERM": "xterm-256color", "FORCE_COLOR": "1"}


# --- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31m", "\\u001b[31m"),
        ("\x9b2J\x85\x7f\x00", "\\u009b2J\\u0085\\u007f\\u0000"),
        ("a\nb", "a\\nb"),
        ("a\rb", "a\\rb"),
        ("line\r", "line\r"),
        ("a\r\nb", "a\\r\\nb"),
        ("a\tb", "a\tb"),
        ("\u202eevil\u2066\u2028\u2029", "\\u202eevil\\u2066\\u2028\\u2029"),
        ("pay\u200bpal\ufeff", "pay\\u200bpal\\ufeff"),
        ("\U000e0041", "\\udb40\\udc41"),
        ("file\udc80name", "file\\udc80name"),
        ("é ✓ 日本 👩\u200d👧 نمی\u200cشود\xa0", "é ✓ 日本 👩\u200d👧 نمی\u200cشود\xa0"),
    ],
)
def test_what_a_terminal_obeys_is_escaped_and_nothing_else(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_every_character_that_controls_or_hides_is_escaped() -> None:
    spared = {"\t", "\r", "\u200c", "\u200d"}
    for number in [
        *range(0x20),
        *range(0x7F, 0xA0),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
        0x2028,
        0x2029,
        0x200E,
        0x200F,
    ]:
        assert (visible(chr(number)) == chr(number)) == (chr(number) in spared), hex(number)


def test_escapes_are_those_of_json() -> None:
    text = "".join(chr(number) for number in range(0x110000) if not 0xD800 <= number < 0xE000)
    shown = visible(msgspec.json.encode(text).decode())
    assert msgspec.json.decode(shown) == text


def test_text_is_lines_only_where_it_is_meant_to_be() -> None:
    assert [visible(line) for line in as_lines("one\ntwo\r\n")] == ["one", "two\r", ""]


def test_widths_are_those_of_a_terminal() -> None:
    assert width(style("日本", "red")) == 4
    assert width("e\u0301") == 1
    assert width("\x1b") == len("\\u001b")
    assert plain(style("x", "bold")) == "x"


# --- terminals ------------------------------------------------------------------------------------


class Stream(io.StringIO):
    """A stream that says of itself what it is told to."""

    encoding = "utf-8"

    def __init__(self, *, terminal: bool = True) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the variables that say how a terminal wants its output; all others of them are unset."""

    def set_all(**names: str) -> None:
        for name in ("NO_COLOR", "FORCE_COLOR", "TERM", "LC_ALL", "LANG", "COLUMNS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in names.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize(
    ("names", "terminal", "wanted"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
        ({"TERM": "xterm", "FORCE_COLOR": "1"}, False, True),
        ({"TERM": "xterm", "FORCE_COLOR": "0"}, True, False),
        ({"TERM": "xterm", "FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, False),
    ],
)
def test_who_wants_escape_sequences(
    environment: Callable[..., None], names: dict[str, str], terminal: bool, wanted: bool
) -> None:
    environment(**names)
    assert output.styled(Stream(terminal=terminal)) is wanted


@pytest.mark.parametrize(
    ("names", "encoding", "kind"),
    [
        ({"TERM": "xterm"}, "utf-8", progress.Screen),
        ({"TERM": "dumb"}, "utf-8", progress.Lines),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "utf-8", progress.Lines),
        ({"TERM": "xterm"}, "latin-1", progress.Lines),
    ],
)
def test_nothing_moves_where_it_is_not_wanted(
    environment: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    names: dict[str, str],
    encoding: str,
    kind: type,
) -> None:
    environment(**names)
    stream = Stream()
    stream.encoding = encoding
    monkeypatch.setattr(sys, "stderr", stream)
    assert progress.display_for(quiet=False) is kind


def test_a_terminal_in_the_c_locale_gets_ascii(
    environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(LC_ALL="C", TERM="dumb")
    monkeypatch.setattr("perdure.cli.output.sys.flags", type("Flags", (), {"utf8_mode": 1}))
    monkeypatch.setattr(sys, "stdout", stream := Stream())
    output.echo("✓ é")
    assert stream.getvalue() == "+ \\u00e9\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
def test_what_an_encoding_lacks_is_replaced(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    output.echo("✓ né…", "└ 日")
    output.echo_json({"text": "✓ né… 日 \x9b"}, indent=0)
    shown, second, record = raw.getvalue().decode(encoding).splitlines()
    assert msgspec.json.decode(record) == {"text": "✓ né… 日 \x9b"}
    assert (
        shown
        == {"ascii": "+ n\\u00e9...", "latin-1": "+ né...", "cp437": "+ né...", "utf-8": "✓ né…"}[
            encoding
        ]
    )
    assert (
        second
        == {"ascii": "` \\u65e5", "latin-1": "` \\u65e5", "cp437": "└ \\u65e5", "utf-8": "└ 日"}[
            encoding
        ]
    )


def test_log_lines_can_not_be_forged() -> None:
    record = logging.LogRecord(
        "perdure",
        logging.INFO,
        "",
        0,
        "died of %s",
        ("\x1b[2J\n2026-01-01 perdure: all is well",),
        None,
    )
    assert output.LogFormat("%(name)s: %(message)s").format(record) == (
        "perdure: died of \\u001b[2J\n    2026-01-01 perdure: all is well"
    )


# --- commands -------------------------------------------------------------------------------------


@step(retry=None)
async def call(text: str) -> str:
    emit("tokens", text)
    emit("tokens", {text: [text]})
    raise ValueError(text)


@workflow
async def attacked(text: str) -> str:
    try:
        await call(text)
    finally:
        await receive(f"go{text}", str)
    return text


@workflow
async def gives_back(text: str) -> str:
    return text


@workflow
async def shows(text: str) -> str:
    expose(**{text: text})
    request = await receive_request(f"ask{text}", str)
    return request.value


APP = f"""
from perdure import workflow

@workflow
async def app():
    return {ACTIVE!a}

@workflow(name={"fails" + WORD!a})
async def fails():
    raise ValueError({ACTIVE!a})
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with control characters in everything that code and services can write into it; its
    folder is the current one.
    """
    folder, before = tmp_path_factory.mktemp("hostile"), Path.cwd()
    os.chdir(folder)
    Path("app.py").write_text(APP)
    try:
        asyncio.run(_attack())
        yield folder
    finally:
        os.chdir(before)


async def _attack() -> None:
    logging.getLogger("perdure").addHandler(logging.NullHandler())
    async with Engine("perdure.db", workflows=[attacked, gives_back, shows]) as engine:
        await engine.run(gives_back(ACTIVE), id="whole", tags={WORD: ACTIVE})
        await engine.start(attacked(WORD), id="waits")
        failing = await engine.start(attacked(WORD), id="fails", tags={"tag": ACTIVE})
        await failing.send("x", channel=f"go{WORD}")
        with contextlib.suppress(RunFailed):
            await failing.result()
        await engine.queue(f"q{WORD}", concurrency=1)
        await engine.schedule("daily", "@daily", gives_back(ACTIVE))
        for name in ("shows", "lines-up"):
            await engine.start(shows(WORD), id=name, queue=f"q{WORD}", key=f"k{WORD}")
        with contextlib.suppress(RequestTimeout):
            await engine.ask("shows", ACTIVE, channel=WORD, timeout=0, key=WORD, sender=WORD)
        while await (await engine.get("waits")).status() != "waiting":  # a status has no event  # noqa: ASYNC110
            await asyncio.sleep(0.01)


COMMANDS = [
    ["ls"],
    ["show", "fails"],
    ["show", "fails", "--full"],
    ["show", "fails", "--seq", "2"],
    ["show", "waits"],
    ["show", "whole"],
    ["tail", "fails"],
    ["tail", "fails", "--stream", "tokens"],
    ["tail", "whole"],
    ["doctor"],
    ["doctor", "--store", f"a{WORD}.db"],
    ["show", f"x{WORD}"],
    ["show", "shows"],
    ["show", "lines-up"],
    ["queue", "ls"],
    ["queue", "show", f"q{WORD}"],
    ["queue", "show", WORD],
    ["queue", "pause", f"q{WORD}"],
    ["queue", "resume", f"q{WORD}"],
    ["queue", "set", f"q{WORD}", "--key-rate", WORD],
    ["schedule", "ls"],
    ["schedule", "next", "daily"],
    ["schedule", "next", WORD],
    ["schedule", "pause", "daily"],
    ["schedule", "add", WORD, WORD, WORD],
    ["schedule", "backfill", "daily", WORD, WORD],
    ["ask", "shows", WORD, "--channel", WORD, "--timeout", "0"],
    ["prune", "--dry-run", "--archive", f"file:///{WORD}"],
    ["prune", "--completed", WORD],
    ["send", "waits", WORD, WORD],
    ["run", f"{WORD}.py"],
    ["run", "app.py"],
    ["run", "app.py:fails"],
    ["run", "app.py", WORD],
    ["run", "app.py", "--id", WORD],
    ["worker", WORD],
    ["ls", "--tag", WORD],
    [WORD],
    ["ls", WORD],
    ["init", WORD],
    ["init", WORD],
    ["check", "--app", WORD],
    ["check", "--app", "app.py"],
    ["replica", "status", "--replica", f"file:///{WORD}"],
    ["replica", "restore", "-o", WORD, "--replica", f"s3://{WORD}"],
]


@pytest.mark.parametrize(
    "words", COMMANDS, ids=lambda words: "-".join(word for word in words if word.isprintable())
)
@pytest.mark.parametrize("env", [{}, COLOURED], ids=["plain", "coloured"])
def test_nothing_of_the_store_or_the_command_line_steers_a_terminal(
    hostile: Path, words: list[str], env: dict[str, str]
) -> None:
    said = type_here(*words, **env)
    assert said.code in (0, 1, 2, 3, 4)
    found = OURS.sub("", said.out + said.err) if env else said.out + said.err
    assert FORBIDDEN.findall(found) == []


@pytest.mark.parametrize(
    "words",
    [
        ["ls"],
        ["show", "fails"],
        ["tail", "fails"],
        ["tail", "fails", "--stream", "tokens"],
        ["doctor"],
    ],
)
def test_json_stays_json_and_says_the_same(hostile: Path, words: list[str]) -> None:
    said = type_here(*words, "--json", PYTHONIOENCODING="ascii")
    assert FORBIDDEN.findall(said.out) == []
    records = (
        [said.json]
        if words[0] != "tail"
        else [msgspec.json.decode(line) for line in said.out.splitlines()]
    )
    if words[0] == "ls":
        assert {run["id"]: run for run in records[0]}["whole"]["result"] == ACTIVE
    if "--stream" in words:
        assert records[0] == WORD


def test_a_colour_is_ours_only_where_it_is_wanted(hostile: Path) -> None:
    assert OURS.search(type_here("ls", **COLOURED).out)
    assert not OURS.search(type_here("ls", **{**COLOURED, "NO_COLOR": "1"}).out)


def helps(command: click.Command, *words: str) -> Iterator[tuple[str, ...]]:
    yield (*words, "--help")
    for name, one in getattr(command, "commands", {}).items():
        yield from helps(one, *words, name)


@pytest.mark.parametrize("columns", ["40", "100"])
def test_every_help_is_ascii_and_fits(columns: str) -> None:
    for words in helps(main):
        said = type_here(*words, COLUMNS=columns)
        assert said.code == 0
        assert said.out.isascii(), words


# --- nobody reads ---------------------------------------------------------------------------------


class Gone(Stream):
    """A pipe whose reader has gone."""

    error: OSError = BrokenPipeError(32, "Broken pipe")

    def write(self, text: str) -> int:
        raise self.error


def test_messages_that_nobody_reads_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Gone())
    output.say("Stopped.")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
        (
            OSError(28, "No space left on device"),
            1,
            "Error: The results can't be written: No space left on device.\n",
        ),
    ],
)
def test_results_that_nobody_takes_end_the_command(
    hostile: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: OSError,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr(Gone, "error", error)
    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(SystemExit) as ended:
        main(["ls"])
    assert ended.value.code == code
    assert capsys.readouterr().err == said


def test_a_pipe_that_is_closed_early_is_no_traceback(terminal: Terminal) -> None:
    for words in (["--help"], ["init"]):
        reader, writer = os.pipe()
        os.close(reader)
        ended = subprocess.run(
            [*COMMAND, *words],
            cwd=terminal.folder,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(writer)
        assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no device that is always full")
def test_help_that_finds_no_room_is_no_traceback(terminal: Terminal) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*COMMAND, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ended.returncode, ended.stderr) == (
        1,
        "Error: The results can't be written: No space left on device.\n",
    )


@pytest.mark.skipif(os.name == "nt", reason="closes streams as a shell of Unix does")
def test_a_command_needs_no_streams(terminal: Terminal) -> None:
    closed = subprocess.run(
        [
            "sh",
            "-c",
            'exec "$@" <&- >&- 2>&-',
            "sh",
            *COMMAND,
            "run",
            "flows.py:hello",
            "Ada",
            "--id",
            "h",
        ],
        cwd=terminal.folder,
        check=False,
    )
    assert closed.returncode == 0
    assert terminal.status("h") == "completed"


# --- the house ------------------------------------------------------------------------------------

WRITERS = {
    "echo",
    "secho",
    "style",
    "unstyle",
    "confirm",
    "prompt",
    "progressbar",
    "echo_via_pager",
    "print",
    "input",
    "StreamHandler",
}


def strays(text: str, name: str) -> list[str]:
    """Calls and imports that write to a terminal without `output`."""
    found = []
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="click"), attr=attribute)) if (
                attribute in WRITERS
            ):
                found.append(f"{name}:{node.lineno} click.{attribute}")
            case ast.Call(func=ast.Name(id="print" | "input" as function)):
                found.append(f"{name}:{node.lineno} {function}")
            case ast.Attribute(
                value=ast.Attribute(value=ast.Name(id="sys"), attr="stdout" | "stderr"),
                attr="write" | "buffer" | "writelines",
            ):
                found.append(f"{name}:{node.lineno} sys")
            case ast.Attribute(attr="isatty"):
                found.append(f"{name}:{node.lineno} isatty")
            case ast.ImportFrom(
                module="click" | "rich.console" | "rich.text" | "rich" as module
            ) if any(one.name in WRITERS | {"Console", "Text"} for one in node.names):
                found.append(f"{name}:{node.lineno} {module}")
            case ast.Constant(value=str(value)) if "\x1b" in value:
                found.append(f"{name}:{node.lineno} an escape sequence")
    return found


def test_every_command_writes_through_output() -> None:
    modules = [
        path
        for path in sorted(Path(output.__file__).parent.glob("*.py"))
        if path.name != "output.py"
    ]
    assert [stray for path in modules for stray in strays(path.read_text(), path.name)] == []


@pytest.mark.parametrize(
    "line",
    [
        "click.echo(text)",
        "click.style(text, fg='red')",
        "print(text)",
        "sys.stderr.write(text)",
        "from click import echo",
        "from rich.console import Console",
        "from rich.text import Text",
        "x = '\\033[K'",
        "input('?')",
        "click.confirm('?')",
        "sys.stdin.isatty()",
    ],
)
def test_a_stray_is_found(line: str) -> None:
    assert len(strays(line, "bad.py")) == 1
