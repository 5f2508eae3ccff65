"""One piece of claimed work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

Content = TypeVar("Content")
"""What a sender needs to know to send: a message to a person, an event to a system."""


@dataclass(slots=True, eq=False)
class Work(Generic[Content]):
    """One claimed piece of work.

    `claim_token` (a UUID, as text) proves the claim, together with the id: a settle with another
    token changes nothing.
    `attempt_no` numbers every try; `retry_count` only those the other side failed;
    `rescues` how often a lease ran out over it. `deadline` (process clock) is when the
    lease ends at the earliest; the heartbeat moves it. `reserved` says that its place in
    its target's rate was paid for when it was snoozed.
    """

    id: int
    claim_token: str
    attempt_no: int
    retry_count: int
    max_attempts: int
    rescues: int
    deadline: float
    content: Content
    reserved: bool = False
