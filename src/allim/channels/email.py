"""EMAIL: one mail to one recipient by SMTP; without SMTP_URL it is printed on stdout.

Of the payload, `subject` (else the title), `html`, `reply_to`, `attachments`, `unsubscribe` and
`unsubscribe_url` (https, one-click) are used.

A 4xx reply, a server that cannot be reached and a conversation cut short are tried again, a
5xx reply is refused, with a code of `bounces` (``mailbox_unknown``) where it says that the
address is gone. A server that will not let *us* in (login, TLS, greeting) is our
configuration's fault, not the message's: it waits, spending no attempt, and is logged as an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from pydantic import Field, SecretStr, field_validator

from allim.base.errors import FieldProblem
from allim.base.settings import Environment, SettingsGroup
from allim.base.visible import visible_lines
from allim.channels.attachments import AttachmentFailure, Attachments, AttachmentSettings
from allim.channels.bounces import bounce_of
from allim.channels.channel import (
    NOTHING_TO_SAY,
    ChannelServices,
    Configured,
    Draft,
    Message,
    RecipientKind,
    says_nothing,
)
from allim.channels.dkim import DkimSettings, DkimSigner
from allim.channels.mail import (
    UNSUBSCRIBE_PLACE,
    Attachment,
    Mailbox,
    compose,
    parse_mailbox,
    parse_sender,
    payload_problems,
    plain_text,
    subject,
)
from allim.channels.sending import Sending, sending
from allim.channels.smtp import SmtpFailure, SmtpPool, Stage
from allim.channels.smtp_server import SmtpServer
from allim.channels.unsubscribing import (
    Subscription,
    UnsubscribeLinks,
    UnsubscribeSettings,
    list_of,
)
from allim.channels.unsubscribing import payload_problems as unsubscribe_problems
from allim.relay.outcomes import RESPONSE_LIMIT, Outcome
from allim.relay.sender import RecordProviderId, SendingLimits
from allim.relay.work import Work

NAME = "EMAIL"
LOGIN_WANTED = frozenset({530, 534, 535, 538})
FETCHING_SHARE = 0.6
"""Share of a send's time in which its files must be there."""
MORE_SETTINGS = (DkimSettings, AttachmentSettings, UnsubscribeSettings)

log = structlog.get_logger("allim.channels.email")


class EmailSettings(SettingsGroup):
    """The SMTP server and the sender."""

    smtp_url: SecretStr | None = Field(
        None,
        description="smtp://user:password@host:port?starttls=auto|required|never, or smtps://…"
        " Not set: mails are printed, not sent.",
    )
    smtp_from: str = Field("Allim <allim@localhost>", description="The sender of every mail.")
    smtp_timeout_seconds: float = Field(
        20.0, gt=0, le=300, description="The longest wait for one reply of the server."
    )
    smtp_helo_name: str | None = Field(
        None, description="How we name ourselves to the server; this machine's name by default."
    )

    @field_validator("smtp_url")
    @classmethod
    def _is_server(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            SmtpServer.of_url(value.get_secret_value())
        return value

    @field_validator("smtp_from")
    @classmethod
    def _is_sender(cls, value: str) -> str:
        if parse_sender(value).needs_smtputf8:
            raise ValueError("must be ASCII before the @")
        return value

    def server(self) -> SmtpServer | None:
        """The server, where one is set."""
        return SmtpServer.of_url(self.smtp_url.get_secret_value()) if self.smtp_url else None


@dataclass(frozen=True, slots=True)
class Extras:
    """What goes with a mail beside its words."""

    attachments: Attachments
    signer: DkimSigner | None = None
    links: UnsubscribeLinks | None = None
    unsubscribe_types: tuple[str, ...] = ()


class EmailChannel:
    """Sends mail through the operator's SMTP server, or prints it."""

    name = NAME
    recipient_kind = RecipientKind.EMAIL

    def __init__(
        self,
        settings: EmailSettings,
        sending: Sending,
        services: ChannelServices,
        extras: Extras,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.limits = sending.limits
        self._timeout = sending.timeout
        self._sender = parse_sender(settings.smtp_from)
        self._extras = extras
        self._print_line = services.print_line
        self._now = now
        self._pool: SmtpPool | None = None
        self.only_target: str | None = "email:mock"
        if server := settings.server():
            self.only_target = f"{server.host}:{server.port}"
            self._pool = SmtpPool(
                server,
                command_timeout=settings.smtp_timeout_seconds,
                helo_name=settings.smtp_helo_name,
            )

    def check(self, draft: Draft) -> Sequence[FieldProblem]:
        """The recipient must be one address; there must be something to say."""
        problems = []
        if not draft.recipient:
            problems.append(FieldProblem("/recipient", "missing", "an e-mail needs an address"))
        else:
            try:
                parse_mailbox(draft.recipient)
            except ValueError as error:
                problems.append(FieldProblem("/recipient", "invalid_address", str(error)))
        if draft.payload:
            problems.extend(
                FieldProblem(f"/payload/{key}", "invalid", words)
                for key, words in (
                    *payload_problems(draft.payload),
                    *unsubscribe_problems(draft.payload, can=self._extras.links is not None),
                    *self._extras.attachments.problems(draft.payload, draft.tenant_id),
                )
            )
        if says_nothing(draft, draft.payload.get("html")):
            problems.append(NOTHING_TO_SAY)
        return problems

    def configured(self) -> Configured:
        """Live with an SMTP server, else a mock that prints."""
        if self._pool is None:
            words = "SMTP_URL is not set: mails are printed on stdout"
            return Configured("mock", words, needs="SMTP_URL")
        signer = self._extras.signer
        signed = f", signed for {signer.domain}" if signer else ""
        return Configured("live", f"by SMTP through {self.only_target}{signed}")

    def target(self, content: Message) -> str:
        """The SMTP server."""
        return str(self.only_target)

    async def send(
        self, batch: Sequence[Work[Message]], record: RecordProviderId[Message]
    ) -> Sequence[Outcome]:
        """Send a mail for each; see the module for what replies mean."""
        return [await self._send(work.content) for work in batch]

    async def reconcile(self, work: Work[Message]) -> Outcome | None:
        """SMTP cannot be asked; the same Message-ID lets the reader's side drop a repeat."""
        return None

    async def diagnose(self) -> str | None:
        """Connect and log in."""
        if self._pool is None:
            return None
        try:
            await self._pool.probe()
        except SmtpFailure as failure:
            return f"{self.only_target}: {failure}"
        return None

    async def close(self) -> None:
        """Say goodbye to the server."""
        if self._pool is not None:
            await self._pool.close()

    async def _send(self, message: Message) -> Outcome:
        try:
            recipient = parse_mailbox(message.recipient or "")
        except ValueError as error:
            return Outcome.refused("invalid_address", f"the recipient {error}")
        if self._pool is None:
            self._print(message, recipient)
            return Outcome.delivered("mock", detail="printed: SMTP_URL is not set")
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._timeout
        try:
            files = await self._files(message)
        except AttachmentFailure as failure:
            return failure.outcome
        if files:
            # Encoding and signing megabytes takes long enough for others to wait.
            content = await asyncio.to_thread(self._content, message, recipient, files)
        else:
            content = self._content(message, recipient, files)
        try:
            words = await self._pool.send(
                sender=self._sender.address,
                recipient=recipient.address,
                content=content,
                smtputf8=recipient.needs_smtputf8,
                timeout=ends - loop.time(),
            )
        except SmtpFailure as failure:
            return self._outcome(failure)
        return Outcome.delivered(response=_shown(words))

    async def _files(self, message: Message) -> Sequence[Attachment]:
        """What is attached, within the part of the send's time that is left for that."""
        if "attachments" not in message.payload:
            return ()
        try:
            async with asyncio.timeout(self._timeout * FETCHING_SHARE):
                return await self._extras.attachments.fetch(message.payload, message.tenant_id)
        except TimeoutError:
            outcome = Outcome.retry("attachment_timeout", "the attachments did not come in time")
            raise AttachmentFailure(outcome) from None

    def _content(self, message: Message, recipient: Mailbox, files: Sequence[Attachment]) -> bytes:
        mail = compose(
            message,
            sender=self._sender,
            recipient=recipient,
            at=self._now(),
            unsubscribe=self._unsubscribe_url(message, recipient),
            attachments=files,
        )
        signer = self._extras.signer
        return mail.content(signer.sign(mail)) if signer else mail.content()

    def _unsubscribe_url(self, message: Message, recipient: Mailbox) -> str | None:
        links = self._extras.links
        name = list_of(message, self._extras.unsubscribe_types)
        if links is None or name is None:
            return None
        return links.url(Subscription(recipient.canonical, message.tenant_id, name))

    def _outcome(self, failure: SmtpFailure) -> Outcome:
        code, sentence = failure.code, str(failure)
        if _is_ours(failure):
            log.error("smtp_refuses_us", target=self.only_target, code=code, stage=failure.stage)
            return Outcome.fault(_our_fault(failure), sentence)
        if code == "smtputf8_unsupported":
            return Outcome.refused(code, sentence)
        if failure.reply is None:
            if failure.ambiguous and self.limits.at_most_once:
                return Outcome.unknown(f"{code}_after_data", sentence)
            return Outcome.retry(f"{code}_after_data" if failure.ambiguous else code, sentence)
        number, words = failure.reply
        response = _shown(f"{number} {words}")
        if number < 500:
            return Outcome.retry(code, sentence, response=response)
        about_the_recipient = failure.stage is not Stage.SENDER
        bounce = bounce_of(number, words) if about_the_recipient else None
        return Outcome.refused(bounce or code, sentence, response=response)

    def _print(self, message: Message, recipient: Mailbox) -> None:
        html = message.payload.get("html")
        said = plain_text(message, html if isinstance(html, str) else None)
        link = self._unsubscribe_url(message, recipient)
        files = message.payload.get("attachments")
        shown = "\n".join(
            (
                "── EMAIL (mock) " + "─" * 40,
                f"From:    {self._sender.name} <{self._sender.address}>",
                f"To:      {message.recipient}",
                f"Subject: {subject(message)}",
                *([f"Attached: {len(files)}"] if isinstance(files, list) else ()),
                *([f"List-Unsubscribe: <{link}>"] if link else ()),
                "",
                said.replace(UNSUBSCRIBE_PLACE, link) if link else said,
                "─" * 56,
            )
        )
        self._print_line(visible_lines(shown.replace("\r\n", "\n")))


def make(environment: Environment, services: ChannelServices) -> EmailChannel:
    """Make the channel."""
    limits = SendingLimits(concurrency=8, per_target=8)
    unsubscribing = environment.read(UnsubscribeSettings)
    extras = Extras(
        Attachments(environment.read(AttachmentSettings), services.http),
        environment.read(DkimSettings).signer(),
        unsubscribing.links(),
        unsubscribing.email_unsubscribe_types,
    )
    return EmailChannel(
        environment.read(EmailSettings),
        sending(environment, NAME, timeout=40.0, limits=limits),
        services,
        extras,
    )


def _is_ours(failure: SmtpFailure) -> bool:
    """Whether the server refuses us, whatever the message."""
    if failure.code in ("tls_failed", "unusable") or _about_login(failure):
        return True
    return failure.stage is Stage.CONNECT and failure.reply is not None and failure.reply[0] >= 500


def _our_fault(failure: SmtpFailure) -> str:
    if _about_login(failure):
        return "smtp_auth_failed"
    return "smtp_refuses_us" if failure.reply else f"smtp_{failure.code}"


def _about_login(failure: SmtpFailure) -> bool:
    reply = failure.reply
    if reply is None:
        return False
    return reply[0] in LOGIN_WANTED or (failure.stage is Stage.LOGIN and reply[0] >= 500)


def _shown(words: str) -> str:
    return words.encode("utf-8", "replace").decode().replace("\x00", "")[:RESPONSE_LIMIT]
