"""What may stand in a Korean text message: characters, lengths, numbers, advertising marks.

SMS holds 90 bytes, LMS and MMS 2000, a subject 40. Bytes are those of KS X 1001: ASCII is one,
everything else two. Python's `cp949` also encodes thousands of syllables that handsets do not
take, with a second byte below 0xA1, and `euc-kr` makes eight bytes of them without a word; so
only what cp949 makes two bytes of, both 0xA1 or more, passes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from allim.base.clock import KST

SMS_BYTES = 90
LMS_BYTES = 2000
SUBJECT_BYTES = 40
NUMBER_LIMIT = 40
"""Characters of a number, with all that may stand between its digits."""

NIGHT_BEGINS = 21
NIGHT_ENDS = 8
ADVERTISING_MARK = "(광고)"
OPT_OUT_WORDS = "무료수신거부"

# ASCII: to Python the digits of other scripts are digits, too.
MOBILE = re.compile(r"010\d{8}|01[16789]\d{7,8}", re.ASCII)
SAFE_NUMBER = re.compile(r"050[2-8]\d{7,8}", re.ASCII)
SENDER = re.compile(r"\d{8,11}", re.ASCII)
OPT_OUT_NUMBER = re.compile(r"080\d{7,8}", re.ASCII)
VARIABLE = re.compile(r"#\{([^{}]{1,50})\}")
_SEPARATORS = re.compile(r"[\s\-.()·]")
_OPT_OUT_LINE = re.compile(OPT_OUT_WORDS + r"\s*:?\s*(080[\d\- ]{7,12})\s*\Z")

INSTEAD = {
    "\u00a0": "a space",
    "\u2013": "'-'",
    "\u2014": "'-'",
    "\u2022": "'·'",
    "\u200b": "nothing",
    "\u200c": "nothing",
    "\u200d": "nothing",
    "\ufeff": "nothing",
    "\u202f": "a space",
    "\u2019": "an apostrophe",
}
"""What to write for characters that look as if they could be sent."""


class TextKind(StrEnum):
    """How a text goes out, and what it is priced by."""

    SMS = "SMS"
    LMS = "LMS"
    MMS = "MMS"


class BadNumber(ValueError):
    """A number that no text can be sent to; `code` is stable, the text a sentence."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True, slots=True)
class Unsendable:
    """A character that cannot be sent; `position` counts characters from 1."""

    character: str
    position: int

    def __str__(self) -> str:
        name = unicodedata.name(self.character, "control character")
        shown = self.character if self.character.isprintable() else ""
        told = f"{shown!r} " if shown.strip() else ""
        instead = INSTEAD.get(self.character)
        return f"{told}(U+{ord(self.character):04X} {name}) at character {self.position}" + (
            f", write {instead}" if instead else ""
        )


def tidy(text: str) -> str:
    """The same text as handsets see it: composed syllables, one kind of line end.

    macOS writes 한글 as single letters (NFD), which no text message can hold.
    """
    if text.isascii() and "\r" not in text:
        return text
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")


def unsendable(text: str) -> Sequence[Unsendable]:
    """Every character of a tidy text that cannot be sent, with its place."""
    return [
        Unsendable(character, position)
        for position, character in enumerate(text, 1)
        if not _width(character)
    ]


def count_bytes(text: str) -> int:
    """How long a tidy text is, in bytes; what cannot be sent counts as two."""
    return sum(_width(character) or 2 for character in text)


def cut(text: str, limit: int) -> str:
    """The beginning of a text that fits into `limit` bytes."""
    length = 0
    for position, character in enumerate(text):
        length += _width(character) or 2
        if length > limit:
            return text[:position]
    return text


def normalise_number(written: str) -> str:
    """A Korean mobile number as digits (01012345678), however it was written.

    Takes +82, 0082, hyphens, spaces, dots, brackets and full-width digits. Raises BadNumber.
    Safe numbers (0502 to 0508) take texts too; landlines do not.
    """
    digits = _digits(written)
    if MOBILE.fullmatch(digits) or SAFE_NUMBER.fullmatch(digits):
        return digits
    if not digits.isascii() or not digits.isdigit():
        raise BadNumber("invalid_number", "is not a phone number")
    if digits.startswith(("02", "03", "04", "05", "06", "07", "08", "1")) and len(digits) >= 8:
        raise BadNumber("not_mobile", "is not a mobile number: it cannot take text messages")
    raise BadNumber("invalid_number", "is not a Korean mobile number, such as 010-1234-5678")


def normalise_sender(written: str) -> str:
    """A sender's number as digits: 8 to 11 of them, registered beforehand. Raises BadNumber."""
    digits = _digits(written)
    if SENDER.fullmatch(digits):
        return digits
    raise BadNumber("invalid_sender", "is not a sender's number of 8 to 11 digits")


def variables_of(text: str) -> Sequence[str]:
    """The names of the `#{name}` in a text, each once, in order."""
    return list(dict.fromkeys(VARIABLE.findall(text)))


def render(text: str, variables: Mapping[str, str]) -> str:
    """A text with its `#{name}` replaced; those without a value stay. Keys are bare names."""
    return VARIABLE.sub(lambda match: variables.get(match[1], match[0]), text)


def is_advertising(text: str | None, payload: Mapping[str, object]) -> bool:
    """Whether a text is an advertisement: it was said to be, or is marked as one."""
    return payload.get("advertising") is True or (text or "").lstrip().startswith(ADVERTISING_MARK)


def has_opt_out(text: str) -> bool:
    """Whether a text ends with the free opt-out line."""
    found = _OPT_OUT_LINE.search(text)
    return found is not None and bool(OPT_OUT_NUMBER.fullmatch(_SEPARATORS.sub("", found[1])))


def mark_advertising(text: str, *, sender_name: str, opt_out: str) -> str:
    """An advertisement with its marks: `(광고)` and who sends it, and the free opt-out line.

    Those that stand there already are not repeated. Source: 정보통신망법 §50, 시행령 §61.
    """
    body = text.strip()
    if body.startswith(ADVERTISING_MARK):
        body = body.removeprefix(ADVERTISING_MARK).lstrip()
    if not body.startswith(sender_name):
        body = f"{sender_name}\n{body}"
    if not has_opt_out(body):
        body = f"{body}\n{OPT_OUT_WORDS} {opt_out}"
    return ADVERTISING_MARK + body


def seconds_until_morning(now: datetime) -> float | None:
    """How long an advertisement must wait at `now` (aware): None by day, else until 08:00 KST.

    Between 21:00 and 08:00 advertisements need a consent of their own (정보통신망법 §50(3)).
    """
    here = now.astimezone(KST)
    if NIGHT_ENDS <= here.hour < NIGHT_BEGINS:
        return None
    return seconds_until_eight(now)


def seconds_until_eight(now: datetime) -> float:
    """Seconds from `now` (aware) until the next 08:00 in Korea."""
    here = now.astimezone(KST)
    morning = here.replace(hour=NIGHT_ENDS, minute=0, second=0, microsecond=0)
    if morning <= here:
        morning += timedelta(days=1)
    return (morning - here).total_seconds()


def _width(character: str) -> int:
    """Bytes of one character: 1, 2, or 0 where it cannot be sent."""
    if character < "\x80":
        return 1 if " " <= character < "\x7f" or character in "\n\t" else 0
    try:
        encoded = character.encode("cp949")
    except UnicodeEncodeError:
        return 0
    return 2 if len(encoded) == 2 and min(encoded) >= 0xA1 else 0


def _digits(written: str) -> str:
    """Without what stands between its digits; nothing of one that is too long to be a number."""
    if len(written) > NUMBER_LIMIT:
        return ""
    plain = unicodedata.normalize("NFKC", written).strip()
    plain = plain.translate(dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-"))
    digits = _SEPARATORS.sub("", plain)
    for prefix in ("+82", "0082", "82"):
        if digits.startswith(prefix) and (prefix != "82" or len(digits) >= 11):
            return "0" + digits.removeprefix(prefix).removeprefix("0")
    return digits
