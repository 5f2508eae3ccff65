"""Findings kept until their course is stored: the first thousands as they are, the rest packed.

A course is stored as a whole, however many of its people changed. Packed, a finding takes a tenth
of its memory and some microseconds of its time.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from allim.enrolment.findings import Finding

PLAIN = 5_000
"""Findings that are kept as they are."""


class Pack:
    """The findings of one batch, by user. Never changed once made."""

    __slots__ = ("_packed", "_plain")

    def __init__(self, findings: Mapping[str, Finding], *, packed: bool) -> None:
        self._plain = None if packed else findings
        self._packed = zlib.compress(pickle.dumps(dict(findings)), 1) if packed else b""

    def of(self, users: Collection[str]) -> list[Finding]:
        """The findings about these users, in the order of their batch."""
        return [finding for user, finding in self._open().items() if user in users]

    def all(self) -> list[Finding]:
        """Every finding."""
        return list(self._open().values())

    def _open(self) -> Mapping[str, Finding]:
        if self._plain is not None:
            return self._plain
        # What this process packed itself, and nobody else could reach.
        unpacked: Mapping[str, Finding] = pickle.loads(zlib.decompress(self._packed))  # noqa: S301
        return unpacked


@dataclass(slots=True)
class Findings:
    """The findings of a course, in the order they were made."""

    count: int = 0
    _packs: list[Pack] = field(default_factory=list)

    def add(self, found: Iterable[Finding]) -> None:
        """Keep those of one batch."""
        by_key = {finding.source_id: finding for finding in found}
        if by_key:
            self._packs.append(Pack(by_key, packed=self.count >= PLAIN))
            self.count += len(by_key)

    def __iter__(self) -> Iterator[Finding]:
        for pack in self._packs:
            yield from pack.all()


@dataclass(slots=True)
class Taken:
    """Users whose details are stored with a course: each with the pack that its finding is in,
    None where its detail is as it was."""

    users: dict[str, Pack | None] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Finding]:
        of_pack: dict[Pack, set[str]] = {}
        for user, pack in self.users.items():
            if pack is not None:
                of_pack.setdefault(pack, set()).add(user)
        for pack, users in of_pack.items():
            yield from pack.of(users)
