"""How often a key may be guessed."""

from __future__ import annotations

from collections import OrderedDict

from allim.base.clock import SYSTEM_CLOCK, Clock

FAILURES = 10
SECONDS = 300.0
_CLIENTS = 10_000


class LoginLimit:
    """Counts failed logins per client: FAILURES within SECONDS, then none for a while."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def refuses(self, client: str) -> bool:
        """Whether this client must wait."""
        since, count = self._failed.get(client, (0.0, 0))
        return count >= FAILURES and self._clock() - since < SECONDS

    def failed(self, client: str) -> None:
        """It brings a key, of which nothing is known yet."""
        now = self._clock()
        since, count = self._failed.pop(client, (now, 0))
        if now - since >= SECONDS:
            since, count = now, 0
        self._failed[client] = (since, count + 1)
        while len(self._failed) > _CLIENTS:
            self._failed.popitem(last=False)

    def succeeded(self, client: str) -> None:
        """The key was a good one."""
        self._failed.pop(client, None)
