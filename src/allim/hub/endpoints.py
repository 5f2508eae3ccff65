"""Webhook targets: their signing secrets, and those that said that they are gone."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.base.errors import Conflict, NotFound
from allim.channels.channel import Message
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.hub import cursors
from allim.hub.views import EndpointSecretView, EndpointView, Page
from allim.relay.outcomes import Outcome
from allim.relay.policy import OpenPolicy
from allim.relay.settlement import Settlement
from allim.relay.work import Work

SQL = Statements.load("allim.hub", "endpoints.sql")

SIGNED_CHANNEL = "WEBHOOK"
CACHE_SECONDS = 3.0
_CACHED = 10_000
_SECRET_BYTES = 32
_REASON_LIMIT = 500

Target = tuple[int | None, str, str]
"""Tenant, channel and URL."""


@dataclass(frozen=True, slots=True)
class _Known:
    secrets: Sequence[str] = ()
    disabled: bool = False
    reason: str | None = None


class EndpointBook:
    """What is known of targets, read again every few seconds; and what operators do to them."""

    def __init__(self, database: Database, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._database = database
        self._clock = clock
        self._cache: dict[Target, tuple[float, _Known]] = {}

    async def secrets_for(self, tenant_id: int | None, url: str) -> Sequence[str]:
        """The signing secrets of a target, newest first; empty where it has none."""
        target = (tenant_id, SIGNED_CHANNEL, url)
        cached = self._cache.get(target)
        if cached is not None and cached[0] > self._clock():
            return cached[1].secrets
        return (await self.look_up([target]))[target].secrets

    async def look_up(self, targets: Collection[Target]) -> Mapping[Target, _Known]:
        """What is known of targets; raises DatabaseUnavailable."""
        now = self._clock()
        known: dict[Target, _Known] = {}
        asked: list[Target] = []
        for target in dict.fromkeys(targets):
            cached = self._cache.get(target)
            if cached is not None and cached[0] > now:
                known[target] = cached[1]
            else:
                asked.append(target)
        if asked:
            found = await self._read(asked)
            if len(self._cache) + len(asked) > _CACHED:
                self._cache.clear()
            for target in asked:
                known[target] = found.get(target, _Known())
                self._cache[target] = (now + CACHE_SECONDS, known[target])
        return known

    def forget(self, targets: Collection[Target]) -> None:
        """Read these anew the next time."""
        for target in targets:
            self._cache.pop(target, None)

    async def create(
        self, url: str, *, channel: str = SIGNED_CHANNEL, tenant: int | None = None
    ) -> EndpointSecretView:
        """Give a target a secret. Raises Conflict where it has one."""
        secret = new_secret()
        row = await self._one(
            "create_endpoint", url=url, channel=channel, tenant=tenant, secret=secret
        )
        if row is None:
            raise Conflict("endpoint_exists", "this target has a secret; rotate it instead")
        return EndpointSecretView.model_validate({**row, "secret": secret})

    async def rotate(self, identity: int, tenant: int | None = None) -> EndpointSecretView:
        """Give a target a new secret; the old one signs beside it. Raises NotFound."""
        secret = new_secret()
        row = await self._changed("rotate_endpoint", identity, tenant, secret=secret)
        return EndpointSecretView.model_validate({**row, "secret": secret})

    async def retire(self, identity: int, tenant: int | None = None) -> EndpointView:
        """Let only the newest secret sign. Raises NotFound."""
        return EndpointView.model_validate(
            await self._changed("retire_endpoint_secret", identity, tenant)
        )

    async def enable(self, identity: int, tenant: int | None = None) -> EndpointView:
        """Call a disabled target again. Raises NotFound."""
        return EndpointView.model_validate(await self._changed("enable_endpoint", identity, tenant))

    async def list(
        self, tenant: int | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> Page[EndpointView]:
        """A page of endpoints, newest first. Raises InvalidCursor."""
        before = cursors.read_delivery_cursor(cursor) if cursor else None
        rows = await self._database.fetch(
            _statement("list_endpoints"), {"tenant": tenant, "before": before, "limit": limit + 1}
        )
        items = [EndpointView.model_validate(row[0]) for row in rows]
        return Page.of(items, limit, lambda last: cursors.delivery_cursor(last.id))

    async def disabled(self, *, limit: int) -> tuple[Sequence[EndpointView], int]:
        """Targets of all tenants that are not called, the last first, and how many there are."""
        rows = await self._database.fetch(_statement("disabled_endpoints"), {"limit": limit})
        views = [EndpointView.model_validate(view) for view, _ in rows]
        return views, rows[0][1] if rows else 0

    async def _read(self, asked: Sequence[Target]) -> Mapping[Target, _Known]:
        rows = await self._database.fetch(SQL["look_up"], _columns(asked))
        return {
            (tenant, channel, url): _Known(tuple(secrets), disabled, reason)
            for tenant, channel, url, secrets, disabled, reason in rows
        }

    async def _changed(
        self, name: str, identity: int, tenant: int | None, **more: Any
    ) -> dict[str, Any]:
        row = await self._one(name, id=identity, tenant=tenant, **more)
        if row is None:
            raise NotFound("endpoint_not_found", f"there is no endpoint {identity}")
        return row

    async def _one(self, name: str, **parameters: Any) -> dict[str, Any] | None:
        rows = await self._database.fetch(_statement(name), parameters)
        if not rows:
            return None
        row: dict[str, Any] = rows[0][0]
        self.forget([(row["tenant_id"], row["channel"], row["url"])])
        return row


class DisabledTargets(OpenPolicy):
    """The channel policy that keeps work from targets that said they are gone.

    Such work becomes a dead letter (``endpoint_disabled``): visible, and to be sent
    again once the endpoint is enabled. `name_of` names the target of a delivery whose URL stands
    in the channel's settings: another URL there is another target, and is called.
    """

    def __init__(self, book: EndpointBook, name_of: Callable[[Message], str]) -> None:
        self._book = book
        self._name_of = name_of

    async def guard(self, batch: Sequence[Work[Message]]) -> Mapping[int, Outcome]:
        """Refuse what would go to a disabled target."""
        targets = {work.id: self._target(work.content) for work in batch}
        known = await self._book.look_up(targets.values())
        return {
            identity: Outcome.refused(
                "endpoint_disabled",
                f"the target was disabled: {known[target].reason or 'it is gone'}",
            )
            for identity, target in targets.items()
            if known[target].disabled
        }

    def joins_settle(self, settlements: Sequence[Settlement[Message]]) -> bool:
        """Only where a target said that it is gone."""
        return any(settlement.outcome.disable_target for settlement in settlements)

    async def on_settle(self, tx: Connection, settled: Sequence[Settlement[Message]]) -> None:
        """Disable the targets that said they are gone."""
        gone = {
            self._target(settlement.work.content): settlement.outcome
            for settlement in settled
            if settlement.outcome.disable_target
        }
        if not gone:
            return
        reasons = [(o.detail or o.code or "it is gone")[:_REASON_LIMIT] for o in gone.values()]
        cleaned = [r.replace("\0", "").encode(errors="replace").decode() for r in reasons]
        await tx.execute(SQL["disable"], {**_columns(list(gone)), "reasons": cleaned})
        self._book.forget(gone)

    def _target(self, message: Message) -> Target:
        """The target of a message. One of the channel's own settings is all tenants'."""
        if message.recipient is None or "://" not in message.recipient:
            return (None, message.channel, self._name_of(message))
        return (message.tenant_id, message.channel, message.recipient)


def new_secret() -> str:
    """A signing secret in the form of Standard Webhooks."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _columns(targets: Sequence[Target]) -> dict[str, Any]:
    return {
        "tenants": [target[0] for target in targets],
        "channels": [target[1] for target in targets],
        "urls": [target[2] for target in targets],
    }


def _statement(name: str) -> LiteralString:
    return SQL[name].replace("{endpoint}", SQL["endpoint_columns"])
