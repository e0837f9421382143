"""Answers of people for pages: what a link opens, and the latest answers with their senders.

Rules: a link is looked up by the digest of its token; a payload is read where it is returned.
"""

from __future__ import annotations

import msgspec

from perdure.codec.schemas import schema_named
from perdure.errors import LinkExpired, LinkUnknown, LinkUsed
from perdure.reader.parts import PageParts
from perdure.reader.values import Answered, Declared, LinkView
from perdure.runtime.engine_answers import awaited_item, digest_of
from perdure.runtime.info import instant
from perdure.store.answers import unusable

ANSWERS_MAX = 200
WORKFLOWS_MAX = 1_000
NEWEST = 1 << 62


class AnswerQueries(PageParts):
    """See the module's text, and `StoreReader` for each."""

    def link(self, token: str) -> LinkView:
        link = self._store.link(digest_of(token))
        if link is None:
            raise LinkUnknown
        item = awaited_item(link)
        over = unusable(link, self._now_ms())
        schema = None if item is None else item.get("schema") or schema_named(str(item.get("type")))
        return LinkView(
            run=link.run_id,
            workflow=link.workflow,
            channel=link.channel,
            seq=link.wait,
            recipient=link.recipient,
            expires_at=instant(link.expires_ms),
            awaited=item is not None,
            schema=schema,
            prompt=None if item is None else item.get("prompt"),
            over=None if over is None else _over(over),
            status=link.status,
        )

    def declared(self) -> dict[str, Declared]:
        rows = self._store.declared_workflows(WORKFLOWS_MAX)
        return {
            name: Declared(name, about, msgspec.json.decode(schema)) for name, about, schema in rows
        }

    def answered(self, limit: int) -> list[Answered]:
        rows = self._store.answers(NEWEST, min(limit, ANSWERS_MAX))
        return [
            Answered(
                row.run_id, row.workflow, row.kind, row.channel, row.sender, instant(row.at_ms),
                msgspec.json.decode(row.data), row.seq,
            )
            for row in rows
        ]  # fmt: skip


def _over(error: LinkUsed | LinkExpired) -> str:
    """Why a link is over, for a person who has no command line."""
    at = f"{error.at:%Y-%m-%d %H:%M} UTC"
    if isinstance(error, LinkUsed):
        return f"It was used at {at}, and a link answers once."
    return f"It was good until {at}. Ask for a new one."
