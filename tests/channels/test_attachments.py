"""Files that go with a mail: fetched at the send, bounded, and never from where they may not be."""

from __future__ import annotations

import base64
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.channels import email
from allim.channels.attachments import AttachmentSettings
from allim.channels.channel import Draft
from allim.channels.email import EmailChannel
from allim.channels.registry import make_http, make_services
from allim.relay.outcomes import Outcome, OutcomeKind
from allim.testing.channels import a_message, send_one
from allim.testing.http import Answer, HttpSink
from allim.testing.smtp import SmtpSink

KIM = "kim@example.com"
FILE = bytes(range(256)) * 40


class Rig:
    """A channel, its mail server, and the server that files lie on."""

    def __init__(self, channel: EmailChannel, smtp: SmtpSink, files: HttpSink) -> None:
        self.channel, self.smtp, self.files = channel, smtp, files

    async def send(self, *attachments: Any, tenant: int | None = None, **payload: Any) -> Outcome:
        payload = {"attachments": list(attachments), **payload}
        return await send_one(self.channel, a_message(KIM, tenant_id=tenant, payload=payload))

    def problems(self, attachments: object, tenant: int | None = None) -> list[str]:
        draft = Draft(KIM, "t", "m", None, {"attachments": attachments}, tenant)
        return [problem.place for problem in self.channel.check(draft)]


@asynccontextmanager
async def rigged(**settings: str) -> AsyncIterator[Rig]:
    async with SmtpSink() as smtp, HttpSink() as files:
        environment = Environment(
            {
                "SMTP_URL": smtp.url,
                "SMTP_HELO_NAME": "here.test",
                "EMAIL_TIMEOUT_SECONDS": "20",
                "ALLIM_SSRF_ALLOW": "127.0.0.0/8",
                **settings,
            }
        )
        http = make_http(environment)
        channel = email.make(environment, make_services(http))
        yield Rig(channel, smtp, files)
        await channel.close()
        await http.close()


async def test_files_by_url_and_by_path_arrive_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "bills").mkdir()
    (tmp_path / "bills" / "영수증 1.pdf").write_bytes(FILE)
    async with rigged(EMAIL_ATTACHMENTS_DIRECTORY=str(tmp_path)) as rig:
        rig.files.answer(Answer.of(200, FILE))
        outcome = await rig.send(
            {"url": rig.files.url + "/a/report%20x.csv?sig=1"},
            {"path": "bills/영수증 1.pdf"},
            {"path": "bills/영수증 1.pdf", "filename": "x.bin", "content_type": "text/plain"},
            html="<p>hello</p>",
        )
        (mail,) = rig.smtp.mails
    assert outcome.kind is OutcomeKind.DELIVERED
    assert mail.message.get_content_type() == "multipart/mixed"
    assert (mail.text, mail.html.strip()) == ("카드 승인이 거절되었습니다\n", "<p>hello</p>")
    parts = list(mail.message.iter_attachments())
    assert [(part.get_filename(), part.get_content_type()) for part in parts] == [
        ("report x.csv", "text/csv"),
        ("영수증 1.pdf", "application/pdf"),
        ("x.bin", "text/plain"),
    ]
    assert [base64.b64decode(str(part.get_payload())) for part in parts] == [FILE] * 3
    assert all(len(line) <= 998 for line in mail.content.split(b"\r\n"))


def packed(content: bytes) -> Answer:
    """What a store answers with that packs although it was asked not to."""
    return Answer.of(200, content, headers={"Content-Encoding": "gzip"})


async def test_a_file_that_was_packed_on_the_way_arrives_as_it_is() -> None:
    async with rigged() as rig:
        rig.files.answer(packed(gzip.compress(FILE)))
        await rig.send({"url": rig.files.url + "/x"})
        (part,) = rig.smtp.mails[0].message.iter_attachments()
    assert base64.b64decode(str(part.get_payload())) == FILE


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (Answer.of(404), OutcomeKind.REFUSED, "attachment_http_404"),
        (Answer.of(302, headers={"Location": "/b"}), OutcomeKind.REFUSED, "attachment_http_302"),
        (Answer.of(202), OutcomeKind.RETRY, "attachment_http_202"),
        (Answer.of(204), OutcomeKind.REFUSED, "attachment_http_204"),
        (Answer.of(429), OutcomeKind.RETRY, "attachment_http_429"),
        (Answer.of(503), OutcomeKind.RETRY, "attachment_http_503"),
        (Answer.cut(), OutcomeKind.RETRY, "attachment_connection_lost"),
        (
            Answer.cut(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
            OutcomeKind.RETRY,
            "attachment_cut_short",
        ),
        (Answer.of(200, b"x" * 1_100_000), OutcomeKind.REFUSED, "attachments_too_large"),
        (packed(gzip.compress(b"x" * 1_100_000)), OutcomeKind.REFUSED, "attachments_too_large"),
        (packed(gzip.compress(FILE)[:-9]), OutcomeKind.RETRY, "attachment_cut_short"),
        (packed(FILE), OutcomeKind.RETRY, "attachment_cut_short"),
        (
            Answer.cut(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 1_100_000),
            OutcomeKind.REFUSED,
            "attachments_too_large",
        ),
    ],
)
async def test_what_a_file_that_does_not_come_means(
    answer: Answer, kind: OutcomeKind, code: str
) -> None:
    async with rigged(EMAIL_ATTACHMENTS_LIMIT_MIB="1") as rig:
        rig.files.answer(answer)
        outcome = await rig.send({"url": rig.files.url + "/x"})
        assert not rig.smtp.mails, "half a mail is none"
    assert (outcome.kind, outcome.code) == (kind, code)
    assert rig.files.url not in str(outcome.detail)


async def test_a_file_that_hangs_is_tried_again() -> None:
    async with rigged(EMAIL_TIMEOUT_SECONDS="1") as rig:
        rig.files.answer(Answer.hang())
        outcome = await rig.send({"url": rig.files.url + "/x"})
    assert (outcome.kind, outcome.code) == (OutcomeKind.RETRY, "attachment_timeout")


async def test_the_limit_is_for_all_files_together(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 700_000)
    settings = {"EMAIL_ATTACHMENTS_DIRECTORY": str(tmp_path), "EMAIL_ATTACHMENTS_LIMIT_MIB": "1"}
    async with rigged(**settings) as rig:
        one = await rig.send({"path": "a"})
        two = await rig.send({"path": "a"}, {"path": "a"})
    assert one.kind is OutcomeKind.DELIVERED
    assert (two.kind, two.code) == (OutcomeKind.REFUSED, "attachments_too_large")


async def test_no_path_leads_out_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (tmp_path / "secret").write_text("s")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to(folder / "loop")
    async with rigged(EMAIL_ATTACHMENTS_DIRECTORY=str(folder)) as rig:
        for path in ("../secret", "/etc/passwd", "a/../../secret", "a\x00b", "a\\..\\b", ".", ""):
            assert rig.problems([{"path": path}]) == ["/payload/attachments/0/path"], path
            refused = await rig.send({"path": path})
            assert (refused.kind, refused.code) == (OutcomeKind.REFUSED, "attachment_invalid")
        for path in ("link", "loop", "none", "none/none", "x" * 300):
            gone = await rig.send({"path": path})
            assert (gone.kind, gone.code) == (OutcomeKind.REFUSED, "attachment_missing"), path
        assert not rig.smtp.mails


async def test_a_tenant_attaches_the_files_of_its_own_folder_only(tmp_path: Path) -> None:
    for name in ("7", "70", "8", "all"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bill").write_bytes(FILE)
    (tmp_path / "7" / "theirs").symlink_to(tmp_path / "8" / "bill")
    (tmp_path / "9").symlink_to(tmp_path / "8")
    async with rigged(EMAIL_ATTACHMENTS_DIRECTORY=str(tmp_path)) as rig:
        for path in ("7/bill", "./7/bill"):
            assert rig.problems([{"path": path}], tenant=7) == []
            assert (await rig.send({"path": path}, tenant=7)).kind is OutcomeKind.DELIVERED
        for path in ("8/bill", "70/bill", "all/bill", "bill", "7/../8/bill"):
            told = rig.problems([{"path": path}], tenant=7)
            refused = await rig.send({"path": path}, tenant=7)
            assert told == ["/payload/attachments/0/path"], path
            assert (refused.kind, refused.code) == (OutcomeKind.REFUSED, "attachment_invalid")
        for tenant, path in ((7, "7/theirs"), (7, "7"), (9, "9/bill")):
            linked = await rig.send({"path": path}, tenant=tenant)
            assert (linked.kind, linked.code) == (OutcomeKind.REFUSED, "attachment_missing"), path
        for path in ("7/bill", "8/bill", "all/bill", "7/theirs"):
            assert (await rig.send({"path": path})).kind is OutcomeKind.DELIVERED, path


async def test_no_url_leads_into_our_own_network() -> None:
    async with rigged(ALLIM_SSRF_ALLOW="") as rig:
        assert rig.problems([{"url": "http://127.0.0.1/x"}]) == ["/payload/attachments/0/url"]
        outcome = await rig.send({"url": "http://internal.invalid/x"})
        assert outcome.code == "attachment_connect_failed"


@pytest.mark.parametrize(
    ("attachments", "place"),
    [
        ("x", ""),
        ([{"url": "https://files.example/x"}] * 11, ""),
        ([7], "/0"),
        ([{}], "/0"),
        ([{"url": "https://files.example/x", "path": "x"}], "/0"),
        ([{"url": 7}], "/0/url"),
        ([{"url": "ftp://files.example/x"}], "/0/url"),
        ([{"path": "x"}], "/0/path"),
        ([{"url": "https://files.example/x", "size": 7}], "/0/size"),
        ([{"url": "https://f.example/x", "filename": "a\r\nBcc: x"}], "/0/filename"),
        ([{"url": "https://f.example/x", "filename": "../x"}], "/0/filename"),
        ([{"url": "https://f.example/x", "filename": "가" * 100}], "/0/filename"),
        ([{"url": "https://f.example/x", "content_type": "text/x\r\nBcc: x"}], "/0/content_type"),
        ([{"url": "https://f.example/x", "content_type": "message/rfc822"}], "/0/content_type"),
    ],
)
async def test_a_wrong_reference_is_named_when_it_is_asked_for(
    attachments: object, place: str
) -> None:
    async with rigged() as rig:
        assert rig.problems(attachments) == [f"/payload/attachments{place}"]


def test_a_folder_that_is_not_there_is_told_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match="EMAIL_ATTACHMENTS_DIRECTORY is not a folder"):
        Environment({"EMAIL_ATTACHMENTS_DIRECTORY": "/no/such"}).read(AttachmentSettings)
