"""API keys: from `ALLIM_API_KEYS` and from the table `api_key`, which keeps only their hashes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.errors import ConfigurationError, DatabaseUnavailable, FieldProblem, InvalidRequest
from allim.base.settings import Environment
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.web.access import ANYBODY, AccessScope, Principal
from allim.web.settings import AccessSettings

SQL = Statements.load("allim.web")

KEY_PREFIX = "allim_"
SHORTEST_SECRET = 16
CACHE_SECONDS = 3.0
"""How long a key that was just created or revoked may go unnoticed."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def read_keys(setting: str | None) -> Mapping[bytes, Principal]:
    """The principals of `ALLIM_API_KEYS`, by the SHA-256 of their secrets.

    The form is ``name:secret:scope+scope[:tenant]``, several with commas between.
    Raises ConfigurationError, which never shows a secret.
    """
    keys: dict[bytes, Principal] = {}
    for at, entry in enumerate((setting or "").split(","), start=1):
        if not entry.strip():
            continue
        name, principal, secret = _read_key(entry.strip(), at)
        digest = digest_of(secret)
        if digest in keys:
            raise ConfigurationError(f"ALLIM_API_KEYS: key {name!r} has another key's secret")
        keys[digest] = principal
    return keys


def _read_key(entry: str, at: int) -> tuple[str, Principal, str]:
    parts = entry.split(":")
    if len(parts) not in (3, 4):
        raise ConfigurationError(
            f"ALLIM_API_KEYS: entry {at} must be name:secret:scope+scope[:tenant]"
        )
    name, secret, scopes = parts[:3]
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"ALLIM_API_KEYS: entry {at} needs a name of letters and digits")
    if len(secret) < SHORTEST_SECRET:
        raise ConfigurationError(
            f"ALLIM_API_KEYS: the secret of {name!r} needs {SHORTEST_SECRET} characters or more"
        )
    tenant = None
    if len(parts) == 4:
        if not parts[3].isascii() or not parts[3].isdigit() or not 0 < int(parts[3]) < 2**63:
            raise ConfigurationError(f"ALLIM_API_KEYS: the tenant of {name!r} must be a number")
        tenant = int(parts[3])
    try:
        known = [AccessScope(scope) for scope in scopes.split("+")]
    except ValueError:
        raise ConfigurationError(
            f"ALLIM_API_KEYS: the scopes of {name!r} must be among {', '.join(AccessScope)}"
        ) from None
    return name, Principal.of(name, known, tenant), secret


class ApiKeys:
    """The keys of settings and table together; the table is read again every few seconds.

    `needed` asks for a key even where there is none: when the last one is revoked, a server
    that others can reach must not open up.
    """

    def __init__(
        self,
        database: Database,
        configured: Mapping[bytes, Principal],
        *,
        needed: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._database = database
        self._configured = configured
        self._needed = needed
        self._clock = clock
        self._stored: Mapping[bytes, Principal] | None = None
        self._fresh_until = -1.0
        self._reading: asyncio.Task[None] | None = None

    async def exist(self) -> bool:
        """Whether there is any key at all."""
        await self._freshen()
        return bool(self._configured or self._stored)

    async def authenticate(self, authorization: bytes | None) -> Principal | None:
        """The principal of an `Authorization` header; see `access.KeyRing`.

        Raises DatabaseUnavailable when the table was never read and cannot be.
        """
        if self._clock() >= self._fresh_until:
            await self._freshen()
        if not (self._configured or self._stored or self._needed):
            return ANYBODY
        if authorization is None:
            return None
        token = _token(authorization)
        if token is None:
            return None
        return self._owner(hashlib.sha256(token).digest())

    async def is_open(self) -> bool:
        """Whether nobody needs a key: there is none, and only this machine can ask."""
        return not (await self.exist() or self._needed)

    async def owner(self, digest: bytes) -> Principal | None:
        """The principal of the key whose secret has this SHA-256."""
        if self._clock() >= self._fresh_until:
            await self._freshen()
        return self._owner(digest)

    async def refresh(self) -> None:
        """Read the table again now: a key was just created or revoked, or is not known."""
        if self._reading is not None:
            await asyncio.shield(self._reading)  # It may have begun before the change.
        await self._freshen()

    def _owner(self, digest: bytes) -> Principal | None:
        for keys in (self._configured, self._stored or {}):
            # The digest of a guess tells nothing of how near it was, so a lookup leaks nothing.
            if (principal := keys.get(digest)) is not None:
                return principal
        return None

    async def _freshen(self) -> None:
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(self._read_ended)
        # Shielded: a client that goes away must not stop what others wait for.
        await asyncio.shield(self._reading)

    def _read_ended(self, reading: asyncio.Task[None]) -> None:
        self._reading = None
        if not reading.cancelled():
            reading.exception()

    async def _read(self) -> None:
        try:
            rows = await self._database.fetch(SQL["live_keys"])
        except DatabaseUnavailable:
            # Without the database no request gets far; but a probe with a known key may.
            if self._stored is None:
                raise
        else:
            self._stored = {
                bytes(key_hash): Principal.of(name, [AccessScope(s) for s in scopes], tenant)
                for name, key_hash, scopes, tenant in rows
            }
        self._fresh_until = self._clock() + CACHE_SECONDS


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key of the table, without its secret."""

    id: int
    name: str
    scopes: Sequence[AccessScope]
    tenant_id: int | None
    created_at: datetime
    revoked_at: datetime | None


async def create_key(
    database: Database,
    name: str,
    scopes: Sequence[AccessScope],
    *,
    tenant_id: int | None = None,
) -> str:
    """Create a key and answer with its token, which is shown this once and stored as a hash.

    Raises InvalidRequest for a name or scopes that cannot be.
    """
    async with database.transaction() as tx:
        return (await insert_key(tx, name, scopes, tenant_id=tenant_id))[1]


async def insert_key(
    tx: Connection,
    name: str,
    scopes: Sequence[AccessScope],
    *,
    tenant_id: int | None = None,
) -> tuple[int, str]:
    """As `create_key`, in a transaction of the caller's: number and token of the key."""
    problems = []
    if not _NAME.fullmatch(name):
        problems.append(FieldProblem("/name", "name", "must be 1 to 64 letters and digits"))
    if not scopes:
        problems.append(FieldProblem("/scopes", "missing", "needs one scope or more"))
    if tenant_id is not None and not 0 < tenant_id < 2**63:
        problems.append(FieldProblem("/tenant_id", "range", "must be a positive number"))
    if problems:
        raise InvalidRequest(problems)
    token = KEY_PREFIX + secrets.token_urlsafe(32)
    made = await tx.execute(
        SQL["create_key"],
        {
            "name": name,
            "key_hash": digest_of(token),
            "scopes": [scope.value for scope in scopes],
            "tenant_id": tenant_id,
        },
    )
    row = await made.fetchone()
    assert row is not None
    return row[0], token


async def list_keys(database: Database) -> Sequence[StoredKey]:
    """Every key of the table, revoked ones too."""
    return [
        StoredKey(identity, name, [AccessScope(s) for s in scopes], tenant, created, revoked)
        for identity, name, scopes, tenant, created, revoked in await database.fetch(
            SQL["list_keys"]
        )
    ]


async def revoke_key(database: Database, identity: int) -> bool:
    """Revoke a key; False when there is none, or it was revoked before."""
    async with database.transaction() as tx:
        return await end_key(tx, identity)


async def end_key(tx: Connection, identity: int) -> bool:
    """As `revoke_key`, in a transaction of the caller's."""
    ended = await tx.execute(SQL["revoke_key"], {"id": identity})
    return await ended.fetchone() is not None


def digest_of(token: str) -> bytes:
    """What is stored of a token, and looked up."""
    return hashlib.sha256(token.encode()).digest()


async def keys_exist(database: Database, environment: Environment) -> bool:
    """Whether any key is configured or stored: what `access.refuse_open_bind` asks for."""
    configured = read_keys(environment.read(AccessSettings).allim_api_keys)
    return await ApiKeys(database, configured).exist()


def _token(authorization: bytes) -> bytes | None:
    """A Bearer token, or the password of Basic, which is all that some senders of hooks know."""
    scheme, _, credentials = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.strip()
    if scheme.lower() != b"basic":
        return None
    try:
        return base64.b64decode(credentials.strip(), validate=True).partition(b":")[2]
    except ValueError:
        return None
