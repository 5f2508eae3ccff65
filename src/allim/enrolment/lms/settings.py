"""Which LMS, how to log in, and how patient to be with it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, SecretStr, field_validator
from yarl import URL

from allim.base.settings import SettingsGroup


class LmsKind(StrEnum):
    """The LMSs there are clients for."""

    KVCA = "kvca"
    MOODLE = "moodle"
    SAMPLE = "sample"


class LmsSettings(SettingsGroup):
    """The LMS that enrolments are read from."""

    lms_kind: LmsKind | None = Field(
        None,
        description="kvca, moodle, or sample (a small built-in data set). Not set: no sync.",
    )
    lms_base_url: str | None = Field(
        None,
        description="Where the LMS is, as https://lms.example.com or https://example.com/moodle.",
    )
    lms_username: str | None = Field(None, description="The user that logs in (kvca).")
    lms_password: SecretStr | None = Field(None, description="That user's password (kvca).")
    lms_token: SecretStr | None = Field(None, description="The web service token (moodle).")
    lms_timeout_seconds: float = Field(
        30.0,
        gt=0,
        le=600,
        description="The longest wait for one answer to begin, and for more of one to come.",
    )
    lms_retries: int = Field(
        3,
        ge=0,
        le=10,
        description="How often a call is tried again after 429, 5xx, a timeout or a broken"
        " connection. All of it stays below three quarters of JOB_LOCK_SECONDS.",
    )
    lms_concurrency: int = Field(
        8, ge=1, le=100, description="The most calls of one run that wait for an answer at once."
    )
    lms_moodle_completion: bool = Field(
        False,
        description="Ask Moodle who has completed a course: one call a user, so it is off unless"
        " wanted.",
    )

    @field_validator("lms_base_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            url = URL(value)
        except ValueError:
            raise ValueError("cannot be read as a URL") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("must begin with http:// or https:// and name a host")
        if url.user or url.password or url.query_string or url.fragment:
            raise ValueError("must have no user, password, query or fragment")
        return value.rstrip("/")
