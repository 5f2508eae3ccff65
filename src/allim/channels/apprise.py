"""APPRISE: the hundred and more services of the library `apprise` (the extra of that name).

The recipient is a name to which the operator has given an apprise URL, in APPRISE_URLS or
APPRISE_URL_<NAME>; nobody is the name `default`. A caller's own apprise URL is refused unless
APPRISE_ALLOW_URLS is on: the library calls wherever such a URL leads, past the SSRF guard.
Of the payload, `type` (info, success, warning, failure) and `format` (text, markdown, html) are
passed on.

The library blocks, so it runs in threads of its own, and only tells yes or no. Yes is success.
No is tried again, since it does not tell what would never work; what it logged is the error. A
URL that it makes no service of is refused. Where time runs out nobody knows whether the message
arrived, and it is tried again. The thread that is left behind begins no request any more, and one
that it had begun is given up: what a service does without the library's throttle it goes on with.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from functools import partial

from pydantic import Field, SecretStr, field_validator
from pydantic_core import from_json

from allim.base.errors import ConfigurationError, FieldProblem
from allim.base.settings import Environment, SettingsGroup
from allim.channels import apprise_library
from allim.channels.apprise_library import BadAppriseUrl, Note
from allim.channels.channel import (
    NOTHING_TO_SAY,
    ChannelServices,
    Configured,
    Draft,
    Message,
    RecipientKind,
    says_nothing,
)
from allim.channels.hooks import target_of
from allim.channels.posting import PostingChannel
from allim.channels.sending import Sending, sending
from allim.channels.threads import AbandonableThreads, NoThreadFree
from allim.relay.outcomes import Outcome
from allim.relay.sender import SendingLimits

NAME = "APPRISE"
DEFAULT = "default"
URL_PREFIX = "APPRISE_URL_"
TYPES = ("info", "success", "warning", "failure")
FORMATS = ("text", "markdown", "html")
BUSY_SECONDS = 5.0

_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,31}://\S+")


class AppriseSettings(SettingsGroup):
    """The services that are reached by apprise."""

    apprise_urls: SecretStr | None = Field(
        None,
        description='Apprise URLs by name, as JSON: {"ops": "mattermost://…"}. Or one by one:'
        " APPRISE_URL_OPS=…, for the name ops. The name default is for deliveries that name no"
        " recipient.",
    )
    apprise_allow_urls: bool = Field(
        False,
        description="Whether callers may name apprise URLs of their own. They reach whatever this"
        " machine reaches: only where every caller is trusted.",
    )

    @field_validator("apprise_urls")
    @classmethod
    def _are_named_urls(cls, value: SecretStr | None) -> SecretStr | None:
        _named(value)
        return value

    def by_name(self, environment: Environment) -> Mapping[str, str]:
        """The URLs. Raises ConfigurationError for a name that is wrong or there twice."""
        urls = dict(_named(self.apprise_urls))
        for suffix, url in environment.beginning(URL_PREFIX).items():
            name = suffix.lower()
            if not _NAME.fullmatch(name) or not _URL.fullmatch(url):
                raise ConfigurationError(
                    f"invalid settings: {URL_PREFIX}{suffix} must be an apprise URL: service://…"
                )
            if name in urls:
                raise ConfigurationError(
                    f"invalid settings: {URL_PREFIX}{suffix} is also a name in APPRISE_URLS"
                )
            urls[name] = url
        return urls


class AppriseChannel(PostingChannel):
    """Hands messages to the library, in threads."""

    name = NAME
    recipient_kind = RecipientKind.APPRISE
    only_target: str | None = None

    def __init__(
        self,
        urls: Mapping[str, str],
        sending: Sending,
        services: ChannelServices,
        *,
        allow_urls: bool = False,
    ) -> None:
        super().__init__(sending, services)
        self._urls = urls
        self._allow_urls = allow_urls
        self._threads = AbandonableThreads(sending.limits.concurrency, "allim-apprise")

    def check(self, draft: Draft) -> Sequence[FieldProblem]:
        """The recipient must be one of the names; there must be something to say."""
        problems = []
        if problem := self._check_recipient(draft.recipient):
            problems.append(problem)
        if says_nothing(draft):
            problems.append(NOTHING_TO_SAY)
        for part, words in (("type", TYPES), ("format", FORMATS)):
            if draft.payload.get(part, words[0]) not in list(words):
                problem = FieldProblem(
                    f"/payload/{part}", "invalid", f"must be one of {', '.join(words)}"
                )
                problems.append(problem)
        return problems

    def configured(self) -> Configured:
        """Live with any name, else a success that says it called nobody."""
        if not self._is_set():
            words = "APPRISE_URLS is not set: nothing is sent by apprise"
            return Configured("not_configured", words, needs="APPRISE_URLS")
        names = ", ".join(sorted(self._urls)) or "no names"
        own = "; callers may name URLs of their own" if self._allow_urls else ""
        return Configured("live", f"sends by apprise to: {names}{own}")

    def target(self, content: Message) -> str:
        """The name; for a caller's URL a hash, since any part of it may be a token."""
        recipient = content.recipient or DEFAULT
        if "://" in recipient:
            return f"apprise#{target_of(recipient).rpartition('#')[2]}"
        return f"apprise:{recipient}"

    async def deliver(self, message: Message) -> Outcome:
        """Hand it over; see the module for what becomes of it."""
        if not self._is_set():
            return Outcome.delivered("not_configured", detail="no apprise URL is configured")
        if problem := self._check_recipient(message.recipient):
            return Outcome.refused(problem.code, f"the recipient {problem.message}")
        recipient = message.recipient or DEFAULT
        url, note = self._urls.get(recipient, recipient), _note(message)
        try:
            notified = await self._threads.run(
                self.target(message),
                partial(apprise_library.notify, url, note, ends=time.monotonic() + self._timeout),
                timeout=self._timeout,
            )
        except NoThreadFree:
            return Outcome.snooze("target_busy", BUSY_SECONDS, "too many calls by apprise hang")
        except BadAppriseUrl as error:
            return Outcome.refused("invalid_apprise_url", f"apprise: {error}")
        except TimeoutError:
            return self._in_doubt("timeout", "apprise did not end within the time limit")
        except Exception as error:
            # A service of the library broke; what it says may hold its URL.
            return self._in_doubt("apprise_error", f"apprise raised {type(error).__name__}")
        if notified.ok:
            return Outcome.delivered()
        return self._in_doubt("apprise_failed", notified.said or "apprise says no, not why")

    async def diagnose(self) -> str | None:
        """Let the library read every URL; it calls nobody for that."""
        wrong = []
        for name, url in self._urls.items():
            try:
                await self._threads.run(name, partial(apprise_library.check_url, url), timeout=30.0)
            except BadAppriseUrl as error:
                wrong.append(f"{name}: {error}")
            except (NoThreadFree, TimeoutError):
                wrong.append(f"{name}: could not be checked, too many calls hang")
        return "; ".join(wrong) or None

    def _is_set(self) -> bool:
        return bool(self._urls) or self._allow_urls

    def _check_recipient(self, recipient: str | None) -> FieldProblem | None:
        place = "/recipient"
        if recipient and "://" in recipient:
            if not self._allow_urls:
                words = "must be a name of APPRISE_URLS; a URL of your own is not allowed here"
                return FieldProblem(place, "url_not_allowed", words)
            if not _URL.fullmatch(recipient):
                return FieldProblem(place, "invalid_url", "is not an apprise URL")
            return None
        if not self._urls or (recipient or DEFAULT) in self._urls:
            return None
        known = ", ".join(sorted(self._urls))
        if not recipient:
            return FieldProblem(place, "missing", f"is needed, one of: {known}")
        return FieldProblem(place, "unknown_name", f"must be one of: {known}")

    def _in_doubt(self, code: str, detail: str) -> Outcome:
        """It did not arrive, or it did and the library was not told so."""
        make = Outcome.unknown if self.limits.at_most_once else Outcome.retry
        return make(code, detail)


def make(environment: Environment, services: ChannelServices) -> AppriseChannel:
    """Make the channel. Raises ConfigurationError where URLs are set but the extra is missing."""
    settings = environment.read(AppriseSettings)
    urls = settings.by_name(environment)
    if (urls or settings.apprise_allow_urls) and not apprise_library.is_installed():
        raise ConfigurationError(
            "APPRISE_URLS needs the library apprise: pip install 'allim[apprise]'"
        )
    return AppriseChannel(
        urls,
        sending(environment, NAME, timeout=20.0, limits=SendingLimits(concurrency=8)),
        services,
        allow_urls=settings.apprise_allow_urls,
    )


def _note(message: Message) -> Note:
    title, body = message.title or "", message.message or ""
    if not body:
        title, body = "", title or message.type
    kind, form = message.payload.get("type"), message.payload.get("format")
    return Note(
        title,
        body,
        kind if isinstance(kind, str) and kind in TYPES else TYPES[0],
        form if isinstance(form, str) and form in FORMATS else FORMATS[0],
    )


def _named(urls: SecretStr | None) -> Mapping[str, str]:
    if urls is None:
        return {}
    try:
        named = from_json(urls.get_secret_value())
    except ValueError:
        raise ValueError('must be JSON: {"name": "service://…"}') from None
    if not isinstance(named, dict):
        raise ValueError('must be a JSON object: {"name": "service://…"}')
    for name, url in named.items():
        if not _NAME.fullmatch(name):
            raise ValueError("has a name that is not letters, digits, dots or dashes")
        if not isinstance(url, str) or not _URL.fullmatch(url):
            raise ValueError(f"must have an apprise URL (service://…) for {name}")
    return named
