"""`perdure init`, and the app that it writes."""

from __future__ import annotations

from tests.cli.conftest import Terminal


def test_it_writes_an_app_and_says_what_to_do_next(terminal: Terminal) -> None:
    said = terminal("init", "demo")
    assert said.code == 0
    assert sorted(path.name for path in (terminal.folder / "demo").iterdir()) == [
        "README.md",
        "app.py",
    ]
    assert "cd demo" in said.out
    assert "perdure run app.py" in said.out


def test_it_never_overwrites(terminal: Terminal) -> None:
    (terminal.folder / "README.md").write_text("mine")
    said = terminal("init")
    assert said.code == 2
    assert said.err == (
        "Error: this folder has README.md already, and init never overwrites. Name another "
        "folder.\n"
    )
    assert (terminal.folder / "README.md").read_text() == "mine"
    assert not (terminal.folder / "app.py").exists()


def test_a_folder_that_can_not_be_written(terminal: Terminal) -> None:
    (terminal.folder / "file").write_text("")
    said = terminal("init", "file/below")
    assert said.code == 2
    assert "Can't write into file/below" in said.err


def test_the_app_runs_with_the_commands_of_its_readme(terminal: Terminal) -> None:
    terminal("init", ".")
    process = terminal.start("run", "app.py", "A-17", "120")
    terminal.until(
        lambda: terminal("ls", "--status", "waiting", "--json").out.strip() not in ("", "[]")
    )
    assert terminal("send", "refund", "approval", "true").code == 0
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert out == "Dear Ada, we made a payment of 120.00 to Ada for order A-17.\n"
    assert "✓ pay(" in terminal("show", "refund").out
