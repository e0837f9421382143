"""Message lists of several libraries as conversations."""

from __future__ import annotations

import pytest

from perdure.views.conversation import conversation, find_conversation, reply

OPENAI = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Weather?"}, {"type": "image_url"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}},
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "rain"},
]
RESPONSES = [
    {"role": "user", "content": "Weather?"},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "look it up"}]},
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Ulm"}'},
    {"type": "function_call_output", "call_id": "c1", "output": "rain"},
]
ANTHROPIC = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "look it up"},
            {"type": "text", "text": "One moment."},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Ulm"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "c1",
                "content": [{"type": "text", "text": "rain"}],
            }
        ],
    },
]
PYDANTIC = [
    {
        "kind": "request",
        "parts": [
            {"part_kind": "system-prompt", "content": "Be brief."},
            {"part_kind": "user-prompt", "content": "Weather?"},
        ],
    },
    {
        "kind": "response",
        "parts": [
            {"part_kind": "text", "content": "One moment."},
            {"part_kind": "tool-call", "tool_name": "weather", "args": {"city": "Ulm"}},
        ],
    },
    {
        "kind": "request",
        "parts": [{"part_kind": "tool-return", "tool_name": "weather", "content": "rain"}],
    },
]
OURS = [
    {"role": "user", "text": "Weather?"},
    {"role": "model", "text": "One moment."},
    {"role": "tool", "text": "rain"},
]


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        (OPENAI, ["system", "user", "model", "tool"]),
        (RESPONSES, ["user", "model", "model", "tool"]),
        (ANTHROPIC, ["user", "model", "tool"]),
        (PYDANTIC, ["system", "user", "model", "tool"]),
        (OURS, ["user", "model", "tool"]),
    ],
    ids=["openai", "responses", "anthropic", "pydantic", "ours"],
)
def test_every_shape_tells_who_said_what(messages, roles) -> None:
    said = conversation(messages)
    assert said is not None
    assert [one.role for one in said] == roles
    assert said[-1].text == "rain"
    if messages is not OURS:
        assert [(call.name, call.arguments) for one in said for call in one.calls] == [
            ("weather", {"city": "Ulm"})
        ]
        assert said[-1].tool == "weather"


def test_thoughts_and_attachments_are_kept_apart_from_the_text() -> None:
    for messages in (ANTHROPIC, RESPONSES):
        assert "look it up" in [one.thought for one in conversation(messages) or []]
    assert ["image_url"] in [one.attached for one in conversation(OPENAI) or []]


@pytest.mark.parametrize(
    "value", [None, [], "text", 7, {}, [1, 2], [{"role": "user"}], [{"role": "boss", "text": "x"}]]
)
def test_other_values_are_no_conversation(value) -> None:
    assert conversation(value) is None


@pytest.mark.parametrize(
    "odd",
    [
        {"role": "assistant", "content": 5, "tool_calls": 7},
        {"role": "assistant", "content": [None, 1, [2]], "tool_calls": [None, 3, {"function": 1}]},
        {"role": "tool", "text": {"a": [1]}, "name": 3, "tool_call_id": 4},
        {"kind": "request", "parts": [None, {"part_kind": "tool-call"}]},
        {"type": "function_call", "name": "x", "arguments": 7, "call_id": 1},
    ],
)
def test_odd_messages_are_shown_somehow(odd) -> None:
    assert conversation([odd]) is not None


def test_the_longest_list_in_the_arguments_is_found() -> None:
    args = {"model": "m", "request": {"messages": OPENAI, "examples": OURS}}
    assert len(find_conversation(args) or []) == 4
    assert find_conversation({"pages": [1, 2], "deep": {"a": {"b": {"c": {"d": OURS}}}}}) is None


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"message": {"role": "assistant", "content": "rain"}}]},
        {"role": "assistant", "content": [{"type": "text", "text": "rain"}]},
        {"kind": "response", "parts": [{"part_kind": "text", "content": "rain"}]},
        {"output": [{"type": "message", "role": "assistant", "content": [{"text": "rain"}]}]},
    ],
)
def test_an_answer_is_a_message_of_the_model(answer) -> None:
    (said,) = reply(answer) or []
    assert (said.role, said.text) == ("model", "rain")


def test_calls_beside_the_message_belong_to_it() -> None:
    answer = {"message": OURS[1], "tool_calls": [{"tool": "search", "text": "x"}]}
    (said,) = reply(answer) or []
    assert [(call.name, call.arguments) for call in said.calls] == [("search", {"text": "x"})]
    assert reply({"total": 7}) is None
