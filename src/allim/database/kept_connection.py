"""A blocking connection that a thread keeps for itself, beside the pools of the event loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.rows import TupleRow

from allim.base.errors import DatabaseUnavailable
from allim.database.pool import Database, database_errors

CONNECT_SECONDS = 5


class KeptConnection:
    """Opened by the first use, kept for the next ones, and opened anew after it broke.

    In autocommit mode; for one thread. `name` is what the server's list of sessions shows.
    """

    def __init__(self, database: Database, name: str) -> None:
        self._url = database.url
        # Behind a pooler the next statement may meet another server connection.
        self._prepares = not database.pooler
        self._name = name
        self._connection: psycopg.Connection[TupleRow] | None = None

    @contextmanager
    def use(self) -> Iterator[psycopg.Connection[TupleRow]]:
        """The connection. Raises DatabaseUnavailable where the server is gone or refuses."""
        try:
            with database_errors():
                yield self._connected()
        except DatabaseUnavailable:
            self.close()
            raise

    def close(self) -> None:
        """Close it; the next use opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> psycopg.Connection[TupleRow]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._url,
                autocommit=True,
                connect_timeout=CONNECT_SECONDS,
                application_name=self._name,
            )
            if not self._prepares:
                self._connection.prepare_threshold = None
        return self._connection
