"""What a schedule is made from."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

DEFAULT_TIMEZONE = "Asia/Seoul"

NAME = re.compile(r"[A-Za-z0-9가-힣][\w.:-]*")


def _is_name(text: str) -> str:
    # A pattern would be told to people as it stands here.
    if NAME.fullmatch(text) is None:
        raise ValueError("must begin with a letter or a digit; letters, digits and . : _ - follow")
    return text


Name = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_is_name)]
JobName = Annotated[str, StringConstraints(min_length=1, max_length=50)]
Expression = Annotated[str, StringConstraints(max_length=200)]
Timezone = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ScheduleRequest(_Body):
    """A new schedule."""

    name: Name = Field(description="Unique; letters, digits and . : _ -", examples=["autumn-303"])
    job: JobName = Field(description="What it runs", examples=["enrolment-sync"])
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Of the job", examples=[{"category_id": 303}]
    )
    cron: Expression = Field(
        description="Minute, hour, day of month, month, day of week", examples=["*/10 * * * *"]
    )
    timezone: Timezone = DEFAULT_TIMEZONE
    enabled: bool = True


class ScheduleChange(_Body):
    """What to change of a schedule; what is left out, or null, stays as it is."""

    name: Name | None = None
    parameters: dict[str, Any] | None = Field(default=None, description="All of them anew")
    cron: Expression | None = Field(default=None, examples=["0 9 * * MON-FRI"])
    timezone: Timezone | None = None
    enabled: bool | None = Field(default=None, description="False pauses it")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.given():
            raise ValueError("there is nothing to change")
        return self

    def given(self) -> dict[str, Any]:
        """The fields that are to change."""
        return self.model_dump(exclude_none=True)
