"""Warning operators of tenants whose money runs low: a line in the log, and a notification."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from allim.base.errors import ConfigurationError, InvalidRequest
from allim.channels.channel import Channel
from allim.database.pool import Connection
from allim.hub.service import Hub
from allim.messaging.ledger import Low
from allim.messaging.settings import BalanceSettings

log = logging.getLogger("allim.messaging")

TYPE = "LOW_BALANCE"
SOURCE = "allim-messaging"


class BalanceAlerts:
    """Warns at most once an hour about a tenant, until it is topped up.

    The notification is nobody's tenant's, so it costs none. Raises ConfigurationError for a channel
    that there is none of.
    """

    def __init__(self, settings: BalanceSettings, channels: Mapping[str, Channel]) -> None:
        self._hub = Hub(channels)
        self._channel = (settings.messaging_alert_channel or "").upper() or None
        self._recipient = settings.messaging_alert_recipient
        if self._channel is not None and self._channel not in channels:
            raise ConfigurationError(
                f"MESSAGING_ALERT_CHANNEL: there is no channel {self._channel}; there are"
                f" {', '.join(sorted(channels))}"
            )

    async def __call__(self, tx: Connection, low: Low) -> None:
        """Warn; the notification is stored in the transaction `tx`."""
        log.warning(
            "the balance of tenant %d is low: %d KRW, %d messages refused",
            low.tenant_id,
            low.balance,
            low.refused,
        )
        if self._channel is None:
            return
        delivery = {"channel": self._channel}
        if self._recipient is not None:
            delivery["recipient"] = self._recipient
        try:
            await self._hub.notify(
                tx,
                source=SOURCE,
                type=TYPE,
                title=f"잔액 부족: {low.name}",
                message=_words(low),
                data={
                    "tenant_id": low.tenant_id,
                    "balance": low.balance,
                    "threshold": low.threshold,
                    "refused": low.refused,
                },
                deliveries=[delivery],
            )
        except InvalidRequest as error:
            # A warning that cannot be said must not stop what it warns of.
            log.error("MESSAGING_ALERT_CHANNEL cannot be used: %s", error)


def _words(low: Low) -> str:
    words = (
        f"테넌트 {low.tenant_id}({low.name})의 잔액이 {low.balance:,}원입니다"
        f" (기준 {low.threshold:,}원)."
    )
    if low.refused:
        words += f" 잔액 부족으로 {low.refused:,}건을 발송하지 못했습니다."
    return words + " 충전해 주세요."
