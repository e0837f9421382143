"""Message lists of agents as conversations: roles, texts, calls of tools and their results.

Rules: shapes are recognized by their fields, never by a library: chat completions and responses of
OpenAI, messages of Anthropic, messages of Pydantic AI, and a role with a text; a list is a
conversation only where every item of it is recognized; nothing is cut.
"""

from __future__ import annotations

from typing import Any

import msgspec

DEPTH_MAX = 4
"""How deep in arguments a message list is looked for."""

_SYSTEM = frozenset({"system", "developer"})
_MODEL = frozenset({"assistant", "model", "ai"})
_TOOL = frozenset({"tool", "function"})
_USER = frozenset({"user", "human"})
_ROLES = _SYSTEM | _MODEL | _TOOL | _USER
_PARTS = {"system-prompt": "system", "user-prompt": "user", "retry-prompt": "user"}


class ToolUse(msgspec.Struct, frozen=True):
    """A call of a tool that a model asked for."""

    name: str
    arguments: Any
    id: str | None = None


class Said(msgspec.Struct):
    """A message: `role` is system, user, model or tool. `tool` names the tool whose result it is,
    `call_id` the call; `thought` is what the model thought; `attached` names what is no text.
    """

    role: str
    text: str = ""
    thought: str = ""
    calls: list[ToolUse] = []
    tool: str | None = None
    call_id: str | None = None
    failed: bool = False
    attached: list[str] = []


def conversation(value: Any) -> list[Said] | None:
    """A list of messages as what was said; None where it is no such list.

    >>> said = conversation([{"role": "user", "content": "hello"}])
    >>> said[0].role, said[0].text
    ('user', 'hello')
    """
    if not isinstance(value, list) or not value:
        return None
    found: list[Said] = []
    for item in value:
        said = _message(item)
        if said is None:
            return None
        found += said
    return _with_tool_names(found)


def find_conversation(value: Any, depth: int = DEPTH_MAX) -> list[Said] | None:
    """The longest message list in the arguments of a step; None where there is none."""
    found = conversation(value)
    if found is not None or depth == 0:
        return found
    inner = list(value.values()) if isinstance(value, dict) else []
    candidates = [one for item in inner if (one := find_conversation(item, depth - 1))]
    return max(candidates, key=len, default=None)


def reply(value: Any) -> list[Said] | None:
    """What a model answered, in the shapes in which libraries return it; None for other values."""
    match value:
        case {"choices": [{"message": message}, *_]} | {"message": dict(message)}:
            said = _message(message)
            if said and isinstance(value.get("tool_calls"), list):
                said[-1].calls += [_call(one) for one in value["tool_calls"]]
            return said
        case {"output": list(items)} | list(items):
            return conversation(items)
        case _:
            return _message(value)


def _message(item: Any) -> list[Said] | None:
    """What one item of a message list says; None where it is no message."""
    match item:
        case {"kind": "request" | "response", "parts": list(parts)}:
            return _from_parts(parts, "user" if item["kind"] == "request" else "model")
        case {"role": str(role)} if role in _ROLES and item.keys() & _CONTENTS:
            return _from_content(role, item)
        case {"type": "function_call", "name": str(name)}:
            call = ToolUse(name, _arguments(item.get("arguments")), item.get("call_id"))
            return [Said("model", calls=[call])]
        case {"type": "function_call_output", "output": output}:
            return [Said("tool", _text(output), call_id=item.get("call_id"))]
        case {"type": "reasoning"}:
            return [Said("model", thought=_text(item.get("summary")))]
        case _:
            return None


_CONTENTS = frozenset({"content", "text", "parts", "tool_calls"})


def _from_content(role: str, item: dict[str, Any]) -> list[Said]:
    """A message with a role: its text, and what its parts are."""
    kind = _role(role)
    said = Said(kind, tool=_str(item.get("name")) if kind == "tool" else None)
    said.call_id = _str(item.get("tool_call_id"))
    content = next((item[key] for key in ("content", "text", "parts") if item.get(key)), "")
    results: list[Said] = []
    for part in content if isinstance(content, list) else [content]:
        _add_part(said, part, results)
    asked = item.get("tool_calls")
    said.calls += [_call(one) for one in asked] if isinstance(asked, list) else []
    empty = not (said.text or said.thought or said.calls or said.attached)
    return results if results and empty else [*results, said]


def _add_part(said: Said, part: Any, results: list[Said]) -> None:
    match part:
        case str():
            _add_text(said, part)
        case {"type": "tool_use", "name": str(name)}:
            said.calls.append(ToolUse(name, part.get("input"), _str(part.get("id"))))
        case {"type": "tool_result"}:
            failed = bool(part.get("is_error"))
            id = _str(part.get("tool_use_id"))
            results.append(Said("tool", _text(part.get("content")), call_id=id, failed=failed))
        case {"type": "thinking", "thinking": str(thought)}:
            said.thought += thought
        case {"text": str(text)}:
            _add_text(said, text)
        case {"functionCall": {"name": str(name), **rest}}:
            said.calls.append(ToolUse(name, rest.get("args")))
        case {"type": str(kind)}:
            said.attached.append(kind.removeprefix("input_"))
        case _:
            _add_text(said, _text(part))


def _from_parts(parts: list[Any], role: str) -> list[Said]:
    """A message of Pydantic AI: its parts have roles of their own."""
    found: list[Said] = []
    for part in parts:
        match part:
            case {"part_kind": "tool-call", "tool_name": str(name)}:
                call = ToolUse(name, _arguments(part.get("args")), _str(part.get("tool_call_id")))
                said = Said(role, calls=[call])
            case {"part_kind": "tool-return", "tool_name": str(name)}:
                id = _str(part.get("tool_call_id"))
                said = Said("tool", _text(part.get("content")), tool=name, call_id=id)
            case {"part_kind": "thinking"}:
                said = Said(role, thought=_text(part.get("content")))
            case {"part_kind": str(kind)}:
                said = Said(_PARTS.get(kind, role), _text(part.get("content")))
            case _:
                said = Said(role, _text(part))
        last = found[-1] if found else None
        if last is not None and last.role == said.role == "model":
            last.text, last.thought = last.text + said.text, last.thought + said.thought
            last.calls = last.calls + said.calls
        else:
            found.append(said)
    return found


def _with_tool_names(found: list[Said]) -> list[Said]:
    """Results get the names of the tools that were called."""
    names = {call.id: call.name for said in found for call in said.calls if call.id}
    for said in found:
        if said.tool is None and said.call_id in names:
            said.tool = names[said.call_id]
    return found


def _call(item: Any) -> ToolUse:
    match item:
        case {"function": {"name": str(name), **rest}}:
            return ToolUse(name, _arguments(rest.get("arguments")), _str(item.get("id")))
        case {"tool": str(name), **rest} | {"name": str(name), **rest}:
            arguments = rest.get("arguments", rest.get("args", rest.get("input", rest)))
            return ToolUse(name, _arguments(arguments), _str(rest.get("id")))
        case _:
            return ToolUse("tool", item)


def _arguments(value: Any) -> Any:
    """Arguments that a model wrote as JSON in a text, as a value."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value


def _add_text(said: Said, text: str) -> None:
    said.text += ("\n" if said.text and text else "") + text


def _text(value: Any) -> str:
    """The text of a content, whatever its parts are."""
    match value:
        case None:
            return ""
        case str():
            return value
        case list():
            return "\n".join(filter(None, map(_text, value)))
        case {"text": str(text)}:
            return text
        case _:
            return msgspec.json.encode(value, enc_hook=str).decode()


def _role(role: str) -> str:
    if role in _SYSTEM:
        return "system"
    if role in _MODEL:
        return "model"
    return "tool" if role in _TOOL else "user"


def _str(value: Any) -> str | None:
    return value if isinstance(value, str) else None
