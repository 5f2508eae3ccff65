"""Sending mail through one SMTP server, over a few kept connections."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from enum import StrEnum

import aiosmtplib
from aiosmtplib import SMTP, SMTPException, SMTPResponseException, SMTPServerDisconnected

from allim.channels.smtp_server import SmtpServer, StartTls

IDLE_LIMIT = 60.0
"""Seconds after which an idle connection is not used again."""
PROBE_AFTER = 5.0
"""Seconds of idleness after which a connection is asked (NOOP) whether it still lives."""
PROBE_PATIENCE = 3.0
MAILS_PER_CONNECTION = 200

START_TLS = {StartTls.AUTO: None, StartTls.REQUIRED: True, StartTls.NEVER: False}
"""What aiosmtplib calls them."""


class Stage(StrEnum):
    """How far a mail had come when something went wrong."""

    CONNECT = "connect"
    LOGIN = "login"
    SENDER = "sender"
    RECIPIENT = "recipient"
    CONTENT = "content"


class SmtpFailure(Exception):
    """The mail was not taken, or nobody can say.

    `reply` is the server's code and words where it gave any. `ambiguous`: the content was
    on its way, so the mail may have been taken. The text never holds a secret.
    """

    def __init__(
        self,
        code: str,
        sentence: str,
        *,
        stage: Stage,
        reply: tuple[int, str] | None = None,
        ambiguous: bool = False,
    ) -> None:
        super().__init__(sentence)
        self.code = code
        self.stage = stage
        self.reply = reply
        self.ambiguous = ambiguous


class _Connection:
    """One connection and what it has been through."""

    def __init__(self, client: SMTP) -> None:
        self.client = client
        self.mails = 0
        self.idle_since = 0.0

    @property
    def worn_out(self) -> bool:
        return self.mails >= MAILS_PER_CONNECTION or not self.client.is_connected


class SmtpPool:
    """Hands mails to one server; as many connections as there are mails on their way at once.

    `command_timeout` is seconds for each step of the conversation.
    """

    def __init__(
        self, server: SmtpServer, *, command_timeout: float, helo_name: str | None = None
    ) -> None:
        self._server = server
        self._command_timeout = command_timeout
        self._helo_name = helo_name
        self._tls: ssl.SSLContext | None = None
        self._idle: deque[_Connection] = deque()

    async def send(
        self, *, sender: str, recipient: str, content: bytes, smtputf8: bool, timeout: float
    ) -> str:
        """Send one mail within `timeout` seconds; the server's last words.

        Raises SmtpFailure. A kept connection that turns out dead before the content was on
        its way is replaced by a new one; that is no failure of the mail.
        """
        conversation = _Conversation(sender, recipient, content, smtputf8)
        try:
            async with asyncio.timeout(timeout):
                kept = await self._kept()
                if kept is not None:
                    try:
                        return await self._converse(kept, conversation)
                    except SmtpFailure as failure:
                        if failure.stage is not Stage.SENDER or failure.code not in (
                            "connection_lost",
                            "smtp_421",
                        ):
                            raise
                return await self._converse(await self._connect(conversation), conversation)
        except TimeoutError:
            raise conversation.timed_out() from None

    async def probe(self) -> None:
        """Connect, log in and say goodbye. Raises SmtpFailure."""
        conversation = _Conversation("", "", b"", False)
        try:
            async with asyncio.timeout(self._command_timeout):
                connection = await self._connect(conversation)
                await self._quit(connection)
        except TimeoutError:
            raise conversation.timed_out() from None

    async def close(self) -> None:
        """Say goodbye on every idle connection."""
        idle, self._idle = list(self._idle), deque()
        await asyncio.gather(*(self._quit(connection) for connection in idle))

    async def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            idle_for = time.monotonic() - connection.idle_since
            if connection.worn_out or idle_for > IDLE_LIMIT:
                connection.client.close()
            elif idle_for < PROBE_AFTER or await self._lives(connection):
                return connection
        return None

    async def _lives(self, connection: _Connection) -> bool:
        try:
            await connection.client.noop(timeout=PROBE_PATIENCE)
        except (SMTPException, OSError):
            connection.client.close()
            return False
        except BaseException:
            # The mail's time is over: nobody knows of this connection any more.
            connection.client.close()
            raise
        return True

    async def _connect(self, conversation: _Conversation) -> _Connection:
        server = self._server
        client = SMTP(
            hostname=server.host,
            port=server.port,
            use_tls=server.implicit_tls,
            start_tls=START_TLS[server.starttls],
            tls_context=self._tls_context(),
            timeout=self._command_timeout,
            local_hostname=self._helo_name,
        )
        conversation.stage = Stage.CONNECT
        try:
            await client.connect()
            self._helo_name = client.local_hostname
            if server.username is not None:
                conversation.stage = Stage.LOGIN
                await client.login(server.username, server.password or "")
        except (SMTPException, OSError, ValueError) as error:
            client.close()
            raise _failure(error, conversation.stage) from None
        except BaseException:
            client.close()
            raise
        return _Connection(client)

    async def _converse(self, connection: _Connection, conversation: _Conversation) -> str:
        try:
            words = await conversation.run(connection.client)
        except SMTPResponseException as error:
            await self._reset(connection)
            raise _failure(error, conversation.stage) from None
        except (SMTPException, OSError, ValueError) as error:
            connection.client.close()
            raise _failure(error, conversation.stage) from None
        except BaseException:
            connection.client.close()
            raise
        await self._keep(connection)
        return words

    async def _reset(self, connection: _Connection) -> None:
        """Take back the envelope that was refused, so that the connection can be used again."""
        try:
            await connection.client.rset(timeout=PROBE_PATIENCE)
        except (SMTPException, OSError):
            connection.client.close()
        except BaseException:
            connection.client.close()
            raise
        else:
            await self._keep(connection)

    async def _keep(self, connection: _Connection) -> None:
        connection.mails += 1
        connection.idle_since = time.monotonic()
        if connection.worn_out:
            await self._quit(connection)
        else:
            self._idle.append(connection)

    async def _quit(self, connection: _Connection) -> None:
        try:
            await connection.client.quit(timeout=PROBE_PATIENCE)
        except (SMTPException, OSError):
            pass
        finally:
            connection.client.close()

    def _tls_context(self) -> ssl.SSLContext | None:
        if self._server.starttls is StartTls.NEVER and not self._server.implicit_tls:
            return None
        if self._tls is None:
            self._tls = ssl.create_default_context()
            if not self._server.verify:
                self._tls.check_hostname = False
                self._tls.verify_mode = ssl.CERT_NONE
        return self._tls


class _Conversation:
    """One mail handed over; remembers how far it came."""

    def __init__(self, sender: str, recipient: str, content: bytes, smtputf8: bool) -> None:
        self.stage = Stage.CONNECT
        self._sender = sender
        self._recipient = recipient
        self._content = content
        self._smtputf8 = smtputf8

    async def run(self, client: SMTP) -> str:
        self.stage = Stage.SENDER
        if self._smtputf8 and not client.supports_extension("smtputf8"):
            raise aiosmtplib.SMTPNotSupported("SMTPUTF8")
        options = ["SMTPUTF8"] if self._smtputf8 else []
        if client.supports_extension("size"):
            options.append(f"SIZE={len(self._content)}")
        encoding = "utf-8" if self._smtputf8 else "ascii"
        await client.mail(self._sender, options=options, encoding=encoding)
        self.stage = Stage.RECIPIENT
        await client.rcpt(self._recipient, encoding=encoding)
        self.stage = Stage.CONTENT
        return (await client.data(self._content)).message

    def timed_out(self) -> SmtpFailure:
        return _failure(TimeoutError(), self.stage)


def _failure(error: Exception, stage: Stage) -> SmtpFailure:
    if isinstance(error, SMTPResponseException):
        if error.code <= 0:
            return SmtpFailure(
                "bad_answer", "what came back is not SMTP", stage=stage, ambiguous=_late(stage)
            )
        return SmtpFailure(
            f"smtp_{error.code}",
            f"the server answered {error.code} to the {stage}",
            stage=stage,
            reply=(error.code, error.message),
        )
    if isinstance(error, aiosmtplib.SMTPNotSupported):
        return SmtpFailure(
            "smtputf8_unsupported", "the server takes no address of this kind", stage=stage
        )
    if isinstance(error, TimeoutError):
        return SmtpFailure(
            "timeout", f"no answer to the {stage} in time", stage=stage, ambiguous=_late(stage)
        )
    if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        return SmtpFailure("tls_failed", "no TLS with the server", stage=stage)
    if stage is Stage.CONNECT and isinstance(error, (OSError, SMTPServerDisconnected)):
        return SmtpFailure("connect_failed", "could not connect to the server", stage=stage)
    if isinstance(error, (OSError, SMTPServerDisconnected)):
        return SmtpFailure(
            "connection_lost", f"lost at the {stage}", stage=stage, ambiguous=_late(stage)
        )
    return SmtpFailure("unusable", _without_secrets(error), stage=stage)


def _late(stage: Stage) -> bool:
    return stage is Stage.CONTENT


def _without_secrets(error: Exception) -> str:
    """The library's own sentences name neither user nor password; anything else is not shown."""
    return error.message if isinstance(error, SMTPException) else type(error).__name__
