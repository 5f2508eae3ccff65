"""The operator's own webhooks: URLs from the settings, and answers that say `ok` in JSON."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import AfterValidator, SecretStr
from yarl import URL

from allim.channels.answers import json_object
from allim.channels.channel import HttpAnswer
from allim.relay.outcomes import Outcome

SHOWN_ERROR = 500
SHORTEST_SECRET = 8
"""Characters; shorter parts of a URL are words of answers too."""


def require_url(url: str) -> None:
    """Raise ValueError for what is no URL of a webhook."""
    if not url.startswith(("https://", "http://")):
        raise ValueError("must begin with https:// or http://")


def _checked_url(url: SecretStr | None) -> SecretStr | None:
    if url is not None:
        require_url(url.get_secret_value())
    return url


WebhookUrl = Annotated[SecretStr | None, AfterValidator(_checked_url)]
"""A setting: the URL of a webhook."""


@lru_cache(maxsize=4096)
def target_of(url: str) -> str:
    """The host, and a hash that tells webhooks apart without telling what they are."""
    try:
        host = URL(url).raw_host
    except ValueError:
        host = None
    return f"{host or 'invalid'}#{hashlib.sha256(url.encode('utf-8', 'replace')).hexdigest()[:8]}"


def without_secret(text: str, secret: str) -> str:
    """The text without a secret; of a URL, without any part that may be one.

    An error page repeats the path that was asked for, not the whole URL.
    """
    for part in _telling_parts(secret):
        text = text.replace(part, "[secret]")
    return text


@lru_cache(maxsize=4096)
def _telling_parts(secret: str) -> tuple[str, ...]:
    """What of a secret must not be seen, the longest first."""
    parts = {secret}
    if "://" in secret:
        url = urlsplit(secret)
        values = [value for _, value in parse_qsl(url.query)]
        behind = f"{url.path}?{url.query}" if url.query else url.path
        more = [behind, url.path, url.path.rpartition("/")[2], *values]
        parts.update(part for each in more for part in (each, unquote(each), quote(each, safe="")))
    told = (part for part in parts if len(part) >= SHORTEST_SECRET or part == secret)
    return tuple(sorted(told, key=len, reverse=True))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a JSON object says that a webhook answered with; `ok` is None where it says nothing.

    `retry` is False only where the other side says itself that another try is pointless.
    """

    ok: bool | None
    error: str = ""
    retry: bool = True
    duplicate: bool = False

    @classmethod
    def of(cls, answer: HttpAnswer) -> Verdict | None:
        """Read the body of an answer; None where it is no JSON object, or came in part only."""
        if not answer.complete:
            return None
        said = json_object(answer.body)
        if said is None:
            return None
        ok, error = said.get("ok"), said.get("error")
        return cls(
            ok if isinstance(ok, bool) else None,
            str(error)[:SHOWN_ERROR] if error else "",
            said.get("retry") is not False,
            said.get("duplicate") is True,
        )

    def failure(self, answer: HttpAnswer) -> Outcome:
        """What `"ok": false` means: another try, unless it says `"retry": false`.

        A script's own failures are mostly passing ones (a lock, a quota), and trying once too
        often costs less than a message that is lost.
        """
        detail = f"answered ok: false ({self.error})" if self.error else "answered ok: false"
        make = Outcome.retry if self.retry else Outcome.refused
        return make("not_ok", detail, http_status=answer.status, response=answer.body)
