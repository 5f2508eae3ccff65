"""What of an LMS's payload is kept: business fields, in one form, never a secret.

A record has changed when its kept fields have. So a field is kept only where a change of it
means something to an operator:

- of an enrolment, a list of names that each client has: an LMS that begins to send a new field,
  or one that is different at every call, alerts nobody;
- of a user's detail, whose fields nobody can list beforehand, every one but secrets and what
  changes by itself (`VOLATILE`).

Only plain values are kept, no lists or objects: their order and their inner fields may change
without meaning anything, and a secret may hide in them.

One thing is said in one way: blanks around text, `"empty"`, `""` and null are no differences,
and a field without a value is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from allim.base.clock import KST

TEXT_LIMIT = 10_000
"""The most characters of a field that are kept."""
FIELDS_LIMIT = 200
"""The most fields of a detail that are kept: the first by name, so that they stay the same."""
USER_ID_LIMIT = 255

VOLATILE = frozenset(
    {
        "updatetime", "updatedat", "updatedate", "updated", "moddate", "modifiedat", "modified",
        "timemodified", "lastlogin", "lastloginat", "lastlogindate", "lastlogintime",
        "lastaccess", "lastaccessat", "lastaccesstime", "lastcourseaccess", "firstaccess",
        "currentlogin", "logincount", "visitcount", "servertime", "timestamp", "now",
        "requestid", "traceid", "sessionid",
    }
)  # fmt: skip
"""Names, in small letters without separators, of what changes without anybody's doing."""

_SECRET_PARTS = (
    "password", "passwd", "passphrase", "pwd", "token", "secret", "credential", "apikey",
    "jumin", "residentreg", "residentno", "residentnum", "socialsecurity",
    "주민등록", "주민번호", "비밀번호", "암호",
)  # fmt: skip
_SECRET_WORDS = frozenset({"pw", "rrn", "ssn", "pin", "otp"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+")
_RESIDENT_NUMBER = re.compile(r"(?<!\d)\d{6}-[0-9]\d{6}(?!\d)")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_NOTHING = frozenset({"", "empty", "null"})


@lru_cache(maxsize=4096)
def is_secret(name: str) -> bool:
    """Whether a field's name is that of a password, a token or a resident number."""
    squeezed = _squeeze(name)
    if any(part in squeezed for part in _SECRET_PARTS):
        return True
    return not _SECRET_WORDS.isdisjoint(word.lower() for word in _WORD.findall(name))


@lru_cache(maxsize=4096)
def is_volatile(name: str) -> bool:
    """Whether a field's name is that of something that changes by itself."""
    return _squeeze(name) in VOLATILE


def plain_fields(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Every plain field with a value, but secrets and what changes by itself."""
    kept = {
        name: value
        for raw, given in payload.items()
        if not is_volatile(raw)
        and not is_secret(raw)
        and (value := plain(given)) is not None
        and (name := as_text(raw)) is not None
    }
    if len(kept) > FIELDS_LIMIT:
        kept = {name: kept[name] for name in sorted(kept)[:FIELDS_LIMIT]}
    return kept


def kept_fields(names: Iterable[str], payload: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of these names that have a value."""
    return {
        name: value
        for name in names
        if name in payload and (value := plain(payload[name])) is not None
    }


def plain(value: Any) -> Any:
    """A value as it is kept; None where it is none, or is not plain.

    Text loses what PostgreSQL cannot store, and is none where it holds a resident number.
    """
    if isinstance(value, str):
        return _cleaned(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) else None


def as_text(value: Any) -> str | None:
    """A value as text, or None where it says nothing."""
    if isinstance(value, str):
        return _cleaned(value)
    if value is None or isinstance(value, (dict, list, bool)):
        return None
    return _cleaned(str(value))


# Companies, departments and states are the same in row after row.
@lru_cache(maxsize=4096)
def _cleaned(text: str) -> str | None:
    if not (text.isascii() and text.isprintable()):
        text = _UNSTORABLE.sub("", text)
    text = text.strip()[:TEXT_LIMIT]
    if text.lower() in _NOTHING or ("-" in text and _RESIDENT_NUMBER.search(text)):
        return None
    return text


def as_id(value: Any) -> str | None:
    """An id as text, or None where there is none, or none that could be one."""
    text = as_text(value)
    return text if text and len(text) <= USER_ID_LIMIT and not isinstance(value, float) else None


def as_email(value: Any) -> str | None:
    """An e-mail address in its one form, or None where it is none."""
    text = as_id(value)
    return text.lower() if text and "@" in text and not re.search(r"\s", text) else None


@lru_cache(maxsize=8192)
def korean_time(value: str | None) -> datetime | None:
    """The moment that an LMS's text tells, naive ones in Korea's time; None where none does."""
    text = (value or "").strip()
    if len(text) < 8:
        return None
    if len(text) == 14 and text.isdigit():
        text = f"{text[:8]}T{text[8:]}"
    day, time_of_day = text[:10].replace("/", "-").replace(".", "-"), text[10:]
    try:
        moment = datetime.fromisoformat(day + time_of_day)
    except ValueError:
        return None
    if not 1900 <= moment.year < 9000:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=KST)


def _squeeze(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()
