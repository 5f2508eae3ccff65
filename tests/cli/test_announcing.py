"""What a relay says of its channels when it starts: little, and what matters."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from allim.base.settings import Environment
from allim.channels.registry import make_channels, make_http, make_services
from allim.composition.announcing import announce
from tests.programs import programs

SMTP = {"SMTP_URL": "smtp://127.0.0.1:2525"}


async def said(caplog: pytest.LogCaptureFixture, **settings: str) -> list[tuple[str, str]]:
    """What is said at a start with these settings, with its level."""
    environment = Environment(settings)
    http = make_http(environment)
    channels = make_channels(environment, make_services(http))
    caplog.clear()
    with caplog.at_level(logging.INFO, "allim"):
        announce(list(channels.values()), environment)
    await http.close()
    return [(record.levelname, record.getMessage()) for record in caplog.records]


async def test_without_settings_there_is_one_warning_that_mails_are_only_printed(
    place: Path, database_url: str
) -> None:
    async with programs(place) as start:
        relay = await start(
            "relay", "deliveries", until="not configured", DATABASE_URL=database_url
        )
        warnings = [e["event"] for e in relay.events if e["level"] == "warning"]
    assert warnings == [
        "only printed, nobody is called: EMAIL (SMTP_URL is not set: mails are printed on stdout)"
    ]


async def test_all_that_is_not_configured_stands_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = await said(caplog, **SMTP)

    assert {level for level, _ in lines} == {"INFO"}
    (absent,) = [line for _, line in lines if line.startswith("not configured")]
    for name in ("SLACK", "TELEGRAM", "WEBPUSH", "SMS", "ALIMTALK", "SHEET", "KAKAO"):
        assert f" {name}" in absent, name
    for name in ("EMAIL", "WEBHOOK", "LOG"):
        assert f" {name}" not in absent, name


async def test_all_that_only_prints_stands_in_one_line_with_its_reasons(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = await said(caplog, DEBUG="true", SOLAPI_SENDER="021234567")

    (warning,) = [line for level, line in lines if level == "WARNING"]
    assert warning == (
        "only printed, nobody is called: EMAIL (SMTP_URL is not set: mails are printed on stdout);"
        " SMS, ALIMTALK (SOLAPI_MOCK or DEBUG is on: messages are printed, nothing is sent)"
    )


@pytest.mark.parametrize(
    ("settings", "channel", "given", "missing"),
    [
        ({"SMTP_FROM": "a@b.kr"}, "EMAIL", "SMTP_FROM", "SMTP_URL"),
        ({"TELEGRAM_CHAT_ID": "7"}, "TELEGRAM", "TELEGRAM_CHAT_ID", "TELEGRAM_BOT_TOKEN"),
        ({"SOLAPI_SENDER": "021234567"}, "SMS", "SOLAPI_SENDER", "SOLAPI_API_KEY"),
        ({"KAKAO_TEMPLATE_CODE": "T"}, "KAKAO", "KAKAO_TEMPLATE_CODE", "KAKAO_WEBHOOK_URL"),
        ({"SHEET_NAME": "alerts"}, "SHEET", "SHEET_NAME", "SHEET_SPREADSHEET_ID"),
    ],
)
async def test_a_channel_that_lacks_what_it_needs_gets_a_warning_of_its_own(
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, str],
    channel: str,
    given: str,
    missing: str,
) -> None:
    lines = await said(caplog, **{"SMTP_URL": SMTP["SMTP_URL"] * (channel != "EMAIL"), **settings})

    (warning,) = [line for level, line in lines if level == "WARNING"]
    assert warning.startswith(f"channel {channel} is set up in part ({given}): ")
    assert missing in warning
    (absent,) = [line for _, line in lines if line.startswith("not configured")]
    assert f" {channel}" not in absent


async def test_a_setting_at_its_default_or_a_switch_that_is_off_sets_nothing_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = await said(
        caplog,
        **SMTP,
        DEBUG="false",
        SOLAPI_MOCK="false",
        SOLAPI_BASE_URL="https://api.solapi.com",
        APPRISE_ALLOW_URLS="no",
    )
    assert {level for level, _ in lines} == {"INFO"}
