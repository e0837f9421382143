"""Errors as data: whatever is raised can be written, and reading it never runs anyone's code."""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.api.definitions import step, workflow
from perdure.codec.error_encoder import (
    encode_error,
    failure_of_run,
    failure_of_step,
    failure_of_verb,
)
from perdure.codec.errors import decode_error
from perdure.codec.json_codec import JsonCodec
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


def recorded(error: BaseException) -> Exception:
    return decode_error(encode_error(error))


def there_and_back(error: BaseException) -> Exception:
    return recorded(raised(error))


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
    ExceptionGroup(
        "several",
        [ValueError("a"), RateLimited(500, 2.0), ExceptionGroup("inner", [KeyError("b")])],
    ),
    json.JSONDecodeError("Expecting value", "", 0),
]


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


@attrs.define
class Slotted(Exception):
    code: int
    why: str = "none"


class TakenOver(Exception):
    """Has replaced what every error has."""

    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise RuntimeError

    def add_note(self, note: str) -> None:
        raise RuntimeError


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


def test_frozen_and_slotted_errors_keep_their_fields_notes_and_causes() -> None:
    for error in (Frozen(3), Slotted(3, "w" * 100_000)):
        error.__dict__["__notes__"] = ["n"]
        back = recorded(raised(error, KeyError("root")))
        assert isinstance(back, Frozen | Slotted)
        assert (type(back), back.code, back.__notes__[0], repr(back.__cause__)) == (
            type(error),
            3,
            "n",
            "KeyError('root')",
        )
        assert back.__traceback__ is not None
    assert isinstance(back, Slotted)
    assert back.why.endswith("w... (100,000 characters)")


def test_an_error_that_has_replaced_everything_is_written_all_the_same() -> None:
    assert str(recorded(TakenOver("x"))) == "TakenOver: x"


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
    (
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff",
    ),
    (
        BaseExceptionGroup("several", [KeyboardInterrupt()]),
        "BaseExceptionGroup: several (1 sub-exception)",
    ),
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
    back = decode_error(
        json.dumps({"type": "Error", "module": name, "message": "m", "args": ["m"]}).encode()
    )
    assert type(back) is RecordedError
    assert name not in sys.modules


@pytest.mark.parametrize(
    "type_",
    [
        "eval",
        "int",
        "object",
        "Exception.__class__",
        "ValueError.__doc__",
        "__name__",
        "",
        "a..b",
        "BaseException",
    ],
)
def test_only_exceptions_are_made(type_: str) -> None:
    back = decode_error(
        json.dumps({"type": type_, "module": "builtins", "message": "1", "args": ["1"]}).encode()
    )
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
    assert list(data) == ["type", "module", "message", "args", "frames", "left_out", "cause"]
    assert (data["type"], data["module"], data["cause"]) == ("ValueError", "builtins", None)
    assert data["message"].endswith("y... (100,000 characters)")
    assert len(data["frames"]) == 20
    assert data["left_out"] == {
        "args[0]": "recorded as a text: 100,002 bytes",
        "frames": "20 of 102 are recorded",
    }
    assert len(raw) < 25_000


# --- what is cut ----------------------------------------------------------------------------------


class PageError(Exception):
    def __init__(self, status: int, page: str, seen: list[int]) -> None:
        super().__init__(status, page)
        self.status, self.page, self.seen = status, page, seen

    def __str__(self) -> str:
        return f"status {self.status}: {self.page}"


CUT: list[Exception] = [
    ValueError("y" * 100_000),
    ValueError(7, "y" * 100_000),
    KeyError("y" * 100_000),
    OSError(2, "y" * 100_000, "/x"),
    PageError(502, "y" * 100_000, [1]),
    ValueError("\0" * 100_000),
    ValueError("y" * 9_000, *range(100_000)),
    ValueError("€" * 9_000),
    ExceptionGroup("y" * 100_000, [ValueError("a")]),
]


@pytest.mark.parametrize("error", CUT, ids=lambda error: type(error).__name__)
def test_an_error_with_a_long_message_keeps_its_class_and_fields(error: Exception) -> None:
    raw = encode_error(raised(error))
    back = decode_error(raw)
    assert type(back) is type(error)
    assert len(raw) < 64 * 1024
    assert "characters)" in str(back)
    if isinstance(back, PageError):
        assert (back.status, back.seen) == (502, [1])
        assert back.page.endswith("... (100,000 characters)")
        assert any("page (cut: 100,002 bytes)" in note for note in back.__notes__)
    if isinstance(back, OSError):
        assert (back.errno, back.filename) == (2, "/x")


def test_fields_are_left_out_one_by_one_and_that_is_said() -> None:
    error = RateLimited(429, 1.5)
    error.client, error.rows, error.short = object(), list(range(10_000)), "s"  # type: ignore[attr-defined]
    data = json.loads(encode_error(error))
    assert data["attributes"] == {"status": 429, "retry_after": 1.5, "short": "s"}
    assert data["left_out"] == {"client": "left out: a object", "rows": "left out: 48,891 bytes"}
    back = there_and_back(error)
    assert type(back) is RateLimited
    assert back.__notes__ == [
        "Not recorded in full: client (left out: a object); rows (left out: 48,891 bytes)"
    ]
    assert (
        there_and_back(back).__notes__ == back.__notes__
    )  # said once, however often it is recorded


@pytest.mark.parametrize(
    ("error", "args"),
    [
        (ValueError(object), ("<class 'object'>",)),
        (ValueError("a\ud800"), ("a\\ud800",)),
        (ValueError(b"x"), ("b'x'",)),
        (ValueError("nul\0"), ("nul\0",)),
    ],
)
def test_arguments_that_do_not_serialize_become_texts(
    error: Exception, args: tuple[Any, ...]
) -> None:
    back = there_and_back(error)
    assert type(back) is ValueError
    assert back.args == args


def test_what_stands_in_has_the_fields() -> None:
    error = NeedsInit(3)
    error.code = 3  # type: ignore[attr-defined]
    back = there_and_back(error)
    assert isinstance(back, RecordedError)
    assert back.fields == {"code": 3}


def test_notes_come_along() -> None:
    for error in (ValueError("x"), NeedsInit(3)):
        error.add_note("seen at noon")
        error.add_note("z" * 100_000)
        first, second, *_ = there_and_back(error).__notes__
        assert first == "seen at noon"
        assert second.endswith("z... (100,000 characters)")


@pytest.mark.parametrize("payload_bytes_max", [300, 6_000, 20_000, None])
def test_an_error_fits_where_payloads_have_to_be_small(payload_bytes_max: int | None) -> None:
    error: Any = RateLimited(429, 1.5)
    for number in range(20):
        error = raised(PageError(number, "€" * 50_000, []), error)
        error.add_note("n" * 10_000)
    group = raised(
        ExceptionGroup("all", [error, *(PageError(n, "p" * 10_000, [n]) for n in range(200))])
    )
    for one in (error, group):
        raw = encode_error(one, payload_bytes_max)
        assert len(raw) <= (
            64 * 1024 if payload_bytes_max is None else max(payload_bytes_max, 4_096)
        )
        assert type(decode_error(raw)) is type(one)


def test_of_a_deep_chain_the_ends_are_kept() -> None:
    error: BaseException = RateLimited(429, 1.5)
    for number in range(5_000):
        error = raised(ValueError(number), error)
    chain: list[BaseException] = [recorded(error)]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    assert [str(one) for one in chain] == [*map(str, range(4_999, 4_989, -1)), "status 429"]
    assert chain[-2].__notes__ == [
        "Not recorded in full: causes (4,990 errors between this one and its cause)"
    ]


def test_circles_through_groups_and_contexts_end() -> None:
    one, two = ValueError("1"), ValueError("2")
    group = ExceptionGroup("g", [one, two])
    one.__context__, two.__cause__ = group, group
    back = decode_error(encode_error(group))
    assert isinstance(back, ExceptionGroup)
    assert [str(one) for one in back.exceptions] == ["1", "2"]
    itself = ValueError("me")
    itself.__cause__ = itself
    assert decode_error(encode_error(itself)).__cause__ is None


def test_a_hostile_cause_does_not_cost_the_error() -> None:
    back = recorded(raised(RateLimited(429, 1.5), Hostile("x")))
    assert isinstance(back, RateLimited)
    assert isinstance(back.__cause__, RecordedError)


def test_what_was_being_handled_comes_along_unless_it_was_suppressed() -> None:
    def handled(*, suppressed: bool) -> BaseException:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                if suppressed:
                    raise ValueError("second") from None
                raise ValueError("second")  # that is what is tried  # noqa: B904
        except ValueError as error:
            return error

    assert repr(recorded(handled(suppressed=False)).__context__) == "KeyError('first')"
    assert recorded(handled(suppressed=True)).__context__ is None


# --- frames ---------------------------------------------------------------------------------------


def test_the_traceback_names_the_line() -> None:
    data = json.loads(encode_error(raised(ValueError("x"))))
    (frame,) = data["frames"]
    assert (frame["file"], frame["function"], frame["source"]) == (
        __file__,
        "raised",
        "raise error from cause",
    )
    assert Path(__file__).read_text().splitlines()[frame["line"] - 1].strip() == frame["source"]


def test_a_rebuilt_error_has_a_traceback_that_python_prints() -> None:
    back = recorded(raised(RateLimited(1, 2.0), raised(KeyError("root"))))
    text = "".join(traceback.format_exception(back))
    assert text.count(f'File "{__file__}", line ') == 2
    assert text.count("in raised\n    raise error from cause\n") == 2
    assert "direct cause" in text


def test_recorded_twice_an_error_keeps_its_frames_and_their_source() -> None:
    first = json.loads(encode_error(raised(ValueError("x"))))
    first["frames"][0] |= {"file": "/gone/app.py", "source": "charge(500)"}
    again = json.loads(encode_error(decode_error(json.dumps(first).encode())))
    assert again["frames"] == first["frames"]


def test_rebuilt_frames_hold_nothing() -> None:
    def caller() -> Exception:
        big = object()
        back = there_and_back(raised(ValueError("x")))
        assert big is not None
        return back

    found = caller().__traceback__
    assert found is not None
    assert found.tb_frame.f_back is None
    assert dict(found.tb_frame.f_locals) == {}


def test_frames_of_perdure_and_asyncio_are_left_out() -> None:
    async def waits() -> None:
        async with asyncio.timeout(0):
            await asyncio.sleep(1)

    with pytest.raises(TimeoutError) as caught:
        asyncio.run(waits())
    data = json.loads(encode_error(caught.value))
    assert [frame["function"] for frame in data["frames"]] == [
        "test_frames_of_perdure_and_asyncio_are_left_out", "waits"]  # fmt: skip


def test_a_record_of_an_earlier_version_opens() -> None:
    """Without frames, with a traceback as text, and with null for arguments that were not plain."""
    old = (
        b'{"type":"ValueError","module":"builtins","message":"x","args":["x"],'
        b'"traceback":"Traceback '
        b'...","cause":null}'
    )
    assert repr(decode_error(old)) == "ValueError('x')"
    cut = json.dumps(
        {
            "type": "ValueError",
            "module": "builtins",
            "message": "yy... (9 characters)",
            "args": None,
            "traceback": "",
        }
    )
    assert repr(decode_error(cut.encode())) == repr(
        RecordedError("ValueError", "yy... (9 characters)")
    )
    noted = (
        b'{"type":"ValueError","module":"builtins","message":"x","args":["x"],'
        b'"attributes":{"__notes__":["n"]},"cause":null}'
    )
    assert decode_error(noted).__notes__ == ["n"]


# --- causes ---------------------------------------------------------------------------------------


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
    error.client, error.word = object(), Text("w")  # type: ignore[attr-defined]
    assert json.loads(encode_error(error))["attributes"] == {"status": 1, "retry_after": 2.0}


KEYS = [
    "type",
    "module",
    "message",
    "args",
    "attributes",
    "cause",
    "context",
    "errors",
    "frames",
    "notes",
    "left_out",
    "error",
    "attempts",
    "timeout",
    "run",
    "status",
    "perdure",
]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner),
        max_leaves=20,
    )
)
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
    assert (error.step, error.attempts, str(error)) == (
        "think",
        3,
        "Step think failed after 3 attempts: RateLimited: status 429",
    )
    assert isinstance(error.__cause__, RateLimited)


def test_a_step_that_took_too_long() -> None:
    error = coder.decode_failure(think(), failure_of_step(encode_error(TimeoutError()), 1, True))
    assert type(error) is StepTimeout
    assert str(error) == "Step think failed after 1 attempt: TimeoutError"
    assert isinstance(error, TimeoutError)


def test_a_child_that_failed() -> None:
    error = coder.decode_failure(
        child(), failure_of_run("r1", "failed", encode_error(ValueError("x")))
    )
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
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in vars(error).items()} == vars(
        verb_error
    )


def test_an_error_that_a_person_wrote() -> None:
    error = coder.decode_failure(think(), failure_of_step(b'{"message":"given up"}', 1, False))
    assert str(error) == "Step think failed after 1 attempt: Error: given up"
    assert (
        str(coder.decode_failure(think(), failure_of_step(b'"given up"', 2, False)))
        == "Step think failed after 2 attempts: given up"
    )


@pytest.mark.parametrize("file", ["/dev/zero", "a\0b.py", "x" * 1_000_000])
def test_a_traceback_from_a_store_names_no_file_that_cannot_be_read_to_its_end(file: str) -> None:
    frame = {"file": file, "line": 3, "function": "f" * 1_000_000, "source": ""}
    error = decode_error(
        json.dumps(
            {"type": "ValueError", "module": "builtins", "message": "x", "frames": [frame]}
        ).encode()
    )
    shown = "".join(traceback.format_exception(error))  # reads the files that the frames name
    assert len(shown) < 2_000
    assert repr(file)[1:-1][-100:] in shown
