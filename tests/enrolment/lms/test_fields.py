from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from allim.base.clock import KST
from allim.enrolment.lms.fields import (
    as_email,
    as_id,
    is_secret,
    is_volatile,
    kept_fields,
    korean_time,
    plain_fields,
)


@pytest.mark.parametrize(
    "name",
    ["userPassword", "PASSWORD", "user_pw", "passwd2", "juminNumber", "JUMIN_NO", "userRrn", "rrn",
     "accessToken", "refresh_token", "clientSecret", "apiKey", "주민등록번호", "비밀번호"],
)  # fmt: skip
def test_secrets_are_known_by_their_names(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["userId", "email", "lastname", "opinion", "shipping", "spwan"])
def test_other_names_are_no_secrets(name: str) -> None:
    assert not is_secret(name)


def test_a_detail_keeps_what_means_something() -> None:
    kept = plain_fields(
        {
            "phone": " 010-1234-5678 ",
            "memo": "nul \x00 and \ud800 surrogate",
            "remark": "주민번호 900101-1234567",
            "address": "empty",
            "fax": None,
            "vip": False,
            "score": float("inf"),
            "account": {"password": "nested"},
            "history": [1, 2],
            "userPassword": "x",
            "lastLogin": 1760000000,
            "update_time": "2026-03-01 09:00:00",
        }
    )
    assert kept == {"phone": "010-1234-5678", "memo": "nul  and  surrogate", "vip": False}


def test_of_a_listed_field_nothing_said_is_nothing_kept() -> None:
    assert kept_fields(("a", "b", "c", "d"), {"a": "", "b": None, "c": "EMPTY", "e": 1}) == {}


def test_volatile_names() -> None:
    assert is_volatile("update_time")
    assert is_volatile("LastLogin")
    assert not is_volatile("lastname")


@pytest.mark.parametrize(
    "text",
    ["2026-03-01 09:00:00", "2026-03-01T09:00:00", "2026-03-01 09:00:00.0", "2026.03.01 09:00",
     "2026/03/01 09:00:00", "20260301090000", " 2026-03-01 09:00 ", "2026-03-01T00:00:00Z"],
)  # fmt: skip
def test_times_without_an_offset_are_koreas(text: str) -> None:
    assert korean_time(text) == datetime(2026, 3, 1, 9, tzinfo=KST)
    assert KST.utcoffset(None) == timedelta(hours=9)


@pytest.mark.parametrize(
    "text",
    [None, "", "empty", "0000-00-00 00:00:00", "어제", "2026-13-01", "0001-01-01", "1760000000"],
)
def test_what_nobody_can_read_is_no_time(text: str | None) -> None:
    assert korean_time(text) is None


def test_ids_and_addresses() -> None:
    assert as_id(447) == "447"
    assert as_id(" kim ") == "kim"
    none: list[Any] = [None, "", True, 1.5, [], "x" * 300]
    assert [as_id(value) for value in none] == [None] * 6
    assert as_email(" Kim@Example.COM ") == "kim@example.com"
    assert [as_email(value) for value in ("kim", "a b@c", None)] == [None] * 3
