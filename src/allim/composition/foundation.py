"""What every program stands on: database, wakes, channels with their rules, and its figures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from allim.base.logging import LogWriter
from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.composition.opening import Store, connected
from allim.composition.watching import Watch
from allim.composition.ways import Wakes, Ways, open_channels
from allim.database.pool import Database
from allim.database.wakes import Waker
from allim.messaging.policies import MessagingPolicies, messaging_policies
from allim.relay.relay import worker_name
from allim.relay.wake import WakeSignal


@dataclass(frozen=True, slots=True)
class Foundation:
    """Open as long as the program runs; `worker` is its name among relays."""

    environment: Environment
    database: Database
    signal: WakeSignal
    wakes: Wakes
    ways: Ways
    rules: MessagingPolicies
    watch: Watch
    worker: str

    @property
    def channels(self) -> Mapping[str, Channel]:
        """Every channel by its name."""
        return self.ways.channels


@asynccontextmanager
async def foundation(
    store: Store, environment: Environment, writer: LogWriter, name: str
) -> AsyncIterator[Foundation]:
    """Open it for the program `name`. Raises ConfigurationError and DatabaseUnavailable."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(connected(store, environment, name))
        signal = WakeSignal()
        waker = await stack.enter_async_context(Waker(database))
        ways = await stack.enter_async_context(open_channels(database, environment))
        rules = await stack.enter_async_context(
            messaging_policies(database, ways.channels, environment)
        )
        worker = worker_name()
        watch = await stack.enter_async_context(Watch(database, ways.channels, writer, worker))
        yield Foundation(
            environment,
            database,
            signal,
            Wakes(waker, signal),
            ways,
            rules,
            watch,
            worker,
        )
