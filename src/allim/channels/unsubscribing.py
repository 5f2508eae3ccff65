"""One-click unsubscribing (RFC 8058): links that say who wants no more of what, and prove it.

A link holds the address, the tenant and the list, signed, so that it works without a login and
for as long as the secret stands, and nobody can unsubscribe somebody else.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_core import from_json, to_json

from allim.base import base64url
from allim.base.settings import SettingsGroup
from allim.channels.channel import Message
from allim.channels.mail import CONTROLS

KEY = "unsubscribe"
PATH = "/unsubscribe/"
ADVERTISING_LIST = "advertising"
LIST_LIMIT = 100
"""Bytes of a list's name, so that a link always fits a header's line."""
TOKEN_LIMIT = 900
SECRET_LEAST = 16
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_BASE = re.compile(r"[\x21-\x3b\x3d\x3f-\x7e]{1,200}")


class UnsubscribeSettings(SettingsGroup):
    """Where readers unsubscribe, and which mails ask for it by themselves."""

    allim_public_url: str | None = Field(
        None,
        description="Where readers reach this hub from outside, as https://hub.example.com: the"
        " beginning of the links in mails.",
    )
    email_unsubscribe_secret: SecretStr | None = Field(
        None,
        description="What signs the links, at least 16 characters. Several, comma-separated, while"
        " it is changed: the first signs, all are taken.",
    )
    email_unsubscribe_types: tuple[str, ...] = Field(
        (),
        description="Types of notifications (or source/type), comma-separated, whose mails can be"
        " unsubscribed from although their payload does not say so.",
    )

    @field_validator("allim_public_url")
    @classmethod
    def _is_public(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        local = parts.scheme == "http" and parts.hostname in _LOOPBACK
        if not parts.hostname or not (parts.scheme == "https" or local):
            raise ValueError("must begin with https:// (RFC 8058 wants it)")
        if not _BASE.fullmatch(value) or parts.query or parts.fragment:
            raise ValueError("must be a plain URL of at most 200 characters")
        return value.rstrip("/")

    @field_validator("email_unsubscribe_secret")
    @classmethod
    def _is_long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and any(len(each) < SECRET_LEAST for each in _secrets(value)):
            raise ValueError(f"must be at least {SECRET_LEAST} characters")
        return value

    @field_validator("email_unsubscribe_types", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            value = tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @model_validator(mode="after")
    def _can_do_what_is_asked(self) -> UnsubscribeSettings:
        if self.email_unsubscribe_types and self.links() is None:
            raise ValueError(
                "EMAIL_UNSUBSCRIBE_TYPES needs ALLIM_PUBLIC_URL and EMAIL_UNSUBSCRIBE_SECRET"
            )
        return self

    def links(self) -> UnsubscribeLinks | None:
        """What makes and reads links, where both settings are there."""
        if self.allim_public_url is None or self.email_unsubscribe_secret is None:
            return None
        return UnsubscribeLinks(self.allim_public_url, _secrets(self.email_unsubscribe_secret))

    def public_hosts(self) -> Sequence[str]:
        """The host that readers ask for, where one is set."""
        host = urlsplit(self.allim_public_url).hostname if self.allim_public_url else None
        return [host] if host else []


@dataclass(frozen=True, slots=True)
class Subscription:
    """Somebody's part in one list of one tenant."""

    address: str
    tenant_id: int | None
    list: str


class UnsubscribeLinks:
    """Makes links and reads them; the first of `secrets` signs."""

    def __init__(self, base: str, secrets: list[bytes]) -> None:
        self._base = base
        self._secrets = secrets

    def url(self, subscription: Subscription) -> str:
        """The link by which this is given up."""
        return f"{self._base}{PATH}{self.token(subscription)}"

    def token(self, subscription: Subscription) -> str:
        """The signed part of a link, in characters that no URL changes."""
        said = to_json([subscription.tenant_id, subscription.list, subscription.address])
        return f"{base64url.encoded(said)}.{base64url.encoded(_signature(self._secrets[0], said))}"

    def read(self, token: str) -> Subscription | None:
        """What a token says; None unless one of our secrets signed it.

        Compared in constant time, and with every secret, so that time tells nothing.
        """
        said, signature = map(_decoded, (token.partition(".")[::2]))
        if len(token) > TOKEN_LIMIT or said is None or signature is None:
            return None
        good = [hmac.compare_digest(_signature(s, said), signature) for s in self._secrets]
        if not any(good):
            return None
        tenant, name, address = from_json(said)
        return Subscription(address, tenant, name)


def list_of(message: Message, types: tuple[str, ...] = ()) -> str | None:
    """The list that a mail belongs to; None for one that cannot be unsubscribed from.

    `payload.unsubscribe` names it, or says true: the notification's type. So it is with `types`
    that the operator has set; an advertisement (`payload.advertising`) is in the list of those.
    """
    asked = message.payload.get(KEY)
    if asked is False:
        return None
    if isinstance(asked, str):
        return list_name(asked)
    if message.payload.get("advertising") is True:
        return ADVERTISING_LIST
    if asked is True or message.type in types or f"{message.source}/{message.type}" in types:
        return list_name(message.type)
    return None


def list_name(name: str) -> str:
    """A list's name that fits a link; a long one keeps its beginning and a hash.

    Control characters become blanks: in a link's JSON each of them would be six characters.
    """
    encoded = CONTROLS.sub(" ", name).encode("utf-8", "replace")
    if len(encoded) <= LIST_LIMIT:
        return encoded.decode()
    end = hashlib.sha256(encoded).hexdigest()[:16]
    return f"{encoded[: LIST_LIMIT - 17].decode('utf-8', 'ignore')}~{end}"


def payload_problems(payload: Mapping[str, object], *, can: bool) -> list[tuple[str, str]]:
    """What is wrong with `unsubscribe` in a payload; `can` says whether there are links."""
    asked = payload.get(KEY)
    if asked is None or asked is False:
        return []
    if asked is not True and not (isinstance(asked, str) and asked.strip()):
        return [(KEY, "must be true, false or the name of a list")]
    if isinstance(asked, str) and len(asked.encode("utf-8", "surrogatepass")) > LIST_LIMIT:
        return [(KEY, f"is longer than {LIST_LIMIT} bytes")]
    if not can and "unsubscribe_url" not in payload:
        return [(KEY, "needs ALLIM_PUBLIC_URL and EMAIL_UNSUBSCRIBE_SECRET, which are not set")]
    return []


def _secrets(value: SecretStr) -> list[bytes]:
    return [part.strip().encode() for part in value.get_secret_value().split(",") if part.strip()]


def _signature(secret: bytes, said: bytes) -> bytes:
    return hmac.digest(secret, b"allim unsubscribe\n" + said, "sha256")


def _decoded(text: str) -> bytes | None:
    try:
        return base64url.decoded(text)
    except ValueError:
        return None
