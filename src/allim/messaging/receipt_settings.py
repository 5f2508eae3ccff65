"""How reports of texts come in."""

from __future__ import annotations

from pydantic import Field, SecretStr

from allim.base.settings import SettingsGroup


class ReceiptSettings(SettingsGroup):
    """How Solapi's reports come in: by webhook, by asking, or both."""

    solapi_webhook_secret: SecretStr | None = Field(
        None,
        description="The secret of the webhook that calls /receipts/solapi. Not set: the route"
        " refuses, and groups are asked for.",
    )
    solapi_report_poll_seconds: float = Field(
        60.0,
        ge=0,
        le=86400,
        description="How long after a send a group is asked what became of it, later each time"
        " up to once an hour; 0: only when the webhook speaks of it.",
    )


class EmailReceiptSettings(SettingsGroup):
    """How bounces and complaints of mails come in."""

    email_webhook_secret: SecretStr | None = Field(
        None,
        min_length=16,
        description="What calls of /receipts/email must bring, as X-Allim-Secret, bearer token or"
        " password; at least 16 characters. Not set: the route refuses.",
    )
