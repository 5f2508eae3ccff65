"""The guard: no packet of ours goes inside because a caller said so."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from tests.channels.http_by_hand import Addresses

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels.channel import HttpAnswer
from allim.channels.http.client import HttpClient, HttpSettings
from allim.channels.http.failure import HttpFailure
from allim.channels.ssrf import AddressBlocked, AddressGuard
from allim.testing.http import Answer, HttpSink

INNER = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.1.1",
    "192.88.99.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", INNER)
def test_inner_addresses_are_blocked(address: str) -> None:
    parsed = ipaddress.ip_address(address)
    assert not AddressGuard().allows(parsed)
    literal = f"[{address}]" if parsed.version == 6 else address
    assert AddressGuard().check_url(f"https://{literal}/hook") is not None


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    parsed = ipaddress.ip_address(address)
    assert AddressGuard().allows(parsed)
    literal = f"[{address}]" if parsed.version == 6 else address
    assert AddressGuard().check_url(f"https://{literal}/hook") is None


def test_listed_networks_pass_whatever_they_are() -> None:
    guard = AddressGuard([ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")])
    assert guard.allows(ipaddress.ip_address("10.9.9.9"))
    assert guard.allows(ipaddress.ip_address("::ffff:10.9.9.9"))
    assert guard.allows(ipaddress.ip_address("fd00::1"))
    assert not guard.allows(ipaddress.ip_address("127.0.0.1"))
    assert guard.check_url("http://localhost/") == "leads to this machine"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hook",
        "//example.com/hook",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com:70/_x",
        "javascript:alert(1)",
        "http://",
        "http:///path",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://:@127.0.0.1/",
        "https://example.com@127.0.0.1/",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:port/",
        "https://example.com/ space",
        "https://example.com/\nHost: inner",
        "https://example.com\\@127.0.0.1/",
        "https://example.com/\x00",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://[::ffff:7f00:1]/",
        "http://127.0.0.1./",
        "http://127.1/",
        "http://127.0.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://0/",
        "http://①②⑦.⓪.⓪.①/",
        "http://127。0。0。1/",
        "http://localhost/",
        "http://LOCALHOST:8080/",
        "http://localhost./",
        "http://app.localhost/",
        "https://example.com/" + "a" * 3000,
        "http://a..b/",
        "http://.example.com/",
        "http://example.com../",
        "http://" + "a" * 64 + ".example.com/",
        "http://" + "a." * 126 + "example/",
    ],
)
async def test_hostile_urls_are_named_and_never_called(url: str) -> None:
    client = HttpClient(AddressGuard())
    assert client.check_url(url) is not None
    with pytest.raises(HttpFailure) as caught:
        await _post(client, url)
    assert caught.value.code in {"invalid_url", "blocked_address"}
    await client.close()


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["::1", "127.0.0.1"], ["10.0.0.1", "169.254.169.254"], ["::ffff:127.0.0.1"]],
)
async def test_a_name_that_leads_inside_is_blocked(addresses: list[str]) -> None:
    async with HttpSink() as sink:
        client = HttpClient(AddressGuard(), resolver=Addresses(addresses))
        url = f"http://innocent.example:{sink.port}/"
        assert client.check_url(url) is None
        with pytest.raises(HttpFailure) as caught:
            await _post(client, url)
        assert sink.requests == []
        await client.close()
    assert (caught.value.code, caught.value.ambiguous) == ("blocked_address", False)
    assert not any(address in str(caught.value) for address in addresses)


async def test_of_several_addresses_only_the_allowed_are_connected() -> None:
    async with HttpSink() as sink:
        guard = AddressGuard([ipaddress.ip_network("127.0.0.0/8")])
        client = HttpClient(guard, resolver=Addresses(["10.0.0.1", "127.0.0.1"]))
        answer = await _post(client, f"http://innocent.example:{sink.port}/")
        await client.close()
    assert answer.status == 200


def test_the_socket_itself_is_refused() -> None:
    inner = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 80))
    with pytest.raises(AddressBlocked):
        AddressGuard().new_socket(inner)
    outer = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("1.1.1.1", 80))
    AddressGuard().new_socket(outer).close()


class CarelessGuard(AddressGuard):
    """Looks at no URL, only at the addresses that are connected to."""

    def check_host(self, url: str) -> str | None:
        return None


async def test_the_address_counts_whatever_was_thought_of_the_url() -> None:
    async with HttpSink() as sink:
        client = HttpClient(CarelessGuard())
        with pytest.raises(HttpFailure) as caught:
            await _post(client, sink.url)
        await client.close()
        assert sink.requests == []
    assert (caught.value.code, caught.value.ambiguous) == ("blocked_address", False)


async def test_a_name_that_turns_inside_after_its_check_is_blocked() -> None:
    async with HttpSink() as sink:
        sink.answer(Answer.cut())
        guard = AddressGuard([ipaddress.ip_network("127.0.0.1/32")])
        resolver = Addresses(["127.0.0.1"], ["127.0.0.2"])
        client = HttpClient(guard, resolver=resolver)
        url = f"http://innocent.example:{sink.port}/"
        with pytest.raises(HttpFailure) as first:
            await _post(client, url)
        await client.close()
        second_client = HttpClient(guard, resolver=resolver)
        with pytest.raises(HttpFailure) as second:
            await _post(second_client, url)
        await second_client.close()
        assert len(sink.requests) == 1
    assert first.value.code == "connection_lost"
    assert second.value.code == "blocked_address"


async def test_trusted_urls_are_not_guarded() -> None:
    async with HttpSink() as sink:
        client = HttpClient(AddressGuard())
        answer = await client.post(sink.url, body=b"", headers={}, timeout=20, trusted=True)
        with pytest.raises(HttpFailure):
            await _post(client, sink.url)
        await client.close()
    assert answer.status == 200


async def test_a_connection_of_the_operators_is_not_lent_to_a_caller() -> None:
    async with HttpSink() as sink:
        guard = AddressGuard([ipaddress.ip_network("127.0.0.0/8")])
        client = HttpClient(guard)
        await client.post(sink.url, body=b"", headers={}, timeout=20, trusted=True)
        await _post(client, sink.url)
        await client.close()
    assert [request.connection for request in sink.requests] == [1, 2]


def test_the_allow_list_is_a_setting() -> None:
    settings = Environment({"ALLIM_SSRF_ALLOW": "10.0.0.0/8, fd00::/8"}).read(HttpSettings)
    assert settings.guard().allows(ipaddress.ip_address("10.1.1.1"))
    for wrong in ("10.0.0.0/40", "10.0.0.1/8", "inner"):
        with pytest.raises(ConfigurationError, match="ALLIM_SSRF_ALLOW"):
            Environment({"ALLIM_SSRF_ALLOW": wrong}).read(HttpSettings)


async def _post(client: HttpClient, url: str) -> HttpAnswer:
    return await client.post(url, body=b"{}", headers={}, timeout=20, trusted=False)
