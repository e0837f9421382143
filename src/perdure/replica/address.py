"""The address of a replica: `s3://bucket/prefix?endpoint=…&region=…` or `file:///folder`.

Rules: an address never holds a secret, so it may be shown anywhere; what can't be understood is
refused with an example of what can.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec

from perdure.errors import BadReplicaAddress

_OPTIONS = ("endpoint", "region")


class Address(msgspec.Struct, frozen=True):
    """A parsed address. `prefix` and `folder` have no slash at their end."""

    scheme: str
    bucket: str = ""
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    folder: str | None = None

    def child(self, *names: str) -> Address:
        """A place below this one.

        >>> str(parse("s3://agents/prod").child("000007"))
        's3://agents/prod/000007'
        """
        if self.folder is not None:
            return msgspec.structs.replace(self, folder="/".join([self.folder.rstrip("/"), *names]))
        prefix = "/".join(part for part in (self.prefix, *names) if part)
        return msgspec.structs.replace(self, prefix=prefix)

    def __str__(self) -> str:
        if self.folder is not None:
            return "file://" + quote(self.folder)
        options = [(name, getattr(self, name)) for name in _OPTIONS if getattr(self, name)]
        query = "?" + urlencode(options, safe=":/") if options else ""
        return f"s3://{self.bucket}/{quote(self.prefix)}".rstrip("/") + query


def parse(text: str) -> Address:
    """The address in a text. Raises `BadReplicaAddress`, which says what a right one looks like.

    >>> parse("s3://agents/prod?region=eu-central-1").region
    'eu-central-1'
    """
    try:
        parts = urlsplit(text)
        port_is_fine = parts.port or True
    except ValueError as error:
        raise BadReplicaAddress(text, str(error)) from error
    if "@" in parts.netloc:
        secret = "it holds credentials, and they would end up in logs"
        raise BadReplicaAddress("(not shown)", secret)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := set(options) - set(_OPTIONS):
        known = f"it has an option that is not known: {', '.join(sorted(unknown))}"
        raise BadReplicaAddress(text, known)
    path = unquote(parts.path)
    if parts.scheme == "file" and port_is_fine:
        if parts.netloc not in ("", "localhost") or not path.strip("/") or options:
            raise BadReplicaAddress(text, "a folder is named by its whole path and nothing else")
        return Address("file", folder="/" + path.strip("/"))
    if parts.scheme != "s3":
        raise BadReplicaAddress(text, f"its kind is {parts.scheme or 'missing'}")
    if not parts.netloc:
        raise BadReplicaAddress(text, "it names no bucket")
    endpoint = options.get("endpoint") or None
    if endpoint is not None and urlsplit(endpoint).scheme not in ("http", "https"):
        begins = f"its endpoint {endpoint!r} does not begin with http:// or https://"
        raise BadReplicaAddress(text, begins)
    if any(part in ("", ".", "..") for part in path.strip("/").split("/")) and path.strip("/"):
        raise BadReplicaAddress(text, "its prefix has an empty part or a dot for one")
    return Address("s3", parts.netloc, path.strip("/"), endpoint, options.get("region") or None)
