"""The variables of Alimtalk templates, and what is put in their places.

Register templates with these names, as in:
``#{name}님, #{date} #{time} #{clinic_name} 예약이 완료되었습니다.``
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

NAME = "name"
DATE = "date"
TIME = "time"
CLINIC_NAME = "clinic_name"
PLACE = "place"
LINK = "link"
TITLE = "title"
VARIABLES = (NAME, DATE, TIME, CLINIC_NAME, PLACE, LINK, TITLE)

SEOUL = ZoneInfo("Asia/Seoul")
_WEEKDAYS = "월화수목금토일"

# Where a reservation may have what a variable stands for: the first path that leads somewhere.
_PATHS: Mapping[str, tuple[str, ...]] = {
    NAME: ("name", "customer_name", "patient_name", "student_name", "customer.name",
           "patient.name", "student.name", "user.name"),
    CLINIC_NAME: ("clinic_name", "clinic.name", "academy_name", "academy.name", "tenant.name"),
    PLACE: ("place", "location", "room", "address", "place.name", "clinic.address"),
    LINK: ("link", "url", "detail_url"),
    TITLE: ("title", "subject", "service_name", "course_name", "service.name", "course.name"),
}  # fmt: skip
_MOMENTS = ("starts_at", "start_at", "reserved_at", "scheduled_at", "start_time", "datetime")
_DATES = ("date", "reservation_date", "reserved_date")
_TIMES = ("time", "reservation_time", "reserved_time")


def build_replacements(context: Mapping[str, Any]) -> dict[str, str]:
    """What `enqueue_sms(variables=…)` takes: ``{"name": "홍길동"}`` → ``{"#{name}": "홍길동"}``.

    Every key of the context is taken, whether or not it is one of `VARIABLES`; None becomes an
    empty text. Dates and times are written as people read them.
    """
    return {
        f"#{{{str(name).removeprefix('#{').removesuffix('}')}}}": _written(value)
        for name, value in context.items()
    }


def template_context_from_reservation(reservation: Any) -> dict[str, str]:
    """The variables that a reservation gives; those that it has nothing for are left out.

    Takes any object or mapping with the usual attributes: `name` or `customer.name`, `date` and
    `time` or a moment such as `starts_at` (shown in Korean time), `clinic_name` or `clinic.name`,
    `place`, `link`, `title`.
    """
    context = {
        name: _written(value)
        for name, paths in _PATHS.items()
        if (value := _first(reservation, paths)) is not None
    }
    moment = _first(reservation, _MOMENTS)
    day, hour = _first(reservation, _DATES), _first(reservation, _TIMES)
    if isinstance(moment, datetime):
        local = moment.astimezone(SEOUL) if moment.tzinfo is not None else moment
        day = local.date() if day is None else day
        hour = local.time() if hour is None else hour
    if day is not None:
        context[DATE] = _written(day)
    if hour is not None:
        context[TIME] = _written(hour)
    return context


def _first(reservation: Any, paths: tuple[str, ...]) -> Any:
    for path in paths:
        found = reservation
        for step in path.split("."):
            is_mapping = isinstance(found, Mapping)
            found = found.get(step) if is_mapping else getattr(found, step, None)
            if found is None:
                break
        if found is not None and not callable(found) and found != "":
            if path in _PLAIN and not isinstance(found, str | int):
                continue
            return found
    return None


_PLAIN = frozenset({"name", "place", "location", "room", "link", "url", "title", "subject"})
"""Attributes that may also be whole objects, whose names stand further down."""


def _written(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        local = value.astimezone(SEOUL) if value.tzinfo is not None else value
        return f"{_written(local.date())} {_written(local.time())}"
    if isinstance(value, date):
        return f"{value.year}년 {value.month}월 {value.day}일({_WEEKDAYS[value.weekday()]})"
    if isinstance(value, time):
        return f"{value.hour:02}:{value.minute:02}"
    return str(value)
