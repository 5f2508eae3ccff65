"""Numbers, bytes and nights."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allim.channels.korean_sms import (
    BadNumber,
    count_bytes,
    cut,
    has_opt_out,
    is_advertising,
    mark_advertising,
    normalise_number,
    normalise_sender,
    render,
    seconds_until_morning,
    tidy,
    unsendable,
    variables_of,
)


@pytest.mark.parametrize(
    "written",
    [
        "01012345678",
        "010-1234-5678",
        " 010 1234 5678 ",
        "010.1234.5678",
        "(010)1234-5678",
        "+82 10-1234-5678",
        "+82-010-1234-5678",
        "+8210 1234 5678",
        "0082 10 1234 5678",
        "82-10-1234-5678",
        "０１０－１２３４－５６７８",
        "010–1234–5678",
        "+82 (0)10 1234 5678",
    ],
)
def test_a_number_is_the_same_however_it_is_written(written: str) -> None:
    assert normalise_number(written) == "01012345678"


@pytest.mark.parametrize("number", ["0111234567", "01612345678", "050412345678", "05051234567"])
def test_old_and_safe_numbers_take_texts(number: str) -> None:
    assert normalise_number(number) == number


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("02-123-4567", "not_mobile"),
        ("031-123-4567", "not_mobile"),
        ("070-1234-5678", "not_mobile"),
        ("1588-1234", "not_mobile"),
        ("010-123-4567", "invalid_number"),
        ("010-12345-6789", "invalid_number"),
        ("+1 202 555 0100", "invalid_number"),
        ("kim", "invalid_number"),
        ("", "invalid_number"),
        ("٠١٠١٢٣٤٥٦٧٨x", "invalid_number"),
        ("0" * 10_000, "invalid_number"),
        ("010١2345678", "invalid_number"),
        ("010-1234-5678" + " " * 40 + "010-8765-4321", "invalid_number"),
    ],
)
def test_what_no_text_can_be_sent_to_is_refused(written: str, code: str) -> None:
    with pytest.raises(BadNumber) as bad:
        normalise_number(written)
    assert bad.value.code == code


@pytest.mark.parametrize("written", ["1588-1234", "02-123-4567", "010-1234-5678", "+82 2 123 4567"])
def test_senders_have_8_to_11_digits(written: str) -> None:
    assert 8 <= len(normalise_sender(written)) <= 11


@pytest.mark.parametrize("written", ["119", "0504-1234-56789", "Allim", ""])
def test_others_are_no_senders(written: str) -> None:
    with pytest.raises(BadNumber):
        normalise_sender(written)


@given(st.text(max_size=60))
def test_any_number_is_told_or_refused(written: str) -> None:
    try:
        digits = normalise_number(written)
    except BadNumber:
        return
    assert digits.isascii()
    assert digits.isdigit()
    assert normalise_number(digits) == digits


@given(st.text(max_size=200))
def test_bytes_are_those_of_cp949_where_all_can_be_sent(text: str) -> None:
    text = tidy(text)
    if not unsendable(text):
        assert count_bytes(text) == len(text.encode("cp949"))
        assert all(byte >= 0xA1 for byte in text.encode("cp949") if byte >= 0x80)
    short = cut(text, 40)
    assert text.startswith(short)
    assert count_bytes(short) <= 40


def test_variables_are_found_and_put_in() -> None:
    text = "#{name}님 #{date} #{name}"
    assert variables_of(text) == ["name", "date"]
    assert render(text, {"name": "#{date}"}) == "#{date}님 #{date} #{date}"


@pytest.mark.parametrize(
    ("hour", "minute", "wait"),
    [
        (8, 0, None),
        (20, 59, None),
        (21, 0, 11 * 3600),
        (23, 30, 8.5 * 3600),
        (0, 0, 8 * 3600),
        (7, 59, 60),
    ],
)
def test_advertisements_wait_for_the_morning_in_korea(
    hour: int, minute: int, wait: float | None
) -> None:
    in_utc = datetime(2026, 3, 2, (hour - 9) % 24, minute, tzinfo=UTC)
    assert seconds_until_morning(in_utc) == wait


def test_marks_of_an_advertisement() -> None:
    marked = mark_advertising("할인", sender_name="알림", opt_out="080-123-4567")
    assert marked == "(광고)알림\n할인\n무료수신거부 080-123-4567"
    assert mark_advertising(marked, sender_name="알림", opt_out="080-123-4567") == marked
    assert is_advertising(marked, {})
    assert has_opt_out("x\n무료수신거부: 080 123 4567")
    assert not has_opt_out("무료수신거부 080-123-4567 다음 줄")
    assert is_advertising("할인", {"advertising": True})
    assert not is_advertising("할인", {"advertising": "no"})
