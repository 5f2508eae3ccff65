"""Looking names up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from allim.channels.http import failure
from allim.channels.ssrf import ResolvedAddress, Resolver

NAME_LOOKUPS = 32
"""Names looked up at once: one that hangs must not stop the others."""
FRESH = 10.0
"""Seconds for which an answer is used again."""


class ThreadResolver:
    """Looks names up in threads of its own, so that slow ones hold up nothing else."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolvedAddress]:
        """The addresses of a name; OSError where it has none."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(NAME_LOOKUPS, thread_name_prefix="allim-names")
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads,
            lambda: socket.getaddrinfo(
                host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            ),
        )
        return [
            ResolvedAddress(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found_family, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Let the threads go; what they look up now is not waited for."""
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)


class SharedLookups:
    """Asks a resolver once where many ask for one name, and again after `FRESH` seconds."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._lookups: dict[tuple[str, int], asyncio.Task[Sequence[ResolvedAddress]]] = {}
        self._forgetting: dict[tuple[str, int], asyncio.TimerHandle] = {}

    async def resolve(self, host: str, port: int) -> Sequence[ResolvedAddress]:
        """The addresses of a name; OSError where it has none, HttpFailure when it is closed."""
        key = host, port
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._lookups[key] = asyncio.create_task(self._resolver.resolve(host, port))
            lookup.add_done_callback(lambda done: self._forget_later(key, done))
        try:
            # Whoever gives up must not stop it for the others.
            return await asyncio.shield(lookup)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is None or caller.cancelling():
                raise
            # Nobody stopped the caller: `close` stopped the look-up.
            raise failure.closed() from None

    async def close(self) -> None:
        """Stop what is under way, and forget what is known."""
        lookups = tuple(self._lookups.values())
        self._lookups.clear()
        for timer in self._forgetting.values():
            timer.cancel()
        self._forgetting.clear()
        for lookup in lookups:
            lookup.cancel()
        await asyncio.gather(*lookups, return_exceptions=True)

    def _forget_later(
        self, key: tuple[str, int], lookup: asyncio.Task[Sequence[ResolvedAddress]]
    ) -> None:
        failed = lookup.cancelled() or lookup.exception() is not None
        if self._lookups.get(key) is not lookup:
            return
        if failed or not lookup.result():
            del self._lookups[key]
        else:
            later = lookup.get_loop().call_later(FRESH, self._forget, key)
            self._forgetting[key] = later

    def _forget(self, key: tuple[str, int]) -> None:
        del self._lookups[key], self._forgetting[key]
