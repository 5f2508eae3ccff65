"""SMS: Korean text messages by Solapi; short (SMS), long (LMS) or with a picture (MMS).

The text is `payload.text`, else the message, else the title. Up to 90 bytes it is an SMS, up to
2000 an LMS; `payload.image_id` makes it an MMS. An LMS or MMS has a subject of up to 40 bytes:
`payload.subject`, else the title, cut to that length, where it can be sent. `#{name}` is
replaced where `payload.variables` are given. `payload.advertising` adds the marks of an
advertisement. See `korean_sms.py` for what may stand in a text.
"""

from __future__ import annotations

from collections.abc import Sequence

from allim.base.errors import FieldProblem
from allim.base.settings import Environment
from allim.channels.channel import ChannelServices, Draft, Message
from allim.channels.korean_sms import (
    LMS_BYTES,
    SMS_BYTES,
    SUBJECT_BYTES,
    TextKind,
    count_bytes,
    cut,
    is_advertising,
    mark_advertising,
    render,
    tidy,
    unsendable,
)
from allim.channels.sending import Sending, sending
from allim.channels.solapi.channel import LIMITS, TIMEOUT_SECONDS, Body, SolapiChannel
from allim.channels.solapi.drafts import (
    Problems,
    recipient_of,
    refuse_missing,
    sender_of,
    text_in,
    variables_in,
)
from allim.channels.solapi.settings import SolapiSettings

NAME = "SMS"
SHOWN = 5
"""How many characters that cannot be sent are named."""


class SmsChannel(SolapiChannel):
    """Sends texts."""

    name = NAME

    def compose(self, draft: Draft) -> tuple[Body, Sequence[FieldProblem]]:
        """A text as Solapi takes it, and what is wrong with it."""
        problems: Problems = []
        payload = draft.payload
        to = recipient_of(draft, problems)
        sender = sender_of(draft, self._settings.solapi_sender, problems)
        if sender is None and self.mode == "live" and "sender" not in payload:
            problems.append(FieldProblem("/payload/sender", "missing", "SOLAPI_SENDER is not set"))
        text, place = self._text(draft, problems)
        image = text_in(payload, "image_id", problems)
        subject = text_in(payload, "subject", problems)
        if subject is not None:
            subject = tidy(subject)
            _refuse_unsendable(subject, "/payload/subject", problems)
            if count_bytes(subject) > SUBJECT_BYTES:
                words = f"is {count_bytes(subject)} bytes long, at most {SUBJECT_BYTES} can be sent"
                problems.append(FieldProblem("/payload/subject", "too_long", words))
        kind = kind_of(text, with_subject=subject is not None, with_image=image is not None)
        if not text.strip():
            problems.append(FieldProblem(place, "missing", "there is no text to send"))
        else:
            _refuse_unsendable(text, place, problems)
        if (length := count_bytes(text)) > LMS_BYTES:
            words = f"is {length} bytes long, at most {LMS_BYTES} can be sent"
            problems.append(FieldProblem(place, "too_long", words))
        body = {"to": to, "from": sender, "type": kind.value, "text": text}
        if kind is not TextKind.SMS:
            body["subject"] = subject or _subject(draft.title)
        if image is not None:
            body["imageId"] = image
        return {name: value for name, value in body.items() if value is not None}, problems

    def kind(self, message: Message) -> TextKind:
        """How a message goes out, and what it is priced by."""
        return TextKind(self.compose(Draft.of(message))[0]["type"])

    def _text(self, draft: Draft, problems: Problems) -> tuple[str, str]:
        """The text as it goes out, and the place it came from."""
        text, place = _said(draft, problems)
        if is_advertising(text, draft.payload):
            text = self._advertisement(text, problems)
        return text, place

    def _advertisement(self, text: str, problems: Problems) -> str:
        name, number = self._settings.solapi_ad_sender_name, self._settings.solapi_ad_opt_out
        if name and number:
            return mark_advertising(text, sender_name=name, opt_out=number)
        unset = [
            variable
            for variable, value in (
                ("SOLAPI_AD_SENDER_NAME", name),
                ("SOLAPI_AD_OPT_OUT", number),
            )
            if not value
        ]
        problems.append(
            FieldProblem(
                "/payload/advertising",
                "advertising_not_set_up",
                f"an advertisement needs {' and '.join(unset)} to be set",
            )
        )
        return text


def is_advertisement(message: Message) -> bool:
    """Whether a message goes out as an advertisement, wherever its text stands."""
    return is_advertising(_said(Draft.of(message), [])[0], message.payload)


def kind_of(text: str, *, with_subject: bool = False, with_image: bool = False) -> TextKind:
    """How a text goes out."""
    if with_image:
        return TextKind.MMS
    if with_subject or count_bytes(text) > SMS_BYTES:
        return TextKind.LMS
    return TextKind.SMS


def sending_of(environment: Environment, name: str) -> Sending:
    """How a channel by Solapi is called."""
    return sending(environment, name, timeout=TIMEOUT_SECONDS, limits=LIMITS)


def make(environment: Environment, services: ChannelServices) -> SmsChannel:
    """Make the channel."""
    return SmsChannel(environment.read(SolapiSettings), sending_of(environment, NAME), services)


def _said(draft: Draft, problems: Problems) -> tuple[str, str]:
    """The text with its variables, without the marks of an advertisement, and its place."""
    place = "/payload/text"
    text = text_in(draft.payload, "text", problems)
    if text is None:
        place, text = "/message", draft.message
    if not text and draft.title:
        place, text = "/title", draft.title
    text = tidy(text or "")
    if values := variables_in(draft.payload, problems):
        refuse_missing(text, values, problems)
        text = render(text, values)
    return text, place


def _subject(title: str | None) -> str | None:
    """A title as a subject: on one line, cut to size; none where it cannot be sent."""
    subject = " ".join(tidy(title or "").split())
    return None if not subject or unsendable(subject) else cut(subject, SUBJECT_BYTES)


def _refuse_unsendable(text: str, place: str, problems: Problems) -> None:
    if not (wrong := unsendable(text)):
        return
    named = "; ".join(str(one) for one in wrong[:SHOWN])
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    problems.append(
        FieldProblem(place, "unsendable_character", f"a text cannot hold {named}{more}")
    )
