"""Logging: one line an event on stderr, JSON where nobody watches, readable on a terminal.

structlog and the standard library's logging end in the same writer. Secrets and bodies are
never given to a log; what a URL may carry all the same (a password, the token of a chat's
webhook or bot) is masked here as a second net, and so are the rows that a database error quotes.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import structlog
from pydantic import Field, field_validator
from pydantic_core import PydanticSerializationError, to_json

from allim.base.settings import SettingsGroup
from allim.base.visible import visible, visible_lines

Event = Mapping[str, Any]
Render = Callable[[Event], str]

QUIET_LIBRARIES = ("asyncio", "aiohttp", "uvicorn", "psycopg", "psycopg.pool", "mail")
"""Heard from WARNING on, unless everything is wanted."""

REPEATING_LIBRARY = "psycopg.pool"
"""Says for every connection and every try that the database is gone."""
_AGAIN_SECONDS = 30.0
_SAYINGS = 32

_CREDENTIALS = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@:]*:[^\s/@]*@", re.IGNORECASE)
_TOKEN = re.compile(
    r"(https://hooks\.slack\.com/|https://[\w.]*discord(?:app)?\.com/api/\S{0,20}?webhooks/"
    r"|://\S{1,900}?/bot(?=\d+:)|://\S{1,900}?[?&]sig=)\S+",
    re.IGNORECASE,
)
_QUOTED_ROW = re.compile(r"^(DETAIL|CONTEXT):.*$", re.MULTILINE)
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31;1"}
_FIRST = ("time", "level", "event", "logger")


class LogSettings(SettingsGroup):
    """What is logged, and how. Logs go to stderr."""

    allim_log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO",
        description="The least level that is logged: DEBUG, INFO, WARNING or ERROR. Every attempt"
        " is one line at INFO.",
    )
    allim_log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="json, text, or auto: text on a terminal, json elsewhere."
    )

    @field_validator("allim_log_level", mode="before")
    @classmethod
    def _in_capitals(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


class Stream(Protocol):
    """Where lines go."""

    def write(self, text: str, /) -> object:
        """Write."""

    def flush(self) -> object:
        """Flush."""


class LogWriter:
    """Renders events and writes them, several in one write."""

    def __init__(self, render: Render, stream: Stream, level: int) -> None:
        self.as_json = render is json_line
        self._render = render
        self._stream = stream
        self._level = level

    def logs(self, level: int) -> bool:
        """Whether events of a level are written."""
        return level >= self._level

    def write(self, events: Sequence[Event]) -> None:
        """Write one line each."""
        self.write_text("".join([self._render(event) for event in events]))

    @contextmanager
    def through(self, stream: Stream) -> Iterator[None]:
        """Write to another stream meanwhile, as to one that keeps lines off a progress bar."""
        before, self._stream = self._stream, stream
        try:
            yield
        finally:
            self._stream = before

    def write_text(self, lines: str) -> None:
        """Write whole lines. A stderr that is gone must not stop a relay: it is ignored."""
        try:
            self._stream.write(lines)
            self._stream.flush()
        except (OSError, ValueError):
            return


def now() -> str:
    """This moment as it stands in a line: RFC 3339 in UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def configure_logging(settings: LogSettings, stream: Stream | None = None) -> LogWriter:
    """Send structlog and standard logging to stderr (or `stream`); call once a process."""
    target = stream if stream is not None else sys.stderr
    on_terminal = bool(getattr(target, "isatty", lambda: False)())
    as_text = settings.allim_log_format == "text" or (
        settings.allim_log_format == "auto" and on_terminal
    )
    level: int = getattr(logging, settings.allim_log_level)
    coloured = on_terminal and not os.environ.get("NO_COLOR")
    writer = LogWriter(text_line(coloured) if as_text else json_line, target, level)
    root = logging.getLogger()
    root.handlers = [_Handler(writer)]
    root.setLevel(level)
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING) if level > 10 else level)
    _let_through_now_and_then(logging.getLogger(REPEATING_LIBRARY), level)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _Finish(writer)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Named,
        cache_logger_on_first_use=False,
    )
    return writer


class NowAndThen(logging.Filter):
    """Lets each thing that a library says through once in half a minute.

    What counts as the same is the text before its arguments are put in.
    """

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[object, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it was not said lately."""
        if record.created - self._said.get(record.msg, -_AGAIN_SECONDS) < _AGAIN_SECONDS:
            return False
        if len(self._said) >= _SAYINGS:
            self._said.clear()
        self._said[record.msg] = record.created
        return True


def _let_through_now_and_then(library: logging.Logger, level: int) -> None:
    for former in [each for each in library.filters if isinstance(each, NowAndThen)]:
        library.removeFilter(former)
    if level > logging.DEBUG:
        library.addFilter(NowAndThen())


def json_line(event: Event) -> str:
    """One line of JSON; fields that are None are left out."""
    kept = {key: value for key, value in event.items() if value is not None}
    try:
        return to_json(kept, fallback=str).decode() + "\n"
    except PydanticSerializationError:
        # A lone surrogate somewhere: escaped, it can be written.
        return json.dumps(kept, default=str) + "\n"


def text_line(coloured: bool) -> Render:
    """Renders a line for people: local time, level, what happened, then the fields."""

    def render(event: Event) -> str:
        level = str(event.get("level", "info"))
        moment = datetime.now().astimezone().strftime("%H:%M:%S")
        fields = " ".join(
            f"{visible(key)}={_shown(value)}"
            for key, value in event.items()
            if key not in _FIRST and key != "exception" and value is not None
        )
        word = f"{level.upper():<8}"
        if coloured:
            word = f"\x1b[{_COLOURS.get(level, '0')}m{word}\x1b[0m"
            fields = f"\x1b[2m{fields}\x1b[0m" if fields else ""
        said = visible_lines(str(event.get("event", "")))
        line = f"{moment} {word}{said}{'  ' if fields else ''}{fields}\n"
        if exception := event.get("exception"):
            line += f"{visible_lines(str(exception))}\n"
        return line

    return render


def masked(text: str) -> str:
    """The text without what URLs and database errors may give away."""
    if "://" in text:
        text = _TOKEN.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", text))
    return _QUOTED_ROW.sub(r"\1: not shown", text)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    text = str(value)
    return visible(repr(text) if " " in text or not text else text)


class _Handler(logging.Handler):
    """Standard logging's way to the writer."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            event: dict[str, Any] = {
                "time": now(),
                "level": record.levelname.lower(),
                "event": masked(record.getMessage()),
                "logger": record.name,
            }
            if record.exc_info and record.exc_info[1] is not None:
                event["exception"] = _told(record.exc_info[1])
            self._writer.write([event])
        except Exception:
            # logging's own boundary: it says how a handler must fail.
            self.handleError(record)


class _Named:
    """What structlog's lines end in; only carries the logger's name to the processor."""

    def __init__(self, name: str = "allim", *_more: object) -> None:
        self.name = name

    def msg(self, _nothing: object) -> None:
        """The processor has written the line."""

    debug = info = warning = error = critical = exception = fatal = log = msg


class _Finish:
    """structlog's last processor: writes the line."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer

    def __call__(
        self, logger: _Named, method: str, event: MutableMapping[str, Any]
    ) -> tuple[tuple[None], dict[str, Any]]:
        words = event.pop("event", "")
        error = event.pop("exc_info", None)
        line: dict[str, Any] = {
            "time": now(),
            "level": "error" if method == "exception" else method,
            "event": masked(str(words)),
            "logger": logger.name,
        }
        for key, value in event.items():
            line[key] = masked(value) if isinstance(value, str) else value
        if error is True:
            error = sys.exc_info()[1]
        elif isinstance(error, tuple):
            error = error[1]
        if isinstance(error, BaseException):
            line["exception"] = _told(error)
        self._writer.write([line])
        return (None,), {}


def _told(error: BaseException) -> str:
    return masked("".join(traceback.format_exception(error)).rstrip())
