"""DISCORD: messages to incoming webhooks (discord.com/developers/docs/resources/webhook).

The recipient is nobody (the webhook in DISCORD_WEBHOOK_URL), the name of a webhook in
DISCORD_WEBHOOKS, or the URL of one. Title and message are plain text, whose Markdown is
escaped and whose mentions ping nobody. Of the payload, `content` (Markdown) replaces that text;
`embeds`, `username`, `avatar_url`, `thread_name`, `flags` and `allowed_mentions` are passed on,
`thread_id` says which thread of the channel.

Success is 200 with the message's id (`?wait=true`). 429 is tried again when its `retry_after`
is over; after an answer that leaves no call in this window (`X-RateLimit-Remaining: 0`) this
process makes none until the next. 5xx and a broken network are tried again, all else is refused;
401, 404 and 410 say that this webhook is gone, unless it is only the thread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field
from yarl import URL

from allim.base.errors import FieldProblem
from allim.base.settings import Environment, SettingsGroup
from allim.channels.answers import (
    bad_answer,
    json_object,
    outcome_of_answer,
    retry_after,
    retry_of_answer,
)
from allim.channels.channel import (
    NOTHING_TO_SAY,
    ChannelServices,
    Draft,
    HttpAnswer,
    Message,
    RecipientKind,
    says_nothing,
)
from allim.channels.hooks import WebhookUrl, target_of
from allim.channels.incoming import (
    IncomingWebhooks,
    NamedWebhooks,
    Webhooks,
    webhooks_of,
)
from allim.channels.json_bytes import json_bytes
from allim.channels.pauses import Pauses
from allim.channels.sending import Sending, sending
from allim.channels.shortening import shortened, utf16_length
from allim.relay.outcomes import Outcome
from allim.relay.sender import RateLimit, SendingLimits

NAME = "DISCORD"
GONE = frozenset({401, 404, 410})
UNKNOWN_CHANNEL = 10003
"""The error of a thread that is not there (any more); of a webhook that is not it is another."""
CONTENT_LIMIT = 2000
TITLE_LIMIT = 256
EMBEDS_LIMIT = 10
EMBED_LIMITS = {"title": 256, "description": 4096}
FIELDS_LIMIT = 25
PASSED_ON = ("embeds", "username", "avatar_url", "thread_name", "flags")
NO_MENTIONS: Mapping[str, Sequence[str]] = {"parse": []}
LONGEST_PAUSE = 3600.0

ANSWER_LIMIT = 256 * 1024
"""Bytes: the answer repeats the message, and what counts of it, the id, may stand at its end."""

_MARKDOWN = re.compile(r"(?P<link>https?://[^\s<]+)|[\\`*_~|<\[]|(?m:^)[ \t]*(?P<start>[#>-])")
_ESCAPE_CUT_OFF = re.compile(r"(?<!\\)((?:\\\\)*)\\…$")


class DiscordSettings(SettingsGroup):
    """Which Discord webhooks there are."""

    discord_webhook_url: WebhookUrl = Field(
        None, description="The incoming webhook for deliveries that name no recipient."
    )
    discord_webhooks: NamedWebhooks = Field(
        None, description="More incoming webhooks by name: ops=https://…,sales=https://…"
    )


class DiscordChannel(IncomingWebhooks):
    """Posts to Discord's incoming webhooks, thirty messages a minute to each."""

    name = NAME
    service = "Discord"
    recipient_kind = RecipientKind.DISCORD_WEBHOOK
    gone_when_looked_at = GONE

    def __init__(self, webhooks: Webhooks, sending: Sending, services: ChannelServices) -> None:
        super().__init__(webhooks, sending, services)
        self._pauses = Pauses()

    def check_content(self, draft: Draft) -> Sequence[FieldProblem]:
        """There must be something to say; content and embeds must keep to Discord's limits."""
        content, embeds = draft.payload.get("content"), draft.payload.get("embeds")
        problems = []
        if content is not None and not (isinstance(content, str) and content.strip()):
            problems.append(FieldProblem("/payload/content", "invalid", "must be text"))
        elif isinstance(content, str) and utf16_length(content) > CONTENT_LIMIT:
            problems.append(
                FieldProblem(
                    "/payload/content", "too_long", f"is longer than {CONTENT_LIMIT} characters"
                )
            )
        if embeds is not None:
            problems.extend(_check_embeds(embeds))
        elif says_nothing(draft, content):
            problems.append(NOTHING_TO_SAY)
        thread = draft.payload.get("thread_id")
        if thread is not None and not _is_id(thread):
            problems.append(FieldProblem("/payload/thread_id", "invalid", "must be a thread's id"))
        return problems

    async def deliver_to(self, url: str, message: Message, *, trusted: bool) -> Outcome:
        """Post; see the module for what answers mean."""
        target = target_of(url)
        if (seconds := self._pauses.left(target, _host(target))) > 0:
            return Outcome.snooze("target_paused", seconds, "Discord asked for a pause")
        return await self.post(
            _address(url, message),
            lambda answer: self._outcome(target, answer),
            body=json_bytes(_body(message)),
            trusted=trusted,
            secret=url,
            limit=ANSWER_LIMIT,
        )

    def words_of(self, answer: HttpAnswer) -> str:
        """The message of an error, and its number."""
        return _reason(json_object(answer.body) or {})

    def _outcome(self, target: str, answer: HttpAnswer) -> Outcome:
        said = json_object(answer.body) or {}
        self._heed(target, answer, said)
        if answer.status == 429:
            return replace(retry_of_answer(answer), retry_after=_pause(answer, said))
        if answer.status == 200:
            identity = said.get("id")
            if isinstance(identity, str) and identity:
                return Outcome.delivered(http_status=200, provider_message_id=identity[:100])
            return bad_answer(
                answer,
                "answered 200 without a message's id",
                at_most_once=self.limits.at_most_once,
            )
        gone = () if said.get("code") == UNKNOWN_CHANNEL else GONE
        return outcome_of_answer(answer, by="Discord", reason=_reason(said), gone=gone)

    def _heed(self, target: str, answer: HttpAnswer, said: Mapping[str, Any]) -> None:
        """Call nobody in vain: after a 429 for everything, and once a window's calls are spent.

        A 429 for one webhook is heeded by the engine.
        """
        seconds = _pause(answer, said)
        if seconds is None:
            return
        if answer.status == 429:
            if said.get("global") is True or "X-RateLimit-Global" in answer.headers:
                # Of that host only: a caller's URL may lead to anybody who says so.
                self._pauses.pause(_host(target), seconds)
        elif answer.headers.get("X-RateLimit-Remaining") == "0":
            self._pauses.pause(target, seconds)


def make(environment: Environment, services: ChannelServices) -> DiscordChannel:
    """Make the channel."""
    limits = SendingLimits(concurrency=16, per_target=2, rate=RateLimit(0.5, burst=5))
    settings = environment.read(DiscordSettings)
    return DiscordChannel(
        webhooks_of(settings.discord_webhook_url, settings.discord_webhooks),
        sending(environment, NAME, timeout=10.0, limits=limits),
        services,
    )


def _host(target: str) -> str:
    return target.partition("#")[0]


def _address(url: str, message: Message) -> str:
    """The webhook's URL, asking for the message that was made of the call."""
    query = {"wait": "true"}
    thread = message.payload.get("thread_id")
    if _is_id(thread):
        query["thread_id"] = str(thread)
    try:
        return str(URL(url).update_query(query))
    except ValueError:
        return url


def _body(message: Message) -> dict[str, Any]:
    payload = message.payload
    own, mentions = payload.get("content"), payload.get("allowed_mentions")
    body: dict[str, Any] = {
        "allowed_mentions": mentions if isinstance(mentions, Mapping) else NO_MENTIONS
    }
    if isinstance(own, str) and own:
        body["content"] = shortened(own, CONTENT_LIMIT)
    elif not payload.get("embeds"):
        body["content"] = _content(message)
    for part in PASSED_ON:
        if payload.get(part):
            body[part] = payload[part]
    return body


def _content(message: Message) -> str:
    lines = []
    if message.title:
        # Bold ends at the end of its line, so a title of several would show its asterisks.
        title = shortened(" ".join(message.title.split()), TITLE_LIMIT)
        lines.append(f"**{_escaped(title)}**" if title else "")
    if message.message:
        lines.append(_escaped(message.message))
    whole = "\n".join(line for line in lines if line) or _escaped(message.type)
    cut = shortened(whole, CONTENT_LIMIT)
    # A cut between a backslash and what it escapes would let it escape the ellipsis.
    return cut if cut is whole else _ESCAPE_CUT_OFF.sub(r"\1…", cut)


def _escaped(text: str) -> str:
    """The text without what Markdown makes of it; links stay links."""

    def escaped(found: re.Match[str]) -> str:
        if found["link"]:
            return found[0]
        return f"{found[0][:-1]}\\{found[0][-1]}"

    return _MARKDOWN.sub(escaped, text)


def _check_embeds(embeds: object) -> list[FieldProblem]:
    place = "/payload/embeds"
    if not isinstance(embeds, list) or not 1 <= len(embeds) <= EMBEDS_LIMIT:
        return [FieldProblem(place, "invalid", f"must be a list of 1 to {EMBEDS_LIMIT} embeds")]
    problems = []
    for number, embed in enumerate(embeds):
        if not isinstance(embed, Mapping):
            problems.append(FieldProblem(f"{place}/{number}", "invalid", "is not an embed"))
            continue
        for part, limit in EMBED_LIMITS.items():
            words = embed.get(part)
            if isinstance(words, str) and utf16_length(words) > limit:
                problems.append(
                    FieldProblem(
                        f"{place}/{number}/{part}", "too_long", f"is longer than {limit} characters"
                    )
                )
        fields = embed.get("fields")
        if isinstance(fields, list) and len(fields) > FIELDS_LIMIT:
            problems.append(
                FieldProblem(
                    f"{place}/{number}/fields", "too_many", f"has more than {FIELDS_LIMIT} fields"
                )
            )
    return problems


def _is_id(value: object) -> bool:
    """Whether it is one of Discord's ids, which are too large to be numbers in JSON."""
    return isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20


def _reason(said: Mapping[str, Any]) -> str:
    words, code = said.get("message"), said.get("code")
    if not isinstance(words, str):
        return ""
    return f"{words[:200]} ({code})" if isinstance(code, int) and code else words[:200]


def _pause(answer: HttpAnswer, said: Mapping[str, Any]) -> float | None:
    """Seconds that Discord asks to wait: the least that it names.

    Older versions of its API give milliseconds in the body, while the headers give seconds.
    """
    named = [retry_after(answer.headers), _seconds(answer.headers.get("X-RateLimit-Reset-After"))]
    if answer.status == 429:
        named.append(_seconds(said.get("retry_after")))
    known = [seconds for seconds in named if seconds is not None]
    return min(min(known), LONGEST_PAUSE) if known else None


def _seconds(value: object) -> float | None:
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value, re.ASCII):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    return None
