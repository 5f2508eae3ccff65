"""Who is logged in: sessions in the database, so that any API process knows them."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from allim.database.pool import Database
from allim.database.statements import Statements
from allim.hub.audit import record
from allim.web.access import AccessScope, Principal
from allim.web.keys import ApiKeys, digest_of

SQL = Statements.load("allim.console", "sessions.sql")

LOCAL = "local"
"""Who acts where no key is configured: whoever sits at this machine."""
NOBODY = "?"
"""Who brings a key that nobody knows; no key can be called so."""
LOGIN = "console.login"


class NoEntry(Exception):
    """A key does not open the console; `name` is what it is called, NOBODY for an unknown one."""

    def __init__(self, code: str, name: str, tenant: int | None = None) -> None:
        super().__init__(code)
        self.code, self.name, self.tenant = code, name, tenant


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever looks at the console, and what it may do."""

    name: str
    scopes: frozenset[AccessScope]
    local: bool = False

    @property
    def may_operate(self) -> bool:
        """Whether it may retry, cancel, replay, and the like."""
        return AccessScope.OPERATE in self.scopes

    @property
    def may_administer(self) -> bool:
        """Whether it may make and revoke keys."""
        return AccessScope.ADMIN in self.scopes

    def require(self, scope: AccessScope) -> None:
        """Raise Forbidden, naming the scope, unless it has it."""
        Principal(self.name, self.scopes).require(scope)


class Sessions:
    """Opens, knows and closes sessions. A session lives no longer than its key."""

    def __init__(self, database: Database, keys: ApiKeys, hours: float) -> None:
        self._database = database
        self._keys = keys
        self._hours = hours

    @property
    def seconds(self) -> int:
        """How long a session lasts."""
        return int(self._hours * 3600)

    async def actor(self, token: str | None) -> Actor | None:
        """Who stands behind a cookie; the local actor where no key is needed; else None."""
        if await self._keys.is_open():
            return Actor(LOCAL, frozenset(AccessScope), local=True)
        if not token:
            return None
        rows = await self._database.fetch(SQL["find"], {"token_hash": _hash(token)})
        if not rows:
            return None
        principal = await self._keys.owner(bytes(rows[0][0]))
        if principal is None or not _may_enter(principal):
            return None
        return Actor(principal.name, principal.scopes)

    async def open(self, key: str, client: str) -> str:
        """A new session's token, for a key; on record with the address it was brought from.

        Raises NoEntry for a key that nobody knows, and for one that may not see the console:
        without the scope `read`, or of a single tenant, since pages show what belongs to all.
        """
        digest = digest_of(key)
        principal = await self._keys.owner(digest)
        if principal is None:
            await self._keys.refresh()
            principal = await self._keys.owner(digest)
        if principal is None:
            raise NoEntry("unknown_key", NOBODY)
        if principal.tenant_id is not None:
            raise NoEntry("tenant_key", principal.name, principal.tenant_id)
        if not _may_enter(principal):
            raise NoEntry("missing_scope", principal.name)
        token = secrets.token_urlsafe(32)
        await self._database.fetch(SQL["prune"])
        async with self._database.transaction() as tx:
            await tx.execute(
                SQL["open"],
                {"token_hash": _hash(token), "key_hash": digest, "hours": self._hours},
            )
            await record(
                tx, actor=principal.name, action=LOGIN, subject="console", detail={"from": client}
            )
        return token

    async def close(self, token: str | None) -> None:
        """End a session, if it is one."""
        if token:
            await self._database.fetch(SQL["close"], {"token_hash": _hash(token)})


def csrf_token(cookie: str) -> str:
    """What a form must bring along that only pages shown with this cookie know."""
    return hmac.digest(cookie.encode(), b"allim console form", "sha256").hex()


def _may_enter(principal: Principal) -> bool:
    return principal.tenant_id is None and AccessScope.READ in principal.scopes


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
