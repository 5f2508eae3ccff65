"""Looking names up: once for many, again after a while, and nobody's giving up is another's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from tests.channels.http_by_hand import LOCAL, LONG
from tests.relay.virtual_time import in_virtual_time

from allim.channels.http.client import HttpClient
from allim.channels.http.failure import HttpFailure
from allim.channels.http.names import FRESH, SharedLookups, ThreadResolver
from allim.channels.ssrf import ResolvedAddress


class HeldResolver(AbstractResolver):
    """Says nothing before it is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.asked_once = asyncio.Event()
        self.go = asyncio.Event()
        self.error: Exception | None = None
        self.finds_any = True

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        self.asked_once.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        one = ResolveResult(
            hostname=host, host="192.0.2.1", port=port, family=socket.AF_INET, proto=0, flags=0
        )
        return [one] if self.finds_any else []

    async def close(self) -> None:
        return


@pytest.fixture
async def resolver() -> HeldResolver:
    return HeldResolver()


@pytest.fixture
async def names(resolver: HeldResolver) -> AsyncIterator[SharedLookups]:
    names = SharedLookups(resolver)
    yield names
    await names.close()


def _ask(
    names: SharedLookups, host: str = "one.example"
) -> asyncio.Task[Sequence[ResolvedAddress]]:
    return asyncio.create_task(names.resolve(host, 80))


async def test_many_at_once_share_one_lookup(names: SharedLookups, resolver: HeldResolver) -> None:
    calls = [_ask(names) for _ in range(5)] + [_ask(names, "two.example")]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    resolver.go.set()
    found = await asyncio.gather(*calls)
    assert [each[0]["hostname"] for each in found] == ["one.example"] * 5 + ["two.example"]
    assert resolver.asked == ["one.example", "two.example"]


async def test_who_gives_up_does_not_stop_it_for_the_others(
    names: SharedLookups, resolver: HeldResolver
) -> None:
    first, second = _ask(names), _ask(names)
    await resolver.asked_once.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    resolver.go.set()
    assert len(await second) == 1
    assert resolver.asked == ["one.example"]


async def test_a_lookup_that_fails_after_all_gave_up_is_nobodys_complaint(
    names: SharedLookups, resolver: HeldResolver
) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, it: complaints.append(it))
    resolver.error = socket.gaierror(socket.EAI_AGAIN, "later")
    call = _ask(names)
    await resolver.asked_once.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    resolver.go.set()
    with pytest.raises(socket.gaierror):
        await _ask(names)
    assert complaints == []


@pytest.mark.parametrize("how", ["fails", "finds nothing"])
async def test_what_was_not_found_is_looked_up_again(
    names: SharedLookups, resolver: HeldResolver, how: str
) -> None:
    resolver.go.set()
    if how == "fails":
        resolver.error = socket.gaierror(socket.EAI_AGAIN, "later")
        with pytest.raises(socket.gaierror):
            await names.resolve("one.example", 80)
        resolver.error = None
    else:
        resolver.finds_any = False
        assert await names.resolve("one.example", 80) == []
        resolver.finds_any = True
    assert len(await names.resolve("one.example", 80)) == 1


@in_virtual_time
async def test_an_answer_is_fresh_for_a_while_from_when_it_came() -> None:
    resolver = HeldResolver()
    names = SharedLookups(resolver)
    call = _ask(names)
    await asyncio.sleep(FRESH * 3)
    resolver.go.set()
    await call
    await asyncio.sleep(FRESH - 0.1)
    await names.resolve("one.example", 80)
    assert len(resolver.asked) == 1
    await asyncio.sleep(0.2)
    await names.resolve("one.example", 80)
    assert len(resolver.asked) == 2
    await names.close()


@in_virtual_time
async def test_closing_leaves_no_timer_and_no_task() -> None:
    resolver = HeldResolver()
    names = SharedLookups(resolver)
    resolver.go.set()
    await names.resolve("known.example", 80)
    resolver.go.clear()
    call = _ask(names)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await names.close()
    with pytest.raises(HttpFailure) as caught:
        await call
    assert (caught.value.code, caught.value.ambiguous) == ("connect_failed", False)
    loop = asyncio.get_running_loop()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    timers = vars(loop)["_scheduled"]
    assert [timer for timer in timers if not timer.cancelled()] == []


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_closing_the_client_ends_a_call_that_looks_up(
    resolver: HeldResolver, steps: int
) -> None:
    client = HttpClient(LOCAL, resolver=resolver)
    call = asyncio.create_task(
        client.post("http://one.example/", body=b"", headers={}, timeout=LONG, trusted=steps == 1)
    )
    for _ in range(steps):
        await asyncio.sleep(0)
    await client.close()
    with pytest.raises(HttpFailure) as caught:
        await call
    assert (caught.value.code, caught.value.ambiguous) == ("connect_failed", False)


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_lookup_that_takes_too_long_is_certain(
    resolver: HeldResolver, trusted: bool
) -> None:
    client = HttpClient(LOCAL, resolver=resolver)
    with pytest.raises(HttpFailure) as caught:
        await client.post("http://one.example/", body=b"", headers={}, timeout=0.1, trusted=trusted)
    assert (caught.value.code, caught.value.ambiguous) == ("timeout", False)
    await client.close()


async def test_a_cancelled_call_is_cancelled_while_it_looks_up(resolver: HeldResolver) -> None:
    client = HttpClient(LOCAL, resolver=resolver)
    call = asyncio.create_task(
        client.post("http://one.example/", body=b"", headers={}, timeout=LONG, trusted=True)
    )
    await resolver.asked_once.wait()
    call.cancel()
    closing = asyncio.create_task(client.close())
    with pytest.raises(asyncio.CancelledError):
        await call
    await closing


async def test_the_machines_own_names_are_found() -> None:
    resolver = ThreadResolver()
    found = await resolver.resolve("localhost", 80)
    assert {each["host"] for each in found} <= {"127.0.0.1", "::1"}
    assert {each["port"] for each in found} == {80}
    await resolver.close()
    await resolver.close()
