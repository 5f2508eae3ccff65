"""ALIMTALK: approved notices in KakaoTalk, by Solapi.

The template is the delivery's `template_code`, else `payload.template_id`, else
SOLAPI_KAKAO_TEMPLATE_ID; the channel `payload.pf_id`, else SOLAPI_KAKAO_PF_ID. The values of its
`#{name}` stand in `payload.variables`. What Kakao shows must equal the approved template:
with variables the template's own text is used, without any the message is sent as it is. A
message that holds `#{name}` itself, or `payload.template_text`, is taken for the template's
text: then missing variables are named before anything is stored.

Solapi's own substitute text (`disableSms: false`) is never used: the fallback is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from allim.base.errors import FieldProblem
from allim.base.settings import Environment, SettingsGroup
from allim.channels.channel import ChannelServices, Draft
from allim.channels.korean_sms import render, tidy, variables_of
from allim.channels.sending import Sending
from allim.channels.sms import sending_of
from allim.channels.solapi.channel import Body, SolapiChannel
from allim.channels.solapi.drafts import (
    Problems,
    recipient_of,
    refuse_missing,
    sender_of,
    text_in,
    variables_in,
)
from allim.channels.solapi.settings import SolapiSettings

NAME = "ALIMTALK"
TEXT_LIMIT = 1000
BUTTONS_LIMIT = 5
BUTTON_NAME_LIMIT = 14
LINK_LIMIT = 500
LINKS = {
    "WL": ("linkMo",),
    "AL": ("linkAnd", "linkIos"),
    "AC": (),
    "BC": (),
    "BK": (),
    "BT": (),
    "DS": (),
    "MD": (),
}
"""The types of buttons, and the links that each needs."""
LINK_FIELDS = ("linkMo", "linkPc", "linkAnd", "linkIos")


class AlimtalkSettings(SettingsGroup):
    """Which Kakao channel and template Alimtalk goes by, unless a delivery names its own."""

    solapi_kakao_pf_id: str | None = Field(
        None, description="The Kakao channel (PF id) for Alimtalk."
    )
    solapi_kakao_template_id: str | None = Field(
        None, description="The approved template for Alimtalk that names none."
    )


class AlimtalkChannel(SolapiChannel):
    """Sends Alimtalk."""

    name = NAME
    own_templates = True

    def __init__(
        self,
        settings: SolapiSettings,
        kakao: AlimtalkSettings,
        sending: Sending,
        services: ChannelServices,
    ) -> None:
        super().__init__(settings, sending, services)
        self._kakao = kakao

    def compose(self, draft: Draft) -> tuple[Body, Sequence[FieldProblem]]:
        """An Alimtalk as Solapi takes it, and what is wrong with it."""
        problems: Problems = []
        payload = draft.payload
        to = recipient_of(draft, problems)
        sender = sender_of(draft, self._settings.solapi_sender, problems)
        pf_id = text_in(payload, "pf_id", problems) or self._kakao.solapi_kakao_pf_id
        template = (
            draft.template_code
            or text_in(payload, "template_id", problems)
            or self._kakao.solapi_kakao_template_id
        )
        if self.mode == "live":
            _refuse_unset(pf_id, "/payload/pf_id", "SOLAPI_KAKAO_PF_ID", problems)
            _refuse_unset(template, "/template_code", "SOLAPI_KAKAO_TEMPLATE_ID", problems)
        if payload.get("advertising") is True:
            words = "Alimtalk carries information only, no advertisements"
            problems.append(FieldProblem("/payload/advertising", "not_allowed", words))
        values = variables_in(payload, problems)
        text = _text(draft, values, problems)
        kakao: dict[str, Any] = {"pfId": pf_id, "templateId": template, "disableSms": True}
        if values:
            kakao["variables"] = {f"#{{{name}}}": value for name, value in values.items()}
        if buttons := _buttons(payload.get("buttons"), problems):
            kakao["buttons"] = buttons
        body = {"to": to, "from": sender, "type": "ATA", "text": text, "kakaoOptions": kakao}
        return {name: value for name, value in body.items() if value is not None}, problems


def make(environment: Environment, services: ChannelServices) -> AlimtalkChannel:
    """Make the channel."""
    return AlimtalkChannel(
        environment.read(SolapiSettings),
        environment.read(AlimtalkSettings),
        sending_of(environment, NAME),
        services,
    )


def _text(draft: Draft, values: Mapping[str, str], problems: Problems) -> str | None:
    """What is to be shown, where it is known; else Solapi takes the template's text."""
    place = "/payload/template_text"
    known = text_in(draft.payload, "template_text", problems)
    if known is None:
        place, known = "/message", draft.message
        if values and not variables_of(known or ""):
            return None
    if not (known and known.strip()):
        problems.append(
            FieldProblem("/message", "missing", "Alimtalk needs a text or payload.variables")
        )
        return None
    text = tidy(known)
    refuse_missing(text, values, problems)
    text = render(text, values)
    if len(text) > TEXT_LIMIT:
        words = f"is {len(text)} characters long, at most {TEXT_LIMIT} can be sent"
        problems.append(FieldProblem(place, "too_long", words))
    return text


def _buttons(given: object, problems: Problems) -> list[dict[str, str]]:
    place = "/payload/buttons"
    if given is None:
        return []
    if not isinstance(given, list) or len(given) > BUTTONS_LIMIT:
        words = f"must be a list of at most {BUTTONS_LIMIT} buttons"
        problems.append(FieldProblem(place, "invalid", words))
        return []
    return [_button(button, f"{place}/{number}", problems) for number, button in enumerate(given)]


def _button(given: object, place: str, problems: Problems) -> dict[str, str]:
    if not isinstance(given, Mapping):
        problems.append(FieldProblem(place, "invalid", "is not a button"))
        return {}
    name, kind = given.get("buttonName"), given.get("buttonType")
    if not isinstance(name, str) or not 1 <= len(name) <= BUTTON_NAME_LIMIT:
        words = f"must be a text of 1 to {BUTTON_NAME_LIMIT} characters"
        problems.append(FieldProblem(f"{place}/buttonName", "invalid", words))
        name = ""
    if not isinstance(kind, str) or kind not in LINKS:
        words = f"must be one of {', '.join(LINKS)}"
        problems.append(FieldProblem(f"{place}/buttonType", "invalid", words))
        kind = ""
    button = {"buttonName": name, "buttonType": kind}
    for field in LINK_FIELDS:
        link = given.get(field)
        if link is None:
            if field in LINKS.get(kind, ()):
                words = f"a button of type {kind} needs it"
                problems.append(FieldProblem(f"{place}/{field}", "missing", words))
        elif not isinstance(link, str) or not 1 <= len(link) <= LINK_LIMIT:
            words = f"must be a link of at most {LINK_LIMIT} characters"
            problems.append(FieldProblem(f"{place}/{field}", "invalid", words))
        else:
            button[field] = link
    return button


def _refuse_unset(value: str | None, place: str, variable: str, problems: Problems) -> None:
    if not value:
        problems.append(FieldProblem(place, "missing", f"is not given, and {variable} is not set"))
