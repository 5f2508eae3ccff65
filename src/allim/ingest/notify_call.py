"""A call of Apprise's API: `title`, `body`, `type`, `tag`, `format`, as JSON or as a form."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import parse_qsl

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError, from_json

from allim.base.errors import FieldProblem, InvalidRequest, RequestError
from allim.base.validation import invalid_body
from allim.channels.html_text import text_of_html
from allim.hub.model import Text, Title
from allim.ingest.report import Report
from allim.ingest.routing import Source

FORM = "application/x-www-form-urlencoded"
TAGS_LIMIT = 50
_FIELDS_LIMIT = 100
_REPEATED = frozenset({"tag", "tags"})


class NotifyType(StrEnum):
    """Apprise's kinds of notifications."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


class NotifyFormat(StrEnum):
    """What the body is written in."""

    TEXT = "text"
    MARKDOWN = "markdown"
    HTML = "html"


def _tags(value: Any) -> Any:
    """Tags as Apprise takes them: a list, or one text with commas or spaces between."""
    if value is None:
        return []
    if isinstance(value, str):
        return value.replace(",", " ").split()
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return [tag for each in value for tag in _tags(each)]
    raise PydanticCustomError("tags", "must be tags: a text, or a list of texts")


def _lower(value: Any) -> Any:
    return value.strip().lower() or None if isinstance(value, str) else value


def _no_attachment(value: Any) -> Any:
    if value:
        raise PydanticCustomError("attachments", "attachments cannot be taken")
    return value


def _no_urls(value: Any) -> Any:
    if value:
        raise PydanticCustomError(
            "urls", "cannot be given: where it goes is set in INGEST_ROUTES, by the key"
        )
    return value


class NotifyCall(BaseModel):
    """What is asked for. Fields that Apprise's clients add are let pass, but none that matters.

    `message` is what Apprise's json:// calls the body.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    title: Title | None = None
    body: Text = Field(validation_alias=AliasChoices("body", "message"), min_length=1)
    type: Annotated[NotifyType | None, BeforeValidator(_lower)] = None
    format: Annotated[NotifyFormat | None, BeforeValidator(_lower)] = None
    tags: Annotated[list[str], BeforeValidator(_tags)] = Field(
        default_factory=list, validation_alias=AliasChoices("tag", "tags"), max_length=TAGS_LIMIT
    )
    attachments: Annotated[Any, BeforeValidator(_no_attachment)] = None
    attachment: Annotated[Any, BeforeValidator(_no_attachment)] = None
    attach: Annotated[Any, BeforeValidator(_no_attachment)] = None
    urls: Annotated[Any, BeforeValidator(_no_urls)] = None

    @property
    def kind(self) -> NotifyType:
        """How it is meant; a call that does not say informs."""
        return self.type or NotifyType.INFO

    def report(self, key: str) -> Report:
        """What is told."""
        is_html = self.format is NotifyFormat.HTML
        data = {"key": key, "type": self.kind.value, "tags": self.tags}
        if self.format is not None:
            data["format"] = self.format.value
        return Report(
            source=Source.NOTIFY,
            type=f"NOTIFY_{self.kind.upper()}",
            title=self.title or "",
            message=(text_of_html(self.body) if is_html else self.body) or self.title or "(html)",
            data=data,
            html=self.body if is_html else None,
        )


def read_call(content_type: str, body: bytes) -> NotifyCall:
    """Read a call. Raises RequestError, InvalidRequest with every problem."""
    kind = content_type.split(";")[0].strip().lower()
    try:
        if kind == FORM:
            return NotifyCall.model_validate(_fields(body))
        found = from_json(body)
        if not isinstance(found, dict):
            raise InvalidRequest([FieldProblem("", "model_type", "must be a JSON object")])
        return NotifyCall.model_validate(found)
    except ValidationError as error:
        raise invalid_body(error) from None
    except ValueError as error:
        raise RequestError("malformed_body", f"the body cannot be read: {error}") from None


def _fields(body: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    pairs: Sequence[tuple[str, str]] = parse_qsl(
        body.decode(), keep_blank_values=True, max_num_fields=_FIELDS_LIMIT
    )
    for name, value in pairs:
        if name in _REPEATED:
            fields.setdefault(name, []).append(value)
        else:
            fields[name] = value
    return fields
