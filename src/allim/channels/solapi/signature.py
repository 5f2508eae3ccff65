"""The signature of a request to Solapi: good once, and within 15 minutes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import UTC, datetime

SALT_BYTES = 16
"""Makes 32 characters; Solapi takes 12 to 64."""


def authorization(key: str, secret: str, *, at: float) -> str:
    """The Authorization header of one request made at `at` (Unix seconds).

    Every request needs one of its own: Solapi takes a salt only once.
    """
    date = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    date = date.replace("+00:00", "Z")
    salt = secrets.token_hex(SALT_BYTES)
    return (
        f"HMAC-SHA256 apiKey={key}, date={date}, salt={salt},"
        f" signature={sign(secret, date=date, salt=salt)}"
    )


def sign(secret: str, *, date: str, salt: str) -> str:
    """Hexadecimal HMAC-SHA256 of date and salt."""
    return hmac.new(secret.encode(), (date + salt).encode(), hashlib.sha256).hexdigest()
