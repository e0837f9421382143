"""AWS signature version 4, to look into a bucket without a client of ours.

Rules: a value in, headers out; no connection, and the time is an argument.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote

REGION = "us-east-1"


def signed(
    method: str,
    host: str,
    path: str,
    body: bytes,
    headers: Mapping[str, str],
    key: str,
    secret: str,
    now_s: float,
) -> dict[str, str]:
    """The headers to send, those given included; `path` is as sent and has no query."""
    at = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = sha256(body).hexdigest()
    sent = {name.lower(): value for name, value in headers.items()}
    sent |= {"host": host, "x-amz-date": at, "x-amz-content-sha256": digest}
    names = ";".join(sorted(sent))
    lines = "".join(f"{name}:{sent[name].strip()}\n" for name in sorted(sent))
    request = f"{method}\n{quote(path)}\n\n{lines}\n{names}\n{digest}"
    scope = f"{at[:8]}/{REGION}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{sha256(request.encode()).hexdigest()}"
    proof = f"AWS4{secret}".encode()
    for part in (*scope.split("/"), text):
        proof = hmac.digest(proof, part.encode(), "sha256")
    sent["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={proof.hex()}"
    )
    return sent
