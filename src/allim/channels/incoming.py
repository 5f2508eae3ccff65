"""What channels share whose targets are incoming webhooks: Slack's, Discord's, Teams'.

The recipient is nobody (the operator's default webhook), the name of one of the operator's
webhooks, or the URL of one. The operator's are trusted; a caller's URL passes the SSRF guard.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, SecretStr

from allim.base.errors import FieldProblem
from allim.channels.channel import ChannelServices, Configured, Draft, HttpAnswer, Message
from allim.channels.hooks import require_url, target_of
from allim.channels.http.failure import HttpFailure
from allim.channels.posting import PostingChannel
from allim.channels.sending import Sending
from allim.relay.outcomes import Outcome

Webhooks = Mapping[str | None, str]
"""URLs by name; the one for deliveries that name no recipient under None."""


class IncomingWebhooks(PostingChannel):
    """Posts to incoming webhooks. Settings are `<CHANNEL>_WEBHOOK_URL` and `<CHANNEL>_WEBHOOKS`.

    A channel adds `service` (its name as people write it), `check_content`, `deliver_to` and
    `words_of`, and says what `look_at` sees.
    """

    service: str
    only_target: str | None = None
    gone_when_looked_at: frozenset[int]
    """Statuses by which `look_at` is told that a webhook is no more."""

    def __init__(self, webhooks: Webhooks, sending: Sending, services: ChannelServices) -> None:
        super().__init__(sending, services)
        self._webhooks = webhooks

    @abstractmethod
    def check_content(self, draft: Draft) -> Sequence[FieldProblem]:
        """What is wrong with a draft apart from its recipient."""

    @abstractmethod
    async def deliver_to(self, url: str, message: Message, *, trusted: bool) -> Outcome:
        """Post one message to a webhook."""

    @abstractmethod
    def words_of(self, answer: HttpAnswer) -> str:
        """The service's own words for what is wrong; empty where it gives none."""

    async def look_at(self, url: str) -> HttpAnswer:
        """Call a webhook without posting a message. Raises HttpFailure when no answer came."""
        return await self._http.request("GET", url, headers={}, timeout=self._timeout, trusted=True)

    def check(self, draft: Draft) -> Sequence[FieldProblem]:
        """The recipient must be known or a callable URL; there must be something to say."""
        problems = []
        if draft.recipient and (problem := self._check_recipient(draft.recipient)):
            problems.append(problem)
        return [*problems, *self.check_content(draft)]

    def configured(self) -> Configured:
        """Live with any webhook; else a delivery without a URL of its own succeeds uncalled."""
        names = sorted(name for name in self._webhooks if name)
        if not self._webhooks:
            needs = f"{self.name}_WEBHOOK_URL"
            words = f"{needs} is not set: nothing is sent to {self.service}"
            return Configured("not_configured", words, needs=needs)
        default = "the default webhook" if None in self._webhooks else "no default webhook"
        return Configured("live", ", ".join([default, *names]))

    def target(self, content: Message) -> str:
        """The host, and a hash that tells webhooks apart without telling what they are."""
        url = self._url(content.recipient)
        return target_of(url) if url else f"{self.name.lower()}:not_configured"

    async def deliver(self, message: Message) -> Outcome:
        """Post to the recipient's webhook."""
        url = self._url(message.recipient)
        if url is not None:
            return await self.deliver_to(url, message, trusted=url in self._webhooks.values())
        if message.recipient is None or not self._webhooks:
            return Outcome.delivered(
                "not_configured", detail=f"no {self.service} webhook is configured"
            )
        return Outcome.refused(
            "unknown_webhook", f"no {self.service} webhook of that name is configured"
        )

    async def diagnose(self) -> str | None:
        """Look at each of the operator's webhooks without a message to anybody."""
        wrong = []
        for name, url in self._webhooks.items():
            if trouble := await self._trouble_with(url):
                shown = f"{self.name}_WEBHOOKS {name}" if name else f"{self.name}_WEBHOOK_URL"
                wrong.append(f"{shown}: {trouble}")
        return "; ".join(wrong) or None

    async def _trouble_with(self, url: str) -> str | None:
        try:
            answer = await self.look_at(url)
        except HttpFailure as failure:
            return str(failure)
        if answer.status in self.gone_when_looked_at or answer.status >= 500:
            return f"answered {answer.status} {self.words_of(answer)}".rstrip()
        return None

    def _url(self, recipient: str | None) -> str | None:
        if recipient and "://" in recipient:
            return recipient
        return self._webhooks.get(recipient or None)

    def _check_recipient(self, recipient: str) -> FieldProblem | None:
        place = "/recipient"
        if "://" in recipient:
            problem = self._http.check_url(recipient)
            return FieldProblem(place, "invalid_url", f"the URL {problem}") if problem else None
        if self._webhooks and recipient not in self._webhooks:
            return FieldProblem(
                place,
                "unknown_webhook",
                f"is neither a name in {self.name}_WEBHOOKS nor the URL of a webhook",
            )
        return None


def webhooks_of(default: SecretStr | None, named: SecretStr | None) -> Webhooks:
    """The webhooks of two settings: one URL, and ``name=url`` parted by commas."""
    urls: dict[str | None, str] = dict(_named(named))
    if default is not None:
        urls[None] = default.get_secret_value()
    return urls


def _checked_named_urls(webhooks: SecretStr | None) -> SecretStr | None:
    seen = set()
    for name, url in _named(webhooks):
        if not name or "/" in name or "://" not in url:
            raise ValueError("must be name=url, parted by commas")
        require_url(url)
        if name in seen:
            raise ValueError("has one name twice")
        seen.add(name)
    return webhooks


def _named(webhooks: SecretStr | None) -> list[tuple[str, str]]:
    if webhooks is None:
        return []
    parts = [part.strip() for part in webhooks.get_secret_value().split(",") if part.strip()]
    return [(name.strip(), url.strip()) for name, _, url in (part.partition("=") for part in parts)]


NamedWebhooks = Annotated[SecretStr | None, AfterValidator(_checked_named_urls)]
"""A setting: URLs of webhooks by name, ``name=url`` parted by commas."""
