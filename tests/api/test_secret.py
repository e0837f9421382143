"""A secret shows its text to nobody who has not asked for it."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest

from perdure import DefinitionError, Secret
from perdure.codec.secrets import masked
from perdure.codec.values import decode, encode
from perdure.errors import DoesNotFit

KEY = Secret("sk-1")


class Model(pydantic.BaseModel):
    key: Secret
    more: list[Secret] = []


class Record(msgspec.Struct):
    key: Secret | None
    inner: dict[str, Secret]


@dataclass(frozen=True)
class Data:
    key: Secret
    any: Any = None


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        "{:>5}".format,
        "%s".__mod__,
        ascii,
        lambda key: repr([key, {"a": Data(key)}]),
    ],
)
def test_it_is_not_shown(show: Any) -> None:
    assert "sk-1" not in show(KEY)


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (KEY, Secret),
        (KEY, Any),
        ([KEY, 1], list[Any]),
        ({"a": [KEY]}, dict[str, Any]),
        (None, Secret | None),
        (Model(key=KEY, more=[KEY]), Model),
        ([Model(key=KEY)], list[Model]),
        (Record(KEY, {"a": KEY}), Record),
        (Data(KEY, {"x": KEY}), Data),
        ((KEY, "a"), tuple[Secret, str]),
    ],
)
def test_it_comes_back_from_its_record_and_is_masked_there(value: Any, type_: Any) -> None:
    raw = encode(value, type_)
    assert decode(raw, type_) == value
    assert b"sk-1" not in masked(raw)
    json.loads(masked(raw))


def test_what_was_masked_is_read_as_a_secret() -> None:
    assert decode('"•••"'.encode(), Secret) == Secret("•••")


def test_it_is_a_value() -> None:
    assert len({KEY, Secret("sk-1"), Secret("2")}) == 2
    assert copy.deepcopy(KEY) is copy.copy(KEY) is KEY
    assert bool(KEY) and not Secret("")
    assert KEY != "sk-1"
    with pytest.raises(AttributeError):
        KEY._text = "x"
    with pytest.raises(TypeError, match="not pickled"):
        KEY.__reduce_ex__(2)
    for wrong in (1, None, b"x", KEY):
        with pytest.raises(DefinitionError):
            Secret(wrong)  # type: ignore[arg-type]


def test_a_model_shows_the_mask_to_others() -> None:
    model = Model(key=KEY, more=[KEY])
    assert "sk-1" not in f"{model} {model!r} {model.model_dump_json()} {model.model_dump()}"
    assert Model.model_validate_json(model.model_dump_json(round_trip=True)) == model
    with pytest.raises(pydantic.ValidationError):
        Model.model_validate({"key": 3})


def test_a_library_that_quotes_it_is_not_repeated() -> None:
    class Other(pydantic.BaseModel):
        key: int

    with pytest.raises(DoesNotFit) as caught:
        decode(encode(Model(key=KEY), Model), Other)
    assert "sk-1" not in str(caught.value)
    assert "•••" in str(caught.value)
