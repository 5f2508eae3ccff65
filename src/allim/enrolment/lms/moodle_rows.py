"""From what Moodle's listing tells of a user to an enrolment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from allim.enrolment.lms.fields import as_text, is_secret, kept_fields, plain_fields
from allim.enrolment.lms.protocol import StatusRow

STATUS_FIELDS = ("fullname", "email", "idnumber", "department", "institution")
"""With roles, status and completion, what an enrolment's change is found by."""
DETAIL_FIELDS = ("username", "phone1", "phone2", "address", "city", "country")
"""With custom profile fields, what a user's change is found by. No field is in both: a change
is told once."""
USER_FIELDS = ("id", *STATUS_FIELDS, *DETAIL_FIELDS, "roles", "customfields")


class Standing(StrEnum):
    """What a user is in a course."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    COMPLETED = "completed"


STATUS_MESSAGES = {
    Standing.ACTIVE: "수강 중",
    Standing.SUSPENDED: "수강 정지",
    Standing.COMPLETED: "수료",
}


@dataclass(frozen=True, slots=True)
class ListedUser:
    """A user as listed, and whether the enrolment is active."""

    id: str
    user: Mapping[str, Any]
    active: bool


def status_row(known: ListedUser, completed: bool | None) -> StatusRow:
    """The enrolment; `completed` is None where nobody knows."""
    user = known.user
    if not known.active:
        standing = Standing.SUSPENDED
    else:
        standing = Standing.COMPLETED if completed else Standing.ACTIVE
    fields = kept_fields(STATUS_FIELDS, user)
    if roles := _roles(user.get("roles")):
        fields["roles"] = roles
    if completed is not None:
        fields["completed"] = completed
    fields["status"] = standing.value
    return StatusRow(
        user_id=known.id,
        fields=fields,
        status=standing.value,
        status_msg=STATUS_MESSAGES[standing],
        user_name=as_text(user.get("fullname")),
        detail=kept_fields(DETAIL_FIELDS, user) | _profile(user.get("customfields")),
    )


def _roles(given: Any) -> str:
    """Short names of roles, in one order."""
    roles = given if isinstance(given, list) else []
    names = (as_text(role.get("shortname")) for role in roles if isinstance(role, dict))
    return ", ".join(sorted({name for name in names if name}))


def _profile(given: Any) -> dict[str, Any]:
    """Custom profile fields as ``profile_<shortname>``, but those whose name is a secret's."""
    fields = {}
    for field in given if isinstance(given, list) else []:
        if isinstance(field, dict) and not is_secret(str(field.get("name"))):
            fields[f"profile_{field.get('shortname')}"] = field.get("value")
    return plain_fields(fields)
