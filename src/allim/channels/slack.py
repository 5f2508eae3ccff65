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
from typing import Any

from pydantic import Field

from allim.base.errors import FieldProblem
from allim.base.settings import Environment, SettingsGroup
from allim.channels.answers import bad_answer, outcome_of_answer
from allim.channels.channel import (
    NOTHING_TO_SAY,
    ChannelServices,
    Draft,
    HttpAnswer,
    Message,
    RecipientKind,
    says_nothing,
)
from allim.channels.hooks import WebhookUrl
from allim.channels.incoming import IncomingWebhooks, NamedWebhooks, webhooks_of
from allim.channels.json_bytes import JSON_HEADERS, json_bytes
from allim.channels.sending import sending
from allim.relay.outcomes import Outcome
from allim.relay.sender import RateLimit, SendingLimits

NAME = "SLACK"
ERROR_WORD = re.compile(r"[a-z][a-z_]{2,49}")
GONE = frozenset({403, 404, 410})
BLOCKS_LIMIT = 50
HEADER_LIMIT = 150
SECTION_LIMIT = 3000
FIELDS_LIMIT = 10


class SlackSettings(SettingsGroup):
    """Which Slack webhooks there are."""

    slack_webhook_url: WebhookUrl = Field(
        None, description="The incoming webhook for deliveries that name no recipient."
    )
    slack_webhooks: NamedWebhooks = Field(
        None, description="More incoming webhooks by name: ops=https://…,sales=https://…"
    )


class SlackChannel(IncomingWebhooks):
    """Posts to Slack's incoming webhooks, one message a second to each."""

    name = NAME
    service = "Slack"
    recipient_kind = RecipientKind.SLACK_WEBHOOK
    gone_when_looked_at = GONE

    def check_content(self, draft: Draft) -> Sequence[FieldProblem]:
        """There must be something to say; blocks must keep to Slack's limits."""
        blocks = draft.payload.get("blocks")
        if blocks is not None:
            return _check_blocks(blocks)
        return [NOTHING_TO_SAY] if says_nothing(draft, draft.payload.get("text")) else []

    async def deliver_to(self, url: str, message: Message, *, trusted: bool) -> Outcome:
        """Post; see the module for what answers mean."""
        body = json_bytes(_body(message))
        return await self.post(url, self._outcome, body=body, trusted=trusted, secret=url)

    def words_of(self, answer: HttpAnswer) -> str:
        """Slack's word for what is wrong (``no_service``), where the body is one."""
        word = answer.body.strip()
        return word if ERROR_WORD.fullmatch(word) else ""

    async def look_at(self, url: str) -> HttpAnswer:
        """Post an empty message: a live webhook answers 400 and shows nothing."""
        return await self._http.post(
            url, body=b"{}", headers=JSON_HEADERS, timeout=self._timeout, trusted=True
        )

    def _outcome(self, answer: HttpAnswer) -> Outcome:
        if answer.status == 200:
            if answer.body.strip() == "ok":
                return Outcome.delivered(http_status=200, response=answer.body)
            return bad_answer(
                answer,
                "answered 200 without Slack's ok",
                at_most_once=self.limits.at_most_once,
            )
        word = self.words_of(answer)
        return outcome_of_answer(answer, by="Slack", code=word or None, reason=word, gone=GONE)


def make(environment: Environment, services: ChannelServices) -> SlackChannel:
    """Make the channel."""
    limits = SendingLimits(concurrency=16, per_target=2, rate=RateLimit(1.0, burst=3))
    settings = environment.read(SlackSettings)
    return SlackChannel(
        webhooks_of(settings.slack_webhook_url, settings.slack_webhooks),
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
