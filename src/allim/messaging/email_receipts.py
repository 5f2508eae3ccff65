"""Reports of mails come in: noted on their deliveries, and learnt by the suppression list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from allim.channels.channel import Channel, RecipientKind
from allim.channels.mail import parse_mailbox
from allim.channels.unsubscribing import list_name
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.messaging.email_reports import EmailReport, ReportKind, Sent, sent_as
from allim.messaging.suppression import (
    COMPLAINT,
    HARD_BOUNCE,
    UNSUBSCRIBED,
    Learnt,
    SuppressedKind,
    learn,
)

SQL = Statements.load("allim.messaging", "email_receipts.sql")

RECEIPTS = {
    ReportKind.BOUNCE: "FAILED",
    ReportKind.COMPLAINT: "FAILED",
    ReportKind.DELIVERED: "DELIVERED",
}
"""What the delivery's record says then."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of reports: for how many a delivery was found, and who is new on the list."""

    reports: int
    matched: int
    suppressed: int


class EmailReceipts:
    """Takes in reports of mails."""

    def __init__(self, database: Database, channels: Mapping[str, Channel]) -> None:
        self._database = database
        self._channels = [
            name
            for name, channel in channels.items()
            if channel.recipient_kind is RecipientKind.EMAIL
        ]

    async def take(self, reports: Sequence[EmailReport], *, by_mail: bool = False) -> Taken:
        """Note reports and learn from them, in one transaction; the same again changes nothing.

        Who is gone is so for every tenant; but `by_mail` anybody may report, a tenant too who
        knows the Message-ID of its own mail, so that holds for its tenant only. Who complained is
        not written to by the tenant that it was about: by none where the delivery is not known.
        """
        if not reports:
            return Taken(0, 0, 0)
        sent = [sent_as(report.message_id) for report in reports]
        async with self._database.transaction() as tx:
            found = await self._note(tx, reports, sent)
            deliveries = [found.get(each) if each else None for each in sent]
            learnt = [
                learnt
                for report, delivery in zip(reports, deliveries, strict=True)
                if (learnt := _learnt(report, delivery, by_mail=by_mail)) is not None
            ]
            added = await learn(tx, SuppressedKind.EMAIL, learnt)
        return Taken(len(reports), sum(1 for each in deliveries if each), added)

    async def _note(
        self, tx: Connection, reports: Sequence[EmailReport], sent: Sequence[Sent | None]
    ) -> Mapping[Sent, _Found]:
        """The deliveries that the reports are about."""
        known = [(each, report) for each, report in zip(sent, reports, strict=True) if each]
        if not known:
            return {}
        cursor = await tx.execute(
            SQL["note"],
            {
                "ids": [each.delivery_id for each, _ in known],
                "notifications": [each.notification_id for each, _ in known],
                "receipts": [RECEIPTS.get(report.type) for _, report in known],
                "channels": self._channels,
            },
        )
        return {
            Sent(identity, notification): _Found(identity, recipient, tenant)
            for identity, notification, recipient, tenant in await cursor.fetchall()
        }


@dataclass(frozen=True, slots=True)
class _Found:
    id: int
    recipient: str
    tenant_id: int | None


def _learnt(report: EmailReport, delivery: _Found | None, *, by_mail: bool) -> Learnt | None:
    recipient = report.recipient or (delivery.recipient if delivery else None)
    if recipient is None or not _is_address(recipient):
        return None
    identity = delivery.id if delivery else None
    tenant = delivery.tenant_id if delivery else None
    if report.is_hard_bounce:
        words = " ".join(part for part in (report.status, report.detail) if part)
        whose = tenant if by_mail else None
        return Learnt(recipient, HARD_BOUNCE, words or None, identity, whose)
    if report.type is ReportKind.COMPLAINT:
        return Learnt(recipient, COMPLAINT, report.detail, identity, tenant)
    if report.type is ReportKind.UNSUBSCRIBE and report.list:
        return Learnt(
            recipient, UNSUBSCRIBED, report.detail, identity, tenant, list_name(report.list)
        )
    return None


def _is_address(recipient: str) -> bool:
    """A provider may report anything; what is no address would stand on the list in vain."""
    try:
        parse_mailbox(recipient.strip())
    except ValueError:
        return False
    return True
