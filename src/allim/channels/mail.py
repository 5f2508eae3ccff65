"""What an e-mail is: addresses, and the message composed of a delivery's words."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.header import Header
from email.utils import format_datetime, parseaddr
from functools import lru_cache
from urllib.parse import quote

from allim.channels.channel import Message
from allim.channels.html_text import text_of_html

ADDRESS_LIMIT = 254
LOCAL_LIMIT = 64
LOCAL_PART = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+"
    r"(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+)*"
)
DOMAIN_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
PLAIN = re.compile(r"[A-Za-z0-9 !#$%&'*+/_{|}~-]*")
PLAIN_LIMIT = 60
SUBJECT_LIMIT = 500
UNSUBSCRIBE_PLACE = "%unsubscribe_url%"
"""Where in a text or HTML the link for unsubscribing goes."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address as SMTP takes it: `domain` is ASCII (punycode), `local` may be UTF-8."""

    local: str
    domain: str
    name: str = ""

    @property
    def address(self) -> str:
        """``local@domain``."""
        return f"{self.local}@{self.domain}"

    @property
    def canonical(self) -> str:
        """One spelling of the address, by which it is found again; no server minds the case."""
        return f"{self.local.lower()}@{self.domain}"

    @property
    def needs_smtputf8(self) -> bool:
        """Whether only a server with SMTPUTF8 (RFC 6531) can take it."""
        return not self.local.isascii()


def parse_mailbox(text: str) -> Mailbox:
    """Read one plain address; ValueError says what is wrong with it.

    The forms in use (RFC 5322 dot-atoms, RFC 6531 UTF-8) pass; quoted local parts and
    address literals do not. Whether the mailbox exists is for its server to say.
    """
    local, at, domain = text.rpartition("@")
    if not at:
        raise ValueError("has no @")
    plain = local.isascii()
    if not LOCAL_PART.fullmatch(local) or (not plain and CONTROLS.search(local)):
        raise ValueError("is not an address before the @")
    if len(local if plain else local.encode("utf-8")) > LOCAL_LIMIT:
        raise ValueError(f"is longer than {LOCAL_LIMIT} bytes before the @")
    ascii_domain = _ascii_domain(domain)
    if len(local) + 1 + len(ascii_domain) > ADDRESS_LIMIT:
        raise ValueError(f"is longer than {ADDRESS_LIMIT} characters")
    return Mailbox(local, ascii_domain)


@lru_cache(maxsize=4096)
def _ascii_domain(domain: str) -> str:
    """A domain in lower case and punycode; kept, since most mail goes to few domains."""
    try:
        ascii_domain = domain.encode("idna").decode().lower()
    except UnicodeError:
        raise ValueError("is not a domain after the @") from None
    labels = ascii_domain.split(".")
    if not all(DOMAIN_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        raise ValueError("is not a domain after the @")
    if len(labels) == 1 and ascii_domain != "localhost":
        raise ValueError("has no dot in its domain")
    return ascii_domain


def parse_sender(text: str) -> Mailbox:
    """Read ``Name <address>`` or a plain address; ValueError says what is wrong with it."""
    name, address = parseaddr(text)
    mailbox = parse_mailbox(address)
    return Mailbox(mailbox.local, mailbox.domain, one_line(name))


def one_line(text: str) -> str:
    """Text fit for a header: no line break or other control character can end it early."""
    return CONTROLS.sub(" ", text).strip()


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with a mail; `content_type` is ``type/subtype``, checked before."""

    filename: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Mail:
    """A composed mail: headers in their order, values encoded and folded, and the body."""

    headers: Sequence[tuple[str, str]]
    body: bytes

    def content(self, *above: tuple[str, str]) -> bytes:
        """The mail as it goes over the wire, with headers `above` its own."""
        return _lines((*above, *self.headers)) + b"\r\n" + self.body


def compose(
    message: Message,
    *,
    sender: Mailbox,
    recipient: Mailbox,
    at: datetime,
    unsubscribe: str | None = None,
    attachments: Sequence[Attachment] = (),
) -> Mail:
    """The e-mail of a delivery: text, HTML beside it where `payload.html` is given, then files.

    `unsubscribe` is the https URL of one-click unsubscribing (RFC 8058); the payload's own wins.

    The Message-ID is the same on every attempt, so that a mail sent twice shows once. It is
    written out here, and all that a caller says is encoded: `email.message` reads RFC 2047
    words in what it is given, so that a title could bring a header of its own.
    """
    payload = message.payload
    headers = [
        ("From", _sender(sender)),
        ("To", recipient.address),
        ("Subject", _words(subject(message), "Subject")),
        ("Date", format_datetime(at)),
        ("Message-ID", message_id(message, sender)),
        ("Auto-Submitted", "auto-generated"),
        ("MIME-Version", "1.0"),
    ]
    if reply_to := _reply_to(payload):
        headers.append(("Reply-To", reply_to.address))
    if url := _unsubscribe_url(payload) or unsubscribe:
        headers.append(("List-Unsubscribe", f"<{url}>"))
        headers.append(("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"))
    part = _words_part(message, url)
    if attachments:
        files = [_file_part(attachment) for attachment in attachments]
        part = _several("mixed", f"{message.delivery_id}-f", [part, *files])
    return Mail([*headers, *part.headers], part.body)


def subject(message: Message) -> str:
    """`payload.subject`, else the title, else the notification's type."""
    given = message.payload.get("subject")
    words = given if isinstance(given, str) and given else message.title or message.type
    return one_line(words)[:SUBJECT_LIMIT]


def message_id(message: Message, sender: Mailbox) -> str:
    """The same for every attempt of a delivery."""
    return f"<allim.{message.delivery_id}.{message.notification_id}@{sender.domain}>"


def plain_text(message: Message, html: str | None = None) -> str:
    """The text part: the message, else the HTML without its tags, else the title."""
    if message.message:
        return _text(message.message)
    if html:
        return text_of_html(html)
    return _text(message.title or "")


def payload_problems(payload: Mapping[str, object]) -> list[tuple[str, str]]:
    """What is wrong with the e-mail's part of a payload, as (key, words)."""
    problems = [
        (key, "must be text")
        for key in ("html", "subject")
        if payload.get(key) is not None and not isinstance(payload[key], str)
    ]
    if payload.get("reply_to") is not None and _reply_to(payload) is None:
        problems.append(("reply_to", "is not an e-mail address"))
    if payload.get("unsubscribe_url") is not None and _unsubscribe_url(payload) is None:
        problems.append(("unsubscribe_url", "must be an https:// URL"))
    return problems


def _reply_to(payload: Mapping[str, object]) -> Mailbox | None:
    given = payload.get("reply_to")
    try:
        mailbox = parse_mailbox(given) if isinstance(given, str) else None
    except ValueError:
        return None
    return mailbox if mailbox and not mailbox.needs_smtputf8 else None


def _unsubscribe_url(payload: Mapping[str, object]) -> str | None:
    given = payload.get("unsubscribe_url")
    if isinstance(given, str) and re.fullmatch(r"https://[\x21-\x3b\x3d\x3f-\x7e]{3,900}", given):
        return given
    return None


def _sender(sender: Mailbox) -> str:
    return f"{_words(sender.name, 'From')} <{sender.address}>" if sender.name else sender.address


def _words(text: str, header: str) -> str:
    """Text as a header's value; RFC 2047 words unless it is plain to any reader."""
    if len(text) < PLAIN_LIMIT and PLAIN.fullmatch(text):
        return text
    return Header(text, "utf-8", header_name=header).encode(linesep="\r\n")


def _words_part(message: Message, unsubscribe: str | None) -> Mail:
    """What the mail says: its text, and its HTML beside it."""

    def filled_in(words: str) -> str:
        return words.replace(UNSUBSCRIBE_PLACE, unsubscribe) if unsubscribe else words

    html = message.payload.get("html")
    html = _text(html) if isinstance(html, str) and html else None
    text = _text_part("plain", filled_in(plain_text(message, html)))
    if html is None:
        return text
    return _several(
        "alternative", f"{message.delivery_id}-w", [text, _text_part("html", filled_in(html))]
    )


def _several(kind: str, mark: str, parts: Sequence[Mail]) -> Mail:
    """Several parts in one.

    No boundary can stand in a part: "=_" occurs neither in base64 nor in quoted-printable, and
    the marks differ.
    """
    boundary = f"=_allim-{mark}"
    between = f"--{boundary}\r\n".encode()
    body = b"".join(between + part.content() + b"\r\n" for part in parts)
    head = ("Content-Type", f'multipart/{kind}; boundary="{boundary}"')
    return Mail([head], body + f"--{boundary}--\r\n".encode())


def _text_part(kind: str, text: str) -> Mail:
    """One part: quoted-printable where most of it is ASCII, else base64."""
    content = (text.replace("\r\n", "\n").replace("\r", "\n") + "\n").encode()
    if len(content) - len(text) > len(text) // 4:
        encoding, encoded = "base64", base64.encodebytes(content.replace(b"\n", b"\r\n"))
    else:
        encoding, encoded = "quoted-printable", binascii.b2a_qp(content)
    head = [
        ("Content-Type", f"text/{kind}; charset=utf-8"),
        ("Content-Transfer-Encoding", encoding),
    ]
    return Mail(head, encoded.replace(b"\n", b"\r\n"))


def _file_part(attachment: Attachment) -> Mail:
    """A file; a name beyond ASCII is written as RFC 2231 has it."""
    name = _text(one_line(attachment.filename))
    if re.fullmatch(r"[A-Za-z0-9 ._()-]+", name):
        disposition = f'attachment; filename="{name}"'
    else:
        disposition = f"attachment;\r\n filename*=UTF-8''{quote(name, safe='')}"
    head = [
        ("Content-Type", attachment.content_type),
        ("Content-Disposition", disposition),
        ("Content-Transfer-Encoding", "base64"),
    ]
    return Mail(head, base64.encodebytes(attachment.content).replace(b"\n", b"\r\n"))


def _lines(headers: Iterable[tuple[str, str]]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode()


def _text(text: str) -> str:
    """Text that can be encoded: lone surrogates replaced, NUL left out."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()
