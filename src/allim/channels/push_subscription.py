"""A browser's push subscription: where to post, and the keys to encrypt for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from allim.base import base64url
from allim.base.errors import FieldProblem
from allim.channels.vapid import from_base64

PLACE = "/payload/subscription"
AUTH_BYTES = 16
SHAPE = '{"endpoint": "https://…", "keys": {"p256dh": "…", "auth": "…"}}'


@dataclass(frozen=True, slots=True)
class Subscription:
    """What ``JSON.stringify(subscription)`` gives in a browser, its keys in base64url."""

    endpoint: str
    p256dh: str
    auth: str


def endpoint_of(value: object) -> str | None:
    """The endpoint of what may be a subscription."""
    endpoint = value.get("endpoint") if isinstance(value, Mapping) else None
    return endpoint if isinstance(endpoint, str) and endpoint else None


def read_subscription(value: object) -> Subscription | list[FieldProblem]:
    """A subscription, or all that is wrong with it."""
    if not isinstance(value, Mapping):
        code = "missing" if value is None else "invalid"
        return [FieldProblem(PLACE, code, f"must be what the browser gave: {SHAPE}")]
    problems = []
    endpoint, keys = endpoint_of(value), value.get("keys")
    if endpoint is None:
        problems.append(FieldProblem(f"{PLACE}/endpoint", "missing", "must be the push URL"))
    if not isinstance(keys, Mapping):
        problems.append(FieldProblem(f"{PLACE}/keys", "missing", "must hold p256dh and auth"))
        return problems
    p256dh, auth = _bytes(keys.get("p256dh")), _bytes(keys.get("auth"))
    if p256dh is None or not _is_point(p256dh):
        words = "must be the browser's public key: 65 bytes in base64url"
        problems.append(FieldProblem(f"{PLACE}/keys/p256dh", "invalid", words))
    if auth is None or len(auth) != AUTH_BYTES:
        words = f"must be the browser's secret: {AUTH_BYTES} bytes in base64url"
        problems.append(FieldProblem(f"{PLACE}/keys/auth", "invalid", words))
    if endpoint is None or p256dh is None or auth is None or problems:
        return problems
    return Subscription(endpoint, base64url.encoded(p256dh), base64url.encoded(auth))


def _bytes(value: object) -> bytes | None:
    if not isinstance(value, str) or len(value) > 200:
        return None
    try:
        return from_base64(value)
    except ValueError:
        return None


def _is_point(content: bytes) -> bool:
    """Whether it is an uncompressed point that lies on the curve."""
    if len(content) != 65 or content[0] != 4:
        return False
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), content)
    except ValueError:
        return False
    return True
