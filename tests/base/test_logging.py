"""What a log line holds, and what it never holds."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from allim.base.logging import LogSettings, LogWriter, configure_logging


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_both_libraries_write_one_json_line_an_event() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings.model_validate({}), stream)
    logging.getLogger("allim.test").warning("%d leases ran out", 3)
    structlog.get_logger("allim.channels.test").error("smtp_refuses_us", code="535")

    first, second = lines(stream)
    assert first["event"] == "3 leases ran out"
    assert (first["level"], first["logger"]) == ("warning", "allim.test")
    assert first["time"].endswith("Z")
    assert (second["event"], second["code"]) == ("smtp_refuses_us", "535")
    assert (second["level"], second["logger"]) == ("error", "allim.channels.test")


def test_the_level_holds_for_both() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings.model_validate({"allim_log_level": "warning"}), stream)
    logging.getLogger("allim").info("not this")
    structlog.get_logger().info("nor this")
    logging.getLogger("allim").warning("this")
    assert [line["event"] for line in lines(stream)] == ["this"]


def test_a_pool_that_repeats_itself_is_heard_now_and_then() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings.model_validate({}), stream)
    pool = logging.getLogger("psycopg.pool")
    for _ in range(3):
        pool.warning("error connecting in %r: %s", "allim", "refused")
    pool.warning("reconnection attempt in pool %r failed", "allim")
    later = pool.makeRecord(pool.name, logging.WARNING, "", 0, "error connecting in %r: %s",
                            ("allim", "refused"), None)  # fmt: skip
    later.created += 31
    pool.handle(later)

    assert [line["event"].split(" in ")[0] for line in lines(stream)] == [
        "error connecting",
        "reconnection attempt",
        "error connecting",
    ]


def test_passwords_tokens_and_quoted_rows_are_masked() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings.model_validate({}), stream)
    somebody = "@".join(("kim", "example.com"))
    words = f"Key taken\nDETAIL:  Key (recipient)=({somebody}) already exists."
    try:
        raise ValueError(words)
    except ValueError:
        logging.getLogger("allim").exception("at postgresql://me:hunter2@db/allim")
    structlog.get_logger().warning("posted", url="https://hooks.slack.com/services/T0/B0/abcdef")
    for url in (
        "https://discord.com/api/v10/webhooks/1/abcdef",
        "https://api.telegram.org/bot123456:abcdef/sendMessage",
        "https://x.logic.azure.com/invoke?api-version=1&sig=abcdef",
    ):
        structlog.get_logger().warning("posted", url=url)
    text = stream.getvalue()
    assert "hunter2" not in text
    assert "abcdef" not in text
    assert "kim@example.com" not in text
    assert "ValueError: Key taken" in text


def test_what_no_encoding_can_say_is_written_all_the_same() -> None:
    stream = io.StringIO()
    writer = configure_logging(LogSettings.model_validate({}), stream)
    writer.write([{"event": "a lone surrogate: \ud800", "other": object}])
    assert lines(stream)[0]["event"] == "a lone surrogate: \ud800"


def test_text_is_for_people() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings.model_validate({"allim_log_format": "text"}), stream)
    structlog.get_logger().info("relay started", channels="EMAIL, SLACK", count=2)
    line = stream.getvalue()
    assert "INFO" in line
    assert "relay started  channels='EMAIL, SLACK' count=2" in line


def test_a_stderr_that_is_gone_stops_nobody() -> None:
    class Gone(io.StringIO):
        def write(self, text: str, /) -> int:
            raise BrokenPipeError

    LogWriter(lambda event: "x", Gone(), logging.INFO).write([{"event": "x"}])


def test_a_line_for_people_cannot_command_their_terminal() -> None:
    stream = io.StringIO()
    configure_logging(LogSettings.model_validate({"allim_log_format": "text"}), stream)
    evil = "\x1b[2J\r\u202e"
    logging.getLogger("allim.test").warning("said %s", evil)
    try:
        raise ValueError(evil)
    except ValueError:
        structlog.get_logger("allim.test").exception("failed", key=evil, words=f"a {evil}\n")

    text = stream.getvalue()
    assert set(text).isdisjoint(evil[0] + evil[-2:])
    assert text.count(r"\x1b[2J\r\u202e") >= 4
