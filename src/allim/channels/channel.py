"""What a channel is: a sender of messages that also knows what a good recipient looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

from allim.base.errors import FieldProblem
from allim.base.settings import Environment, SettingsGroup
from allim.relay.outcomes import RESPONSE_LIMIT
from allim.relay.sender import Sender


class RecipientKind(StrEnum):
    """What a recipient of a channel is; a child inherits its parent's where the kinds agree."""

    EMAIL = "email"
    PHONE = "phone"
    URL = "url"
    SLACK_WEBHOOK = "slack_webhook"
    SHEET = "sheet"
    KAKAO = "kakao"
    DISCORD_WEBHOOK = "discord_webhook"
    TEAMS_WEBHOOK = "teams_webhook"
    TELEGRAM_CHAT = "telegram_chat"
    APPRISE = "apprise"
    PUSH_SUBSCRIPTION = "push_subscription"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery as its channel sees it.

    `title` and `message` are the delivery's own words where it has any, else its
    notification's. `data` is the notification's, `payload` the delivery's channel-specific
    part (``html``, ``blocks``, …).
    """

    delivery_id: int
    notification_id: UUID
    channel: str
    recipient: str | None
    title: str | None
    message: str | None
    type: str
    source: str
    data: Mapping[str, Any]
    payload: Mapping[str, Any]
    created_at: datetime
    tenant_id: int | None = None
    template_code: str | None = None
    row_key: str | None = None
    provider_id: str | None = None
    traceparent: str | None = None
    reason: str | None = None
    """Why it waited, where it was snoozed or retried before (the delivery's `error_code`)."""
    guard: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Draft:
    """What a caller asks a channel to send, before anything is stored."""

    recipient: str | None
    title: str | None
    message: str | None
    template_code: str | None
    payload: Mapping[str, Any]
    tenant_id: int | None = None

    @classmethod
    def of(cls, message: Message) -> Draft:
        """The draft that a stored message was."""
        return cls(
            message.recipient,
            message.title,
            message.message,
            message.template_code,
            message.payload,
            message.tenant_id,
        )


NOTHING_TO_SAY = FieldProblem("/message", "missing", "there is nothing to say")
"""What is wrong with a draft that `says_nothing`."""


def says_nothing(draft: Draft, *instead: object) -> bool:
    """Whether a draft has no words: blank ones are none. `instead` may stand for title and message.

    What of `instead` is no text is something to say, unless it is empty.
    """
    return not any(
        each.strip() if isinstance(each, str) else each
        for each in (draft.title, draft.message, *instead)
    )


@dataclass(frozen=True, slots=True)
class Configured:
    """How a channel is set up: whether it really calls somebody, and words for an operator."""

    mode: str
    """``live``, ``mock`` (prints) or ``not_configured`` (succeeds without a call)."""
    detail: str
    needs: str | None = None
    """The setting without which it is not live; None where it is, or is not on purpose."""


class Channel(Sender[Message], Protocol):
    """A sender of messages.

    A channel file declares its settings group, its class and how the class is made from
    settings; `channels/table.py` lists it. See docs/how-to/add-a-channel.md.
    """

    name: str
    recipient_kind: RecipientKind

    def check(self, draft: Draft) -> Sequence[FieldProblem]:
        """What is wrong with a draft; places are relative (``/recipient``, ``/payload/html``).

        No network, no database: it runs while a caller waits.
        """

    def configured(self) -> Configured:
        """How this channel is set up."""

    async def diagnose(self) -> str | None:
        """Try the connection without sending anything; what is wrong, or None."""


@runtime_checkable
class FillsIn(Protocol):
    """A channel that knows better than nothing where a caller names no recipient or template."""

    def fill_in(self, draft: Draft) -> Draft:
        """The draft with the operator's defaults in it; stored so when the delivery is made."""


@runtime_checkable
class HasOwnTemplates(Protocol):
    """A channel whose provider has templates: a code that is not stored here is the provider's."""

    own_templates: bool


class MakeChannel(Protocol):
    """Makes a channel from the environment; may raise ConfigurationError."""

    def __call__(self, environment: Environment, services: ChannelServices) -> Channel:
        """Make it. No network call happens here."""


class SecretsFor(Protocol):
    """Looks up the signing secrets of a webhook target, newest first; empty where none are set."""

    async def __call__(self, tenant_id: int | None, url: str) -> Sequence[str]:
        """The secrets."""


class OutgoingHttp(Protocol):
    """Makes outgoing HTTP calls; see `channels/http/`."""

    async def post(
        self,
        url: str,
        *,
        body: bytes,
        headers: Mapping[str, str],
        timeout: float,
        trusted: bool,
    ) -> HttpAnswer:
        """POST without following redirects; `timeout` is seconds, for all of it.

        `trusted` is for URLs from the operator's own settings; any other passes the SSRF
        guard. Raises `HttpFailure` (see `channels/http/`) when no answer came.
        """

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout: float,
        trusted: bool,
        body: bytes | None = None,
        limit: int = RESPONSE_LIMIT,
    ) -> HttpAnswer:
        """Any method but HEAD; `limit` is how many bytes of the answer's body are taken."""

    async def fetch(self, url: str, *, timeout: float, trusted: bool, limit: int) -> HttpFile:
        """GET a file without following redirects; no more than `limit` bytes of it are taken."""

    def check_url(self, url: str) -> str | None:
        """What speaks against calling a caller's URL, without looking up its name; or None."""


@dataclass(frozen=True, slots=True)
class HttpFile:
    """A file that was fetched; `content` is never longer than was asked for.

    `too_large` says that there was more. `complete` is False where the connection broke, or time
    ran out, before the end.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    too_large: bool = False
    complete: bool = True


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer; `headers` are found by a name in any case.

    `body` is cut at `outcomes.RESPONSE_LIMIT` characters, unless another limit was asked for.
    `complete` is False where the connection broke or time ran out after the status had come, but
    before the body ended.
    """

    status: int
    headers: Mapping[str, str]
    body: str
    complete: bool = True


@dataclass(frozen=True, slots=True)
class ChannelServices:
    """What channels share: one HTTP client, one place to print, the webhook secrets."""

    http: OutgoingHttp
    secrets_for: SecretsFor
    print_line: Callable[[str], None]
    """Writes one line, or several parted by newlines, to stdout at once."""


@dataclass(frozen=True, slots=True)
class ChannelEntry:
    """One line of the channel table."""

    name: str
    make: MakeChannel
    settings: type[SettingsGroup] | None = None
    more_settings: tuple[type[SettingsGroup], ...] = ()
