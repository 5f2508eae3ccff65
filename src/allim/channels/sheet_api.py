"""Writing rows by the Google Sheets API v4, many in one call, and each once.

One atomic `batchUpdate` puts the rows of a batch below the header, newest on top, and leaves a
mark (developer metadata) at each, whose id is a hash of the row key. Where a row is written
already its mark is there too, so the repeat fails as a whole; what is there is looked up, and
the rest is written. The value of a mark tells two row keys of one hash apart.

Marks are a window and no memory: a sheet holds 30,000 characters of metadata, and no row could
be written any more once they are full, so only the newest marks are kept. They are there for
the call that hangs at Google while its repeat comes. A row of which an earlier try may have
been written long ago is looked for in the row_key column instead.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import structlog

from allim.base.clock import SYSTEM_CLOCK, Clock
from allim.channels.answers import is_worth_retrying, outcome_of_failure, retry_of_answer
from allim.channels.channel import Configured
from allim.channels.google import NoToken
from allim.channels.google_sheets import Json, Mark, Refused, Spreadsheet, Tab
from allim.channels.http.failure import HttpFailure
from allim.channels.sheet_row import COLUMNS, SheetRow
from allim.relay.outcomes import RESPONSE_LIMIT, Outcome
from allim.relay.sender import RateLimit, SendingLimits

BATCH = 100
LIMITS = SendingLimits(batch=BATCH, concurrency=1, rate=RateLimit(0.9, burst=5))
"""Google takes 60 writes a minute from one account; pruning marks takes a few of them."""

MARK_KEY = "allim"
MARKS_KEPT = 600
"""With some 21 characters each less than half of what a sheet holds."""
PRUNED_EVERY = 200
ROUNDS = 4
KEY_COLUMN = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[COLUMNS.index("row_key")]
ROWS_SEARCHED = 20_000
FIRST_ROW = 1
"""Below the header; rows are counted from 0."""

ROOM_SECONDS = 5.0
"""Marks are not pruned where less time than this is left of a send."""
PART_CHARACTERS = 500_000
"""Google advises against requests of more than 2 MB."""

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN = 400, 401, 403
EXHAUSTED = "RESOURCE_EXHAUSTED"
DUPLICATE = Outcome.delivered("duplicate", detail="the row was there already")

log = structlog.get_logger("allim.channels.sheet")


class NoSuchTab(Exception):
    """The spreadsheet has no sheet of the name."""


@dataclass(slots=True, eq=False)
class _Place:
    """A row to be written, the mark that it tries to leave, and what became of it."""

    row: SheetRow
    cells: Sequence[str]
    probe: int = 0
    mark: int = 0
    outcome: Outcome | None = None

    def marks_so_far(self) -> Sequence[int]:
        """The mark that it tries, and those that it would have tried before."""
        return [mark_id(self.row.key, probe) for probe in range(self.probe + 1)]


class ApiWriter:
    """Writes rows to one sheet of one spreadsheet."""

    def __init__(
        self,
        spreadsheet: Spreadsheet,
        *,
        target: str,
        tab_name: str | None,
        account: str,
        timeout: float,
        at_most_once: bool,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.target = target
        self._spreadsheet = spreadsheet
        self._tab_name = tab_name
        self._account = account
        self._timeout = timeout
        self._at_most_once = at_most_once
        self._clock = clock
        self._tab: Tab | None = None
        self._unpruned = PRUNED_EVERY

    def configured(self) -> Configured:
        """Live."""
        tab = f"the sheet {self._tab_name!r}" if self._tab_name else "the first sheet"
        return Configured(
            "live", f"writes rows to {tab} of SHEET_SPREADSHEET_ID as {self._account}"
        )

    def knows_sheet(self, name: str) -> bool:
        """Its own only."""
        return name == self._tab_name

    async def write(self, rows: Sequence[SheetRow]) -> Sequence[Outcome]:
        """Write what is not there yet."""
        deadline = self._clock() + self._timeout
        places = [_Place(row, row.cells()) for row in rows]
        left = Outcome.retry("marks_taken", "too many rows with marks that others have left")
        try:
            tab = await self._found_tab(deadline)
            await self._tell_old(tab, places, deadline)
            for part in _parts(places):
                await self._write(tab, part, deadline)
        except (HttpFailure, NoToken, NoSuchTab, Refused) as failure:
            left = self._outcome_of(failure)
        await self._prune_now_and_then(deadline)
        return [place.outcome or left for place in places]

    async def find(self, row: SheetRow) -> Outcome | None:
        """Whether it is written. Where it is not seen, a call may still be on its way."""
        deadline = self._clock() + self._timeout
        try:
            tab = await self._found_tab(deadline)
            column = await self._spreadsheet.column(tab, KEY_COLUMN, ROWS_SEARCHED, deadline)
        except (HttpFailure, NoToken, NoSuchTab, Refused) as failure:
            log.warning("sheet_not_read", target=self.target, reason=str(failure))
            return None
        return DUPLICATE if row.key in column else None

    async def diagnose(self) -> str | None:
        """Log in, and look whether the sheet is there."""
        self._tab = None
        try:
            await self._found_tab(self._clock() + self._timeout)
        except (HttpFailure, NoToken, NoSuchTab, Refused) as failure:
            return self._outcome_of(failure).detail
        return None

    async def _found_tab(self, deadline: float) -> Tab:
        if self._tab is None:
            tabs = await self._spreadsheet.tabs(deadline)
            self._tab = next((tab for tab in tabs if self._tab_name in (None, tab.title)), None)
        if self._tab is None:
            raise NoSuchTab(f"the spreadsheet has no sheet {self._tab_name!r}")
        return self._tab

    async def _tell_old(self, tab: Tab, places: Sequence[_Place], deadline: float) -> None:
        """Find those that an earlier try has written, however long ago."""
        tried = [place for place in places if place.row.tried_before]
        if not tried:
            return
        try:
            column = await self._spreadsheet.column(tab, KEY_COLUMN, ROWS_SEARCHED, deadline)
        except Refused as refused:
            status = refused.answer.status
            if is_worth_retrying(status) or status in (UNAUTHORIZED, FORBIDDEN):
                raise
            return  # What is wrong with the sheet, the write will say.
        written = set(column)
        for place in tried:
            if place.row.key in written:
                place.outcome = DUPLICATE

    async def _write(self, tab: Tab, part: Sequence[_Place], deadline: float) -> None:
        """Write those of a part that wait; those that are there already are told by their marks."""
        for _ in range(ROUNDS):
            waiting = [place for place in part if place.outcome is None]
            if not waiting:
                return
            _choose_marks(waiting)
            try:
                await self._spreadsheet.update(_requests(tab, waiting), deadline)
            except Refused as refused:
                if refused.answer.status != BAD_REQUEST:
                    raise
                if await self._explained(waiting, deadline) or await self._pruned(deadline):
                    continue
                self._tab = None  # Perhaps it was deleted, and one of its name made anew.
                raise
            for place in waiting:
                place.outcome = Outcome.delivered(http_status=200)
            self._unpruned += len(waiting)

    async def _explained(self, waiting: Sequence[_Place], deadline: float) -> bool:
        """Whether marks that are there already are why a batch was refused."""
        # The lower probes too: within a batch another row may have taken the place of its own mark.
        asked = {place: place.marks_so_far() for place in waiting}
        lookups = [{"metadataId": mark} for marks in asked.values() for mark in marks]
        there = {mark.id: mark.value for mark in await self._spreadsheet.marks(lookups, deadline)}
        for place, marks in asked.items():
            if mark_value(place.row.key) in [there.get(mark) for mark in marks]:
                place.outcome = DUPLICATE
            elif place.mark in there:
                place.probe += 1
        return bool(there)

    # Keeping the window of marks

    async def _prune_now_and_then(self, deadline: float) -> None:
        if self._unpruned < PRUNED_EVERY or deadline - self._clock() < ROOM_SECONDS:
            return
        try:
            await self._pruned(deadline)
        except (HttpFailure, NoToken, Refused) as failure:
            log.warning("sheet_marks_not_pruned", target=self.target, reason=str(failure))

    async def _pruned(self, deadline: float) -> bool:
        """Delete all marks but the newest; whether there were any to delete."""
        marks = await self._spreadsheet.marks([{"metadataKey": MARK_KEY}], deadline)
        old = sorted(marks, key=lambda mark: mark.row)[MARKS_KEPT:]
        if old:
            await self._spreadsheet.update([_deletion(mark) for mark in old], deadline)
        self._unpruned = 0
        return bool(old)

    def _outcome_of(self, failure: Exception) -> Outcome:
        """What a call that went wrong means for what it was to write."""
        if isinstance(failure, HttpFailure):
            return outcome_of_failure(failure, at_most_once=self._at_most_once)
        if isinstance(failure, NoToken):
            if failure.refused:
                # Our own login: it waits for the operator, and spends no try.
                return Outcome.fault("google_login_refused", str(failure))
            return Outcome.retry("google_login_failed", str(failure))
        if isinstance(failure, Refused):
            return self._outcome_of_answer(failure)
        return Outcome.refused("no_such_sheet", str(failure))

    def _outcome_of_answer(self, refused: Refused) -> Outcome:
        answer = replace(refused.answer, body=refused.answer.body[:RESPONSE_LIMIT])
        status = answer.status
        if is_worth_retrying(status) or status == UNAUTHORIZED:
            return retry_of_answer(answer)
        detail = f"{refused}: {refused.said}" if refused.said else str(refused)
        if status == FORBIDDEN and refused.word == EXHAUSTED:
            return Outcome.retry("rate_limited", detail, http_status=status, response=answer.body)
        if status == FORBIDDEN:
            detail += f" (is the spreadsheet shared with {self._account}, as an editor?)"
        return Outcome.refused(f"http_{status}", detail, http_status=status, response=answer.body)


def mark_id(key: str, probe: int = 0) -> int:
    """The id of a row's mark: a positive number of 31 bits; `probe` is for those that are taken."""
    text = key if probe == 0 else f"{key}\n{probe}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:4], "big") & 0x7FFFFFFF) or 1


def mark_value(key: str) -> str:
    """What a mark says of its row key: 96 bits of another hash, since characters are few."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=12).digest()
    return base64.urlsafe_b64encode(digest).decode()


def _choose_marks(places: Sequence[_Place]) -> None:
    taken: set[int] = set()
    for place in places:
        place.mark = mark_id(place.row.key, place.probe)
        while place.mark in taken:
            place.probe += 1
            place.mark = mark_id(place.row.key, place.probe)
        taken.add(place.mark)


def _requests(tab: Tab, places: Sequence[_Place]) -> Sequence[Json]:
    """One atomic update: room below the header, the cells, a mark at each row."""
    newest_first = list(reversed(places))
    room = _rows(tab, FIRST_ROW, FIRST_ROW + len(places))
    return [
        {"insertDimension": {"range": room, "inheritFromBefore": False}},
        {
            "updateCells": {
                "start": {"sheetId": tab.id, "rowIndex": FIRST_ROW, "columnIndex": 0},
                "rows": [
                    {
                        # A string as it stands: never a formula, a number or a date.
                        "values": [
                            {"userEnteredValue": {"stringValue": text}} for text in place.cells
                        ]
                    }
                    for place in newest_first
                ],
                "fields": "userEnteredValue",
            }
        },
        *(
            {
                "createDeveloperMetadata": {
                    "developerMetadata": {
                        "metadataId": place.mark,
                        "metadataKey": MARK_KEY,
                        "metadataValue": mark_value(place.row.key),
                        "visibility": "DOCUMENT",
                        "location": {"dimensionRange": _rows(tab, row, row + 1)},
                    }
                }
            }
            for row, place in enumerate(newest_first, FIRST_ROW)
        ),
    ]


def _deletion(mark: Mark) -> Json:
    lookup = {"metadataId": mark.id}
    return {
        "deleteDeveloperMetadata": {"dataFilter": {"developerMetadataLookup": lookup}},
    }


def _rows(tab: Tab, start: int, end: int) -> Json:
    return {"sheetId": tab.id, "dimension": "ROWS", "startIndex": start, "endIndex": end}


def _parts(places: Sequence[_Place]) -> Iterator[Sequence[_Place]]:
    """In order, in parts that are not too much for one request."""
    part: list[_Place] = []
    size = 0
    for place in places:
        if place.outcome is not None:
            continue
        characters = sum(map(len, place.cells))
        if part and size + characters > PART_CHARACTERS:
            yield part
            part, size = [], 0
        part.append(place)
        size += characters
    if part:
        yield part
