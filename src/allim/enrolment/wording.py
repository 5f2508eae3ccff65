"""What operators read: titles and messages of alerts, in Korean."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic_core import to_json

from allim.base.clock import KST
from allim.enrolment.lms.protocol import FailureGroup
from allim.enrolment.records import Record
from allim.enrolment.severity import PAID, PREPARED, WAITING, is_rollback

"""What the LMS and its operators live in; without summer time, so it needs no database."""

MESSAGE_LIMIT = 900
"""Kakao takes 1000 characters with everything around it."""
_VALUE_LIMIT = 80
_CHANGES_SHOWN = 12
NOTHING = "없음"

_LABELS = {
    "status": "상태",
    "ds_date": "대기 등록일",
    "gc_date": "결제일",
    "sjc_date": "승인 준비일",
    "codename": "상태 구분",
    "userName": "이름",
    "username": "이름",
    "fullname": "이름",
    "email": "이메일",
    "companyName": "회사",
    "deptName": "부서",
    "jobPosition": "직위",
    "phone": "전화",
    "mobile": "휴대전화",
    "completed": "수료",
    "suspended": "정지",
}
_STATUSES = {WAITING: "대기", PREPARED: "승인 준비", PAID: "결제 완료"}
_FAILURES = {
    FailureGroup.HTTP_409: "LMS가 같은 작업을 처리 중입니다. 잠시 후 다시 실행하세요",
    FailureGroup.HTTP_5XX: "LMS 서버 오류 또는 점검 중입니다",
    FailureGroup.HTTP_4XX: "LMS가 요청을 거부했습니다",
    FailureGroup.TIMEOUT: "LMS가 제시간에 응답하지 않았습니다",
    FailureGroup.CONFIGURATION: "LMS 접속 설정, 권한 또는 기수 번호를 확인하세요",
    FailureGroup.LOCK_CONFLICT: "같은 기수의 동기화가 이미 실행 중입니다",
    FailureGroup.OTHER: "끝까지 처리하지 못했습니다",
}
_STATUS_FIELDS = frozenset({"status", "statusmsg", "status_msg", "statusMsg"})
_DATES = ("ds_date", "gc_date", "sjc_date")


@dataclass(frozen=True, slots=True)
class Before:
    """A record as it was stored."""

    fields: Mapping[str, Any]
    status: str | None = None
    status_msg: str | None = None
    dates: Mapping[str, datetime | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Words:
    """What an alert says."""

    title: str
    message: str


def of_new(record: Record) -> Words:
    """A record that was never seen."""
    facts = []
    if (status := _status(record.status, record.status_msg)) != NOTHING:
        facts.append(f"상태: {status}")
    facts += [
        f"{_LABELS[name]}: {_shown(date)}" for name in _DATES if (date := getattr(record, name))
    ]
    said = ", ".join(facts) or ("새 수강 등록" if record.course_id else "등록")
    return _words(_about(record, "신규"), "신규", _who(record), said)


def of_change(record: Record, before: Before, touched: Sequence[str]) -> Words:
    """A record with other fields than before; `touched` are their names."""
    kind = "변경·되돌림" if is_rollback(before.status, record.status) else "변경"
    return _words(_about(record, kind), kind, _who(record), _changes(record, before, touched))


def of_return(record: Record, before: Before, touched: Sequence[str]) -> Words:
    """A record that was missing and is back, perhaps with other fields."""
    said = "수강 목록에 다시 나타났습니다"
    if touched:
        said += f" ({_changes(record, before, touched)})"
    return _words(_about(record, "복귀"), "복귀", _who(record), said)


def of_missing(name: str, course: str | None, status: str | None, status_msg: str | None) -> Words:
    """A record that is gone from a complete listing."""
    said = f"수강 목록에서 사라졌습니다 (마지막 상태: {_status(status, status_msg)})"
    return _words("수강 사라짐", "사라짐", _with_course(name, course), said)


def of_baseline(category_id: int, *, enrolments: int, users: int) -> Words:
    """A category that was read for the first time, told in sum."""
    said = f"첫 수집: 수강 {enrolments}건, 회원 {users}명"
    return _words("첫 수집", "신규", f"기수 {category_id}", said)


def of_failure(category_id: int, group: FailureGroup, message: str) -> Words:
    """A run that failed."""
    said = f"수강 동기화 실패: {_FAILURES[group]} ({message})"
    return _words("수강 동기화 실패", "실패", f"기수 {category_id}", said)


def touched_fields(now: Mapping[str, Any], before: Mapping[str, Any]) -> Sequence[str]:
    """The names of the fields that differ, those of the LMS's own order of names first."""
    names = [name for name, value in now.items() if name not in before or before[name] != value]
    return names + [name for name in before if name not in now]


def _changes(record: Record, before: Before, touched: Sequence[str]) -> str:
    said = []
    old_status = _status(before.status, before.status_msg)
    new_status = _status(record.status, record.status_msg)
    if old_status != new_status:
        said.append(f"상태: {old_status} → {new_status}")
    elif before.status != record.status:
        said.append(f"상태: {_shown(before.status)} → {_shown(record.status)}")
    for name in touched:
        if name in _STATUS_FIELDS and said and record.status is not None:
            continue
        old, new = before.fields.get(name), record.fields.get(name)
        if name in _DATES and (before.dates.get(name) or getattr(record, name)):
            old, new = before.dates.get(name), getattr(record, name)
        shown_old, shown_new = _shown(old), _shown(new)
        if shown_old != shown_new:
            said.append(f"{_LABELS.get(name, name)[:40]}: {shown_old} → {shown_new}")
    if not said:
        # Nothing that a reader could tell apart, as where "empty" became null.
        return "표기만 바뀜: " + ", ".join(_LABELS.get(name, name)[:40] for name in touched[:5])
    if len(said) > _CHANGES_SHOWN:
        said[_CHANGES_SHOWN:] = [f"외 {len(said) - _CHANGES_SHOWN}개 항목"]
    return ", ".join(said)


def _words(title: str, kind: str, who: str, said: str) -> Words:
    message = f"[{kind}] {who} {said}"
    if len(message) > MESSAGE_LIMIT:
        message = message[: MESSAGE_LIMIT - 1] + "…"
    return Words(sys.intern(title), message)


def _about(record: Record, kind: str) -> str:
    return f"{'수강' if record.course_id else '회원 정보'} {kind}"


def _who(record: Record) -> str:
    name = record.user_name or record.user_id
    if record.course_id is None:
        return f"{name} 회원 정보"
    return _with_course(name, record.course_name or record.course_id)


def _with_course(name: str, course: str | None) -> str:
    return f"{name[:60]} ({course[:100]})" if course else name[:60]


def _status(status: str | None, message: str | None) -> str:
    return message or _STATUSES.get(status or "", status) or NOTHING


def _shown(value: Any) -> str:
    if value is None or value in ("", "empty"):
        return NOTHING
    if isinstance(value, bool):
        return "예" if value else "아니요"
    if isinstance(value, datetime):
        return value.astimezone(KST).strftime("%Y-%m-%d %H:%M")
    text = value if isinstance(value, str) else to_json(value).decode()
    text = " ".join(text.split())
    return text if len(text) <= _VALUE_LIMIT else text[: _VALUE_LIMIT - 1] + "…"
