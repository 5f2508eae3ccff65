"""KAKAO: notices by the operator's own Kakao gateway (KAKAO_WEBHOOK_URL), by template.

A POST of JSON with template code, recipient and variables. Any 2xx is success, unless its
body is a JSON object that says `"ok": false`; that is tried again, unless it also says
`"retry": false`. 401, 408, 425, 429, 5xx and a broken network are tried again, all else is
refused (3xx too: redirects are not followed).

A delivery that names no template or recipient gets KAKAO_TEMPLATE_CODE and
KAKAO_DEFAULT_RECIPIENT when it is made. Of the payload, `variables` go over those that are
made of the message. A gateway may tell repeats by the `Idempotency-Key` header, which is also
the body's `dedupe_key`. Without a URL a delivery succeeds without a call and says so
(`not_configured`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from allim.base.errors import FieldProblem
from allim.base.settings import Environment, SettingsGroup
from allim.channels.answers import outcome_of_answer
from allim.channels.channel import (
    ChannelServices,
    Configured,
    Draft,
    HttpAnswer,
    Message,
    RecipientKind,
)
from allim.channels.hooks import Verdict, WebhookUrl, target_of
from allim.channels.json_bytes import JSON_HEADERS, json_bytes
from allim.channels.posting import PostingChannel
from allim.channels.sending import Sending, sending
from allim.relay.outcomes import Outcome
from allim.relay.sender import SendingLimits

NAME = "KAKAO"
UNAUTHORIZED = 401


class KakaoSettings(SettingsGroup):
    """The gateway to Kakao."""

    kakao_webhook_url: WebhookUrl = Field(
        None, description="Where notices are posted. Not set: they succeed without a call."
    )
    kakao_template_code: str = Field(
        "KVCA_ALERT",
        min_length=1,
        max_length=200,
        description="The template of deliveries that name none.",
    )
    kakao_default_recipient: str = Field(
        "ops",
        min_length=1,
        max_length=500,
        description="Who gets deliveries that name no recipient, as the gateway knows it.",
    )


class KakaoChannel(PostingChannel):
    """Posts to one gateway."""

    name = NAME
    recipient_kind = RecipientKind.KAKAO
    own_templates = True

    def __init__(
        self, settings: KakaoSettings, sending: Sending, services: ChannelServices
    ) -> None:
        url = settings.kakao_webhook_url
        super().__init__(sending, services)
        self._settings = settings
        self._url = url.get_secret_value() if url is not None else None
        self._target = target_of(self._url) if self._url else "kakao:not_configured"
        self.only_target: str | None = self._target

    def fill_in(self, draft: Draft) -> Draft:
        """The template and the recipient of the settings, where the draft has none."""
        return replace(
            draft,
            recipient=draft.recipient or self._settings.kakao_default_recipient,
            template_code=draft.template_code or self._settings.kakao_template_code,
        )

    def check(self, draft: Draft) -> Sequence[FieldProblem]:
        """Variables, where there are any, are an object."""
        variables = draft.payload.get("variables")
        if variables is not None and not isinstance(variables, Mapping):
            return [FieldProblem("/payload/variables", "invalid", "must be an object")]
        return []

    def configured(self) -> Configured:
        """Live with a gateway, else a success that says it called nobody."""
        if self._url is None:
            words = "KAKAO_WEBHOOK_URL is not set: nothing is sent to Kakao"
            return Configured("not_configured", words, needs="KAKAO_WEBHOOK_URL")
        return Configured("live", "posts to the gateway of KAKAO_WEBHOOK_URL")

    def target(self, content: Message) -> str:
        """There is one gateway."""
        return self._target

    async def deliver(self, message: Message) -> Outcome:
        """Post; see the module for what answers mean."""
        if self._url is None:
            return Outcome.delivered("not_configured", detail="no Kakao gateway is configured")
        body = self._body(message)
        headers = {**JSON_HEADERS, "Idempotency-Key": body["dedupe_key"]}
        if message.traceparent:
            headers["traceparent"] = message.traceparent
        return await self.post(
            self._url,
            _outcome,
            body=json_bytes(body),
            headers=headers,
            trusted=True,
            secret=self._url,
        )

    def _body(self, message: Message) -> dict[str, Any]:
        return {
            "template_code": message.template_code or self._settings.kakao_template_code,
            "recipient": message.recipient or self._settings.kakao_default_recipient,
            "variables": _variables(message),
            "title": message.title,
            "message": message.message,
            "type": message.type,
            "source": message.source,
            "created_at": message.created_at,
            "delivery_id": message.delivery_id,
            "notification_id": message.notification_id,
            "dedupe_key": f"{message.notification_id}/{message.delivery_id}",
        }


def make(environment: Environment, services: ChannelServices) -> KakaoChannel:
    """Make the channel."""
    return KakaoChannel(
        environment.read(KakaoSettings),
        sending(environment, NAME, timeout=15.0, limits=SendingLimits(concurrency=8)),
        services,
    )


def _outcome(answer: HttpAnswer) -> Outcome:
    if 200 <= answer.status < 300:
        verdict = Verdict.of(answer)
        if verdict is not None and verdict.ok is False:
            return verdict.failure(answer)
    return outcome_of_answer(answer, retried={UNAUTHORIZED})


def _variables(message: Message) -> dict[str, str]:
    """Texts for the template: of the data what is no list or object, then type, title, message.

    The payload's own go over all of them.
    """
    variables: dict[str, Any] = {
        **message.data,
        "type": message.type,
        "title": message.title or "",
        "message": message.message or "",
    }
    own = message.payload.get("variables")
    if isinstance(own, Mapping):
        variables.update(own)
    return {
        str(name): _text(value)
        for name, value in variables.items()
        if not isinstance(value, Mapping | list)
    }


def _text(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
