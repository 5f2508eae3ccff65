"""What mail servers and providers report of mails after they took them: bounces, complaints.

Three forms come in as one: our own neutral JSON, a bounce mail (RFC 3464) and a complaint mail
(RFC 5965), the latter two as they arrive in a mailbox.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message as ParsedMail
from enum import StrEnum
from itertools import islice
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from allim.channels.bounces import bounce_of
from allim.hub.model import MAX_BIGINT, Recipient, Word

EVENTS_LIMIT = 1000
NESTED_LIMIT = 30
"""Parts of a mail that hold others. The parser tries every line against all that are open."""
LINES_LIMIT = 100_000
PERMANENT_REPLY = 550
_OURS = re.compile(
    r"<?allim\.([0-9]{1,19})\.([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})@"
)
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_TYPED = re.compile(r"^\s*[\w-]+\s*;\s*")
_NESTED = re.compile(rb"(?:\A|[\r\n])content-type:\s*(?:multipart|message)/", re.IGNORECASE)
_SENT_HEADERS = ("message/rfc822", "text/rfc822-headers", "message/global-headers")

ReportWords = Annotated[str, StringConstraints(max_length=4000, pattern=r"^[^\x00]*$")]


class ReportKind(StrEnum):
    """What is reported."""

    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    DELIVERED = "delivered"


class EmailReport(BaseModel):
    """One report of one mail."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Annotated[ReportKind, Field(strict=False)]
    recipient: Recipient | None = Field(default=None, description="Left out: by `message_id`")
    message_id: Annotated[str, StringConstraints(max_length=998)] | None = Field(
        default=None, description="The mail's Message-ID, by which its delivery is found"
    )
    permanent: bool | None = Field(
        default=None, description="Of a bounce: whether it holds for good; left out: by `status`"
    )
    status: Annotated[str, StringConstraints(pattern=r"^[245]\.\d{1,3}\.\d{1,3}$")] | None = Field(
        default=None, description="Enhanced status code of RFC 3463", examples=["5.1.1"]
    )
    detail: ReportWords | None = Field(default=None, description="The provider's words")
    list: Word | None = Field(default=None, description="Of an unsubscribe: from which list")

    @model_validator(mode="after")
    def _is_about_somebody(self) -> EmailReport:
        if self.recipient is None and self.message_id is None:
            raise ValueError("needs a recipient or a message_id")
        if self.recipient is not None and "@" not in self.recipient:
            raise ValueError("recipient is no e-mail address")
        if self.type is ReportKind.UNSUBSCRIBE and self.list is None:
            raise ValueError("unsubscribe needs the list")
        return self

    @property
    def is_hard_bounce(self) -> bool:
        """Whether the address itself is gone."""
        if self.type is not ReportKind.BOUNCE or self.permanent is False:
            return False
        words = f"{self.status} {self.detail or ''}" if self.status else ""
        return bool(self.permanent or bounce_of(PERMANENT_REPLY, words))


class EmailReports(BaseModel):
    """The body of `POST /receipts/email`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    events: list[EmailReport] = Field(min_length=1, max_length=EVENTS_LIMIT)


@dataclass(frozen=True, slots=True)
class Sent:
    """The delivery that a Message-ID of ours names; its notification's id cannot be guessed."""

    delivery_id: int
    notification_id: UUID


def sent_as(message_id: str | None) -> Sent | None:
    """The delivery whose Message-ID this is; None for a mail that is not ours."""
    match = _OURS.search(message_id or "")
    if match is None or int(match[1]) > MAX_BIGINT:
        return None
    return Sent(int(match[1]), UUID(match[2]))


def read_mail(content: bytes) -> Sequence[EmailReport]:
    """The reports in a bounce mail or a complaint mail; empty where it is neither, or unreadable.

    Anybody can write such a mail, so only reports with a Message-ID of ours are taken, and none
    names its recipient: that is whom the delivery went to. Takes up to seconds: not for the
    event loop.
    """
    lines = max(content.count(b"\n"), content.count(b"\r"))
    nested = sum(1 for _ in islice(_NESTED.finditer(content), NESTED_LIMIT + 1))
    if lines > LINES_LIMIT or nested > NESTED_LIMIT:
        return ()
    try:
        return list(islice(_reports(message_from_bytes(content)), EVENTS_LIMIT))
    except (ValueError, LookupError, TypeError, AttributeError):
        # What the parser raises depends on how odd the mail is; another try would change nothing.
        return ()


def _reports(mail: ParsedMail) -> Iterator[EmailReport]:
    if not (message_id := _message_id(mail)):
        return
    for part in mail.walk():
        if part.get_content_type() in ("message/delivery-status", "message/global-delivery-status"):
            for block in _blocks(part):
                if "Action" in block and (report := _bounce(block, message_id)):
                    yield report
        elif part.get_content_type() == "message/feedback-report":
            yield EmailReport(type=ReportKind.COMPLAINT, message_id=message_id)


def _bounce(block: Mapping[str, str], message_id: str) -> EmailReport | None:
    action = block["Action"].strip().lower()
    if action == "delivered":
        return EmailReport(type=ReportKind.DELIVERED, message_id=message_id)
    if action != "failed":
        return None
    found = _STATUS.search(block.get("Status", ""))
    words = _TYPED.sub("", block.get("Diagnostic-Code", ""))
    detail = re.sub(r"\s+", " ", words.replace("\x00", ""))[:4000]
    return EmailReport(
        type=ReportKind.BOUNCE,
        message_id=message_id,
        status=found[0] if found else None,
        detail=detail.encode(errors="replace").decode() or None,
    )


def _message_id(mail: ParsedMail) -> str | None:
    """That of our mail, which the report carries whole or by its headers."""
    for part in mail.walk():
        if part.get_content_type() not in _SENT_HEADERS:
            continue
        inner = part.get_payload()
        original = (
            inner[0]
            if isinstance(inner, list)
            else message_from_bytes(str(inner).encode(errors="replace"))
        )
        found = original.get("Message-ID") if isinstance(original, ParsedMail) else None
        if found is not None and sent_as(str(found)):
            return str(found)[:998]
    return None


def _blocks(part: ParsedMail) -> Iterator[Mapping[str, str]]:
    """The groups of fields of a delivery status; the parser makes a message of each."""
    payload = part.get_payload()
    for block in payload if isinstance(payload, list) else ():
        if isinstance(block, ParsedMail):
            yield {name.title(): str(value) for name, value in block.items()}
