"""Standard Webhooks signatures (www.standardwebhooks.com): HMAC-SHA256 over ``id.time.body``."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from functools import lru_cache

SECRET_PREFIX = "whsec_"  # noqa: S105 (a prefix, not a secret)
SECRET_BYTES = range(24, 65)


class BadSecret(ValueError):
    """A secret is not ``whsec_`` and the base64 of 24 to 64 bytes. The text never holds it."""


@lru_cache(maxsize=1024)
def secret_key(secret: str) -> bytes:
    """The key that a secret (``whsec_…``) stands for. Raises BadSecret."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise BadSecret("a webhook secret is not base64") from None
    if len(key) not in SECRET_BYTES:
        raise BadSecret(f"a webhook secret has {len(key)} bytes, not 24 to 64")
    return key


@lru_cache(maxsize=1024)
def _keyed(secret: str) -> hmac.HMAC:
    """An HMAC that has its key and no message; copies of it sign."""
    return hmac.new(secret_key(secret), digestmod="sha256")


def sign(secrets: Sequence[str], *, message_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header: one ``v1,<base64>`` per secret, parted by spaces.

    While a secret is replaced, both are given, so that receivers with either accept it.
    Raises BadSecret.
    """
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    signatures = []
    for secret in secrets:
        mac = _keyed(secret).copy()
        mac.update(signed)
        signatures.append("v1," + base64.b64encode(mac.digest()).decode())
    return " ".join(signatures)
