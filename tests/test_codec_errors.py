"""Errors as data: whatever is raised can be written, and reading it never runs anyone's code."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.api import step, workflow
from perdure.codec import JsonCodec, decode_error, encode_error, failure_of_run, failure_of_step, failure_of_verb
from perdure.errors import (
    PerdureError,
    RecordedError,
    RunCancelled,
    RunExists,
    RunFailed,
    RunFinished,
    RunNotFound,
    StepFailed,
    StepTimeout,
    UnknownWorkflow,
)


class RateLimited(Exception):
    def __init__(self, status: int, retry_after: float) -> None:
        super().__init__(f"status {status}")
        self.status, self.retry_after = status, retry_after


class Counted(Exception):
    made = 0

    def __init__(self, *args: Any) -> None:
        Counted.made += 1
        super().__init__(*args)


class Quiet(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class NeedsInit(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.secret = object()

    def __str__(self) -> str:
        return f"code {self.args[0]} {self.secret is not None}"


class Hostile(Exception):
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError


class Text(str):
    pass


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def there_and_back(error: BaseException) -> Exception:
    return decode_error(encode_error(raised(error)))


SAME: list[Exception] = [
    ValueError("bad"),
    ValueError(),
    ValueError("a", 1, None, [1.5]),
    KeyError("k"),
    ZeroDivisionError("x"),
    TimeoutError(),
    FileNotFoundError(2, "No such file", "/x"),
    OSError(2, "No such file"),
    OSError("just text"),
    OSError(17, "Exists", "/a", None, "/b"),
    ConnectionResetError(104, "reset"),
    StopIteration(3),
    RateLimited(429, 1.5),
    StepFailed("think", 3, "ValueError: x"),
    StepTimeout("think", 1, "TimeoutError"),
    RunNotFound("r"),
    RecordedError("Other", "text"),
    ExceptionGroup("several", [ValueError("a"), RateLimited(500, 2.0), ExceptionGroup("inner", [KeyError("b")])]),
    json.JSONDecodeError("Expecting value", "", 0),
]


@pytest.mark.parametrize("error", SAME, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_as_itself(error: Exception) -> None:
    back = there_and_back(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert repr(back) == repr(error)
    if not isinstance(error, ExceptionGroup):
        assert back.args == error.args
        assert vars(back) == vars(error)


def test_what_a_handler_looks_at_is_there() -> None:
    back = there_and_back(RateLimited(429, 1.5))
    assert isinstance(back, RateLimited)
    assert (back.status, back.retry_after) == (429, 1.5)
    assert there_and_back(RateLimited(429, None)).retry_after is None  # type: ignore[arg-type, attr-defined]
    missing = there_and_back(FileNotFoundError(2, "No such file", "/x"))
    assert isinstance(missing, FileNotFoundError)
    assert (missing.errno, missing.filename) == (2, "/x")
    group = there_and_back(ExceptionGroup("several", [ValueError("a"), KeyError("b")]))
    assert isinstance(group, ExceptionGroup)
    assert [type(one) for one in group.exceptions] == [ValueError, KeyError]


def test_no_constructor_is_run() -> None:
    raw = encode_error(Counted("x"))
    made = Counted.made
    assert isinstance(decode_error(raw), Counted)
    assert Counted.made == made


STANDS_IN: list[tuple[BaseException, str]] = [
    (KeyboardInterrupt(), "KeyboardInterrupt"),
    (SystemExit(3), "SystemExit: 3"),
    (asyncio.CancelledError(), "CancelledError"),
    (GeneratorExit(), "GeneratorExit"),
    (Quiet("x"), "Quiet: (the error has no readable message)"),
    (NeedsInit(3), "NeedsInit: code 3 True"),
    (Hostile("x"), "Hostile: x"),
    (ValueError(object), "ValueError: <class 'object'>"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff"),
    (BaseExceptionGroup("several", [KeyboardInterrupt()]), "BaseExceptionGroup: several (1 sub-exception)"),
    (ValueError("a\ud800"), "ValueError: a\\ud800"),
]


@pytest.mark.parametrize(("error", "text"), STANDS_IN, ids=lambda one: type(one).__name__)
def test_a_recorded_error_stands_in(error: BaseException, text: str) -> None:
    back = there_and_back(error)
    assert type(back) is RecordedError
    assert str(back).startswith(text)


def test_a_local_class_can_not_be_found() -> None:
    class Local(Exception):
        pass

    back = there_and_back(Local("x"))
    assert type(back) is RecordedError
    assert (back.type_name, back.message) == ("Local", "x")


def test_nothing_is_imported() -> None:
    name = "this"  # the one module whose import everybody would notice
    assert name not in sys.modules
    back = decode_error(json.dumps({"type": "Error", "module": name, "message": "m", "args": ["m"]}).encode())
    assert type(back) is RecordedError
    assert name not in sys.modules


@pytest.mark.parametrize(
    "type_", ["eval", "int", "object", "Exception.__class__", "ValueError.__doc__", "__name__", "", "a..b", "BaseException"]
)
def test_only_exceptions_are_made(type_: str) -> None:
    back = decode_error(json.dumps({"type": type_, "module": "builtins", "message": "1", "args": ["1"]}).encode())
    assert type(back) is RecordedError


def test_the_record_is_readable_and_bounded() -> None:
    def deeper(n: int) -> None:
        if n == 0:
            raise ValueError("y" * 100_000)
        deeper(n - 1)

    try:
        deeper(100)
    except ValueError as error:
        raw = encode_error(error)
    data = json.loads(raw)
    assert list(data) == ["type", "module", "message", "args", "traceback", "cause"]
    assert (data["type"], data["module"], data["cause"]) == ("ValueError", "builtins", None)
    assert data["message"].endswith("y... (100,000 characters)")
    assert len(raw) < 20_000
    assert str(decode_error(raw)).startswith("ValueError: yyy")


def test_the_traceback_names_the_line() -> None:
    data = json.loads(encode_error(raised(ValueError("x"))))
    assert "raise error from cause" in data["traceback"]
    assert data["traceback"].endswith("ValueError: x\n")


def test_causes_come_along() -> None:
    inner = raised(OSError(5, "I/O error"), KeyError("root"))
    back = decode_error(encode_error(raised(RateLimited(1, 2.0), inner)))
    assert repr(back.__cause__) == repr(OSError(5, "I/O error"))
    assert repr(back.__cause__.__cause__) == repr(KeyError("root"))  # type: ignore[union-attr]


def test_a_circle_of_causes_ends() -> None:
    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one
    assert isinstance(decode_error(encode_error(one)), ValueError)


def test_odd_attributes_are_left_out() -> None:
    error = RateLimited(1, 2.0)
    error.client, error.big, error.word = object(), "x" * 100_000, Text("w")  # type: ignore[attr-defined]
    assert json.loads(encode_error(error))["attributes"] == {"status": 1, "retry_after": 2.0}


KEYS = ["type", "module", "message", "args", "attributes", "cause", "errors", "error", "attempts", "timeout", "run", "status", "perdure"]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(KEYS) | st.text(), inner), max_leaves=20))  # fmt: skip
def test_reading_never_fails(data: Any) -> None:
    raw = json.dumps(data).encode()
    assert isinstance(decode_error(raw), Exception)
    assert isinstance(JsonCodec().decode_failure(None, raw), Exception)


@given(st.binary())
def test_reading_garbage_never_fails(raw: bytes) -> None:
    assert isinstance(decode_error(raw), Exception)
    assert isinstance(JsonCodec().decode_failure(None, raw), Exception)


# --- failures -------------------------------------------------------------------------------------


@step
def think() -> None: ...


@workflow
async def child() -> None: ...


coder = JsonCodec()


def test_a_step_that_failed() -> None:
    raw = failure_of_step(encode_error(RateLimited(429, 1.0)), 3, False)
    error = coder.decode_failure(think(), raw)
    assert type(error) is StepFailed
    assert (error.step, error.attempts, str(error)) == ("think", 3, "Step think failed after 3 attempts: RateLimited: status 429")
    assert isinstance(error.__cause__, RateLimited)


def test_a_step_that_took_too_long() -> None:
    error = coder.decode_failure(think(), failure_of_step(encode_error(TimeoutError()), 1, True))
    assert type(error) is StepTimeout
    assert str(error) == "Step think failed after 1 attempt: TimeoutError"
    assert isinstance(error, TimeoutError)


def test_a_child_that_failed() -> None:
    error = coder.decode_failure(child(), failure_of_run("r1", "failed", encode_error(ValueError("x"))))
    assert type(error) is RunFailed
    assert str(error).startswith("Run 'r1' failed: ValueError: x.")
    assert repr(error.__cause__) == "ValueError('x')"


def test_a_child_that_was_cancelled() -> None:
    error = coder.decode_failure(child(), failure_of_run("r1", "cancelled", None))
    assert type(error) is RunCancelled
    assert error.run_id == "r1"
    assert error.__cause__ is None


@pytest.mark.parametrize(
    "verb_error",
    [
        RunNotFound("r"),
        RunNotFound("r", ("r1", "r2")),
        RunFinished("r", "completed", "send to"),
        RunExists("r", "x"),
        UnknownWorkflow("w", ("a",)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_verb_that_failed(verb_error: PerdureError) -> None:
    error = coder.decode_failure(None, failure_of_verb(verb_error))
    assert type(error) is type(verb_error)
    assert str(error) == str(verb_error)
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in vars(error).items()} == vars(verb_error)


def test_an_error_that_a_person_wrote() -> None:
    error = coder.decode_failure(think(), failure_of_step(b'{"message":"given up"}', 1, False))
    assert str(error) == "Step think failed after 1 attempt: Error: given up"
    assert str(coder.decode_failure(think(), failure_of_step(b'"given up"', 2, False))) == "Step think failed after 2 attempts: given up"
