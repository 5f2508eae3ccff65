"""What it means that no answer came."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Literal

from allim.channels.ssrf import NOT_PUBLIC, AddressBlocked

FailureCode = Literal[
    "connect_failed", "timeout", "connection_lost", "bad_answer", "blocked_address", "invalid_url"
]


class HttpFailure(Exception):
    """No answer came. `ambiguous`: the request may have reached the server all the same.

    The text is a sentence for people; it never holds the URL.
    """

    def __init__(self, code: FailureCode, sentence: str, *, ambiguous: bool = False) -> None:
        super().__init__(sentence)
        self.code: FailureCode = code
        self.ambiguous = ambiguous


def timed_out() -> HttpFailure:
    """The request was sent, and its time is over."""
    return HttpFailure("timeout", "no answer within the time limit", ambiguous=True)


def connection_lost() -> HttpFailure:
    """The request was sent, and the connection ended instead of an answer."""
    return HttpFailure(
        "connection_lost", "the connection broke before an answer came", ambiguous=True
    )


def bad_answer() -> HttpFailure:
    """The request was sent, and what came is no answer."""
    return HttpFailure("bad_answer", "what came back is not HTTP", ambiguous=True)


def closed() -> HttpFailure:
    """The client is closed, or was while the connection was made: nothing has been sent."""
    return HttpFailure("connect_failed", "the client is closed")


def of_connecting(error: OSError | ValueError) -> HttpFailure:
    """What an exception means before there was a connection; sentences never name the address."""
    # A name that IDNA, or TLS, does not take; what TLS says of a certificate is both.
    if not isinstance(error, OSError):
        return HttpFailure("invalid_url", "the URL cannot be called")
    if isinstance(error, AddressBlocked):
        return HttpFailure("blocked_address", f"the URL {NOT_PUBLIC}")
    if isinstance(error, socket.gaierror):
        return HttpFailure("connect_failed", "the host name could not be resolved")
    if isinstance(error, ssl.SSLCertVerificationError):
        return HttpFailure("connect_failed", "the server's certificate is not trusted")
    if isinstance(error, TimeoutError):
        return HttpFailure("timeout", "no connection within the time limit")
    return HttpFailure("connect_failed", f"could not connect: {_reason(error)}")


def _reason(error: OSError) -> str:
    """The system's or TLS's words; those of asyncio would repeat the address."""
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason})" if error.reason else "TLS failed"
    return os.strerror(error.errno).lower() if error.errno else type(error).__name__
