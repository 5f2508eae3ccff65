"""Who may ask for what: principals, scopes, and the middleware that checks both.

With no API key anywhere, every request is let in, and the server may only listen on loopback
addresses. Once a key exists, every route but the exempt ones needs one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allim.base.errors import ConfigurationError, Forbidden
from allim.web.bodies import BODY_LIMIT, check_declared_size, too_large
from allim.web.problems import Refused, Unauthenticated, problem_of

Refusal = Callable[[Exception], Response]
"""Makes the answer to a request that went wrong."""

PRINCIPAL = "allim.principal"
"""Where the middleware puts the principal in the ASGI scope."""

EXEMPT_PREFIXES = ("/health/", "/receipts/", "/console/", "/unsubscribe/", "/ingest/github")
CONSOLE = "/console"
"""Paths that need no key: probes, what is signed by a secret of its own (receipts, GitHub's
events), signed links, and the console, which has sessions of its own before every page."""
SIGNED_PREFIX = "/unsubscribe/"
"""Whose paths prove themselves what may be done: it is the same from whatever page."""

NO_KEY = "an API key is needed, as the header `Authorization: Bearer <token>`"
UNKNOWN_KEY = "the API key is not known, or was revoked"

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_SECURITY_HEADERS: list[tuple[bytes, bytes]] = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
]


class AccessScope(StrEnum):
    """What a key allows. ADMIN allows everything, OPERATE also allows READ."""

    SEND = "send"
    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"


_IMPLIED = {
    AccessScope.ADMIN: frozenset(AccessScope),
    AccessScope.OPERATE: frozenset({AccessScope.OPERATE, AccessScope.READ}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever asks: the name of its key, what the key allows, and the one tenant it may see."""

    name: str
    scopes: frozenset[AccessScope]
    tenant_id: int | None = None

    @classmethod
    def of(cls, name: str, scopes: Sequence[AccessScope], tenant_id: int | None) -> Principal:
        """A principal with every scope that `scopes` imply."""
        implied: set[AccessScope] = set()
        for scope in scopes:
            implied |= _IMPLIED.get(scope, frozenset({scope}))
        return cls(name, frozenset(implied), tenant_id)

    def require(self, *scopes: AccessScope) -> None:
        """Raise Forbidden, naming the scopes, unless the key allows one of them."""
        if self.scopes.isdisjoint(scopes):
            named = " or ".join(repr(scope.value) for scope in scopes)
            raise Forbidden("missing_scope", f"this key does not have the scope {named}")


ANYBODY = Principal("anybody", frozenset(AccessScope))
"""Who asks where no key is configured."""


class KeyRing(Protocol):
    """Knows the keys."""

    async def authenticate(self, authorization: bytes | None) -> Principal | None:
        """The principal of an `Authorization` header.

        ANYBODY where there are no keys at all; None where there are and this is none of them.
        """


def principal_of(connection: HTTPConnection) -> Principal:
    """The principal that the middleware found."""
    principal = connection.scope.get(PRINCIPAL)
    if not isinstance(principal, Principal):
        raise Unauthenticated("unauthenticated", NO_KEY)
    return principal


def requires(
    *scopes: AccessScope, every_tenant: bool = False
) -> Callable[[HTTPConnection], Awaitable[Principal]]:
    """A FastAPI dependency: the principal, who must have one of `scopes`.

    `every_tenant` is for what is not divided by tenants: a key of one tenant may not see it.
    """

    async def check(connection: HTTPConnection) -> Principal:
        principal = principal_of(connection)
        principal.require(*scopes)
        if every_tenant and principal.tenant_id is not None:
            raise Forbidden(
                "tenant_key",
                f"this key is for tenant {principal.tenant_id} alone, and this is about all"
                " tenants: use a key without a tenant",
            )
        return principal

    return check


def refuse_open_bind(host: str, keys_exist: bool) -> None:
    """Raise ConfigurationError for a server without keys that others could reach."""
    if keys_exist or is_loopback(host):
        return
    raise ConfigurationError(
        f"ALLIM_HOST={host} can be reached from outside, but there is no API key: create one with"
        " `allim key create`, set ALLIM_API_KEYS, or listen on 127.0.0.1"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on this address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class AccessMiddleware:
    """Checks host, origin, size and key of every request, and answers what goes wrong.

    Pure ASGI: it stands before every request. `fast` are routes by method and path that it
    calls itself; everything else is the application's. `body_limits` gives single paths
    another limit (bytes); `refusals`, by the beginning of a path, another shape of refusal
    than a problem document.
    """

    def __init__(
        self,
        *,
        keys: KeyRing,
        allowed_hosts: Sequence[str],
        fast: Mapping[tuple[str, str], ASGIApp] | None = None,
        body_limits: Mapping[str, int] | None = None,
        refusals: Mapping[str, Refusal] | None = None,
    ) -> None:
        self._fast = fast or {}
        self._keys = keys
        self._any_host = "*" in allowed_hosts
        self._hosts = frozenset(host.lower() for host in allowed_hosts)
        self._suffixes = tuple(host[1:].lower() for host in allowed_hosts if host[:2] == "*.")
        self._body_limits = body_limits or {}
        self._refusals = refusals or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send, app: ASGIApp) -> None:
        """Serve one connection, the most of them by `app`."""
        if scope["type"] != "http":
            if scope["type"] != "websocket":
                await app(scope, receive, send)
            return
        started = ended = False

        async def send_secured(message: Message) -> None:
            nonlocal started, ended
            if message["type"] == "http.response.body":
                ended = not message.get("more_body", False)
            elif message["type"] == "http.response.start":
                started = True
                headers = list(message.get("headers", ()))
                present = {name for name, _ in headers}
                headers += [pair for pair in _SECURITY_HEADERS if pair[0] not in present]
                if message["status"] == 413:
                    # Or the server would go on reading what nobody wants.
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            await send(message)

        try:
            await self._admit(scope)
            serve = self._fast.get((scope["method"], scope["path"]), app)
            await serve(scope, self._limited(scope, receive), send_secured)
        except ClientDisconnect:
            return
        except Exception as error:  # The outermost boundary: the client hears of it.
            if ended:
                return  # FastAPI answers first and raises then; it was told and logged.
            if started:
                raise
            refuse = self._refusal_for(scope["path"])
            await refuse(error)(scope, receive, send_secured)

    def _refusal_for(self, path: str) -> Refusal:
        found = (say for prefix, say in self._refusals.items() if path.startswith(prefix))
        return next(found, problem_of)

    async def _admit(self, scope: Scope) -> None:
        path: str = scope["path"]
        host = origin = site = authorization = None
        for name, value in scope["headers"]:
            if name == b"host":
                host = value
            elif name == b"authorization":
                authorization = value
            elif name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
        exempt = path.startswith(EXEMPT_PREFIXES) or path in (CONSOLE, "/")
        if not self._any_host and not path.startswith("/health/"):
            self._check_host(host)
        if scope["method"] not in _SAFE_METHODS and not path.startswith(SIGNED_PREFIX):
            _check_same_site(host, origin, site)
        if exempt:
            return
        principal = await self._keys.authenticate(authorization)
        if principal is None:
            raise Unauthenticated(
                "unauthenticated",
                UNKNOWN_KEY if authorization else NO_KEY,
            )
        scope[PRINCIPAL] = principal

    def _check_host(self, host: bytes | None) -> None:
        name = (host or b"").decode("latin-1").lower()
        bare = name if name.endswith("]") else name.rsplit(":", 1)[0]
        if bare in self._hosts or (self._suffixes and bare.endswith(self._suffixes)):
            return
        raise Refused(400, "host_not_allowed", "the Host header is not one of ALLIM_ALLOWED_HOSTS")

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        if scope["method"] in _SAFE_METHODS:
            return receive
        limit = self._body_limits.get(scope["path"], BODY_LIMIT)
        check_declared_size(scope, limit)
        seen = 0

        async def receive_limited() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    raise too_large(limit)
            return message

        return receive_limited


def _check_same_site(host: bytes | None, origin: bytes | None, site: bytes | None) -> None:
    """Refuse what a page of another site makes a browser send: it would come with our trust."""
    crossing = site is not None and site not in (b"same-origin", b"none")
    if origin is not None and not crossing:
        theirs = urlsplit(origin.decode("latin-1")).netloc.lower()
        crossing = theirs != (host or b"").decode("latin-1").lower()
    if crossing:
        raise Refused(403, "cross_site", "requests from pages of other sites are refused")
