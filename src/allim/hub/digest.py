"""Digests: of messages that come too often, one goes in a while and carries the others.

The first of a key goes at once. What comes within the window waits; when it is over, the eldest
carries all that wait. They end when their carrier has arrived, in the transaction that says so,
and tell whose message they were part of. Whatever becomes of a carrier, what it carried still
waits for another one: nothing hangs on it.

Keys are locked in the claiming transaction and all is written in it or in the settling one, so
relays on any number of machines share one window, and a kill leaves nothing half told.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
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
from allim.relay.policy import OpenPolicy
from allim.relay.settlement import Settlement, Transition
from allim.relay.work import Work

SQL = Statements.load("allim.hub", "digest.sql")

WAITS = "digest"
"""Why a delivery waits (`error_code`)."""
DIGESTED = "digested"
"""How a delivery ended that another one carried."""
ARRIVED = frozenset({Transition.COMPLETE, Transition.ACCEPT, Transition.HOLD})
"""Ends of a carrier that are the ends of what it carried; held is held: it may have arrived."""
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
    waiting: list[tuple[int, str, int | None]] = field(default_factory=list)
    carriers: dict[str, Work[Message]] = field(default_factory=dict)
    carried: dict[int, list[Carried]] = field(default_factory=lambda: defaultdict(list))

    def wait(self, work: Work[Message], key: str, seconds: float, carrier: int | None) -> None:
        words = "waits to be told with the next message of its kind"
        self.against[work.id] = Outcome.snooze(WAITS, seconds, words)
        # What is bound to a condition is asked about it on its own turn, so it is never carried.
        if not work.content.guard:
            self.waiting.append((work.id, key, carrier))
            if carrier is not None:
                content = work.content
                self.carried[carrier].append(
                    Carried(work.id, content.title, content.message, content.type)
                )


class DigestPolicy(OpenPolicy):
    """Lets one message of a key through in a window; it carries those that wait."""

    def __init__(
        self, window: float, wake: Callable[[Collection[str]], None] = lambda _: None
    ) -> None:
        self._window = window
        self._wake = wake

    async def on_attempt(
        self, tx: Connection, batch: Sequence[Work[Message]]
    ) -> Mapping[int, Outcome]:
        """Snooze all but one of a key; give that one the others to carry."""
        by_key: dict[str, list[Work[Message]]] = defaultdict(list)
        for work in sorted(batch, key=lambda work: work.id):
            by_key[digest_key(work.content)].append(work)
        rows = await (await tx.execute(SQL["lock_keys"], {"keys": sorted(by_key)})).fetchall()
        plan = _Plan()
        for key, last_carrier, wait, _ in rows:
            self._plan(plan, key, by_key[key], last_carrier, wait)
        if any(is_new for *_, is_new in rows):
            await tx.execute(SQL["forget_idle"])
        if plan.waiting:
            ids, keys, carriers = zip(*sorted(plan.waiting), strict=True)
            await tx.execute(
                SQL["wait"],
                {"ids": list(ids), "keys": list(keys), "carriers": list(carriers)},
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
        carrier = again or (works[0] if wait <= 0 else None)
        if carrier is None:
            for work in works:
                plan.wait(work, key, wait, None)
            return
        plan.carriers[key] = carrier
        takes = carrier.id if can_carry(carrier.content) else None
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
            "window": self._window,
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

    async def on_settle(self, tx: Connection, settled: Sequence[Settlement[Message]]) -> None:
        """What a message carried has arrived with it."""
        ends = {one.work.id: one.transition for one in settled if one.transition in ARRIVED}
        cursor = await tx.execute(SQL["carried"], {"carriers": sorted(ends)})
        rows = await cursor.fetchall()
        if not rows:
            return
        ids = [row[0] for row in rows]
        token = str(uuid4())
        await tx.execute(SQL["attempt"], {"ids": array_literal(ids), "token": token})
        settling = SettleRows()
        for identity, carrier, _ in rows:
            words = f"carried by delivery {carrier}"
            if ends[carrier] is Transition.HOLD:
                end, outcome = Transition.HOLD, Outcome.unknown(DIGESTED, words)
            else:
                end, outcome = Transition.COMPLETE, Outcome.delivered(DIGESTED, detail=words)
            settling.add(identity, token, end, outcome, code=DIGESTED)
        family = await settle_families(tx, settling, {row[2] for row in rows})
        await tx.execute(SQL["forget_carried"], {"ids": array_literal(ids)})
        await tx.execute(
            SQL["note_carried"],
            {"carriers": array_literal([row[1] for row in rows]), "ids": array_literal(ids)},
        )
        if family.lanes:
            self._wake(family.lanes)
