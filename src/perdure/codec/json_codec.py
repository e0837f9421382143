"""The codec of the kernel and the runtime: calls, messages, results and errors as JSON.

Rules: it implements `core.events.Codec`, with the engine's limit for one payload.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Raw

from perdure.api.definitions import Call, Definition
from perdure.codec import errors, marks
from perdure.codec.equality import same_arguments, same_values
from perdure.codec.error_encoder import encode_error
from perdure.codec.marks import with_offset
from perdure.codec.pydantic import Unsupported
from perdure.codec.schemas import awaited_schema
from perdure.codec.secrets import MARK_BYTES, Hides, marked, masked, refuse_masks
from perdure.codec.signature import signature_of
from perdure.codec.types import ENCODER, ordered, slot_of
from perdure.codec.values import decode, dump, encode, load, slot_for
from perdure.errors import NotSerializable


class JsonCodec:
    """The codec with a limit for one payload; implements `core.events.Codec`.

    `hides` says by name which members of payloads people do not read, once the store is open.
    """

    def __init__(self, payload_bytes_max: int | None = None) -> None:
        self.payload_bytes_max = payload_bytes_max
        self.hides: Hides | None = None

    def encode_call(self, call: Call[Any]) -> bytes:
        signature = call.definition.compiled or signature_of(call.definition)
        return signature.encode_args(call.args, call.kwargs, limit_bytes=self.payload_bytes_max)

    def same_call(self, call: Call[Any], recorded: bytes, asked: bytes) -> bool:
        """Whether recorded data of a step, or of a start with its arguments under `args`, means the
        same as what is asked for now.
        """
        if call.definition.kind == "step":
            return same_arguments(call.definition, recorded, asked)
        one, other = (decode(data, dict[str, Raw], "the start") for data in (recorded, asked))
        return _but(one, "args") == _but(other, "args") and same_arguments(
            call.definition, bytes(one["args"]), bytes(other["args"])
        )

    def same_message(
        self, cls: type, start: Call[Any] | None, recorded: bytes, asked: bytes
    ) -> bool:
        """As `same_call`, for a send of a value of this class that may start a run."""
        one, other = (decode(data, dict[str, Raw], "the message") for data in (recorded, asked))
        if one.keys() != other.keys() or one["channel"] != other["channel"]:
            return False
        begins = (bytes(one["start"]), bytes(other["start"])) if "start" in one else None
        if begins is not None and (start is None or not self.same_call(start, *begins)):
            return False
        return self.same_value(cls, bytes(one["value"]), bytes(other["value"]))

    def same_value(self, cls: type, recorded: bytes, asked: bytes) -> bool:
        """Whether recorded JSON of a value of this class means the same as what is given now."""
        return same_values(_readable(cls), recorded, asked)

    def decode_result(self, call: Call[Any] | None, raw: bytes) -> Any:
        if call is None:
            return decode(raw, Any, "the answer")
        signature = call.definition.compiled or signature_of(call.definition)
        return load(signature.result, raw, signature.of_result)

    def encode_output(self, definition: Definition[..., Any], value: Any) -> bytes:
        signature = definition.compiled or signature_of(definition)
        return dump(
            signature.result, value, signature.of_result, "the return type", self.payload_bytes_max
        )

    def encode(self, value: Any, where: str) -> bytes:
        """A message: its reader names a type, so the value's own class may be one."""
        return encode(value, _readable(type(value)), where, limit_bytes=self.payload_bytes_max)

    def encode_tags(self, tags: dict[str, Any]) -> bytes:
        """Tags, which everybody reads. Raises `NotSerializable` where one is a secret."""
        raw = self.encode(tags, "the tags")
        if MARK_BYTES in raw:
            raise NotSerializable("the tags", "a Secret would be shown there; leave it out")
        return raw

    def shown(self, raw: bytes) -> bytes:
        """The JSON that people read."""
        return masked(raw, self.hides)

    def encode_marked(self, value: Any, schema: Any, where: str) -> bytes:
        """A plain JSON value that a person has given: what the schema of its place calls a password
        is a secret. Raises `NotSerializable` where it has the mask in the place of one.
        """
        raw = ENCODER.encode(marked(value, schema))
        refuse_masks(raw, where)
        return raw

    def encode_item(self, value: Any, where: str) -> bytes:
        """An item of a stream, which is read as plain JSON: times have their offset alone."""
        raw = self.encode(value, where)
        return ENCODER.encode(ordered(value, with_offset)) if marks.zones(value) else raw

    def decode(self, raw: bytes, type_: Any, where: str) -> Any:
        return decode(raw, type_, where)

    def check_type(self, type_: Any, where: str) -> None:
        """Raise `DefinitionError` for a type that no value can be read as."""
        slot_for(type_, where)

    def form(self, type_: Any, prompt: str | None) -> dict[str, Any]:
        """What a form for a value of a type is made from, beside the name of the type."""
        schema = awaited_schema(type_)
        form: dict[str, Any] = {} if schema is None else {"schema": Raw(schema)}
        return form if prompt is None else form | {"prompt": prompt}

    def encode_error(self, error: BaseException) -> bytes:
        return encode_error(error, self.payload_bytes_max)

    def decode_failure(self, call: Call[Any] | None, raw: bytes) -> Exception:
        return errors.decode_failure("?" if call is None else call.definition.name, raw)


def _but(members: Mapping[str, Raw], left_out: str) -> dict[str, bytes]:
    return {name: bytes(value) for name, value in members.items() if name != left_out}


def _readable(cls: Any) -> Any:
    """The class of a value, if it is none of JSON's own and a reader can ask for it."""
    if cls in (str, int, bool, dict, list, float, type(None)):
        return Any
    try:
        slot_of(cls)
    except Unsupported:
        return Any
    return cls
