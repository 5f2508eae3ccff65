"""From settings to an LMS."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from allim.base.errors import ConfigurationError
from allim.base.settings import Environment
from allim.enrolment.lms.kvca import Kvca
from allim.enrolment.lms.moodle import Moodle
from allim.enrolment.lms.patience import Manners
from allim.enrolment.lms.protocol import Lms
from allim.enrolment.lms.sample import FinishedRuns, Sample
from allim.enrolment.lms.settings import LmsKind, LmsSettings

BUDGET_SECONDS = 90.0
"""For one request with all its repeats, where nobody says otherwise: three quarters of the
lock's default."""


def lms_is_set(environment: Environment) -> bool:
    """Whether there is an LMS at all. Raises ConfigurationError."""
    return environment.read(LmsSettings).lms_kind is not None


def make_lms(
    environment: Environment,
    *,
    budget: float = BUDGET_SECONDS,
    finished_runs: FinishedRuns | None = None,
) -> Lms:
    """The LMS of the settings; opens no connection yet.

    `budget` is seconds, for one request with all its repeats and waits: it should be less than
    the lock's lease. `finished_runs` is how often a category was synced before, which is what
    the sample's data go by. Raises ConfigurationError naming every setting that is missing.
    """
    settings = environment.read(LmsSettings)
    manners = Manners(
        timeout=settings.lms_timeout_seconds,
        retries=settings.lms_retries,
        concurrency=settings.lms_concurrency,
        budget=budget,
    )
    match settings.lms_kind:
        case None:
            raise ConfigurationError("LMS_KIND is not set: set it to kvca, moodle or sample")
        case LmsKind.SAMPLE:
            return Sample(finished_runs)
        case LmsKind.KVCA:
            wanted = _wanted(settings, "lms_base_url", "lms_username", "lms_password")
            return Kvca(
                wanted["lms_base_url"],
                username=wanted["lms_username"],
                password=wanted["lms_password"],
                manners=manners,
            )
        case LmsKind.MOODLE:
            wanted = _wanted(settings, "lms_base_url", "lms_token")
            return Moodle(
                wanted["lms_base_url"],
                token=wanted["lms_token"],
                completion=settings.lms_moodle_completion,
                manners=manners,
            )


def _wanted(settings: LmsSettings, *names: str) -> dict[str, Any]:
    values = {name: getattr(settings, name) for name in names}
    missing = [name.upper() for name, value in values.items() if _is_missing(value)]
    if missing:
        raise ConfigurationError(f"LMS_KIND={settings.lms_kind} needs {', '.join(missing)}")
    return values


def _is_missing(value: str | SecretStr | None) -> bool:
    return value is None
