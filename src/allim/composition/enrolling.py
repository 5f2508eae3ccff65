"""The enrolment sync with everything it needs."""

from __future__ import annotations

from collections.abc import Mapping

from allim.base.settings import Environment
from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.enrolment.lms.protocol import Lms
from allim.enrolment.settings import EnrolmentSettings
from allim.enrolment.sync import EnrolmentSync
from allim.hub.coalescer import OnCommit


def make_enrolment_sync(
    database: Database,
    lms: Lms,
    channels: Mapping[str, Channel],
    environment: Environment,
    *,
    on_commit: OnCommit = lambda lanes: None,
) -> EnrolmentSync:
    """The sync over an LMS; its alerts go out by `channels`, which `on_commit` hears of.

    Whoever made `lms` closes it. Raises ConfigurationError.
    """
    return EnrolmentSync(
        database, lms, channels, environment.read(EnrolmentSettings), on_commit=on_commit
    )
