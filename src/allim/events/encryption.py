"""Encryption at rest: payloads are encrypted by the producer, decrypted in the relay only.

AES-256-GCM. What is stored is a mark of the key, the nonce, and the ciphertext with its tag; the
key's name is in a column of its own. The event's id and topic are authenticated with it, so
that a payload that is moved to another row, or a row to another topic, does not decrypt. The
mark tells a ring with other bytes under a name, which is to be put right and harms no message,
from a row that was changed.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import Field, SecretStr, field_validator

from allim.base.errors import ConfigurationError
from allim.base.settings import INVALID, Environment, SettingsGroup
from allim.events.errors import DecryptionFailed, EncryptionKeyMissing

NONCE_BYTES = 12
MARK_BYTES = 4
OVERHEAD_BYTES = MARK_BYTES + NONCE_BYTES + 16
"""By how much an encrypted payload is longer."""
KEY_BYTES = 32

_KEYS = "EVENTS_ENCRYPTION_KEYS"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class EncryptionSettings(SettingsGroup):
    """Which payloads of events are encrypted in the database, and with what."""

    events_encryption_keys: SecretStr | None = Field(
        None,
        description="Keys as `name:base64`, comma-separated, 32 bytes each"
        " (`openssl rand -base64 32`). The first one encrypts, all of them decrypt. Producers"
        " and relays need them; nobody else should have them.",
    )
    events_encrypted_topics: str | None = Field(
        None,
        description="Topics whose payloads are encrypted, comma-separated; `users-*` stands for"
        " all that begin so. An event class may decide for itself with `encrypted`.",
    )

    @field_validator("events_encryption_keys")
    @classmethod
    def _is_a_ring(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys is not None:
            try:
                KeyRing.parse(keys.get_secret_value())
            except ConfigurationError as error:
                raise ValueError(str(error).removeprefix(f"{INVALID}{_KEYS}: ")) from None
        return keys


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted payload, and the name of the key that it was encrypted with."""

    key: str
    payload: bytes


class KeyRing:
    """The keys of this process, by name; the first one encrypts."""

    def __init__(self, keys: Mapping[str, bytes] | None = None) -> None:
        keys = keys or {}
        self._ciphers = {name: AESGCM(key) for name, key in keys.items()}
        self._marks = {name: _mark(key) for name, key in keys.items()}
        self.current = next(iter(self._ciphers), None)

    @classmethod
    def parse(cls, text: str | None) -> KeyRing:
        """Read `EVENTS_ENCRYPTION_KEYS`; raises ConfigurationError, never showing a key."""
        keys: dict[str, bytes] = {}
        for at, entry in enumerate(filter(None, map(str.strip, (text or "").split(","))), 1):
            name, _, encoded = entry.partition(":")
            if not encoded or not _NAME.fullmatch(name):
                raise _invalid(f"entry {at} must be name:base64")
            if name in keys:
                raise _invalid(f"{name} stands twice")
            keys[name] = _key(name, encoded)
        return cls(keys)

    def seal(self, payload: bytes, *, event_id: UUID, topic: str) -> Sealed:
        """Encrypt a payload with the current key. Raises EncryptionKeyMissing where none is."""
        if self.current is None:
            raise EncryptionKeyMissing(
                f"events of the topic {topic} are to be encrypted, but {_KEYS} is not set here"
            )
        name, nonce = self.current, os.urandom(NONCE_BYTES)
        ciphertext = self._ciphers[name].encrypt(nonce, payload, _bound(event_id, topic))
        return Sealed(name, self._marks[name] + nonce + ciphertext)

    def open(self, sealed: Sealed, *, event_id: UUID, topic: str) -> bytes:
        """Decrypt a stored payload.

        Raises EncryptionKeyMissing where the key is not here, or has other bytes (put it back,
        nothing is lost), and DecryptionFailed where the payload is not what was stored for
        that event.
        """
        cipher = self._ciphers.get(sealed.key)
        if cipher is None:
            raise EncryptionKeyMissing(
                f"event {event_id} is encrypted with the key {sealed.key!r}, which is not in"
                f" {_KEYS} here ({', '.join(self._ciphers) or 'no key is set'})"
            )
        mark, rest = sealed.payload[:MARK_BYTES], sealed.payload[MARK_BYTES:]
        if mark != self._marks[sealed.key] and len(sealed.payload) >= OVERHEAD_BYTES:
            raise EncryptionKeyMissing(
                f"event {event_id} is encrypted with another key {sealed.key!r} than the one of"
                f" that name in {_KEYS} here"
            )
        try:
            return cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], _bound(event_id, topic))
        except (InvalidTag, ValueError):
            raise DecryptionFailed(
                f"the payload of event {event_id} does not decrypt: the row was changed since it"
                " was published"
            ) from None


@dataclass(frozen=True, slots=True)
class Encryption:
    """Which topics are encrypted, and the keys for it."""

    keys: KeyRing
    topics: Sequence[str] = ()

    @classmethod
    def of(cls, environment: Environment) -> Encryption:
        """As the settings say. Raises ConfigurationError."""
        settings = environment.read(EncryptionSettings)
        text = settings.events_encryption_keys
        keys = KeyRing.parse(text.get_secret_value() if text else None)
        topics = [t.strip() for t in (settings.events_encrypted_topics or "").split(",")]
        topics = [topic for topic in topics if topic]
        if topics and keys.current is None:
            raise ConfigurationError(f"EVENTS_ENCRYPTED_TOPICS is set, but {_KEYS} is not")
        return cls(keys, topics)

    def covers(self, topic: str) -> bool:
        """Whether the payloads of a topic are encrypted, unless the event says otherwise."""
        return any(fnmatchcase(topic, pattern) for pattern in self.topics)


def _bound(event_id: UUID, topic: str) -> bytes:
    return event_id.bytes + topic.encode()


def _mark(key: bytes) -> bytes:
    return sha256(b"allim.events.key:" + key).digest()[:MARK_BYTES]


def _key(name: str, encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise _invalid(f"the key {name} is not base64") from None
    if len(key) != KEY_BYTES:
        raise _invalid(f"the key {name} has {len(key)} bytes, not {KEY_BYTES}")
    return key


def _invalid(reason: str) -> ConfigurationError:
    return ConfigurationError(f"{INVALID}{_KEYS}: {reason}")
