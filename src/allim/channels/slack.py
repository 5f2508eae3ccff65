"""SLACK: messages to incoming webhooks (api.slack.com/messaging/webhooks).

The recipient is nobody (the webhook in SLACK_WEBHOOK_URL), the name of a webhook in
SLACK_WEBHOOKS, or the URL of one. Of the payload, `blocks` (Block Kit) and `attachments` are
passed on, `text` replaces the text that stands in for them in notices.

Only 200 with the body ``ok`` is success. 200 with anything else is not Slack speaking (a
proxy's page, say) and is tried again: a message twice is better than none. 429, 5xx and a
broken network are tried again, all else is refused; 403, 404 and 410 say that this webhook
is gone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog
from pydantic import Field, SecretStr, field_validator

from allim.base.errors import FieldProblem
from allim.base.settings import Environment, SettingsGroup
from allim.channels.answers import is_worth_retrying, outcome_of_failure, retry_of_answer
from allim.channels.channel import (
    ChannelServices,
    Configured,
    Draft,
    HttpAnswer,
    Message,
    RecipientKind,
)
from allim.channels.hooks import checked_url, require_url, target_of
from allim.channels.http import HttpFailure
from allim.channels.json_bytes import json_bytes
from allim.channels.sending import Sending, sending
from allim.relay.outcomes import Outcome
from allim.relay.sender import RateLimit, RecordProviderId, SendingLimits
from allim.relay.work import Work

NAME = "SLACK"
HEADERS = {"Content-Type": "application/json; charset=utf-8"}
ERROR_WORD = re.compile(r"[a-z][a-z_]{2,49}")
GONE = frozenset({403, 404, 410})
BLOCKS_LIMIT = 50
HEADER_LIMIT = 150
SECTION_LIMIT = 3000
FIELDS_LIMIT = 10

log = structlog.get_logger("allim.channels.slack")


class SlackSettings(SettingsGroup):
    """Which Slack webhooks there are."""

    slack_webhook_url: SecretStr | None = Field(
        None, description="The incoming webhook for deliveries that name no recipient."
    )
    slack_webhooks: SecretStr | None = Field(
        None, description="More incoming webhooks by name: ops=https://…,sales=https://…"
    )

    @field_validator("slack_webhook_url")
    @classmethod
    def _is_url(cls, value: SecretStr | None) -> SecretStr | None:
        return checked_url(value)

    @field_validator("slack_webhooks")
    @classmethod
    def _are_named_urls(cls, value: SecretStr | None) -> SecretStr | None:
        for name, url in _named(value):
            if not name or "/" in name:
                raise ValueError("must be name=url, parted by commas")
            require_url(url)
        return value

    def by_name(self) -> dict[str | None, str]:
        """The URLs; the one without a name under None."""
        urls: dict[str | None, str] = dict(_named(self.slack_webhooks))
        if self.slack_webhook_url is not None:
            urls[None] = self.slack_webhook_url.get_secret_value()
        return urls


class SlackChannel:
    """Posts to Slack's incoming webhooks, one message a second to each."""

    name = NAME
    recipient_kind = RecipientKind.SLACK_WEBHOOK
    only_target: str | None = None

    def __init__(
        self, settings: SlackSettings, sending: Sending, services: ChannelServices
    ) -> None:
        self.limits = sending.limits
        self._timeout = sending.timeout
        self._webhooks = settings.by_name()
        self._http = services.http

    def check(self, draft: Draft) -> Sequence[FieldProblem]:
        """The recipient must be known or a callable URL; there must be something to say."""
        problems = []
        if draft.recipient and (problem := self._check_recipient(draft.recipient)):
            problems.append(problem)
        blocks = draft.payload.get("blocks")
        if blocks is not None:
            problems.extend(_check_blocks(blocks))
        elif not (draft.title or draft.message or draft.payload.get("text")):
            problems.append(FieldProblem("/message", "missing", "there is nothing to say"))
        return problems

    def configured(self) -> Configured:
        """Live with any webhook; else a delivery without a URL of its own succeeds uncalled."""
        names = sorted(name for name in self._webhooks if name)
        if not self._webhooks:
            return Configured(
                "not_configured", "SLACK_WEBHOOK_URL is not set: nothing is sent to Slack"
            )
        default = "the default webhook" if None in self._webhooks else "no default webhook"
        return Configured("live", ", ".join([default, *names]))

    def target(self, content: Message) -> str:
        """The host, and a hash that tells webhooks apart without telling what they are."""
        url = self._url(content.recipient)
        return target_of(url) if url else "slack:not_configured"

    async def send(
        self, batch: Sequence[Work[Message]], record: RecordProviderId[Message]
    ) -> Sequence[Outcome]:
        """Post each; see the module for what answers mean."""
        return [await self._post(work.content) for work in batch]

    async def reconcile(self, work: Work[Message]) -> Outcome | None:
        """An incoming webhook cannot be asked."""
        return None

    async def diagnose(self) -> str | None:
        """Post an empty message to each webhook: a live one answers 400 and shows nothing."""
        wrong = []
        for name, url in self._webhooks.items():
            shown = f"SLACK_WEBHOOKS {name}" if name else "SLACK_WEBHOOK_URL"
            try:
                answer = await self._http.post(
                    url, body=b"{}", headers=HEADERS, timeout=self._timeout, trusted=True
                )
            except HttpFailure as failure:
                wrong.append(f"{shown}: {failure}")
            else:
                if answer.status in GONE or answer.status >= 500:
                    wrong.append(
                        f"{shown}: answered {answer.status} {_word(answer) or ''}".rstrip()
                    )
        return "; ".join(wrong) or None

    async def close(self) -> None:
        """The HTTP client is shared and closed by whoever made it."""

    async def _post(self, message: Message) -> Outcome:
        url = self._url(message.recipient)
        if url is None:
            if message.recipient is None or not self._webhooks:
                return Outcome.delivered("not_configured", detail="no Slack webhook is configured")
            return Outcome.refused("unknown_webhook", "no Slack webhook of that name is configured")
        try:
            answer = await self._http.post(
                url,
                body=json_bytes(_body(message)),
                headers=HEADERS,
                timeout=self._timeout,
                trusted=url in self._webhooks.values(),
            )
        except HttpFailure as failure:
            return outcome_of_failure(failure, at_most_once=self.limits.at_most_once)
        return self._outcome(url, answer)

    def _outcome(self, url: str, answer: HttpAnswer) -> Outcome:
        status = answer.status
        answer = replace(answer, body=answer.body.replace(url, "[webhook]"))
        if status == 200:
            return self._outcome_of_200(answer)
        if is_worth_retrying(status):
            return retry_of_answer(answer)
        word = _word(answer)
        if status in GONE:
            log.error("slack_webhook_gone", target=target_of(url), status=status, reason=word)
        return Outcome.refused(
            word or f"http_{status}",
            f"Slack answered {status}" + (f" {word}" if word else ""),
            http_status=status,
            response=answer.body,
            disable_target=status in GONE,
        )

    def _outcome_of_200(self, answer: HttpAnswer) -> Outcome:
        if answer.body.strip() == "ok":
            return Outcome.delivered(http_status=200, response=answer.body)
        if self.limits.at_most_once:
            return Outcome.unknown("bad_answer", "answered 200 without Slack's ok")
        return Outcome.retry(
            "bad_answer", "answered 200 without Slack's ok", http_status=200, response=answer.body
        )

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
                "is neither a name in SLACK_WEBHOOKS nor the URL of a webhook",
            )
        return None


def make(environment: Environment, services: ChannelServices) -> SlackChannel:
    """Make the channel."""
    limits = SendingLimits(concurrency=16, per_target=2, rate=RateLimit(1.0, burst=3))
    return SlackChannel(
        environment.read(SlackSettings),
        sending(environment, NAME, timeout=10.0, limits=limits),
        services,
    )


def _body(message: Message) -> dict[str, Any]:
    payload = message.payload
    text = payload.get("text")
    body: dict[str, Any] = {"text": text if isinstance(text, str) and text else _text(message)}
    for part in ("blocks", "attachments"):
        if payload.get(part):
            body[part] = payload[part]
    return body


def _text(message: Message) -> str:
    lines = []
    if message.title:
        # Bold ends at the end of its line, so a title of several would show its asterisks.
        lines.append(f"*{_escape(' '.join(message.title.split()))}*")
    if message.message:
        lines.append(_escape(message.message))
    return "\n".join(lines) or _escape(message.type)


def _escape(text: str) -> str:
    """The three characters that Slack's text gives a meaning to."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _check_blocks(blocks: object) -> list[FieldProblem]:
    place = "/payload/blocks"
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= BLOCKS_LIMIT:
        return [FieldProblem(place, "invalid", f"must be a list of 1 to {BLOCKS_LIMIT} blocks")]
    problems = []
    for number, block in enumerate(blocks):
        if not isinstance(block, Mapping) or not isinstance(block.get("type"), str):
            problems.append(FieldProblem(f"{place}/{number}", "invalid", "is not a block"))
            continue
        limit = {"header": HEADER_LIMIT, "section": SECTION_LIMIT}.get(block["type"])
        text = block.get("text")
        words = text.get("text") if isinstance(text, Mapping) else None
        if limit and isinstance(words, str) and len(words) > limit:
            problems.append(
                FieldProblem(
                    f"{place}/{number}/text", "too_long", f"is longer than {limit} characters"
                )
            )
        fields = block.get("fields")
        if isinstance(fields, list) and len(fields) > FIELDS_LIMIT:
            problems.append(
                FieldProblem(
                    f"{place}/{number}/fields", "too_many", f"has more than {FIELDS_LIMIT} fields"
                )
            )
    return problems


def _word(answer: HttpAnswer) -> str | None:
    """Slack's word for what is wrong (``no_service``), where the body is one."""
    word = answer.body.strip()
    return word if ERROR_WORD.fullmatch(word) else None


def _named(webhooks: SecretStr | None) -> list[tuple[str, str]]:
    if webhooks is None:
        return []
    parts = [part.strip() for part in webhooks.get_secret_value().split(",") if part.strip()]
    return [(name.strip(), url.strip()) for name, _, url in (part.partition("=") for part in parts)]
