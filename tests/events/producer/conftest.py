"""Events to publish, and what became of them."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from allim.events import DomainEvent
from allim.events.encryption import Encryption, KeyRing
from allim.events.publishing import Publisher
from tests.hub.conftest import api, channels, start_api

__all__ = ["api", "channels", "start_api"]

KEY = bytes(range(32))


class UserCreated(DomainEvent):
    """The event of the specification."""

    topic: ClassVar[str] = "user-events"
    user_id: UUID
    username: str


USER = UUID("01890000-0000-7000-8000-000000000001")


def user_created(**changes: Any) -> UserCreated:
    return UserCreated(**{"user_id": USER, "username": "kim", **changes})


class Outbox:
    """What anybody but the publisher sees of the outbox."""

    def __init__(self, url: str) -> None:
        self.url = url

    def rows(self) -> list[DictRow]:
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            return connection.execute("SELECT * FROM outbox_messages ORDER BY seq").fetchall()

    def count(self) -> int:
        return len(self.rows())


@pytest.fixture
def outbox(database_url: str) -> Outbox:
    return Outbox(database_url)


@pytest.fixture
def publisher() -> Publisher:
    """A publisher without keys, whatever the process's settings are."""
    return Publisher(Encryption(KeyRing()))
