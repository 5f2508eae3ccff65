"""What a caller may ask of templates, and what is shown of them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, to_json

from allim.hub.model import ChannelName, Language, Recipient, TenantId, Text, Title, Word
from allim.hub.views import Moment

Code = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x20/?#%\x7f]+$")
]
"""A template's code: no spaces, nothing that an address would need to escape."""
Version = Annotated[int, Field(ge=1, le=2**31 - 1)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TemplateRequest(_Body):
    """A new version of a template."""

    code: Code = Field(examples=["ORDER_DONE"])
    channel: ChannelName = Field(examples=["EMAIL"])
    language: Language | None = Field(default=None, examples=["ko"])
    tenant_id: TenantId | None = Field(default=None, description="For one tenant; else for all")
    description: Title | None = None
    subject: Title | None = Field(
        default=None, description="The subject of a mail; the title of anything else (Jinja)"
    )
    body: Text | None = Field(
        default=None, description="The text (Jinja); of ALIMTALK the approved text with #{name}"
    )
    html: Text | None = Field(default=None, description="HTML of a mail (Jinja); EMAIL only")
    blocks: Text | None = Field(
        default=None, description="Block Kit, as JSON or as a text that makes it; SLACK only"
    )

    @field_validator("blocks", mode="before")
    @classmethod
    def _as_text(cls, blocks: Any) -> Any:
        return to_json(blocks).decode() if isinstance(blocks, list | dict) else blocks

    @model_validator(mode="after")
    def _has_content(self) -> TemplateRequest:
        if not (self.subject or self.body or self.html or self.blocks):
            raise PydanticCustomError("empty", "needs a subject, a body, html or blocks")
        return self


class PreviewRequest(_Body):
    """A notification that is only shown."""

    channel: ChannelName
    language: Language | None = None
    version: Version | None = None
    tenant_id: TenantId | None = None
    source: Word = "preview"
    type: Word = "PREVIEW"
    title: Title | None = None
    message: Text | None = None
    recipient: Recipient | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    payload: dict[str, Any] | None = None


class PreviewView(BaseModel):
    """What would be sent."""

    code: str
    channel: str
    language: str | None
    version: int
    title: str | None
    message: str | None
    payload: dict[str, Any]


class TemplateView(BaseModel):
    """One version of a template."""

    id: int
    tenant_id: int | None
    code: str
    channel: str
    language: str | None
    version: int
    description: str | None
    subject: str | None
    body: str | None
    html: str | None
    blocks: str | None
    active: bool
    created_by: str
    created_at: Moment
