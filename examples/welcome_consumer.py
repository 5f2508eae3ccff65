"""A consumer that is exactly once in effect: one welcome mail for each new user.

    export DATABASE_URL="$(allim db url)" KAFKA_BOOTSTRAP_SERVERS=localhost:9092
    python -m examples.welcome_consumer

Kafka, and every relay before it, delivers some messages twice. The inbox and the mail are
written in one transaction, and the offset is committed after it: whatever dies in between, a
repeat finds the event id in the inbox and changes nothing.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg

from allim import notify
from allim.events import Inbox

inbox = Inbox("welcome-mails")


def handle(database: psycopg.Connection[Any], headers: Mapping[str, bytes], payload: bytes) -> bool:
    """Work on one message; whether it was the first time."""
    with database.transaction():
        if not inbox.once(database, headers["eventId"]):
            return False
        user = json.loads(payload)
        notify(
            database,
            source="welcome-consumer",
            type="WELCOME",
            title=f"Welcome, {user['username']}",
            message="It is good to have you.",
            deliveries=[{"channel": "LOG", "recipient": user["username"]}],
        )
    return True


def consume(consumer: Any, database: psycopg.Connection[Any], running: Iterable[bool]) -> None:
    """Consume for as long as `running` says so."""
    for _ in running:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            raise SystemExit(str(message.error()))
        handle(database, dict(message.headers() or ()), message.value())
        # Only now: a crash before this repeats the message, which the inbox then knows.
        consumer.commit(message, asynchronous=False)


def main() -> None:
    from confluent_kafka import Consumer

    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _frame: stopped.append(received))
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": "welcome-mails",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["user-events"])
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as database:
        try:
            consume(consumer, database, iter(lambda: not stopped, False))
        finally:
            consumer.close()


if __name__ == "__main__":
    main()
