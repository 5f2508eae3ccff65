"""SHEET: rows of a Google sheet, by an Apps Script (SHEET_WEBHOOK_URL) or by the Sheets API.

Each delivery is one row, told by its row key and written once. The recipient is nobody, or the
name of the sheet. With no sheet in the settings a delivery succeeds without a call and says so
(`not_configured`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import Field, SecretStr, field_validator

from allim.base.errors import ConfigurationError, FieldProblem
from allim.base.settings import Environment, SettingsGroup
from allim.channels.channel import ChannelServices, Configured, Draft, Message, RecipientKind
from allim.channels.google import BadServiceAccount, ServiceAccount, Tokens
from allim.channels.google_sheets import SCOPE, SHEETS_URL, Spreadsheet
from allim.channels.hooks import WebhookUrl, require_url, target_of
from allim.channels.sending import Sending, sending
from allim.channels.sheet_api import BATCH, ApiWriter
from allim.channels.sheet_api import LIMITS as API_LIMITS
from allim.channels.sheet_row import SheetRow
from allim.channels.sheet_script import LIMITS as SCRIPT_LIMITS
from allim.channels.sheet_script import ScriptWriter
from allim.relay.outcomes import Outcome
from allim.relay.sender import RecordProviderId, SendingLimits
from allim.relay.work import Work

NAME = "SHEET"
TIMEOUT = 30.0
"""Seconds: Google is slow at times, and an Apps Script waits for its lock."""


class SheetSettings(SettingsGroup):
    """The sheet that alerts are written to."""

    sheet_webhook_url: WebhookUrl = Field(
        None,
        description="The web app (…/exec) of an Apps Script that writes rows. Not set, and no"
        " SHEET_SPREADSHEET_ID: rows succeed without a call.",
    )

    sheet_spreadsheet_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]{1,200}$",
        description="The spreadsheet that rows are written to by the Sheets API: the part of its"
        " address between /d/ and /edit.",
    )
    sheet_name: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="The sheet (tab) of it; the first one if not set.",
    )
    google_service_account_file: Path | None = Field(
        None, description="The key file (JSON) of the service account that writes them."
    )
    google_service_account_json: SecretStr | None = Field(
        None, description="The contents of that file, where there is no file."
    )
    google_sheets_url: str = Field(
        SHEETS_URL, description="Where the Sheets API is; another one for emulators."
    )
    google_token_url: str | None = Field(
        None, description="Where access tokens are had; as the key file says if not set."
    )

    @field_validator("google_sheets_url", "google_token_url")
    @classmethod
    def _are_urls(cls, value: str | None) -> str | None:
        if value is not None:
            require_url(value)
        return value

    def account(self) -> ServiceAccount:
        """Who writes by the Sheets API. Raises ConfigurationError."""
        file, given = self.google_service_account_file, self.google_service_account_json
        if (file is None) == (given is None):
            found = "neither is set" if file is None else "both are set"
            raise ConfigurationError(
                "SHEET_SPREADSHEET_ID needs one of GOOGLE_SERVICE_ACCOUNT_FILE and"
                f" GOOGLE_SERVICE_ACCOUNT_JSON; {found}"
            )
        name = "GOOGLE_SERVICE_ACCOUNT_JSON"
        try:
            if file is not None:
                name = f"GOOGLE_SERVICE_ACCOUNT_FILE {file}"
                text = file.read_text(encoding="utf-8")
            else:
                text = given.get_secret_value() if given is not None else ""
            return ServiceAccount.read(text, token_url=self.google_token_url)
        except OSError as error:
            raise ConfigurationError(f"{name} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigurationError(f"{name} is not JSON") from None
        except BadServiceAccount as error:
            raise ConfigurationError(f"{name} {error}") from None


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
            needs="SHEET_WEBHOOK_URL or SHEET_SPREADSHEET_ID",
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
    """Make the channel. Raises ConfigurationError for settings that cannot be together."""
    settings = environment.read(SheetSettings)
    if settings.sheet_webhook_url is not None and settings.sheet_spreadsheet_id is not None:
        raise ConfigurationError(
            "SHEET_WEBHOOK_URL and SHEET_SPREADSHEET_ID are both set: rows would go to one of them"
            " only, so keep one"
        )
    if settings.sheet_webhook_url is not None:
        return _by_script(settings.sheet_webhook_url, environment, services)
    if settings.sheet_spreadsheet_id is not None:
        return _by_api(settings.sheet_spreadsheet_id, settings, environment, services)
    limits = SendingLimits(batch=BATCH, concurrency=4)
    return SheetChannel(NoWriter(), sending(environment, NAME, timeout=TIMEOUT, limits=limits))


def _by_script(url: SecretStr, environment: Environment, services: ChannelServices) -> SheetChannel:
    how = sending(environment, NAME, timeout=TIMEOUT, limits=SCRIPT_LIMITS)
    writer = ScriptWriter(
        url.get_secret_value(),
        http=services.http,
        timeout=how.timeout,
        at_most_once=how.limits.at_most_once,
    )
    return SheetChannel(writer, how)


def _by_api(
    spreadsheet_id: str,
    settings: SheetSettings,
    environment: Environment,
    services: ChannelServices,
) -> SheetChannel:
    how = sending(environment, NAME, timeout=TIMEOUT, limits=API_LIMITS)
    account = settings.account()
    writer = ApiWriter(
        Spreadsheet(
            spreadsheet_id,
            tokens=Tokens(account, SCOPE, http=services.http),
            http=services.http,
            base_url=settings.google_sheets_url,
        ),
        target=target_of(f"{settings.google_sheets_url}/{spreadsheet_id}"),
        tab_name=settings.sheet_name,
        account=account.email,
        timeout=how.timeout,
        at_most_once=how.limits.at_most_once,
    )
    return SheetChannel(writer, how)
