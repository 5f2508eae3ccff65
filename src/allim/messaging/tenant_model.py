"""What a tenant is: as a client opens, changes and credits it, and as it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from allim.base.clock import KST
from allim.base.errors import FieldProblem, InvalidRequest
from allim.channels.korean_sms import BadNumber, normalise_sender
from allim.hub.model import TenantId, Word
from allim.hub.views import Moment

LARGEST_AMOUNT = 10**15
"""KRW; far from what a bigint holds, however often it is credited."""


def _some(amount: int) -> int:
    if amount == 0:
        raise PydanticCustomError("zero", "must not be 0")
    return amount


def _sender(number: str) -> str:
    try:
        return normalise_sender(number)
    except BadNumber as error:
        raise PydanticCustomError("sender", "{reason}", {"reason": str(error)}) from None


PfId = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9@_-]+$")]
Sender = Annotated[str, StringConstraints(max_length=40), AfterValidator(_sender)]
Amount = Annotated[int, Field(ge=0, le=LARGEST_AMOUNT)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TenantRequest(_Body):
    """A tenant as a client opens it; the id is the client's own."""

    id: TenantId
    name: Word
    balance: Amount = Field(default=0, description="Opening balance in KRW")
    kakao_pf_id: PfId | None = Field(default=None, description="Its Kakao channel")
    sender: Sender | None = Field(default=None, description="Its registered sender number")
    low_balance_krw: Amount | None = Field(
        default=None, description="Warn below this; MESSAGING_LOW_BALANCE_KRW where left out"
    )


class TenantChange(_Body):
    """What of a tenant may be changed; what is left out stays."""

    name: Word | None = None
    kakao_pf_id: PfId | None = None
    sender: Sender | None = None
    low_balance_krw: Amount | None = None


class CreditRequest(_Body):
    """A top-up, or with a negative amount a correction."""

    amount: Annotated[int, Field(ge=-LARGEST_AMOUNT, le=LARGEST_AMOUNT), AfterValidator(_some)] = (
        Field(description="KRW, not 0; negative takes money back")
    )
    note: Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")] | None = None


class TenantView(BaseModel):
    """A tenant."""

    id: int
    name: str
    balance: int = Field(description="KRW; always the sum of its ledger")
    kakao_pf_id: str | None
    sender: str | None
    low_balance_krw: int | None
    created_at: Moment
    updated_at: Moment


class LedgerRow(BaseModel):
    """One movement of money."""

    id: int
    kind: Literal["opening", "credit", "debit", "refund"]
    amount: int = Field(description="KRW; negative is taken from the tenant")
    balance_after: int
    delivery_id: int | None
    attempt_no: int | None
    message_kind: str | None
    note: str | None
    created_at: Moment


class CreditView(BaseModel):
    """A top-up as it was written; `replayed` when an earlier request had written it."""

    id: int
    amount: int
    balance_after: int
    note: str | None
    created_at: Moment
    replayed: bool


@dataclass(frozen=True, slots=True)
class Month:
    """A month of the calendar in Seoul."""

    begins: datetime
    ends: datetime

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of ``2026-11``; raises InvalidRequest."""
        try:
            if len(text) != 7:
                raise ValueError(text)
            begins = datetime.strptime(text, "%Y-%m").replace(tzinfo=KST)
            ends = (begins + timedelta(days=32)).replace(day=1)
        except (ValueError, OverflowError):
            problem = FieldProblem("month", "month", "must be a month, as in 2026-11")
            raise InvalidRequest([problem]) from None
        return cls(begins, ends)
