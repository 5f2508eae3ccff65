"""What Moodle's error codes mean: it answers 200 and says in the body what went wrong."""

from __future__ import annotations

import re
from typing import Any

from allim.enrolment.lms import failures
from allim.enrolment.lms.http import Passing
from allim.enrolment.lms.protocol import FailureGroup, LmsError

NO_CRITERIA = frozenset({"nocriteriaset", "completionnotenabled"})
"""The course does not track completion."""
NOT_TRACKED = frozenset({"usernotenroled", "notenroled", "usernotenrolled", "notenrolled"})
"""It does, but not of this user: teachers, and who has just left."""

PASSING = frozenset(
    {
        "dbconnectionfailed", "dmlreadexception", "dmlwriteexception", "ddlexecuteerror",
        "sitemaintenance", "upgraderunning", "cannotobtainlock", "locktimeout", "ratelimited",
    }
)  # fmt: skip
"""Worth a repeat."""

NEEDS_A_SETTING = {
    "invalidtoken": "check LMS_TOKEN",
    "accessexception": "the token's service lacks this function, or its user may not use it",
    "nopermissions": "the token's user lacks a right",
    "requireloginerror": "the token's user may not go there",
    "errorcoursecontextnotvalid": "the token's user cannot see the course",
    "servicenotavailable": "the token's service is switched off",
    "enablewsdescription": "web services are switched off",
    "invalidparameter": "this Moodle does not take the call",
    "invalidrecordunknown": "there is no such thing in this Moodle",
    "invalidrecord": "there is no such thing in this Moodle",
    "forcepasswordchangenotice": "the token's user must change the password first",
    "sitepolicynotagreed": "the token's user must agree to the site's policy first",
    "usernotfullysetup": "the token's user's profile is incomplete",
    "wsaccessuserdeleted": "the token's user is deleted",
    "wsaccessusersuspended": "the token's user is suspended",
    "wsaccessuserexpired": "the token's user's password has expired",
}
"""What somebody must change, and where to look."""
_CODE = re.compile(r"[a-z][a-z0-9_/]{0,60}")


class MoodleError(LmsError):
    """Moodle refused a call; `code` is its errorcode."""

    def __init__(self, group: FailureGroup, message: str, code: str) -> None:
        super().__init__(group, message)
        self.code = code


def without_exception(answer: Any, place: str) -> Any:
    """The answer, unless it is an exception. Raises MoodleError, or Passing for a passing one."""
    if not isinstance(answer, dict) or not ("exception" in answer or "errorcode" in answer):
        return answer
    given = str(answer.get("errorcode")).lower()
    code = given if _CODE.fullmatch(given) else "unknown"
    hint = NEEDS_A_SETTING.get(code)
    if hint is not None:
        group, text = FailureGroup.CONFIGURATION, f"Moodle refused {place} with '{code}': {hint}"
    elif "timeout" in code:
        group, text = FailureGroup.TIMEOUT, f"timeout: Moodle answered {place} with '{code}'"
    else:
        group, text = FailureGroup.OTHER, f"Moodle refused {place} with '{code}'"
    error = MoodleError(group, text, code)
    if code in PASSING:
        raise Passing(error)
    raise error


def array_of(answer: Any, place: str) -> list[dict[str, Any]]:
    """An answer that is an array of objects. Raises LmsError where it is anything else."""
    if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
        raise failures.unreadable(place, "not an array of objects")
    return answer
