"""What a delivery says: its own words, else those of the delivery that it follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from allim.channels.channel import Channel, Draft, FillsIn, RecipientKind
from allim.hub.model import DeliveryRequest, NotificationRequest
from allim.hub.templates.naming import Named


@dataclass(frozen=True, slots=True)
class Said:
    """What one delivery says, complete but for the notification's own words; handed down so."""

    channel: Channel
    recipient: str | None
    template_code: str | None
    title: str | None
    message: str | None
    payload: Mapping[str, Any] | None
    guard: Mapping[str, Any] | None
    named: Named
    rendered_by: str | None = None
    """The stored template whose words these are."""

    @classmethod
    def by(cls, delivery: DeliveryRequest, channel: Channel, parent: Said | None) -> Said:
        """What `delivery` says, beneath `parent`.

        A recipient is inherited where the channels have the same kind of it, a template and a
        payload within one channel only.
        """
        if parent is None:
            return cls(
                channel,
                delivery.recipient,
                delivery.template_code,
                delivery.title,
                delivery.message,
                delivery.payload,
                delivery.guard,
                Named.by(delivery, None),
            )
        same_channel = parent.channel.name == channel.name
        return cls(
            channel=channel,
            recipient=own_or(
                delivery.recipient, parent.recipient if _agree(parent.channel, channel) else None
            ),
            template_code=own_or(
                delivery.template_code, parent.template_code if same_channel else None
            ),
            title=own_or(delivery.title, parent.title),
            message=own_or(delivery.message, parent.message),
            payload=own_or(delivery.payload, parent.payload if same_channel else None),
            guard=own_or(delivery.guard, parent.guard),
            named=Named.by(delivery, parent.named),
        )

    def filled_in(self, request: NotificationRequest, tenant: int | None) -> Said:
        """With what its channel knows where nothing is said; the same where it knows nothing."""
        if not fills_in(type(self.channel)):
            return self
        assert isinstance(self.channel, FillsIn)
        draft = self.channel.fill_in(self.draft(request, tenant))
        return replace(self, recipient=draft.recipient, template_code=draft.template_code)

    def draft(self, request: NotificationRequest, tenant: int | None) -> Draft:
        """What the channel is asked about, with the notification's words where it has none."""
        return Draft(
            recipient=self.recipient,
            title=own_or(self.title, request.title),
            message=own_or(self.message, request.message),
            template_code=self.template_code,
            payload=self.payload or {},
            tenant_id=tenant,
        )

    def stored_payload(self) -> dict[str, Any]:
        """The payload as it is stored: with the delivery's own title and message in it."""
        payload = dict(self.payload or {})
        if self.title is not None:
            payload["title"] = self.title
        if self.message is not None:
            payload["message"] = self.message
        return payload


@lru_cache(maxsize=256)
def fills_in(kind: type[Channel]) -> bool:
    """Whether channels of a class fill in what a caller leaves out.

    Asked of the class, once: asking a protocol of every delivery would cost a microsecond.
    """
    return issubclass(kind, FillsIn)


def own_or(own: Any, inherited: Any) -> Any:
    """What is said by itself, else what is inherited; an empty text is said, too."""
    return own if own is not None else inherited


def _agree(parent: Channel, child: Channel) -> bool:
    return child.recipient_kind in (parent.recipient_kind, RecipientKind.ANY)
