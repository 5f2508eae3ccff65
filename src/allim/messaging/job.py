"""A messaging job: what producers put on the queue and post to `/messages`."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, Any
from uuid import uuid4

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)
from pydantic_core import PydanticCustomError, from_json, to_json

from allim.base.errors import FieldProblem, InvalidRequest, RequestError
from allim.base.validation import invalid_body
from allim.channels.korean_sms import (
    LMS_BYTES,
    SUBJECT_BYTES,
    BadNumber,
    count_bytes,
    normalise_number,
    tidy,
    unsendable,
)
from allim.hub.model import MAX_BIGINT, Moment, Priority, TenantId, Word

ALIMTALK_CHARACTERS = 1000
BODY_BYTES = 100_000
"""Of a job's JSON; SQS takes a mebibyte in one call, and ten jobs go in one."""
JOB_ID_LIMIT = 200
VARIABLES = 100


class MessageMode(StrEnum):
    """By what a message goes."""

    SMS = "sms"
    ALIMTALK = "alimtalk"
    BOTH = "both"
    """Alimtalk, and SMS where that fails."""


def _number(written: str) -> str:
    try:
        return normalise_number(written)
    except BadNumber as error:
        raise PydanticCustomError("phone_number", "{reason}", {"reason": str(error)}) from None


def _sendable(text: str) -> str:
    text = tidy(text)
    if wrong := unsendable(text):
        told = ", ".join(map(str, wrong[:5])) + (" …" if len(wrong) > 5 else "")
        raise PydanticCustomError("unsendable", "cannot be sent as SMS: {told}", {"told": told})
    return text


def _sendable_subject(text: str) -> str:
    text = _sendable(text)
    if count_bytes(text) > SUBJECT_BYTES:
        raise PydanticCustomError("too_long", f"has more than {SUBJECT_BYTES} bytes")
    return text


_NO_NUL = r"^[^\x00]*$"
JobId = Annotated[
    str, StringConstraints(min_length=1, max_length=JOB_ID_LIMIT, pattern=r"^[\x21-\x7e]*$")
]
Number = Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(_number)]
Reservation = (
    Annotated[int, Field(ge=-MAX_BIGINT, le=MAX_BIGINT)]
    | Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_NO_NUL)]
)
VariableName = Annotated[str, StringConstraints(min_length=1, max_length=60, pattern=_NO_NUL)]
VariableText = Annotated[str, StringConstraints(max_length=1000, pattern=_NO_NUL)]


def _no_timestamp(value: object) -> object:
    if isinstance(value, int | float):
        raise PydanticCustomError("datetime_type", "must be a moment as a text")
    return value


# Texts, also where a web framework has read the JSON already: strict models take them in JSON only.
When = Annotated[Moment, Field(strict=False), BeforeValidator(_no_timestamp)]


class MessageJob(BaseModel):
    """One message to one person: SMS, Alimtalk, or Alimtalk with SMS where that fails."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, title="MessageJob", use_attribute_docstrings=True
    )

    tenant_id: TenantId | None = None
    """Who pays; without one the operator does."""
    to: Number
    """Mobile number, however it is written."""
    text: Annotated[str, StringConstraints(min_length=1, max_length=4000, pattern=_NO_NUL)]
    """What is said. As SMS up to 90 bytes, as LMS up to 2000."""
    message_mode: Annotated[MessageMode, Field(strict=False)] | None = None
    """`sms`, `alimtalk` or `both`; wins over `use_alimtalk_first`. `sms` where neither is given."""
    use_alimtalk_first: bool | None = None
    """For older producers: true is `both`, false is `sms`."""
    template_id: Word | None = None
    """The approved Alimtalk template; SOLAPI_KAKAO_TEMPLATE_ID where left out."""
    variables: dict[VariableName, VariableText] = Field(default_factory=dict, max_length=VARIABLES)
    """What the template's variables stand for, as `build_replacements` makes them."""
    reservation_id: Reservation | None = None
    """Looked up just before the send: a cancelled one is not written to."""
    job_id: JobId | None = None
    """Names the job: whatever is queued or posted twice under it is sent once."""
    subject: (
        Annotated[
            str,
            StringConstraints(min_length=1, max_length=40, pattern=_NO_NUL),
            AfterValidator(_sendable_subject),
        ]
        | None
    ) = None
    """Makes it an LMS with this subject."""
    image_id: Word | None = None
    """Makes it an MMS with this image, uploaded to Solapi before."""
    advertising: bool = False
    """An advertisement: marked as one, and not sent from 21:00 to 08:00 in Korea."""
    priority: Annotated[Priority, Field(strict=False)] = Priority.NORMAL
    scheduled_at: When | None = None
    """Not before this moment."""
    expires_at: When | None = None
    """Not after this moment."""

    @field_validator("text")
    @classmethod
    def _text_says_something(cls, text: str) -> str:
        text = tidy(text)
        if not text.strip():
            raise PydanticCustomError("empty", "says nothing")
        return text

    @property
    def mode(self) -> MessageMode:
        """The mode that all of it comes to."""
        if self.message_mode is not None:
            return self.message_mode
        return MessageMode.BOTH if self.use_alimtalk_first else MessageMode.SMS

    def identified(self) -> MessageJob:
        """The same with a job id of its own."""
        return self if self.job_id else self.model_copy(update={"job_id": uuid4().hex})

    def body(self) -> str:
        """As JSON, without what was left out."""
        return to_json(self.model_dump(mode="json", exclude_defaults=True)).decode()

    def fingerprint(self) -> bytes:
        """SHA-256 of what is asked for, whatever its spelling; the job id does not count."""
        asked = self.model_dump(mode="json", exclude_defaults=True, exclude={"job_id"})
        asked |= {"message_mode": self.mode.value}
        asked.pop("use_alimtalk_first", None)
        return hashlib.sha256(to_json(_sorted(asked))).digest()


def read_job(body: str | bytes) -> MessageJob:
    """The job of a queue's message. Raises RequestError saying all that is wrong."""
    if len(body) > BODY_BYTES:
        raise InvalidRequest([FieldProblem("", "too_large", "is larger than a job may be")])
    try:
        return checked(MessageJob.model_validate_json(body))
    except ValidationError as error:
        raise invalid_body(error) from None
    except RecursionError:
        raise RequestError("malformed_json", "the body is nested too deeply") from None


def make_job(**fields: Any) -> MessageJob:
    """A job out of Python values. Raises InvalidRequest with every problem."""
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return checked(MessageJob.model_validate(given, strict=False))
    except ValidationError as error:
        raise invalid_body(error) from None


def checked(job: MessageJob) -> MessageJob:
    """The same job; raises InvalidRequest for a text that its mode cannot say."""
    problems: list[FieldProblem] = []
    if job.mode is MessageMode.ALIMTALK:
        if len(job.text) > ALIMTALK_CHARACTERS:
            problems.append(
                FieldProblem("/text", "too_long", f"has more than {ALIMTALK_CHARACTERS} characters")
            )
    else:
        try:
            _sendable(job.text)
        except PydanticCustomError as error:
            problems.append(FieldProblem("/text", error.type, error.message()))
        if (length := count_bytes(job.text)) > LMS_BYTES:
            problems.append(
                FieldProblem(
                    "/text", "too_long", f"has {length} bytes; LMS takes {LMS_BYTES} at most"
                )
            )
    if job.advertising and job.mode is not MessageMode.SMS:
        problems.append(
            FieldProblem("/advertising", "advertising", "Alimtalk may not carry advertising")
        )
    if job.scheduled_at and job.expires_at and job.expires_at <= job.scheduled_at:
        problems.append(
            FieldProblem("/expires_at", "expires_too_early", "must be after scheduled_at")
        )
    if len(job.body().encode()) > BODY_BYTES:
        problems.append(FieldProblem("", "too_large", f"has more than {BODY_BYTES} bytes as JSON"))
    if problems:
        raise InvalidRequest(problems)
    return job


def job_schema() -> dict[str, Any]:
    """The JSON schema of a job, as docs/how-to/queue-texts-on-sqs.md has it."""
    return MessageJob.model_json_schema()


def phone_of(body: str | bytes) -> str | None:
    """The number of a job that cannot be read as one, if it says any."""
    try:
        return normalise_number(str(from_json(body)["to"]))
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return value
