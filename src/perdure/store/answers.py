"""Answers of people: what making and using a link does in a transaction.

Rules: one answer is for one wait; a link is used by the answer that arrives, and by nothing else.
"""

from __future__ import annotations

from perdure.core.lifecycle import FINAL
from perdure.errors import (
    LinkExpired,
    LinkUnknown,
    LinkUsed,
    PerdureError,
    RunFinished,
    RunNotFound,
    TooManyLinks,
)
from perdure.store.answer_writes import AnswerByLink, DeclareWorkflows, MakeLink
from perdure.store.awaited import moment, not_awaited
from perdure.store.inboxes import Inboxes
from perdure.store.rows import LinkRow, Woken
from perdure.store.transaction import Transaction
from perdure.store.writes import Deliver

LINKS_MAX = 1_000
"""Links to one run."""


class Answers:
    """What writes about links do in the transaction `db`."""

    def __init__(self, db: Transaction, inboxes: Inboxes) -> None:
        self._db, self._inboxes = db, inboxes

    def make_link(self, make: MakeLink) -> PerdureError | None:
        """See `MakeLink`."""
        found = self._db.row("receiver", (make.run_id,))
        if found is None:
            return RunNotFound(make.run_id)
        run, status = found[:2]
        if status in FINAL:
            return RunFinished(make.run_id, status, "answer")
        refusal = not_awaited(self._db, run, make.run_id, make.channel, make.wait)
        if refusal is not None:
            return refusal
        ((made,),) = self._db.rows("links_made", (run,))
        if made >= LINKS_MAX:
            return TooManyLinks(make.run_id, LINKS_MAX)
        times = (make.at_ms, make.expires_ms)
        fields = (make.digest, run, make.channel, make.wait, make.recipient, *times)
        self._db.do("insert_link", fields)
        return None

    def answer_by_link(self, answer: AnswerByLink) -> Woken | PerdureError:
        """See `AnswerByLink`."""
        found = self._db.row("link", (answer.digest,))
        if found is None:
            return LinkUnknown()
        link = LinkRow(*found)
        if (refusal := unusable(link, answer.at_ms)) is not None:
            return refusal
        sender = link.recipient or "link"
        message = Deliver(
            link.run_id, "message", answer.at_ms, link.channel, data=answer.data, verb="answer",
            sender=sender, wait=link.wait,
        )  # fmt: skip
        result = self._inboxes.deliver(message)
        if isinstance(result, Woken):
            self._db.do("use_link", (answer.at_ms, link.link))
        return result

    def declare(self, declare: DeclareWorkflows) -> None:
        """See `DeclareWorkflows`. What is there already is not written again."""
        for name, about, schema in declare.workflows:
            self._db.do("declare_workflow", (name, about, schema.decode(), declare.at_ms))


def unusable(link: LinkRow, now_ms: int) -> LinkUsed | LinkExpired | None:
    """Why a link can't be used any more, whatever its run does; None where it can."""
    if link.used_ms is not None:
        return LinkUsed(link.run_id, moment(link.used_ms))
    if link.expires_ms <= now_ms:
        return LinkExpired(link.run_id, moment(link.expires_ms))
    return None
