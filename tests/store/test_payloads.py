"""Payloads in pieces: joined they are the same bytes, and a file grows with what is new."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.api.secret import MARK
from perdure.codec.secrets import masked, spans
from perdure.core.limits import INLINE_BYTES_MAX
from perdure.store import payloads


class Shelf:
    """What the store does: columns, and the pieces of one run by number."""

    def __init__(self) -> None:
        self.known: dict[bytes, int] = {}
        self.bodies: dict[int, str] = {}
        self.columns: list[str] = []

    def put(self, value: Any, is_args: bool = True) -> str:
        return self.put_raw(msgspec.json.encode(value), is_args)

    def put_raw(self, raw: bytes, is_args: bool = True) -> str:
        text, new = payloads.split(raw, self.known, is_args)
        for n, digest, body in new:
            assert n == len(self.bodies) + 1, "numbers have no gaps"
            assert digest == payloads.digest_of(body.encode())
            self.bodies[n] = body
        self.columns.append(text)
        assert self.get(text) == raw
        return text

    def get(self, text: str) -> bytes:
        if not payloads.is_chunked(text):
            return text.encode()
        fetched = {
            n: self.bodies[n]
            for first, last in payloads.needs(text)
            for n in range(first, last + 1)
        }
        raw = payloads.join(text, fetched)
        assert payloads.recorded_digest(text) == payloads.digest_of(raw)
        return raw

    @property
    def size_bytes(self) -> int:
        return sum(len(body.encode()) for body in self.bodies.values()) + sum(
            len(text.encode()) for text in self.columns
        )


def recipe(text: str) -> list[Any]:
    found: list[Any] = json.loads(text[33:])
    return found


def message(n: int, size: int = 5000) -> dict[str, Any]:
    return {"role": "assistant", "content": f"{n:05d} " + "x" * (size - 43)}


# --- rules ----------------------------------------------------------------------------------------


def test_small_payloads_stay_in_their_row() -> None:
    shelf = Shelf()
    text = shelf.put({"a": "x" * (INLINE_BYTES_MAX - 8)})
    assert not payloads.is_chunked(text)
    assert shelf.bodies == {}
    assert payloads.is_chunked(shelf.put({"a": "x" * (INLINE_BYTES_MAX - 7)}))


def test_a_list_that_grows_is_one_range() -> None:
    shelf = Shelf()
    messages = [message(n) for n in range(1, 301)]
    for n in range(1, 301):
        text = shelf.put({"messages": messages[:n]})
        assert recipe(text) == ['{"messages":[', [1, n], "]}"]
    assert len(shelf.bodies) == 300


def test_a_result_comes_again_as_an_element() -> None:
    shelf = Shelf()
    assert recipe(shelf.put(message(1), False)) == [[1, 1]]
    assert recipe(shelf.put({"messages": [message(1)]})) == ['{"messages":[', [1, 1], "]}"]
    assert recipe(shelf.put({"message": message(2), "tool_calls": []}, False)) == [
        '{"message":',
        [2, 2],
        ',"tool_calls":[]}',
    ]
    assert recipe(shelf.put({"messages": [message(1), message(2)]})) == [
        '{"messages":[',
        [1, 2],
        "]}",
    ]


def test_an_inner_object_is_whole_until_it_is_large() -> None:
    shelf = Shelf()
    assert recipe(shelf.put({"a": {"b": "x" * 2000, "c": [1] * 200}})) == ['{"a":', [1, 1], "}"]
    assert recipe(shelf.put({"a": {"b": "x" * 9000, "c": 1}})) == ['{"a":{"b":', [2, 2], ',"c":1}}']


def test_small_elements_stand_together() -> None:
    shelf = Shelf()
    shelf.put({"n": list(range(1000))})
    before = len(shelf.bodies)
    assert 10 < before < 20
    assert len(recipe(shelf.columns[-1])) == 3, "one range, and the rest in words"
    shelf.put({"n": list(range(1010))})
    assert len(shelf.bodies) - before <= 1, "groups do not move when a list grows"


def test_small_elements_between_large_ones_are_pieces_too() -> None:
    shelf = Shelf()
    items: list[Any] = []
    for n in range(50):
        items += [{"role": "user", "n": n}, message(n)]
    text = shelf.put({"messages": items})
    assert recipe(text) == ['{"messages":[', [1, 100], "]}"]


def test_a_large_list_in_a_list_is_taken_apart() -> None:
    shelf = Shelf()
    table = [[f"cell {n} " + "x" * 100 for n in range(100)], [1, 2]]
    assert recipe(shelf.put(table, False)) == ["[[", [1, 100], "],[1,2]]"]


def test_a_text_is_one_piece() -> None:
    assert recipe(Shelf().put("x" * 2000, False)) == [[1, 1]]
    assert recipe(Shelf().put({"a": "x" * 2000})) == ['{"a":', [1, 1], "}"]


def test_equal_pieces_are_stored_once() -> None:
    shelf = Shelf()
    text = shelf.put([message(1), message(2), message(1), message(1), message(2)], False)
    assert recipe(text) == ["[", [1, 2], ",", [1, 1], ",", [1, 2], "]"]
    assert payloads.needs(text) == [(1, 2)]


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps({"a": ["x" * 400] * 5, "b": 1}).encode(),  # spaces
        b'{"a":"%s","a":"%s"}' % (b"x" * 600, b"y" * 600),  # a key twice
        b'{"\\u0061":"%s"}' % (b"x" * 1200),  # an escape that nobody needs
        b'{"\\ud83d\\ude00":"%s"}' % (b"x" * 1200),
        b" " * 600 + b'"x"' + b" " * 600,
        b'[ "%s"]' % (b"x" * 1200),
        b"1" * 2000,
        b"not json" * 500,
        b"{" * 2000,
        b"[" * 20_000 + b"]" * 20_000,
        b'{"a":' * 3000 + b"1" + b"}" * 3000,
    ],
    ids=range(11),
)
def test_what_can_not_be_put_together_again_is_one_piece(raw: bytes) -> None:
    for is_args in (True, False):
        shelf = Shelf()
        text = shelf.put_raw(raw, is_args)
        # What is merely deep is taken apart where the interpreter's recursion limit lets it; it
        # comes back either way.
        assert recipe(text) == [[1, 1]] or raw.startswith((b'{"a":{', b"[["))


def test_deep_nesting() -> None:
    value: Any = "x" * 300
    for n in range(400):
        value = {"k": value, "pad": "y" * 60} if n % 2 else [value, "z" * 70]
    for is_args in (True, False):
        Shelf().put({"a": value}, is_args)


def test_text_beyond_ascii() -> None:
    Shelf().put({'ü\n"\\': ["😀\u2028" * 200, {"é": "\x00" * 300}], "n": ["ü" * 20] * 100})


# --- growth ---------------------------------------------------------------------------------------


def test_marked_members_are_taken_apart_as_others_are() -> None:
    """A default that was left out stands behind a space: a list beside it was stored anew with
    every call.
    """
    shelf = Shelf()
    messages = [message(n) for n in range(30)]
    for n in range(1, 31):
        shelf.put_raw(
            b'{"messages":%s, "model":"m", "note":%s}'
            % (msgspec.json.encode(messages[:n]), msgspec.json.encode("x" * 400))
        )
    assert shelf.size_bytes < 31 * 5200


def test_an_agent_of_300_turns() -> None:
    shelf = Shelf()
    messages: list[Any] = []
    for n in range(300):
        reply = message(n)
        messages.append(reply)
        shelf.put({"messages": messages})
        shelf.put({"message": reply, "tool_calls": []}, False)
    assert shelf.size_bytes < 1_900_000


def test_an_agent_whose_turns_are_of_all_sizes() -> None:
    shelf = Shelf()
    sizes = random.Random(4)
    messages: list[Any] = []
    said = 0
    for n in range(300):
        messages.append({"role": "user", "content": f"go on {n}" if n % 3 else "go on"})
        messages.append(
            {"role": "tool", "id": f"call_{n}", "content": "t" * sizes.randint(10, 900) + str(n)}
        )
        shelf.put({"model": "large", "messages": messages})
        reply = message(n, sizes.randint(100, 5000))
        shelf.put(
            {
                "message": reply,
                "tool_calls": [{"id": f"call_{n}", "q": "y" * sizes.randint(5, 300)}],
            },
            False,
        )
        messages.append(reply)
        said = len(msgspec.json.encode(messages))
    assert shelf.size_bytes < 2 * said


def test_a_window_that_slides() -> None:
    shelf = Shelf()
    messages = [message(n) for n in range(40)]
    for n in range(40, 340):
        messages = [*messages[1:], message(n)]
        shelf.put({"messages": messages})
        shelf.put({"message": message(n)}, False)
    assert shelf.size_bytes < 340 * 5000 * 1.1


def test_a_window_of_small_elements() -> None:
    shelf = Shelf()
    for n in range(300):
        shelf.put({"n": list(range(n, n + 3000))})
    assert shelf.size_bytes < 100 * len(msgspec.json.encode(list(range(3000))))


def test_state_that_goes_in_and_out() -> None:
    shelf = Shelf()
    state: dict[str, Any] = {"turn": 0, "messages": [], "notes": "n" * 100}
    for n in range(300):
        shelf.put({"state": state})
        state = state | {"turn": n, "messages": [*state["messages"], message(n)]}
        shelf.put(state, False)
    assert shelf.size_bytes < 300 * 5000 * 1.2


def test_one_entry_of_many_changes() -> None:
    shelf = Shelf()
    state = {f"key{n}": n for n in range(3000)}
    for n in range(300):
        state[f"key{n * 7}"] = -n
        shelf.put({"state": state})
    assert shelf.size_bytes < 20 * len(msgspec.json.encode(state))


# --- laws -----------------------------------------------------------------------------------------

texts = (
    st.text(max_size=5)
    | st.integers(1, 400).map(lambda n: "x" * n)
    | st.integers(8000, 9000).map(lambda n: "y" * n)
)
trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(texts, inner, max_size=8),
    max_leaves=60,
)


@given(st.lists(st.tuples(trees, st.booleans()), min_size=1, max_size=4))
def test_any_payloads_come_back_byte_for_byte(payloads: list[tuple[Any, bool]]) -> None:
    shelf = Shelf()
    raws = [msgspec.json.encode(value) for value, _ in payloads]
    for raw, (_, is_args) in zip(raws, payloads, strict=True):
        shelf.put_raw(raw, is_args)
    assert [shelf.get(text) for text in shelf.columns] == raws


@given(st.binary(max_size=50), st.booleans())
def test_bytes_that_are_text_but_not_our_json(seed: bytes, is_args: bool) -> None:
    raw = (seed.decode("latin-1") + "[1 , 2]" * 200).encode()
    Shelf().put_raw(raw, is_args)


@given(st.lists(texts, max_size=40), st.lists(texts, max_size=10))
def test_growing_at_the_end_adds_only_what_is_new(old: list[str], more: list[str]) -> None:
    shelf = Shelf()
    shelf.put({"l": old})
    before = set(shelf.bodies.values())
    shelf.put({"l": old + more})
    added = [body for body in shelf.bodies.values() if body not in before]
    loose = sum(len(text) + 8 for text in _tail(old))
    assert sum(map(len, added)) <= len(msgspec.json.encode(more).decode()) + loose + 1024


def _tail(items: list[str]) -> Iterator[str]:
    """The small elements at the end of a list, which are not in a piece yet."""
    for item in reversed(items):
        if len(item) > payloads.ELEMENT_BYTES_MIN:
            return
        yield item


# --- secrets --------------------------------------------------------------------------------------

SECRETS = st.recursive(
    st.integers() | st.text(max_size=400) | st.text(max_size=400).map(lambda text: MARK + text),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=6)
    ),
    max_leaves=40,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(SECRETS, max_size=3), st.booleans())
def test_a_payload_with_secrets_is_masked_and_comes_back(values: list[Any], is_args: bool) -> None:
    known: dict[bytes, int] = {}
    kept: dict[bytes, int] = {}
    bodies: dict[int, str] = {}
    columns = []
    for raw in map(msgspec.json.encode, (*values, *values)):
        hidden = spans(raw)
        text, new, secrets = payloads.split_with_secrets(raw, hidden, known, kept, is_args)
        before = sum(n > 0 for n in bodies)
        assert [n for n, _, _ in new] == [*range(before + 1, before + len(new) + 1)]
        bodies |= {n: body for n, _, body in new}
        columns.append((raw, text, bool(hidden)))
        shown = bodies.copy()
        bodies |= {-n: body for n, body in secrets}
        assert payloads.has_secrets(text) is bool(hidden)
        assert payloads.join(text, shown) == masked(raw)
        assert not any(MARK in body for n, body in shown.items() if n > 0)
    for raw, text, has_secrets in columns:
        assert payloads.join_true(text, bodies) == raw
        if has_secrets:
            lost = {n: body for n, body in bodies.items() if n > 0}
            assert payloads.join_true(text, lost) is None
