"""Access tokens of a Google service account.

OAuth 2.0 for server-to-server applications (RFC 7523): a JWT that is signed with the account's
key (RS256) is changed for a token, which is good for an hour.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlencode

import structlog
from pydantic_core import from_json

from allim.base import base64url
from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.channels.answers import is_worth_retrying, json_object
from allim.channels.channel import OutgoingHttp

TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTED_SECONDS = 3600
SKEW_SECONDS = 30
RENEWED_BEFORE_SECONDS = 60.0

log = structlog.get_logger("allim.channels.google")


class BadServiceAccount(ValueError):
    """What was given is no key of a service account; the text holds nothing of it."""


class NoToken(Exception):
    """No token was given. `refused`: nor will one be for this account and key."""

    def __init__(self, sentence: str, *, refused: bool) -> None:
        super().__init__(sentence)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Who we are to Google: the contents of a key file."""

    email: str
    token_url: str
    key_id: str | None = None
    private_key: str = field(default="", repr=False)

    @classmethod
    def read(cls, text: str, *, token_url: str | None = None) -> ServiceAccount:
        """Read a key file. Raises BadServiceAccount."""
        try:
            given = from_json(text)
        except ValueError:
            raise BadServiceAccount("is not JSON") from None
        if not isinstance(given, dict) or given.get("type", "service_account") != "service_account":
            raise BadServiceAccount("is not the key of a service account")
        missing = [
            name
            for name in ("client_email", "private_key")
            if not isinstance(given.get(name), str) or not given[name]
        ]
        if missing:
            raise BadServiceAccount(f"has no {' and no '.join(missing)}")
        account = cls(
            email=given["client_email"],
            token_url=token_url or str(given.get("token_uri") or TOKEN_URL),
            key_id=given.get("private_key_id"),
            private_key=given["private_key"],
        )
        account.assertion("", now=0)  # A key that cannot sign is better known at the start.
        return account

    def assertion(self, scope: str, *, now: float) -> str:
        """A signed JWT that asks for a token. Raises BadServiceAccount."""
        # Only here: it takes a tenth of a second to load, and most installations need none of it.
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(self.private_key.encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise BadServiceAccount("has a private_key that cannot be read") from None
        if not isinstance(key, RSAPrivateKey):
            raise BadServiceAccount("has a private_key that is not RSA")
        issued = int(now) - SKEW_SECONDS
        header = {"alg": "RS256", "typ": "JWT"}
        if self.key_id:
            header["kid"] = self.key_id
        claims = {
            "iss": self.email,
            "scope": scope,
            "aud": self.token_url,
            "iat": issued,
            "exp": issued + ASSERTED_SECONDS,
        }
        signed = f"{_part(header)}.{_part(claims)}"
        return f"{signed}.{base64url.encoded(key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


class Tokens:
    """One token for whoever asks, until a minute before its end."""

    def __init__(
        self,
        account: ServiceAccount,
        scope: str,
        *,
        http: OutgoingHttp,
        clock: Clock = SYSTEM_CLOCK,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._account = account
        self._scope = scope
        self._http = http
        self._clock = clock
        self._now = now
        self._token: str | None = None
        self._good_until = 0.0
        self._asking = asyncio.Lock()

    async def token(self, *, timeout: float, not_this: str | None = None) -> str:
        """A token that is good for a minute at least, and is not the one that was refused.

        However many ask, one call is made. Raises NoToken, and HttpFailure when no answer came.
        """
        async with self._asking:
            good = self._clock() < self._good_until
            if self._token is None or not good or self._token == not_this:
                self._token = None
                self._token = await self._fetch(timeout)
            return self._token

    async def _fetch(self, timeout: float) -> str:
        asked_at = self._clock()
        assertion = self._account.assertion(self._scope, now=self._now())
        answer = await self._http.post(
            self._account.token_url,
            body=urlencode({"grant_type": GRANT, "assertion": assertion}).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            timeout=timeout,
            trusted=True,
        )
        said = json_object(answer.body) or {}
        token, seconds = said.get("access_token"), said.get("expires_in")
        if answer.status == 200 and isinstance(token, str) and token:
            good_for = seconds if isinstance(seconds, int | float) else ASSERTED_SECONDS
            self._good_until = asked_at + max(good_for - RENEWED_BEFORE_SECONDS, 0.0)
            return token
        refused = 400 <= answer.status < 500 and not is_worth_retrying(answer.status)
        word = said.get("error") if isinstance(said.get("error"), str) else None
        if refused:
            log.error("google_login_refused", account=self._account.email, reason=word)
        raise NoToken(
            f"Google gave no access token: answered {answer.status}" + (f" {word}" if word else ""),
            refused=refused,
        )


def _part(value: object) -> str:
    return base64url.encoded(json.dumps(value, separators=(",", ":")).encode())
