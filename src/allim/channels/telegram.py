"""TELEGRAM: messages of a bot to chats (core.telegram.org/bots/api#sendmessage).

The recipient is the chat's id (a group's is negative), or ``@name`` of a public channel. Title
and message are plain text; of the payload, `text` replaces it, with `parse_mode` for text that is
marked up; `message_thread_id`, `disable_notification`, `protect_content`,
`link_preview_options` and `reply_markup` are passed on.

Success is 200 that says ``"ok": true``. 429 is tried again when its `retry_after` is over, 5xx
and a broken network too. 400 and 403 (blocked, kicked out) are refused. A group that has become
a supergroup has another id: it is called by that at once. 401 and 404 say that the token is
wrong: messages wait until it is mended. The token is part of the URL, so no URL is ever told.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from pydantic import Field, SecretStr, field_validator

from allim.base.errors import FieldProblem
from allim.base.settings import Environment, SettingsGroup
from allim.channels.answers import bad_answer, json_object, outcome_of_answer, retry_of_answer
from allim.channels.channel import (
    NOTHING_TO_SAY,
    ChannelServices,
    Configured,
    Draft,
    HttpAnswer,
    Message,
    RecipientKind,
    says_nothing,
)
from allim.channels.hooks import require_url, target_of
from allim.channels.http.failure import HttpFailure
from allim.channels.json_bytes import json_bytes
from allim.channels.pace import Pace
from allim.channels.posting import PostingChannel
from allim.channels.sending import Sending, sending
from allim.channels.shortening import shortened, utf16_length
from allim.relay.outcomes import Outcome
from allim.relay.sender import RateLimit, SendingLimits

NAME = "TELEGRAM"
API_URL = "https://api.telegram.org"
BAD_TOKEN = frozenset({401, 404})
TEXT_LIMIT = 4096
TITLE_LIMIT = 256
ANSWER_LIMIT = 256 * 1024
"""Bytes: the answer repeats the message."""
PARSE_MODES = frozenset({"HTML", "MarkdownV2", "Markdown"})
PASSED_ON: Mapping[str, type] = {
    "message_thread_id": int,
    "disable_notification": bool,
    "protect_content": bool,
    "link_preview_options": dict,
    "reply_markup": dict,
}
CALLS_PER_SECOND = 25.0
"""Of one process; a bot may send 30 messages a second, whatever their chats."""
LEAST_SECONDS = 1.0
"""A second call is not begun with less."""
BUSY_SECONDS = 5.0

_CHAT = re.compile(r"-?[1-9]\d{0,19}|@[A-Za-z]\w{3,31}", re.ASCII)
_TOKEN = re.compile(r"\d{3,20}:[\w-]{10,100}", re.ASCII)

log = structlog.get_logger("allim.channels.telegram")


class TelegramSettings(SettingsGroup):
    """The Telegram bot."""

    telegram_bot_token: SecretStr | None = Field(
        None,
        description="The bot's token, from @BotFather. Not set: messages succeed without a call.",
    )
    telegram_chat_id: str | None = Field(
        None, description="The chat for deliveries that name no recipient: its id, or @name."
    )
    telegram_api_url: str = Field(
        API_URL, description="Where the Bot API is; another one for a server of your own."
    )

    @field_validator("telegram_bot_token")
    @classmethod
    def _is_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _TOKEN.fullmatch(value.get_secret_value()):
            raise ValueError("is not a bot's token: it looks like 123456789:AAF…")
        return value

    @field_validator("telegram_chat_id")
    @classmethod
    def _is_chat(cls, value: str | None) -> str | None:
        if value is not None and not _CHAT.fullmatch(value):
            raise ValueError("must be a chat's id (a number), or @name of a public channel")
        return value

    @field_validator("telegram_api_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        require_url(value)
        return value.rstrip("/")


@dataclass(frozen=True, slots=True)
class Said:
    """What the Bot API answered with; all None where it is none of its answers."""

    ok: bool | None = None
    description: str = ""
    retry_after: float | None = None
    moved_to: int | None = None
    message_id: int | None = None

    @classmethod
    def of(cls, text: str) -> Said:
        """Read an answer's body."""
        said = json_object(text)
        if said is None or not isinstance(said.get("ok"), bool):
            return cls()
        parameters, result = _object(said, "parameters"), _object(said, "result")
        wait = _number(parameters, "retry_after")
        return cls(
            said["ok"],
            str(said.get("description", ""))[:200],
            float(wait) if wait is not None and 0 <= wait < 10**9 else None,
            _number(parameters, "migrate_to_chat_id"),
            _number(result, "message_id"),
        )


class TelegramChannel(PostingChannel):
    """Sends as one bot."""

    name = NAME
    recipient_kind = RecipientKind.TELEGRAM_CHAT
    only_target: str | None = None

    def __init__(
        self, settings: TelegramSettings, sending: Sending, services: ChannelServices
    ) -> None:
        super().__init__(sending, services)
        token = settings.telegram_bot_token
        self._token = token.get_secret_value() if token is not None else None
        self._chat = settings.telegram_chat_id
        self._api = settings.telegram_api_url
        self._pace = Pace(CALLS_PER_SECOND)

    def fill_in(self, draft: Draft) -> Draft:
        """The chat of the settings, where the draft names none."""
        return replace(draft, recipient=draft.recipient or self._chat)

    def check(self, draft: Draft) -> Sequence[FieldProblem]:
        """The recipient must be a chat; there must be something to say."""
        problems = []
        if not draft.recipient:
            problem = "needs a chat's id: TELEGRAM_CHAT_ID is not set either"
            problems.append(FieldProblem("/recipient", "missing", problem))
        elif not _CHAT.fullmatch(draft.recipient):
            problem = "must be a chat's id (a number), or @name of a public channel"
            problems.append(FieldProblem("/recipient", "invalid_chat", problem))
        return [*problems, *_check_payload(draft)]

    def configured(self) -> Configured:
        """Live with a token, else a success that says it called nobody."""
        if self._token is None:
            words = "TELEGRAM_BOT_TOKEN is not set: nothing is sent to Telegram"
            return Configured("not_configured", words, needs="TELEGRAM_BOT_TOKEN")
        chat = "a default chat" if self._chat else "no default chat"
        return Configured("live", f"sends as bot {self._token.partition(':')[0]}, {chat}")

    def target(self, content: Message) -> str:
        """The chat, as a hash: a 429 is about one chat, and must not hold up the others."""
        return target_of(f"{self._api}/{self._token}/{content.recipient or self._chat}")

    async def deliver(self, message: Message) -> Outcome:
        """Send; see the module for what answers mean."""
        if self._token is None:
            return Outcome.delivered("not_configured", detail="no Telegram bot is configured")
        chat = message.recipient or self._chat
        if not chat or not _CHAT.fullmatch(chat):
            return Outcome.refused("invalid_chat", "the recipient is not a chat's id")
        deadline = time.monotonic() + self._timeout
        if not await self._pace.turn(self._timeout / 2):
            return Outcome.snooze("paced", BUSY_SECONDS, "the bot sends as fast as it may")
        outcome = await self._send(chat, message, deadline - time.monotonic())
        moved_to = Said.of(outcome.response or "").moved_to
        left = deadline - time.monotonic()
        if moved_to is None or left < LEAST_SECONDS:
            return outcome
        # Refused by the old id, so nothing went out yet.
        outcome = await self._send(str(moved_to), message, left)
        told = f"the group has become a supergroup: its id is {moved_to} now"
        return replace(outcome, detail=f"{outcome.detail}; {told}" if outcome.detail else told)

    async def diagnose(self) -> str | None:
        """Ask who the bot is."""
        if self._token is None:
            return None
        try:
            answer = await self._http.request(
                "GET", self._url("getMe"), headers={}, timeout=self._timeout, trusted=True
            )
        except HttpFailure as failure:
            return str(failure)
        if answer.status in BAD_TOKEN:
            return f"TELEGRAM_BOT_TOKEN is refused: answered {answer.status}"
        if Said.of(answer.body).ok is not True:
            return f"answered {answer.status}, not as the Bot API does"
        return None

    async def _send(self, chat: str, message: Message, timeout: float) -> Outcome:
        return await self.post(
            self._url("sendMessage"),
            self._outcome,
            body=json_bytes(_body(chat, message)),
            trusted=True,
            secret=self._token or "",
            timeout=timeout,
            limit=ANSWER_LIMIT,
        )

    def _outcome(self, answer: HttpAnswer) -> Outcome:
        said, status = Said.of(answer.body), answer.status
        if status == 200 and said.ok is True and said.message_id is not None:
            return Outcome.delivered(http_status=200, provider_message_id=str(said.message_id))
        if 200 <= status < 300:
            return bad_answer(
                answer,
                f"answered {status} without a message's id",
                at_most_once=self.limits.at_most_once,
            )
        if status == 429:
            retry = retry_of_answer(answer)
            return replace(retry, retry_after=said.retry_after or retry.retry_after)
        if status in BAD_TOKEN:
            log.error("telegram_token_refused", status=status)
            return Outcome.fault("bad_token", f"TELEGRAM_BOT_TOKEN is refused: answered {status}")
        return outcome_of_answer(answer, by="Telegram", reason=said.description)

    def _url(self, method: str) -> str:
        return f"{self._api}/bot{self._token}/{method}"


def make(environment: Environment, services: ChannelServices) -> TelegramChannel:
    """Make the channel."""
    limits = SendingLimits(concurrency=8, per_target=1, rate=RateLimit(1.0, burst=3))
    return TelegramChannel(
        environment.read(TelegramSettings),
        sending(environment, NAME, timeout=15.0, limits=limits),
        services,
    )


def _body(chat: str, message: Message) -> dict[str, Any]:
    payload, own = message.payload, message.payload.get("text")
    body: dict[str, Any] = {"chat_id": chat if chat.startswith("@") else int(chat)}
    if isinstance(own, str) and own:
        body["text"] = own
        if payload.get("parse_mode") in tuple(PARSE_MODES):
            body["parse_mode"] = payload["parse_mode"]
    else:
        body |= {"text": _text(message), "parse_mode": "HTML"}
    for part, kind in PASSED_ON.items():
        if _is_a(payload.get(part), kind):
            body[part] = payload[part]
    return body


def _text(message: Message) -> str:
    """A bold title over the message; the limit counts what is read, not its mark-up."""
    title = shortened(" ".join((message.title or "").split()), TITLE_LIMIT)
    text = message.message or ("" if title else message.type)
    text = shortened(text, TEXT_LIMIT - utf16_length(title) - 1)
    lines = [f"<b>{_escaped(title)}</b>"] if title else []
    return "\n".join([*lines, _escaped(text)] if text else lines)


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def _check_payload(draft: Draft) -> list[FieldProblem]:
    payload, text = draft.payload, draft.payload.get("text")
    problems = []
    if text is not None and not (isinstance(text, str) and text.strip()):
        problems.append(FieldProblem("/payload/text", "invalid", "must be text"))
    elif (
        isinstance(text, str) and not payload.get("parse_mode") and utf16_length(text) > TEXT_LIMIT
    ):
        problem = f"is longer than {TEXT_LIMIT} characters"
        problems.append(FieldProblem("/payload/text", "too_long", problem))
    elif says_nothing(draft, text):
        problems.append(NOTHING_TO_SAY)
    mode = payload.get("parse_mode")
    if mode is not None and (not isinstance(mode, str) or mode not in PARSE_MODES):
        problem = f"must be one of {', '.join(sorted(PARSE_MODES))}"
        problems.append(FieldProblem("/payload/parse_mode", "invalid", problem))
    elif mode is not None and text is None:
        problem = "is for a text of payload/text; title and message are plain text"
        problems.append(FieldProblem("/payload/parse_mode", "invalid", problem))
    for part, kind in PASSED_ON.items():
        if part in payload and not _is_a(payload[part], kind):
            wanted = {int: "a number", bool: "true or false", dict: "an object"}[kind]
            problems.append(FieldProblem(f"/payload/{part}", "invalid", f"must be {wanted}"))
    return problems


def _is_a(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _object(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = said.get(name)
    return value if isinstance(value, dict) else {}


def _number(said: Mapping[str, Any], name: str) -> int | None:
    value = said.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
