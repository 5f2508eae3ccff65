"""HTTPS with real handshakes: a certificate that is trusted, and each way in which one is not."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.channels.http_by_hand import (
    LOCAL,
    LONG,
    Addresses,
    Door,
    a_client,
    files_are,
    nothing_left,
)

from allim.channels.channel import HttpAnswer
from allim.channels.http.client import HttpClient
from allim.channels.http.failure import HttpFailure
from allim.testing.http import Answer, HttpSink

LARGE = bytes(range(256)) * 20_000


class Authority:
    """One that signs certificates for any name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test Authority")])
        self.certificate = folder / "authority.pem"
        self.certificate.write_bytes(
            self._sign(self._name, self._key, x509.BasicConstraints(ca=True, path_length=None))
        )

    def serve(self, name: str) -> ssl.SSLContext:
        """A server's context with a certificate for a name."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        file = self._folder / f"{name}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + self._sign(subject, key, x509.SubjectAlternativeName([self._alternative(name)]))
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    @staticmethod
    def _alternative(name: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            return x509.DNSName(name)

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(extension, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))


@pytest.fixture
async def sink(authority: Authority) -> AsyncIterator[HttpSink]:
    async with HttpSink(tls=authority.serve("one.example")) as sink:
        yield sink


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    async with a_client(Addresses(["127.0.0.1"])) as client:
        yield client


@pytest.fixture
def door() -> Iterator[Door]:
    with Door() as door:
        yield door


def _url(sink: HttpSink, host: str = "one.example") -> str:
    return f"https://{host}:{sink.port}"


async def _call(client: HttpClient, url: str, *, body: bytes = b"{}") -> HttpAnswer:
    return await client.post(url, body=body, headers={}, timeout=LONG, trusted=False)


@pytest.mark.usefixtures("trusted")
async def test_a_trusted_server_is_called_over_kept_connections(
    client: HttpClient, sink: HttpSink
) -> None:
    for body in (b"{}", LARGE, b"{}"):
        assert (await _call(client, _url(sink), body=body)).body == "ok"
    assert [request.body for request in sink.requests] == [b"{}", LARGE, b"{}"]
    assert {request.connection for request in sink.requests} == {1}
    assert sink.requests[0].headers["host"] == f"one.example:{sink.port}"


@pytest.mark.usefixtures("trusted")
async def test_a_name_may_end_in_a_dot(client: HttpClient, sink: HttpSink) -> None:
    answer = await client.post(
        _url(sink, "one.example."), body=b"", headers={}, timeout=LONG, trusted=True
    )
    assert answer.status == 200


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("host", ["127.0.0.1", "two.example"])
async def test_a_certificate_for_another_name_is_not_trusted(
    client: HttpClient, sink: HttpSink, host: str
) -> None:
    with pytest.raises(HttpFailure) as caught:
        await _call(client, _url(sink, host))
    assert (caught.value.code, caught.value.ambiguous) == ("connect_failed", False)
    assert str(caught.value) == "the server's certificate is not trusted"
    assert sink.requests == []


async def test_a_certificate_nobody_trusts_is_certain(client: HttpClient, sink: HttpSink) -> None:
    with pytest.raises(HttpFailure) as caught:
        await _call(client, _url(sink))
    assert (caught.value.code, caught.value.ambiguous) == ("connect_failed", False)
    assert str(caught.value) == "the server's certificate is not trusted"
    assert sink.requests == []


@pytest.mark.parametrize("reply", [b"HTTP/1.1 400 Plain\r\n\r\n", b""])
async def test_a_handshake_that_fails_is_certain(
    client: HttpClient, door: Door, reply: bytes
) -> None:
    call = asyncio.create_task(_call(client, door.url.replace("http:", "https:")))
    peer = await door.accept()
    await peer.some()
    peer.send(reply)
    peer.close()
    with pytest.raises(HttpFailure) as caught:
        await call
    assert (caught.value.code, caught.value.ambiguous) == ("connect_failed", False)
    assert str(door.port) not in str(caught.value)


# On uvloop it does, but the machine's own look-up refuses such names before there is one.
@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("host", [".one.example", "a" * 64 + ".example"])
async def test_a_name_that_tls_does_not_take_leaves_no_socket(
    client: HttpClient, sink: HttpSink, host: str
) -> None:
    with pytest.raises(HttpFailure):
        await _call(client, _url(sink))
    await sink.all_closed()
    files = psutil.Process().num_fds()
    with pytest.raises(HttpFailure) as caught:
        await _call(client, _url(sink, host))
    assert (caught.value.code, caught.value.ambiguous) == ("invalid_url", False)
    await sink.all_closed()
    await files_are(files)


@pytest.mark.usefixtures("trusted")
async def test_answers_end_as_they_do_without_tls(client: HttpClient, sink: HttpSink) -> None:
    sink.answer(
        Answer.of(200, "one", {"Connection": "close"}),
        Answer.of(200, LARGE),
        Answer.cut(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        Answer.cut(),
        Answer.of(200, "mine"),
    )
    assert (await _call(client, _url(sink))).body == "one"
    assert len((await _call(client, _url(sink))).body) > 0
    half = await _call(client, _url(sink))
    assert (half.body, half.complete) == ("half", False)
    with pytest.raises(HttpFailure) as caught:
        await _call(client, _url(sink))
    assert (caught.value.code, caught.value.ambiguous) == ("connection_lost", True)
    assert (await _call(client, _url(sink))).body == "mine"


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("closing", [False, True])
async def test_giving_up_at_any_step_leaves_nothing_behind(
    authority: Authority, closing: bool
) -> None:
    # No name: to look one up takes as many steps as it takes.
    async with HttpSink(tls=authority.serve("127.0.0.1")) as sink:
        files = psutil.Process().num_fds()
        async with nothing_left():
            for steps in count():
                client = HttpClient(LOCAL)
                call = asyncio.create_task(_call(client, sink.url))
                for _ in range(steps):
                    await asyncio.sleep(0)
                answered = call.done()
                if closing:
                    await client.close()
                else:
                    call.cancel()
                (result,) = await asyncio.gather(call, return_exceptions=True)
                if not isinstance(result, HttpAnswer):
                    assert isinstance(result, HttpFailure if closing else asyncio.CancelledError)
                await client.close()
                await sink.all_closed()
                await files_are(files)
                if answered:
                    break
            assert call.result().body == "ok"
