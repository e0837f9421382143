"""From a file and words to a call."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from perdure.cli import targets
from perdure.cli.common import Misuse
from tests.cli import flows


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose modules are forgotten afterwards."""
    modules, paths = set(sys.modules), list(sys.path)
    yield tmp_path
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = paths


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text("from perdure import step, workflow\n" + text)
    return path


ONE = "@workflow\nasync def {0}() -> str:\n    return '{0}'\n"


# --- files ----------------------------------------------------------------------------------------


def test_a_target_is_a_file_and_maybe_a_name(folder: Path) -> None:
    path = write(folder, "one.py", ONE.format("one"))
    assert targets.split_target(str(path)) == (path, None)
    assert targets.split_target(f"{path}:other") == (path, "other")


def test_a_file_with_a_colon_in_its_name_wins(folder: Path) -> None:
    path = write(folder, "odd:name", "")
    assert targets.split_target(str(path)) == (path, None)


def test_a_module_has_the_name_of_its_file_and_sees_its_neighbours(folder: Path) -> None:
    write(folder, "neighbour_of_app.py", "WORD = 'hi'\n")
    module = targets.load(
        write(folder, "app_of_test.py", "import neighbour_of_app\n" + ONE.format("one"))
    )
    assert module.__name__ == "app_of_test"
    assert module.neighbour_of_app.WORD == "hi"
    assert targets.load(folder / "app_of_test.py") is module


def refusal(action: Any, *args: Any) -> str:
    with pytest.raises(Misuse) as caught:
        action(*args)
    assert caught.value.exit_code == 2
    return caught.value.message


def test_a_missing_file(folder: Path) -> None:
    assert "There is no file" in refusal(targets.split_target, str(folder / "nope.py"))


def test_a_folder_is_no_file(folder: Path) -> None:
    assert "is a folder" in refusal(targets.split_target, str(folder))


def test_a_file_that_would_hide_a_module(folder: Path) -> None:
    path = write(folder, "json.py", ONE.format("one"))
    assert "json.py has the name of another module" in refusal(targets.load, path)


def test_a_file_that_raises_shows_its_own_lines_only(folder: Path) -> None:
    message = refusal(
        targets.load, write(folder, "broken_one.py", "def f():\n    return 1 / 0\nf()\n")
    )
    assert message.startswith("broken_one.py can't be imported:")
    assert "return 1 / 0" in message
    assert message.endswith("ZeroDivisionError: division by zero")
    assert "importlib" not in message
    assert "broken_one" not in sys.modules


def test_a_declaration_that_is_refused_shows_the_line_of_its_file_only(folder: Path) -> None:
    source = "from perdure import Queue\nOPENAI = Queue('q', concurrency=0)\n"
    message = refusal(targets.load, write(folder, "broken_three.py", source))
    assert message.count("File ") == 1
    assert "OPENAI = Queue('q', concurrency=0)" in message
    assert "DefinitionError" in message


def test_a_file_that_is_no_python(folder: Path) -> None:
    assert "SyntaxError" in refusal(targets.load, write(folder, "broken_two.py", "def (\n"))


def test_a_file_that_exits(folder: Path) -> None:
    assert "__main__" in refusal(
        targets.load, write(folder, "exits_one.py", "raise SystemExit(3)\n")
    )


# --- picking --------------------------------------------------------------------------------------


def pick(path: Path, name: str | None = None) -> str:
    module = targets.load(path)
    return targets.pick(module, targets.workflows_of(module), name).name


def test_the_only_workflow_is_meant(folder: Path) -> None:
    assert pick(write(folder, "pick_a.py", ONE.format("single"))) == "single"


def test_the_one_called_like_the_file_is_meant(folder: Path) -> None:
    assert pick(write(folder, "pick_b.py", ONE.format("other") + ONE.format("pick_b"))) == "pick_b"


def test_main_is_meant(folder: Path) -> None:
    assert pick(write(folder, "pick_c.py", ONE.format("other") + ONE.format("main"))) == "main"


def test_imported_workflows_are_known_but_not_meant(folder: Path) -> None:
    write(folder, "pick_lib.py", ONE.format("lib"))
    path = write(folder, "pick_d.py", "from pick_lib import lib\n" + ONE.format("mine"))
    assert pick(path) == "mine"
    assert set(targets.workflows_of(targets.load(path))) == {"lib", "mine"}
    assert pick(path, "lib") == "lib"


def test_static_methods_are_found_by_their_qualified_name(folder: Path) -> None:
    body = "@staticmethod\n        @workflow\n        async def nightly() -> int: ...\n"
    path = write(
        folder,
        "pick_j.py",
        (
            f"from perdure import workflow\nclass Jobs:\n    class Own:\n        {body}    "
            f"itself = Own\nJobs.me = Jobs\n"
        ),
    )
    assert set(targets.workflows_of(targets.load(path))) == {"Jobs.Own.nightly"}
    assert targets.split_target(f"{path}:Jobs.Own.nightly") == (path, "Jobs.Own.nightly")
    assert pick(path, "Jobs.Own.nightly") == "Jobs.Own.nightly"


def test_several_workflows_are_listed(folder: Path) -> None:
    message = refusal(pick, write(folder, "pick_e.py", ONE.format("one") + ONE.format("two")))
    assert "perdure run pick_e.py:one" in message
    assert "two()" in message


def test_a_name_that_is_not_there(folder: Path) -> None:
    message = refusal(pick, write(folder, "pick_f.py", ONE.format("one")), "nope")
    assert message == "pick_f.py has no workflow 'nope'. It has: one."


def test_a_file_without_workflow(folder: Path) -> None:
    assert "has no workflow" in refusal(pick, write(folder, "pick_g.py", "x = 1\n"))


def test_two_workflows_of_one_name(folder: Path) -> None:
    text = ONE.format("one") + "first = one\n" + ONE.format("one")
    assert "two workflows called 'one'" in refusal(pick, write(folder, "pick_h.py", text))


# --- arguments ------------------------------------------------------------------------------------


def arguments(definition: Any, *words: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    call = targets.make_call(definition, words)
    return call.args, call.kwargs


def test_words_become_what_the_parameters_are() -> None:
    assert arguments(flows.hello, "5", "3") == (("5", 3), {})
    args, kwargs = arguments(flows.shapes, "2026-11-23", '[{"x": 1, "y": 2}]', "null", "scale=2")
    assert args == (date(2026, 11, 23), [flows.Point(1, 2)], None)
    assert kwargs == {"scale": 2.0}


def test_text_that_is_no_json_is_text() -> None:
    args, _ = arguments(flows.shapes, "2026-11-23", "[]", "a label = b")
    assert args[2] == "a label = b"


def test_arguments_by_name() -> None:
    assert arguments(flows.hello, "times=2", "name=a=b") == (("a=b", 2), {})


def test_an_equals_sign_alone_makes_no_name() -> None:
    assert arguments(flows.hello, "x=1") == (("x=1",), {})


def test_the_wrong_number_of_arguments_shows_the_signature() -> None:
    message = refusal(targets.make_call, flows.hello, [])
    assert message == "hello(name: str, times: int = 1): missing a required argument: 'name'."
    assert "too many positional arguments" in refusal(
        targets.make_call, flows.hello, ["a", "1", "2"]
    )


def test_an_argument_that_does_not_fit_is_named() -> None:
    message = refusal(targets.make_call, flows.hello, ["Ada", "often"])
    assert message.startswith("hello(name: str, times: int = 1): 'often' is no value for times: ")


def test_the_default_id_is_made_from_the_arguments() -> None:
    def made(*words: str) -> str:
        return targets.default_id(targets.make_call(flows.hello, words))

    assert made("Ada", "2") == made("times=2", "name=Ada")
    assert made("Ada", "2") != made("Ada", "3")
    assert made("Ada").startswith("hello-")
