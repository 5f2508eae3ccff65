"""Which rules of messaging hold in which lane, and in which order they are asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from allim.base.settings import Environment
from allim.channels.alimtalk import NAME as ALIMTALK
from allim.channels.channel import Channel, Message, RecipientKind
from allim.channels.sms import NAME as SMS
from allim.channels.sms import SmsChannel
from allim.channels.solapi.channel import SolapiChannel
from allim.channels.unsubscribing import UnsubscribeSettings
from allim.database.pool import Database
from allim.messaging.alerts import BalanceAlerts
from allim.messaging.balance import BalancePolicy, HeldDebits
from allim.messaging.cancellation import CancellationPolicy, CancelledBeforePayment
from allim.messaging.cancellation_sources import cancellation_source
from allim.messaging.dead_letters import DeadLetterCopies
from allim.messaging.quiet_hours import QuietHours
from allim.messaging.settings import BalanceSettings, MessageKind
from allim.messaging.suppression_policy import SuppressionPolicy, email_rules, phone_rules
from allim.relay.policy import ChannelPolicy, combine

PAID = frozenset({SMS, ALIMTALK})
LIVE = "live"


class MessagingPolicies:
    """Makes the policies of lanes. Money comes last: nothing is paid for what will not be sent."""

    def __init__(
        self,
        database: Database,
        channels: Mapping[str, Channel],
        environment: Environment,
        cancellation: CancellationPolicy,
    ) -> None:
        self._channels = channels
        self._settings = environment.read(BalanceSettings)
        self._email_rules = email_rules(
            environment.read(UnsubscribeSettings).email_unsubscribe_types
        )
        self._warn = BalanceAlerts(self._settings, channels)
        self._cancellation = cancellation
        for channel in channels.values():
            if isinstance(channel, SolapiChannel):
                # Once more when all stands ready: the last moment at which it can be stopped.
                channel.check_again(cancellation.guard)

    def of(self, lane: str) -> Sequence[ChannelPolicy[Message]]:
        """The rules of one lane; any message may be for a reservation, so that one holds in all."""
        if self._channels[lane].recipient_kind is RecipientKind.EMAIL:
            return [self._cancellation, SuppressionPolicy(self._email_rules)]
        if lane not in PAID:
            return [self._cancellation]
        charges = self._channels[lane].configured().mode == LIVE
        return [
            self._cancellation,
            CancelledBeforePayment(),
            SuppressionPolicy(phone_rules()),
            QuietHours(),
            DeadLetterCopies(),
            BalancePolicy(self._settings, self._kind_of, self._warn, charges=charges),
        ]

    def _kind_of(self, message: Message) -> MessageKind:
        channel = self._channels[message.channel]
        if isinstance(channel, SmsChannel):
            return MessageKind(channel.kind(message))
        return MessageKind.ALIMTALK


@asynccontextmanager
async def messaging_policies(
    database: Database, channels: Mapping[str, Channel], environment: Environment
) -> AsyncIterator[MessagingPolicies]:
    """The policies, with all that must run beside them while a relay does.

    Raises ConfigurationError.
    """
    source = cancellation_source(database, environment)
    try:
        async with HeldDebits(database):
            cancellation = CancellationPolicy(database, source)
            yield MessagingPolicies(database, channels, environment, cancellation)
    finally:
        if source is not None:
            await source.close()


def receipt_policy(environment: Environment) -> ChannelPolicy[Message]:
    """What has a hand where a report ends a delivery: refunds, the opt-out list, dead letters."""

    def no_kind(_message: Message) -> MessageKind:
        raise AssertionError("nothing is debited where reports come in")

    async def nobody(*_: object) -> None:
        """Nothing is debited here, so nobody is warned."""

    policy = combine(
        [
            SuppressionPolicy(phone_rules()),
            DeadLetterCopies(),
            BalancePolicy(environment.read(BalanceSettings), no_kind, nobody, charges=False),
        ]
    )
    assert policy is not None
    return policy
