"""Records as they are compared: a key, the business fields in one spelling, and their hash."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from allim.enrolment.lms.fields import is_secret
from allim.enrolment.lms.protocol import Course, StatusRow
from allim.enrolment.model import SourceType

_COURSE_KEY = 60
_USER_KEY = 120
_TEXT = 500
_DEPTH = 16
_HASH_BYTES = 16

_UNSTORABLE = (b"\\u0000", b"NaN", b"Infinity")


@dataclass(slots=True)
class Record:
    """One record as the LMS has it now. `fields` are what a change is found by."""

    source_type: SourceType
    source_id: str
    user_id: str
    fields: Mapping[str, Any]
    payload: bytes
    """The fields as JSON, keys sorted."""
    hash: bytes
    course_id: str | None = None
    course_name: str | None = None
    user_name: str | None = None
    status: str | None = None
    status_msg: str | None = None
    ds_date: datetime | None = None
    gc_date: datetime | None = None
    sjc_date: datetime | None = None
    update_time: datetime | None = None


def status_record(category_id: int, course: Course, row: StatusRow) -> Record:
    """A user in a course."""
    fields, payload, digest = business(row.fields)
    return Record(
        source_type=SourceType.STATUS,
        source_id=status_key(category_id, course.id, row.user_id),
        user_id=fit_text(row.user_id) or "",
        fields=fields,
        payload=payload,
        hash=digest,
        course_id=course_key(course.id),
        course_name=fit_text(course.name),
        user_name=fit_text(row.user_name),
        status=fit_text(row.status),
        status_msg=fit_text(row.status_msg),
        ds_date=row.ds_date,
        gc_date=row.gc_date,
        sjc_date=row.sjc_date,
        update_time=row.update_time,
    )


def detail_record(category_id: int, row: StatusRow, detail: Mapping[str, Any]) -> Record:
    """A user in a term."""
    fields, payload, digest = business(detail)
    return Record(
        source_type=SourceType.DETAIL,
        source_id=detail_key(category_id, row.user_id),
        user_id=fit_text(row.user_id) or "",
        fields=fields,
        payload=payload,
        hash=digest,
        user_name=fit_text(row.user_name),
    )


def status_key(category_id: int, course_id: str, user_id: str) -> str:
    """``termId:courseId:userId``: the same user is another record in each course."""
    return f"{category_id}:{course_key(course_id)}:{user_key(user_id)}"


def detail_key(category_id: int, user_id: str) -> str:
    """``termId:userId``."""
    return f"{category_id}:{user_key(user_id)}"


def user_key(user_id: str) -> str:
    """A user id as part of a key."""
    return _key_part(user_id, _USER_KEY)


@lru_cache(maxsize=1024)
def course_key(course_id: str) -> str:
    """A course id as part of a key, and as it is stored."""
    return _key_part(course_id, _COURSE_KEY)


def _key_part(text: str, limit: int) -> str:
    if len(text) <= limit and text.isascii() and "\0" not in text:
        return text
    fitting = fit_text(text) or ""
    if fitting == text and len(text) <= limit:
        return text
    # Whatever was cut or replaced must not make one key of two users.
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    return f"{fitting[: limit - 25]}~{digest}"


def business(fields: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes, bytes]:
    """The fields without secrets and in one order, their JSON, and its hash.

    The LMS clients drop secrets; they are looked for again before anything is stored.
    What PostgreSQL cannot store (NUL, half surrogate pairs, what is no number) is replaced, so
    that one odd value costs no course.
    """
    kept: Mapping[str, Any] = {
        name: value if type(value) is str or value is None else _one_spelling(value, 0)
        for name, value in sorted(fields.items())
        if not is_secret(name)
    }
    try:
        payload = to_json(kept)
        clean = not any(suspect in payload for suspect in _UNSTORABLE)
    except (PydanticSerializationError, ValueError):
        clean = False
    if not clean:
        kept = {_clean(name): _clean(value) for name, value in kept.items()}
        payload = to_json(kept)
    return kept, payload, blake2b(payload, digest_size=_HASH_BYTES).digest()


def fit_text(text: str | None) -> str | None:
    """A text that PostgreSQL can store, of a length that fits any column of ours."""
    if text is None or (len(text) <= _TEXT and text.isascii() and "\0" not in text):
        return text
    return str(_clean(text[:_TEXT]))


def _one_spelling(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        if depth >= _DEPTH:
            return None
        return {
            str(name): _one_spelling(item, depth + 1)
            for name, item in sorted(value.items(), key=lambda pair: str(pair[0]))
            if not is_secret(str(name))
        }
    if isinstance(value, list | tuple):
        return None if depth >= _DEPTH else [_one_spelling(item, depth + 1) for item in value]
    return value


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_clean(name): _clean(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return value
