"""Which account of Solapi, and whether anything is really sent."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from allim.base.settings import SettingsGroup
from allim.channels.hooks import require_url
from allim.channels.korean_sms import OPT_OUT_NUMBER, normalise_sender, unsendable

YES = frozenset({"1", "true", "yes", "on"})


class SolapiSettings(SettingsGroup):
    """The account of Solapi that texts and Alimtalk go by."""

    solapi_api_key: SecretStr | None = Field(
        None, description="The API key. Not set: texts and Alimtalk succeed without a call."
    )
    solapi_api_secret: SecretStr | None = Field(None, description="The secret of that key.")
    solapi_sender: str | None = Field(
        None, description="The registered number that texts come from, 8 to 11 digits."
    )
    solapi_base_url: str = Field(
        "https://api.solapi.com", description="Where Solapi is; for tests and proxies."
    )
    solapi_mock: bool = Field(
        False, description="Print what would be sent on stdout as JSON, and call nobody."
    )
    debug: str | None = Field(
        None, description="DEBUG=true does the same as SOLAPI_MOCK=true; other values are ignored."
    )
    solapi_ad_sender_name: str | None = Field(
        None, description="Who sends advertisements; stands after their mark (광고)."
    )
    solapi_ad_opt_out: str | None = Field(
        None, description="The free number (080…) by which people opt out of advertisements."
    )

    @field_validator("debug")
    @classmethod
    def _is_on(cls, value: str | None) -> str | None:
        return value if (value or "").strip().lower() in YES else None

    @field_validator("solapi_sender")
    @classmethod
    def _is_number(cls, value: str | None) -> str | None:
        return None if value is None else normalise_sender(value)

    @field_validator("solapi_base_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        require_url(value)
        return value.rstrip("/")

    @field_validator("solapi_ad_sender_name")
    @classmethod
    def _is_sendable(cls, value: str | None) -> str | None:
        if value and (wrong := unsendable(value)):
            raise ValueError(f"cannot be sent: {wrong[0]}")
        return value

    @field_validator("solapi_ad_opt_out")
    @classmethod
    def _is_free(cls, value: str | None) -> str | None:
        if value and not OPT_OUT_NUMBER.fullmatch(value.replace("-", "").replace(" ", "")):
            raise ValueError("must be a free number that begins with 080")
        return value

    @model_validator(mode="after")
    def _are_both(self) -> Self:
        if (self.solapi_api_key is None) != (self.solapi_api_secret is None):
            raise ValueError("SOLAPI_API_KEY and SOLAPI_API_SECRET are needed together")
        return self

    @property
    def mock(self) -> bool:
        """Whether nothing is sent, only printed."""
        return self.solapi_mock or self.debug is not None

    @property
    def mode(self) -> str:
        """`live`, `mock` or `not_configured`."""
        if self.mock:
            return "mock"
        return "live" if self.solapi_api_key is not None else "not_configured"
