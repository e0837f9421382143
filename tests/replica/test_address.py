"""Addresses: what can be said, what is refused and how, and that a secret is never shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import BadReplicaAddress
from perdure.replica.address import Address, parse

NAME = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=3, max_size=20)
LETTER = st.characters(
    codec="utf-8", exclude_characters="/?#%\\", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")
)
PART = st.text(LETTER, min_size=1, max_size=9)
PARTS = st.lists(PART.filter(lambda part: part not in (".", "..")), max_size=3).map("/".join)


@given(
    NAME,
    PARTS,
    st.sampled_from([None, "http://127.0.0.1:9000", "https://s3.example.org"]),
    st.sampled_from([None, "auto"]),
)
def test_an_address_comes_back_as_it_was(
    bucket: str, prefix: str, endpoint: str | None, region: str | None
) -> None:
    address = Address("s3", bucket, prefix, endpoint, region)
    assert parse(str(address)) == address


@given(st.lists(PART.filter(lambda part: part not in (".", "..")), min_size=1, max_size=3))
def test_a_folder_comes_back_as_it_was(parts: list[str]) -> None:
    address = Address("file", folder="/" + "/".join(parts))
    assert parse(str(address)) == address


def test_places_below_it() -> None:
    assert str(parse("s3://b/p?region=r").child("000007", "x")) == "s3://b/p/000007/x?region=r"
    assert str(parse("s3://b").child("000007")) == "s3://b/000007"
    assert str(parse("file:///a/b/").child("000007")) == "file:///a/b/000007"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "its kind is missing"),
        ("bucket/prefix", "its kind is missing"),
        ("ftp://host/x", "its kind is ftp"),
        ("s3:///prefix", "it names no bucket"),
        ("s3://b/p?endpont=http://x", "an option that is not known: endpont"),
        ("s3://b/p?endpoint=x:9000", "does not begin with http"),
        ("s3://b/p//q", "an empty part"),
        ("s3://b/../q", "a dot"),
        ("s3://[b/p", "can't be used"),
        ("file://relative/folder", "named by its whole path"),
        ("file:///", "named by its whole path"),
        ("file:///a?region=x", "named by its whole path"),
    ],
)
def test_an_address_that_can_not_be_parsed_is_refused_with_an_example(
    text: str, words: str
) -> None:
    with pytest.raises(BadReplicaAddress, match=words) as raised:
        parse(text)
    assert "Right ones look like s3://bucket/prefix" in str(raised.value)


def test_credentials_are_refused_and_not_repeated() -> None:
    with pytest.raises(BadReplicaAddress, match="holds credentials") as raised:
        parse("s3://KEYID:SECRETKEY@bucket/prefix")
    assert "SECRETKEY" not in str(raised.value)
    with pytest.raises(BadReplicaAddress, match="not known: secret"):
        parse("s3://bucket/prefix?secret=x")
