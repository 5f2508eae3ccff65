"""DKIM signatures (RFC 6376): the operator's domain vouches for each mail.

Relaxed canonicalisation of headers and body, RSA-SHA256: what every verifier knows. The
key is read once; the signature itself is made by `cryptography`.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from pydantic import Field, SecretStr, model_validator

from allim.base.settings import SettingsGroup
from allim.channels.mail import Mail

RSA_LEAST_BITS = 1024
"""RFC 8301: verifiers take no shorter key."""
SIGNED = (
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Reply-To",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Auto-Submitted",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
)
"""Signed where the mail has them. RFC 8058 wants both of List-Unsubscribe among them."""
OVERSIGNED = ("From", "To", "Subject", "Reply-To")
"""Signed once more than they occur, so that nobody can add another in front."""

_DOMAIN = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
_SELECTOR = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_BLANKS = re.compile(rb"[ \t]+")
_BLANKS_BEFORE_END = re.compile(rb"[ \t]+\r\n")


class DkimSettings(SettingsGroup):
    """With which key mails are signed; all three or none."""

    dkim_domain: str | None = Field(
        None, description="The signing domain, that of SMTP_FROM or one above it."
    )
    dkim_selector: str | None = Field(
        None, description="Which of the domain's keys it is: <selector>._domainkey.<domain>."
    )
    dkim_private_key: SecretStr | None = Field(
        None, description="The private RSA key in PEM, or the path of its file."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> DkimSettings:
        given = [self.dkim_domain, self.dkim_selector, self.dkim_private_key]
        if any(given) and not all(given):
            raise ValueError(
                "DKIM_DOMAIN, DKIM_SELECTOR and DKIM_PRIVATE_KEY belong together: set all or none"
            )
        self.signer()
        return self

    def signer(self) -> DkimSigner | None:
        """The signer, where one is set up. Raises ValueError that never shows the key."""
        if self.dkim_domain is None or self.dkim_selector is None or self.dkim_private_key is None:
            return None
        domain, selector = self.dkim_domain.lower(), self.dkim_selector.lower()
        if not _DOMAIN.fullmatch(domain):
            raise ValueError("DKIM_DOMAIN is not a domain")
        if not _SELECTOR.fullmatch(selector):
            raise ValueError("DKIM_SELECTOR is not a name in the DNS")
        return DkimSigner(domain, selector, read_key(self.dkim_private_key.get_secret_value()))


class DkimSigner:
    """Signs mails for one domain. `now` gives unix seconds."""

    def __init__(
        self,
        domain: str,
        selector: str,
        key: rsa.RSAPrivateKey,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.domain = domain
        self.selector = selector
        self._key = key
        self._now = now

    def sign(self, mail: Mail) -> tuple[str, str]:
        """The `DKIM-Signature` header of a mail, to stand above all others."""
        chosen = _chosen(mail.headers)
        body_hash = base64.b64encode(hashlib.sha256(_relaxed_body(mail.body)).digest()).decode()
        names = ":".join(name for name, _ in chosen).replace(":MIME", ":\r\n MIME")
        unsigned = (
            f"v=1; a=rsa-sha256; c=relaxed/relaxed; d={self.domain};\r\n"
            f" s={self.selector}; t={int(self._now())};\r\n"
            f" h={names};\r\n bh={body_hash};\r\n b="
        )
        lines = [_relaxed_header(name, value) for name, value in chosen if value is not None]
        lines.append(_relaxed_header("DKIM-Signature", unsigned).removesuffix(b"\r\n"))
        digest = hashlib.sha256(b"".join(lines)).digest()
        signature = base64.b64encode(self._signed(digest)).decode()
        folded = "\r\n ".join(signature[at : at + 72] for at in range(0, len(signature), 72))
        return "DKIM-Signature", unsigned + folded

    def record(self) -> tuple[str, str]:
        """The DNS name and the TXT record to publish there."""
        public = self._key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        words = f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"
        return f"{self.selector}._domainkey.{self.domain}", words

    def _signed(self, digest: bytes) -> bytes:
        return self._key.sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))


def read_key(given: str) -> rsa.RSAPrivateKey:
    """Read a key in PEM (its line breaks may be written as ``\\n``), or from the file named.

    Raises ValueError that never shows what was given.
    """
    text = given.replace("\\n", "\n").encode()
    if b"-----BEGIN" not in text:
        try:
            text = Path(given).expanduser().read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no path"
            raise ValueError(
                f"DKIM_PRIVATE_KEY is neither PEM nor a file that can be read ({reason})"
            ) from None
    try:
        key = serialization.load_pem_private_key(text, password=None)
    except TypeError:
        raise ValueError("DKIM_PRIVATE_KEY is locked by a password; give it without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("DKIM_PRIVATE_KEY is not a private key in PEM") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("DKIM_PRIVATE_KEY must be an RSA key")
    if key.key_size < RSA_LEAST_BITS:
        raise ValueError(
            f"DKIM_PRIVATE_KEY has {key.key_size} bits; no verifier takes less than"
            f" {RSA_LEAST_BITS}, and 2048 are usual"
        )
    return key


def _chosen(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str | None]]:
    """Which headers are signed, in the order of `h=`; no value: signed as not being there."""
    given = dict(headers)
    chosen: list[tuple[str, str | None]] = []
    for name in SIGNED:
        if name in given:
            chosen.append((name, given[name]))
        if name in OVERSIGNED:
            chosen.append((name, None))
    return chosen


def _relaxed_header(name: str, value: str) -> bytes:
    words = _BLANKS.sub(b" ", value.replace("\r\n", "").encode()).strip(b" ")
    return name.lower().encode() + b":" + words + b"\r\n"


def _relaxed_body(body: bytes) -> bytes:
    if b" \r\n" in body or b"\t" in body or b"  " in body:
        body = _BLANKS.sub(b" ", _BLANKS_BEFORE_END.sub(b"\r\n", body))
    end = len(body)
    while body.endswith(b"\r\n\r\n", 0, end):
        end -= 2
    body = body[:end]
    if body in (b"", b"\r\n"):
        return b""
    return body if body.endswith(b"\r\n") else body + b"\r\n"
