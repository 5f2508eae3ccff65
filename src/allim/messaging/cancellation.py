"""Cancelled reservations: what was queued for one is not sent.

Asked just before the send (`CancellationPolicy`), since a cancellation may come at any moment
after the message was queued. When the question itself fails nothing is sent, and it is asked again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Annotated, Protocol

from psycopg.rows import TupleRow
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from allim.base.errors import FieldProblem, InvalidRequest
from allim.channels.channel import Message
from allim.database.pool import Connection, Database
from allim.database.statements import Statements
from allim.hub.model import TenantId
from allim.messaging.ledger import refund_canceled
from allim.relay.outcomes import Outcome
from allim.relay.policy import OpenPolicy
from allim.relay.work import Work

SQL = Statements.load("allim.messaging", "cancellation.sql")

log = logging.getLogger("allim.messaging")

RESERVATION = "reservation_id"
"""Where a delivery's guard holds the reservation that it is for."""

CANCELLED = Outcome.skip("reservation_cancelled", "its reservation was cancelled")

ReservationId = int | str


class CancellationSource(Protocol):
    """Knows which reservations were cancelled."""

    async def cancelled(
        self, reservations: Collection[ReservationId]
    ) -> Mapping[ReservationId, bool | Exception]:
        """For each: whether it was cancelled, or why that could not be found out."""

    async def close(self) -> None:
        """Give back connections."""


class CancellationPolicy(OpenPolicy):
    """Skips what is for a cancelled reservation.

    Our own table is asked first, for a whole batch in one statement; then the `source` that the
    settings name, if any. What the source cannot be asked about is not sent: it waits, spends
    nothing and is asked about again.
    """

    def __init__(self, database: Database, source: CancellationSource | None = None) -> None:
        self._database = database
        self._source = source

    async def guard(self, batch: Sequence[Work[Message]]) -> Mapping[int, Outcome]:
        """What must not be sent now, and why."""
        bound = _bound(batch)
        if not bound:
            return {}
        against = _canceled(await self._database.fetch(SQL["canceled"], _columns(bound)))
        if self._source is None or len(against) == len(bound):
            return against
        rest = {identity: work for identity, work in bound.items() if identity not in against}
        known = await self._source.cancelled({_reservation(work) for work in rest.values()})
        for identity, work in rest.items():
            verdict = known.get(_reservation(work), LookupError("it was not answered"))
            if isinstance(verdict, Exception):
                detail = f"whether the reservation was cancelled is not known: {verdict}"
                against[identity] = Outcome.fault("cancellation_check_failed", detail)
                log.warning("delivery %d is not sent: %s", identity, detail)
            elif verdict:
                against[identity] = CANCELLED
        return against


class CancelledBeforePayment(OpenPolicy):
    """Skips in the claim what our own table knows to be cancelled.

    Stands before the balance: money that is taken for a moment only could be what another message
    of the tenant lacks.
    """

    async def on_attempt(
        self, tx: Connection, batch: Sequence[Work[Message]]
    ) -> Mapping[int, Outcome]:
        """What is not to be paid for."""
        bound = _bound(batch)
        if not bound:
            return {}
        return _canceled(await (await tx.execute(SQL["canceled"], _columns(bound))).fetchall())


def _bound(batch: Sequence[Work[Message]]) -> dict[int, Work[Message]]:
    return {work.id: work for work in batch if work.content.guard.get(RESERVATION) is not None}


def _columns(bound: Mapping[int, Work[Message]]) -> dict[str, object]:
    return {
        "ids": list(bound),
        "tenants": [work.content.tenant_id for work in bound.values()],
        "reservations": [str(_reservation(work)) for work in bound.values()],
    }


def _canceled(rows: Sequence[TupleRow]) -> dict[int, Outcome]:
    return {row[0]: CANCELLED for row in rows}


def _reservation(work: Work[Message]) -> ReservationId:
    reservation: ReservationId = work.content.guard[RESERVATION]
    return reservation if isinstance(reservation, int) else str(reservation)


class CancelRequest(BaseModel):
    """Whose reservation it is, where ids are not unique among tenants."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tenant_id: TenantId | None = None


ReservationPath = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")
]


class ReservationView(BaseModel):
    """What a cancellation of a reservation did."""

    reservation_id: str
    tenant_id: int | None
    canceled: int = Field(description="Deliveries that will not be sent any more")
    under_way: int = Field(
        description="Deliveries being sent at this moment: stopped if it is not too late"
    )


class Reservations:
    """Cancels reservations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cancel(
        self, reservation: str, request: CancelRequest, own: int | None = None
    ) -> ReservationView:
        """Cancel one: what waits for it is cancelled, what comes later is skipped.

        Without a tenant it is cancelled whichever tenant's it is. Cancelling again changes
        nothing.
        """
        if own is not None and request.tenant_id not in (None, own):
            raise InvalidRequest(
                [FieldProblem("/tenant_id", "tenant_mismatch", "is not the tenant of the API key")]
            )
        tenant = request.tenant_id if own is None else own
        meant = {"tenant": tenant, "reservation": reservation}
        async with self._database.transaction() as tx:
            await tx.execute(SQL["cancel"], meant)
            rows = await (await tx.execute(SQL["cancel_deliveries"], meant)).fetchall()
            canceled = [identity for identity, status in rows if status == "CANCELED"]
            if canceled:
                await refund_canceled(tx, canceled)
        return ReservationView(
            reservation_id=reservation,
            tenant_id=tenant,
            canceled=len(canceled),
            under_way=len(rows) - len(canceled),
        )


async def each(
    reservations: Collection[ReservationId],
    ask: Callable[[ReservationId], Awaitable[bool]],
    *,
    at_once: int,
    timeout: float,
) -> Mapping[ReservationId, bool | Exception]:
    """Ask about one after the other, several at once; what fails is told as its own answer."""
    places = asyncio.Semaphore(at_once)

    async def one(reservation: ReservationId) -> bool | Exception:
        async with places:
            try:
                async with asyncio.timeout(timeout):
                    return bool(await ask(reservation))
            except TimeoutError:
                return TimeoutError(f"no answer within {timeout:g} s")
            except Exception as error:
                # The boundary to other people's code and servers: not knowing is the answer.
                return error

    wanted = list(reservations)
    answers = await asyncio.gather(*map(one, wanted))
    return dict(zip(wanted, answers, strict=True))
