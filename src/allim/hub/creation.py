"""Creating notifications: one statement for any number of them, in anybody's transaction.

The work is written as a conversation with a database (`create`): a generator that asks
one statement after the other. Whoever holds a connection, sync or async, answers it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic_core import PydanticSerializationError, from_json, to_json

from allim.base.errors import Conflict, FieldProblem, IdempotencyMismatch, InvalidRequest
from allim.base.ids import uuid7
from allim.channels.channel import Channel
from allim.database.statements import Statements
from allim.database.transactions import Ask, Conversation, Rows
from allim.hub.canonical import canonical_hash
from allim.hub.model import NotificationRequest
from allim.hub.resolution import Entry, resolve
from allim.hub.status import DeliveryStatus, NotificationStatus
from allim.hub.storable import suspicious, unstorable
from allim.hub.templates.naming import Templates, Wanted, wanted_by

SQL = Statements.load("allim.hub")

_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


@dataclass(frozen=True, slots=True)
class CreatedDelivery:
    """One delivery as it was stored."""

    id: int
    channel: str
    recipient: str | None
    status: DeliveryStatus = DeliveryStatus.PENDING


@dataclass(frozen=True, slots=True)
class Created:
    """A notification as it was stored; `replayed` when an earlier request had stored it."""

    id: UUID
    created_at: datetime
    deliveries: Sequence[CreatedDelivery]
    replayed: bool = False
    status: NotificationStatus = NotificationStatus.PENDING


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked request, ready to be stored; `row` is its JSON."""

    id: UUID
    tenant_id: int | None
    idempotency_key: str | None
    request_hash: bytes | None
    entries: Sequence[Entry]
    row: bytes
    lanes: frozenset[str] = field(default_factory=frozenset)

    @property
    def has_keys(self) -> bool:
        """Whether it holds anything unique that somebody else's open transaction may hold too."""
        return self.idempotency_key is not None or any("row_key" in e for e in self.entries)

    def row_keys(self) -> Ask:
        """Asks which of its row keys are taken."""
        wanted = [
            {"tenant_id": self.tenant_id, "channel": e["channel"], "row_key": e["row_key"]}
            for e in self.entries
            if "row_key" in e
        ]
        return Ask(SQL["find_row_keys"], to_json(wanted).decode())


def prepare(
    request: NotificationRequest,
    channels: Mapping[str, Channel],
    *,
    tenant_id: int | None = None,
    idempotency_key: str | None = None,
    traceparent: str | None = None,
    fingerprint: bytes | None = None,
    templates: Templates | None = None,
) -> Prepared:
    """Check a request as a whole and make it ready to be stored.

    `tenant_id` is the caller's own and wins where the request names none. `fingerprint` is what a
    repeat is compared by where a request was made out of something else; else the request itself.
    `templates` are those of `templates_of`; without them no template is looked up, nor rendered.
    Raises InvalidRequest with every problem there is.
    """
    tenant = _tenant(request, tenant_id)
    if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
        raise InvalidRequest(
            [
                FieldProblem(
                    "Idempotency-Key",
                    "idempotency_key",
                    "must be 1 to 255 printable ASCII characters",
                )
            ]
        )
    entries = resolve(request, channels, tenant=tenant, templates=templates)
    identity = uuid7()
    fields: dict[str, Any] = {
        "id": identity,
        "source": request.source,
        "type": request.type,
        "priority": request.priority.rank,
        "traceparent": accepted_traceparent(traceparent) or new_traceparent(),
        "deliveries": entries,
    }
    for name in ("title", "message", "scheduled_at", "expires_at"):
        if (value := getattr(request, name)) is not None:
            fields[name] = value
    if request.data:
        fields["data"] = request.data
    if tenant is not None:
        fields["tenant_id"] = tenant
    row, request_hash = _serialised(fields, request, idempotency_key, fingerprint)
    return Prepared(
        id=identity,
        tenant_id=tenant,
        idempotency_key=idempotency_key,
        request_hash=request_hash,
        entries=entries,
        row=row,
        lanes=frozenset(entry["channel"] for entry in entries),
    )


def templates_of(request: NotificationRequest, tenant_id: int | None = None) -> set[Wanted]:
    """The templates that must be looked up before a request is prepared; mostly none."""
    return wanted_by(request, request.tenant_id if tenant_id is None else tenant_id)


def create(batch: Sequence[Prepared]) -> Conversation[Sequence[Created | IdempotencyMismatch]]:
    """Store a batch; for each, in order, what was stored or why not.

    Whoever drives this answers each Ask with rows, in one transaction or in several: a
    repeat is told by what it finds, so a batch may be sent again when nobody saw its end.
    """
    for _ in range(3):
        try:
            return (yield from _create(batch))
        except _Vanished:
            continue
    raise Conflict("in_flight", "another request uses this idempotency key just now")


def _create(batch: Sequence[Prepared]) -> Conversation[Sequence[Created | IdempotencyMismatch]]:
    rows = yield Ask(SQL["create_notifications"], _json_array(item.row for item in batch))
    created = {_uuid(row[0]): (row[1], row[2]) for row in rows}
    missing = [item for item in batch if item.id not in created]
    found: dict[UUID, list[Sequence[Any]]] = {}
    if missing:
        wanted = [
            {"id": p.id, "tenant_id": p.tenant_id, "idempotency_key": p.idempotency_key}
            for p in missing
        ]
        for row in (yield Ask(SQL["find_created"], to_json(wanted).decode())):
            found.setdefault(_uuid(row[0]), []).append((_uuid(row[1]), *row[2:]))
    results: list[Created | IdempotencyMismatch] = []
    for item in batch:
        if (fresh := created.get(item.id)) is not None:
            results.append(_created(item, *fresh))
        else:
            results.append(_replayed(item, found.get(item.id, ())))
    return results


def first_answer(
    request: NotificationRequest,
    *,
    tenant_id: int | None,
    idempotency_key: str | None,
    fingerprint: bytes | None = None,
) -> Conversation[Created | None]:
    """What the same request had stored under its key, where it cannot be prepared any more.

    A template that was deactivated since must not turn a repeat into an error. None where
    nothing is stored under the key, or something else.
    """
    if idempotency_key is None or not _KEY.fullmatch(idempotency_key):
        return None
    try:
        request_hash = fingerprint or canonical_hash(request)
    except (PydanticSerializationError, TypeError, ValueError, RecursionError):
        return None
    tenant = request.tenant_id if tenant_id is None else tenant_id
    wanted = {"id": uuid7(), "tenant_id": tenant, "idempotency_key": idempotency_key}
    for _, identity, known_hash, created_at, deliveries in (
        yield Ask(SQL["find_created"], to_json([wanted]).decode())
    ):
        if bytes(known_hash or b"") == request_hash:
            return _stored(_uuid(identity), created_at, deliveries, replayed=True)
    return None


def accepted_traceparent(header: str | None) -> str | None:
    """A `traceparent` header (W3C Trace Context) if it is valid; an invalid one is as none."""
    if header is not None and _TRACEPARENT.fullmatch(header):
        return header
    return None


def new_traceparent() -> str:
    """A `traceparent` that begins a trace."""
    random = os.urandom(24).hex()
    return f"00-{random[:32]}-{random[32:]}-01"


def _tenant(request: NotificationRequest, own: int | None) -> int | None:
    if own is None:
        return request.tenant_id
    if request.tenant_id not in (None, own):
        raise InvalidRequest(
            [FieldProblem("/tenant_id", "tenant_mismatch", "is not the tenant of the API key")]
        )
    return own


def _serialised(
    fields: dict[str, Any],
    request: NotificationRequest,
    idempotency_key: str | None,
    fingerprint: bytes | None,
) -> tuple[bytes, bytes | None]:
    try:
        request_hash = None
        if idempotency_key is not None:
            request_hash = fingerprint or canonical_hash(request)
            fields["idempotency_key"] = idempotency_key
            fields["request_hash"] = request_hash.hex()
        row = to_json(fields)
    except (PydanticSerializationError, TypeError, ValueError, RecursionError):
        problems = unstorable(request)
        raise InvalidRequest(
            problems or [FieldProblem("", "not_json", "holds what JSON cannot say")]
        ) from None
    if suspicious(row) and (problems := unstorable(request)):
        raise InvalidRequest(problems)
    return row, request_hash


def _json_array(rows: Any) -> str:
    return (b"[" + b",".join(rows) + b"]").decode()


def _created(item: Prepared, created_at: datetime, ids: Sequence[int]) -> Created:
    deliveries = [
        CreatedDelivery(identity, entry["channel"], entry.get("recipient"))
        for identity, entry in zip(ids, item.entries, strict=True)
    ]
    return Created(item.id, created_at.astimezone(UTC), deliveries)


def _replayed(item: Prepared, found: Sequence[Sequence[Any]]) -> Created | IdempotencyMismatch:
    if not found:
        # Its key was taken when we inserted and free when we looked: the caller may try again.
        raise _Vanished
    for identity, request_hash, created_at, deliveries in found:
        ours = identity == item.id
        if not ours and bytes(request_hash or b"") != item.request_hash:
            return IdempotencyMismatch(item.idempotency_key or "")
        return _stored(identity, created_at, deliveries, replayed=not ours)
    raise AssertionError("unreachable")


def _stored(
    identity: UUID, created_at: datetime, deliveries: str | None, *, replayed: bool
) -> Created:
    return Created(
        identity,
        created_at.astimezone(UTC),
        [
            CreatedDelivery(d["id"], d["channel"], d["recipient"])
            for d in from_json(deliveries or "[]")
        ],
        replayed=replayed,
    )


def _uuid(value: Any) -> UUID:
    # Drivers differ in what they make of a uuid.
    return value if isinstance(value, UUID) else UUID(value)


def row_key_conflict(item: Prepared, taken: Rows) -> Conflict:
    """The conflict of a request whose row keys are `taken`, as (channel, row_key)."""
    keys = {(row[0], row[1]) for row in taken}
    problems = [
        FieldProblem(
            f"/deliveries/{at}/row_key",
            "row_key_taken",
            f"{entry['channel']} has a delivery with the row key {entry['row_key']!r}",
        )
        for at, entry in enumerate(item.entries)
        if (entry["channel"], entry.get("row_key")) in keys
    ]
    return Conflict("row_key_taken", "a row key is in use already", problems)


class _Vanished(Exception):
    """A notification that stood in the way was deleted between two statements: create again."""
