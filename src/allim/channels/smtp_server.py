"""Where an SMTP server is and how it is reached, as SMTP_URL says."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qsl, unquote, urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class StartTls(StrEnum):
    """Whether the connection is turned into TLS after it stands."""

    AUTO = "auto"
    REQUIRED = "required"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """One server, and who we are to it."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    implicit_tls: bool = False
    starttls: StartTls = StartTls.AUTO
    verify: bool = True

    @classmethod
    def of_url(cls, url: str) -> SmtpServer:
        """Read ``smtp://user:password@host:port?starttls=auto|required|never&verify=no``.

        ``smtps://`` is TLS from the first byte. Ports default to 465 for smtps, 587 with a
        password or required STARTTLS, else 25. With a password STARTTLS is required, unless
        the host is this machine or the URL says otherwise. Raises ValueError without showing
        the URL.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ValueError("is not a URL") from None
        options = dict(parse_qsl(parts.query))
        if parts.scheme not in ("smtp", "smtps") or not host:
            raise ValueError("must be smtp://host or smtps://host")
        if unknown := set(options) - {"starttls", "verify"}:
            raise ValueError(f"has unknown options: {', '.join(sorted(unknown))}")
        implicit = parts.scheme == "smtps"
        password = unquote(parts.password) if parts.password is not None else None
        safe = StartTls.REQUIRED if password and host not in LOOPBACK else StartTls.AUTO
        try:
            starttls = StartTls(options.get("starttls", StartTls.NEVER if implicit else safe))
        except ValueError:
            raise ValueError("has a starttls option other than auto, required, never") from None
        submission = password is not None or starttls is StartTls.REQUIRED
        default_port = 465 if implicit else 587 if submission else 25
        return cls(
            host,
            port or default_port,
            unquote(parts.username) if parts.username else None,
            password,
            implicit,
            starttls,
            options.get("verify", "yes") not in ("no", "false", "0"),
        )
