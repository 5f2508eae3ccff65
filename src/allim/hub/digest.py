"""Digests: of messages that come too often, one goes in a while and carries the others.

The first of a key goes at once. What comes within the window waits; when it is over, the eldest
carries all that wait. They end when their carrier has arrived, in the transaction that says so,
and tell whose message they were part of. Whatever becomes of a carrier, what it carried still
waits for another one: nothing hangs on it.

A window begins when its message has arrived; while one is on its way, others of its key wait.
Keys are locked in the claiming transaction and all is written in it or in the settling one, so
relays on any number of machines share one window, and a kill leaves nothing half told. What a
carrier has with it belongs to that attempt of it: another attempt tells of others.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from pydantic import Field, field_validator
from pydantic_core import to_json

from allim.base.settings import SettingsGroup
from allim.channels.channel import Message
from allim.database.pool import Connection
from allim.database.statements import Statements
from allim.hub.digest_text import Carried, can_carry, carrying
from allim.hub.settling import SettleRows, array_literal, settle_families
from allim.relay.outcomes import Outcome
from allim.relay.policy import Beside, OpenPolicy
from allim.relay.rates import RESERVED
from allim.relay.settlement import Settlement, Transition
from allim.relay.work import Work

SQL = Statements.load("allim.hub", "digest.sql")

WAITS = "digest"
"""Why a delivery waits (`error_code`)."""
DIGESTED = "digested"
"""How a delivery ended that another one carried."""
ARRIVED = frozenset({Transition.COMPLETE, Transition.ACCEPT, Transition.HOLD})
"""Ends of a carrier that are the ends of what it carried; held is held: it may have arrived."""
TAKEN_AT_ONCE = 5000
"""How many a carrier takes (those of one claim, twice as many); the rest wait for the next."""
UNFIT = frozenset({"ALIMTALK", "KAKAO", "SHEET", "SMS", "WEBHOOK"})
"""Channels where two deliveries cannot be told as one."""


class DigestSettings(SettingsGroup):
    """Which channels gather messages that come too often."""

    digest_channels: str | None = Field(
        None,
        description="Channels, parted by commas (SLACK), that send one message per key and window"
        " and fold the rest into the next. Not set: none.",
    )
    digest_window_seconds: float = Field(
        60.0, gt=0, le=86_400, description="The shortest time between two messages of one key."
    )

    @field_validator("digest_channels")
    @classmethod
    def _can_fold(cls, value: str | None) -> str | None:
        if unfit := UNFIT & _names(value):
            raise ValueError(f"cannot fold messages of {', '.join(sorted(unfit))}")
        return value

    def channels(self) -> frozenset[str]:
        """The channels by name."""
        return _names(self.digest_channels)


def _names(value: str | None) -> frozenset[str]:
    return frozenset(name.strip().upper() for name in (value or "").split(",") if name.strip())


def digest_key(message: Message) -> str:
    """By what messages are gathered: tenant, channel, recipient, and `data.digest_key` or type."""
    chosen = message.data.get("digest_key")
    own = chosen if isinstance(chosen, str | int) else None
    named = [message.tenant_id, message.channel, message.recipient, own, own is None]
    named.append(message.type if own is None else None)
    return hashlib.sha256(to_json(named)).hexdigest()


@dataclass(slots=True)
class _Plan:
    """What becomes of the works of a claim."""

    against: dict[int, Outcome] = field(default_factory=dict)
    waiting: list[tuple[int, str, int | None, int | None]] = field(default_factory=list)
    carriers: dict[str, Work[Message]] = field(default_factory=dict)
    carried: dict[int, list[Carried]] = field(default_factory=lambda: defaultdict(list))

    def wait(
        self, work: Work[Message], key: str, seconds: float, carrier: Work[Message] | None
    ) -> None:
        words = "waits to be told with the next message of its kind"
        self.against[work.id] = Outcome.snooze(WAITS, seconds, words)
        # What is bound to a condition is asked about it on its own turn, so it is never carried.
        if work.content.guard:
            return
        if carrier is None:
            self.waiting.append((work.id, key, None, None))
            return
        self.waiting.append((work.id, key, carrier.id, carrier.attempt_no))
        content = work.content
        one = Carried(work.id, content.title, content.message, content.type)
        self.carried[carrier.id].append(one)


class DigestPolicy(OpenPolicy):
    """Lets one message of a key through in a window; it carries those that wait."""

    def __init__(self, window: float) -> None:
        self._window = window

    async def on_attempt(
        self, tx: Connection, batch: Sequence[Work[Message]]
    ) -> Mapping[int, Outcome]:
        """Snooze all but one of a key; give that one the others to carry."""
        keys = {work.id: digest_key(work.content) for work in batch}
        cursor = await tx.execute(SQL["lock_keys"], {"keys": sorted(set(keys.values()))})
        rows = await cursor.fetchall()
        plan = _Plan(await _judged(tx, batch))
        by_key: dict[str, list[Work[Message]]] = defaultdict(list)
        for work in sorted(batch, key=lambda work: work.id):
            if work.id not in plan.against:
                by_key[keys[work.id]].append(work)
        coming = await _still_to_come(
            tx, {carrier for _, carrier, wait, _ in rows if carrier is not None and wait <= 0}
        )
        for key, last_carrier, wait, _ in rows:
            longer = min(coming.get(last_carrier, 0.0), self._window)
            self._plan(plan, key, by_key[key], last_carrier, max(wait, longer))
        if any(is_new for *_, is_new in rows):
            await tx.execute(SQL["forget_idle"])
        if plan.waiting:
            ids, of_keys, carriers, attempts = map(list, zip(*sorted(plan.waiting), strict=True))
            await tx.execute(
                SQL["wait"],
                {"ids": ids, "keys": of_keys, "carriers": carriers, "attempts": attempts},
            )
        if plan.carriers:
            await self._open(tx, plan)
        return plan.against

    def _plan(
        self,
        plan: _Plan,
        key: str,
        works: Sequence[Work[Message]],
        last_carrier: int | None,
        wait: float,
    ) -> None:
        # The last carrier comes again where its call failed or its relay died: nothing of its
        # window was used.
        again = next((work for work in works if work.id == last_carrier), None)
        carrier = again or (works[0] if works and wait <= 0 else None)
        if carrier is None:
            for work in works:
                plan.wait(work, key, wait, None)
            return
        plan.carriers[key] = carrier
        takes = carrier if can_carry(carrier.content) else None
        for work in works:
            if work is not carrier:
                plan.wait(work, key, self._window, takes)

    async def _open(self, tx: Connection, plan: _Plan) -> None:
        keys = sorted(plan.carriers)
        carriers = [plan.carriers[key].id for key in keys]
        named = {"keys": keys, "carriers": carriers, "window": self._window}
        await tx.execute(SQL["open"], named)
        await tx.execute(SQL["forget_ended"], {"keys": keys})
        roomy = [key for key in keys if can_carry(plan.carriers[key].content)]
        taking = {
            "keys": roomy,
            "carriers": [plan.carriers[key].id for key in roomy],
            "attempts": [plan.carriers[key].attempt_no for key in roomy],
            "window": self._window,
            "most": TAKEN_AT_ONCE,
        }
        for carrier, identity, title, message, type_ in await (
            await tx.execute(SQL["take"], taking)
        ).fetchall():
            plan.carried[carrier].append(Carried(identity, title, message, type_))
        for work in plan.carriers.values():
            others = sorted(plan.carried.get(work.id, ()), key=lambda each: each.id)
            work.content = carrying(work.content, others)

    def joins_settle(self, settlements: Sequence[Settlement[Message]]) -> bool:
        """Where anything arrived: it may have carried others."""
        return any(settlement.transition in ARRIVED for settlement in settlements)

    async def on_settle(
        self, tx: Connection, settled: Sequence[Settlement[Message]]
    ) -> Beside | None:
        """Begin the windows of what has arrived; what it carried has arrived with it."""
        arrived = {one.work.id: one for one in settled if one.transition in ARRIVED}
        if not arrived:
            return None
        done = sorted(arrived)
        sent = {i: one for i, one in arrived.items() if one.outcome.code != DIGESTED}
        rows: Sequence[Any] = ()
        if sent:
            keys = sorted({digest_key(one.work.content) for one in sent.values()})
            named = {"keys": keys, "carriers": list(sent), "window": self._window}
            await tx.execute(SQL["arrive"], named)
            cursor = await tx.execute(SQL["carried"], {"carriers": sorted(sent)})
            rows = await cursor.fetchall()
        await tx.execute(SQL["forget"], {"ids": done + [row[0] for row in rows]})
        return await _end(tx, rows, {i: one.transition for i, one in sent.items()})


async def _judged(tx: Connection, batch: Sequence[Work[Message]]) -> dict[int, Outcome]:
    """What is not to be told any more, and how it ends."""
    rows = await tx.execute(SQL["judged"], {"ids": [work.id for work in batch]})
    against: dict[int, Outcome] = {}
    for identity, carrier, held in await rows.fetchall():
        if carrier is None:
            # Settled so, what is marked as cancelled ends as that.
            against[identity] = Outcome.snooze(WAITS, 0.0, "was cancelled while it waited")
        else:
            end = Transition.HOLD if held else Transition.COMPLETE
            against[identity] = _told(carrier, end)
    return against


async def _still_to_come(tx: Connection, carriers: set[int]) -> Mapping[int | None, float]:
    if not carriers:
        return {}
    named = {"carriers": sorted(carriers), "reserved": RESERVED}
    return dict(await (await tx.execute(SQL["still_to_come"], named)).fetchall())


async def _end(
    tx: Connection, rows: Sequence[Any], ends: Mapping[int, Transition]
) -> Beside | None:
    """Settle what carriers had with them as they themselves ended."""
    if not rows:
        return None
    ids = array_literal([row[0] for row in rows])
    token = str(uuid4())
    await tx.execute(SQL["attempt"], {"ids": ids, "token": token})
    settlements = [_settlement(row, token, ends[row[1]]) for row in rows]
    families = {one.work.content.notification_id for one in settlements}
    settled = await settle_families(tx, SettleRows.of_claims(settlements), families)
    carriers = array_literal([row[1] for row in rows])
    await tx.execute(SQL["note_carried"], {"carriers": carriers, "ids": ids})
    landed = [one for one in settlements if one.work.id in settled.landed]
    return Beside(landed, settled.lanes)


def _settlement(row: Sequence[Any], token: str, end: Transition) -> Settlement[Message]:
    identity, carrier, attempt, retries, most, rescues, channel, tenant, *of_notification = row
    notification, type_, source, created_at, traceparent = of_notification
    content = Message(
        delivery_id=identity,
        notification_id=notification,
        channel=channel,
        recipient=None,
        title=None,
        message=None,
        type=type_,
        source=source,
        data={},
        payload={},
        created_at=created_at,
        tenant_id=tenant,
        traceparent=traceparent,
    )
    work = Work(identity, token, attempt, retries, most, rescues, 0.0, content)
    return Settlement(work, _told(carrier, end), end, code=DIGESTED)


def _told(carrier: int, end: Transition) -> Outcome:
    words = f"carried by delivery {carrier}"
    if end is Transition.HOLD:
        return Outcome.unknown(DIGESTED, words)
    return Outcome.delivered(DIGESTED, detail=words)
