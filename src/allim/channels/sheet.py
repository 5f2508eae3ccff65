"""SHEET: rows of a Google sheet, written by an Apps Script (SHEET_WEBHOOK_URL).

Each delivery is one row, told by its row key and written once. The recipient is nobody. With
no sheet in the settings a delivery succeeds without a call and says so (`not_configured`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pydantic import Field, SecretStr, field_validator

from allim.base.errors import FieldProblem
from allim.base.settings import Environment, SettingsGroup
from allim.channels.channel import ChannelServices, Configured, Draft, Message, RecipientKind
from allim.channels.hooks import checked_url
from allim.channels.sending import Sending, sending
from allim.channels.sheet_row import SheetRow
from allim.channels.sheet_script import LIMITS as SCRIPT_LIMITS
from allim.channels.sheet_script import ScriptWriter
from allim.relay.outcomes import Outcome
from allim.relay.sender import RecordProviderId, SendingLimits
from allim.relay.work import Work

NAME = "SHEET"


class SheetSettings(SettingsGroup):
    """The sheet that alerts are written to."""

    sheet_webhook_url: SecretStr | None = Field(
        None,
        description="The web app (…/exec) of an Apps Script that writes rows. Not set, and no"
        " SHEET_SPREADSHEET_ID: rows succeed without a call.",
    )

    @field_validator("sheet_webhook_url")
    @classmethod
    def _is_url(cls, value: SecretStr | None) -> SecretStr | None:
        return checked_url(value)


class SheetWriter(Protocol):
    """A way to write rows; `target` is who is called."""

    target: str

    def configured(self) -> Configured:
        """How it is set up."""

    def knows_sheet(self, name: str) -> bool:
        """Whether rows may go to the sheet (tab) of that name."""

    async def write(self, rows: Sequence[SheetRow]) -> Sequence[Outcome]:
        """Write rows, each once however often it is tried; one outcome each, in order."""

    async def find(self, row: SheetRow) -> Outcome | None:
        """What became of a row whose end nobody saw; None where that cannot be known."""

    async def diagnose(self) -> str | None:
        """What is wrong with it, without writing anything; or None."""


class SheetChannel:
    """Writes a row for each delivery."""

    name = NAME
    recipient_kind = RecipientKind.SHEET

    def __init__(self, writer: SheetWriter, sending: Sending) -> None:
        self.limits = sending.limits
        self.only_target: str | None = writer.target
        self._writer = writer

    def check(self, draft: Draft) -> Sequence[FieldProblem]:
        """A recipient, where there is one, is the name of a sheet that rows may go to."""
        if draft.recipient and not self._writer.knows_sheet(draft.recipient):
            return [FieldProblem("/recipient", "unknown_sheet", "is not the sheet of SHEET_NAME")]
        return []

    def configured(self) -> Configured:
        """As its writer is."""
        return self._writer.configured()

    def target(self, content: Message) -> str:
        """There is one sheet."""
        return self._writer.target

    async def send(
        self, batch: Sequence[Work[Message]], record: RecordProviderId[Message]
    ) -> Sequence[Outcome]:
        """Write the rows of a batch; those for a sheet that is not ours are refused."""
        lost = Outcome.refused("unknown_sheet", "the recipient is not the sheet of SHEET_NAME")
        rows = {
            place: SheetRow.of(work)
            for place, work in enumerate(batch)
            if not work.content.recipient or self._writer.knows_sheet(work.content.recipient)
        }
        outcomes = [lost] * len(batch)
        if rows:
            written = await self._writer.write(list(rows.values()))
            for place, outcome in zip(rows, written, strict=True):
                outcomes[place] = outcome
        return outcomes

    async def reconcile(self, work: Work[Message]) -> Outcome | None:
        """Look for the row, where the sheet can be read."""
        return await self._writer.find(SheetRow.of(work))

    async def diagnose(self) -> str | None:
        """Call without writing."""
        return await self._writer.diagnose()

    async def close(self) -> None:
        """The HTTP client is shared and closed by whoever made it."""


class NoWriter:
    """Writes nothing, and says so."""

    target = "sheet:not_configured"

    def configured(self) -> Configured:
        """Not at all."""
        return Configured(
            "not_configured",
            "neither SHEET_WEBHOOK_URL nor SHEET_SPREADSHEET_ID is set: no row is written",
        )

    def knows_sheet(self, name: str) -> bool:
        """Any."""
        return True

    async def write(self, rows: Sequence[SheetRow]) -> Sequence[Outcome]:
        """Succeed without a call."""
        return [Outcome.delivered("not_configured", detail="no sheet is configured")] * len(rows)

    async def find(self, row: SheetRow) -> Outcome | None:
        """Nothing was written."""
        return None

    async def diagnose(self) -> str | None:
        """Nothing can be wrong."""
        return None


def make(environment: Environment, services: ChannelServices) -> SheetChannel:
    """Make the channel."""
    settings = environment.read(SheetSettings)
    if settings.sheet_webhook_url is not None:
        how = sending(environment, NAME, timeout=30.0, limits=SCRIPT_LIMITS)
        writer = ScriptWriter(
            settings.sheet_webhook_url.get_secret_value(),
            http=services.http,
            timeout=how.timeout,
            at_most_once=how.limits.at_most_once,
        )
        return SheetChannel(writer, how)
    limits = SendingLimits(batch=100, concurrency=4)
    return SheetChannel(NoWriter(), sending(environment, NAME, timeout=30.0, limits=limits))
