"""Which templates a request names."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from allim.hub.model import DeliveryRequest, NotificationRequest

if TYPE_CHECKING:
    from allim.hub.templates.rendering import StoredTemplate


@dataclass(frozen=True, slots=True)
class Named:
    """What a delivery asks for: by itself, or by its parent's word where it says nothing.

    A template is inherited within one channel only, the language everywhere: it is the person's.
    """

    channel: str
    code: str | None
    language: str | None
    version: int | None

    @classmethod
    def by(cls, delivery: DeliveryRequest, parent: Named | None) -> Named:
        """What `delivery` asks for, beneath `parent`."""
        if (parent is None or parent is NOTHING) and not (
            delivery.template_code or delivery.language or delivery.template_version
        ):
            return NOTHING
        code, version = delivery.template_code, delivery.template_version
        if code is None and parent is not None and parent.channel == delivery.channel:
            code = parent.code
            version = parent.version if version is None else version
        language = delivery.language or (parent.language if parent is not None else None)
        return cls(delivery.channel, code, language, version)


NOTHING = Named("", None, None, None)
"""Asked for by nearly all deliveries, so it is made once."""


@dataclass(frozen=True, slots=True)
class NotStored:
    """There is no such template; `languages` are those that its code has, where it has any."""

    languages: tuple[str, ...] = ()


Wanted = tuple[int | None, Named]
"""A tenant, and what it asks for."""

CPU_SECONDS = 20.0
WRITTEN = 32 * 1024 * 1024


class TooMuch(Exception):
    """A request whose templates take too long in all, or make too much."""


class Templates(Mapping[Wanted, "StoredTemplate | NotStored"]):
    """What was found for one request, and what rendering may cost it in all.

    One template has its own limits, but a request may name it for a thousand recipients.
    """

    def __init__(self, found: Mapping[Wanted, StoredTemplate | NotStored]) -> None:
        self._found = found
        self._seconds = CPU_SECONDS
        self._size = WRITTEN

    def __getitem__(self, wanted: Wanted) -> StoredTemplate | NotStored:
        """What was found."""
        return self._found[wanted]

    def __iter__(self) -> Iterator[Wanted]:
        """All that was asked for."""
        return iter(self._found)

    def __len__(self) -> int:
        """How many were asked for."""
        return len(self._found)

    @property
    def any_stored(self) -> bool:
        """Whether there is anything to render."""
        return any(not isinstance(found, NotStored) for found in self._found.values())

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Render within this. Raises TooMuch where nothing is left, before anything is done."""
        if self._seconds < 0 or self._size < 0:
            raise TooMuch(
                f"takes more than {CPU_SECONDS:g} s or makes more than {WRITTEN} bytes for all"
                " deliveries of the request"
            )
        began = time.thread_time()
        yield
        self._seconds -= time.thread_time() - began

    def made(self, size: int) -> None:
        """So much was made."""
        self._size -= size


def wanted_by(request: NotificationRequest, tenant: int | None) -> set[Wanted]:
    """Every template that a request names, at any depth; mostly none."""
    for delivery in request.deliveries:
        if delivery.template_code is not None or delivery.then or delivery.fallback:
            return {(tenant, named) for named in _walk(request.deliveries, None)}
    return set()


def _walk(deliveries: list[DeliveryRequest], parent: Named | None) -> Iterator[Named]:
    for delivery in deliveries:
        named = Named.by(delivery, parent)
        if named.code is not None:
            yield named
        if delivery.then:
            yield from _walk(delivery.then, named)
        if delivery.fallback:
            yield from _walk(delivery.fallback, named)
