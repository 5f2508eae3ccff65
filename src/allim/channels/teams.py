"""TEAMS: Adaptive Cards to Microsoft Teams, by the webhook of a workflow.

The recipient is nobody (the webhook in TEAMS_WEBHOOK_URL), the name of a webhook in
TEAMS_WEBHOOKS, or the URL of one. Title and message become a card of plain text; of the
payload, `card` (an Adaptive Card) replaces it.

A workflow answers 202 when it has taken the card: whether its steps then post it is seen in its
run history only. The webhooks of the older connectors answer 200, for failures too: then the
body says which, with the status that Teams itself gave. 429, 5xx and a broken network are tried
again, all else is refused; 401, 403, 404 and 410 say that this webhook is gone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field
from pydantic_core import from_json

from allim.base.errors import FieldProblem
from allim.base.settings import Environment, SettingsGroup
from allim.channels.answers import bad_answer, json_object, outcome_of_answer
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
from allim.channels.json_bytes import json_bytes
from allim.channels.sending import sending
from allim.channels.shortening import shortened, shortened_to_fit
from allim.relay.outcomes import Outcome
from allim.relay.sender import RateLimit, SendingLimits

NAME = "TEAMS"
GONE = frozenset({401, 403, 404, 410})
CARD_TYPE = "application/vnd.microsoft.card.adaptive"
CARD_SCHEMA = "http://adaptivecards.io/schemas/adaptive-card.json"
CARD_VERSION = "1.4"
ENVELOPE_LIMIT = 28 * 1024
"""Bytes of a whole message that Teams takes."""
TITLE_LIMIT = 256
LINES_LIMIT = 60

_FAILED = re.compile(r"error|fail|exceed|<html|<!doctype", re.IGNORECASE)
_TEAMS_STATUS = re.compile(r"HTTP error ([45]\d{2})\b")


class TeamsSettings(SettingsGroup):
    """Which Teams webhooks there are."""

    teams_webhook_url: WebhookUrl = Field(
        None, description="The workflow's webhook for deliveries that name no recipient."
    )
    teams_webhooks: NamedWebhooks = Field(
        None, description="More webhooks by name: ops=https://…,sales=https://…"
    )


class TeamsChannel(IncomingWebhooks):
    """Posts cards to Teams' webhooks, two a second to each."""

    name = NAME
    service = "Teams"
    recipient_kind = RecipientKind.TEAMS_WEBHOOK
    # What a workflow would do with a card is seen by posting only.
    gone_when_looked_at = frozenset({410})

    def check_content(self, draft: Draft) -> Sequence[FieldProblem]:
        """There must be something to say; a card of the caller's own must be one, and fit."""
        card = draft.payload.get("card")
        if card is None:
            return [NOTHING_TO_SAY] if says_nothing(draft) else []
        place = "/payload/card"
        if not isinstance(card, Mapping) or card.get("type") != "AdaptiveCard":
            problem = 'must be an Adaptive Card: {"type": "AdaptiveCard", "body": […]}'
            return [FieldProblem(place, "invalid", problem)]
        if len(_envelope(card, "")) > ENVELOPE_LIMIT:
            problem = f"makes a message of more than {ENVELOPE_LIMIT} bytes"
            return [FieldProblem(place, "too_long", problem)]
        return []

    async def deliver_to(self, url: str, message: Message, *, trusted: bool) -> Outcome:
        """Post; see the module for what answers mean."""
        body = _body(message)
        return await self.post(url, self._outcome, body=body, trusted=trusted, secret=url)

    def words_of(self, answer: HttpAnswer) -> str:
        """Azure's word for what is wrong (``WorkflowNotFound``)."""
        error = (json_object(answer.body) or {}).get("error")
        word = error.get("code") if isinstance(error, Mapping) else None
        return word[:100] if isinstance(word, str) else ""

    def _outcome(self, answer: HttpAnswer) -> Outcome:
        if answer.status == 200 and not answer.complete:
            return self._bad_answer(answer)
        if answer.status == 200 and (said := _failure_in(answer)) is not None:
            status = _TEAMS_STATUS.search(said)
            if status is None:
                return self._bad_answer(answer)
            # A connector that is no longer there answers with the status itself.
            return outcome_of_answer(replace(answer, status=int(status[1])), by="Teams")
        return outcome_of_answer(answer, by="Teams", reason=self.words_of(answer), gone=GONE)

    def _bad_answer(self, answer: HttpAnswer) -> Outcome:
        return bad_answer(
            answer, "answered 200 with an error", at_most_once=self.limits.at_most_once
        )


def make(environment: Environment, services: ChannelServices) -> TeamsChannel:
    """Make the channel."""
    limits = SendingLimits(concurrency=16, per_target=2, rate=RateLimit(2.0, burst=4))
    settings = environment.read(TeamsSettings)
    return TeamsChannel(
        webhooks_of(settings.teams_webhook_url, settings.teams_webhooks),
        sending(environment, NAME, timeout=15.0, limits=limits),
        services,
    )


def _body(message: Message) -> bytes:
    own = message.payload.get("card")
    title = shortened(" ".join((message.title or "").split()), TITLE_LIMIT)
    if isinstance(own, Mapping):
        return _envelope(own, title)
    text = message.message or ("" if title else message.type)
    return shortened_to_fit(
        text, ENVELOPE_LIMIT, lambda kept: _envelope(_card(title, kept), title or kept[:80])
    )


def _envelope(card: Mapping[str, Any], summary: str) -> bytes:
    """The message around a card, as workflows and the older connectors both take it."""
    attachment = {"contentType": CARD_TYPE, "contentUrl": None, "content": card}
    return json_bytes({"type": "message", "summary": summary, "attachments": [attachment]})


def _card(title: str, text: str) -> dict[str, Any]:
    """A card of plain text: a text run, unlike a text block, reads no Markdown."""
    lines = text.splitlines()
    if len(lines) > LINES_LIMIT:
        lines = [*lines[: LINES_LIMIT - 1], "\n".join(lines[LINES_LIMIT - 1 :])]
    blocks = [_block(title, weight="Bolder", size="Medium")] if title else []
    blocks += [
        {**_block(line or " "), "spacing": "None" if number else "Small"}
        for number, line in enumerate(lines)
    ]
    return {
        "$schema": CARD_SCHEMA,
        "type": "AdaptiveCard",
        "version": CARD_VERSION,
        "msteams": {"width": "Full"},
        "body": blocks,
    }


def _block(text: str, **style: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}


def _failure_in(answer: HttpAnswer) -> str | None:
    """What an answer of status 200 says went wrong; None where it was well.

    A connector says ``1``, a workflow with a response of its own whatever its author wrote.
    """
    said = answer.body.strip()
    if not _FAILED.search(said):
        return None
    try:
        from_json(said)
    except ValueError:
        return said
    return None
