"""The enrolment sync: one run over one category."""

from __future__ import annotations

from collections.abc import Mapping

from allim.channels.channel import Channel
from allim.database.pool import Database
from allim.enrolment.lms.protocol import Lms
from allim.enrolment.model import OnProgress, SyncRequest, SyncResult
from allim.enrolment.settings import EnrolmentSettings
from allim.hub.coalescer import OnCommit


class EnrolmentSync:
    """Looks at an LMS and tells what changed since the run before."""

    def __init__(
        self,
        database: Database,
        lms: Lms,
        channels: Mapping[str, Channel],
        settings: EnrolmentSettings,
        *,
        on_commit: OnCommit = lambda lanes: None,
    ) -> None:
        self._database = database
        self._lms = lms
        self._channels = channels
        self._settings = settings
        self._on_commit = on_commit

    async def run(
        self, request: SyncRequest, *, on_progress: OnProgress | None = None
    ) -> SyncResult:
        """Run once; a run that failed is a result too (`ok` False), with true counts.

        Raises LockActive when another run of the category is under way (a FAILED run and a low
        alert tell of it), and DatabaseUnavailable when no run could even be begun.
        """
        raise NotImplementedError
