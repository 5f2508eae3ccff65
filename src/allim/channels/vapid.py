"""VAPID keys (RFC 8292): the pair by which push services know who sends."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from allim.base import base64url

PRIVATE_BYTES = 32


@dataclass(frozen=True, slots=True)
class VapidKey:
    """A key pair on the curve P-256."""

    private: ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls) -> VapidKey:
        """A new pair."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def read(cls, text: str) -> VapidKey:
        """A private key as base64url of its 32 bytes, as base64 of DER, or as PEM.

        Raises ValueError, which does not hold the key.
        """
        try:
            if "-----BEGIN" in text:
                # In an environment the ends of its lines are often written out.
                key = load_pem_private_key(text.replace("\\n", "\n").encode(), password=None)
            else:
                raw = from_base64(text)
                if len(raw) == PRIVATE_BYTES:
                    number = int.from_bytes(raw, "big")
                    return cls(ec.derive_private_key(number, ec.SECP256R1()))
                key = load_der_private_key(raw, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("is not a VAPID key: `allim webpush keys` makes one") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise ValueError("is not a key on the curve P-256: `allim webpush keys` makes one")
        return cls(key)

    @property
    def private_text(self) -> str:
        """The private key in base64url, as the setting has it."""
        number = self.private.private_numbers().private_value
        return base64url.encoded(number.to_bytes(PRIVATE_BYTES, "big"))

    @property
    def public_text(self) -> str:
        """The public key in base64url: a browser's ``applicationServerKey``. No secret."""
        point = self.private.public_key().public_bytes(
            Encoding.X962, PublicFormat.UncompressedPoint
        )
        return base64url.encoded(point)


def from_base64(text: str) -> bytes:
    """The bytes of base64 or base64url, padded or not; raises ValueError."""
    plain = "".join(text.split()).rstrip("=").replace("+", "-").replace("/", "_")
    try:
        return base64url.decoded(plain)
    except ValueError:
        raise ValueError("is not base64") from None
