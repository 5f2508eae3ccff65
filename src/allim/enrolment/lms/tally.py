"""What has been read of a listing: who was in it, what was left out, and why."""

from __future__ import annotations

from collections import Counter

from allim.enrolment.lms.protocol import Roster, StatusRow


class Tally:
    """Keeps each user of a listing once; holds a number for each, never the rows.

    A user listed again with the same content is nothing. With other content the first row
    counts, for it has been handed on already; the listing then proves nothing about who is
    missing, and says so.
    """

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._given_before: set[str] = set()
        self._differing = 0
        self.shifts = 0
        """How often somebody left while it was read."""
        self._left_out: Counter[str] = Counter()

    def admits(self, row: StatusRow) -> bool:
        """Whether this row is to be handed on; remembers it."""
        content = hash(tuple(row.fields.items()))
        known = self._seen.get(row.user_id)
        if known is None:
            self._seen[row.user_id] = content
            return row.user_id not in self._given_before
        self._differing += known != content
        return False

    def leave_out(self, reason: str) -> None:
        """A row that cannot be handed on."""
        self._left_out[reason] += 1

    def shifted(self) -> None:
        """Somebody left while it was read, so somebody may have been passed over."""
        self.shifts += 1

    def begin_again(self) -> None:
        """The listing is read from its beginning once more; who was handed on stays so."""
        self._given_before.update(self._seen)
        self._seen = {}
        self._differing = 0
        self._left_out.clear()

    def conclude(self, roster: Roster) -> None:
        """Write down what is to be told of it.

        Numbers stand in brackets: between blanks the operators' SQL would take them for an
        HTTP status.
        """
        for reason, count in self._left_out.items():
            roster.complete = False
            roster.problems.append(f"rows left out: {reason} ({count})")
        if self._differing:
            roster.complete = False
            roster.problems.append(
                f"users listed again with other content, the first counts ({self._differing})"
            )
        if self.shifts:
            roster.complete = False
            roster.problems.append(
                f"changed while it was read, somebody may have been passed over ({self.shifts})"
            )
