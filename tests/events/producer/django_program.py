"""Publishing from Django, in a process of its own: its settings are the process's."""

from __future__ import annotations

import importlib
import json
import sys
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from allim.database.wakes import CHANNEL
from allim.database.waking import waking


def main(url: str) -> dict[str, Any]:
    # By name: Django has no types.
    django: Any = importlib.import_module("django")
    settings: Any = importlib.import_module("django.conf").settings
    known = conninfo_to_dict(url)
    settings.configure(
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": known["dbname"],
                "USER": known.get("user", ""),
                "PASSWORD": known.get("password", ""),
                "HOST": known.get("host", ""),
                "PORT": known.get("port", ""),
            },
            "lite": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
        },
    )
    django.setup()
    db: Any = importlib.import_module("django.db")
    connection, connections, transaction = db.connection, db.connections, db.transaction
    from allim.events import Inbox, publish
    from allim.events.errors import MessageSaveFailed, NotAConnection, PublishOutsideTransaction
    from tests.events.producer.conftest import user_created

    told: dict[str, Any] = {}
    listener = psycopg.connect(url, autocommit=True)
    listener.execute(f"LISTEN {CHANNEL}")

    with waking(url):
        with suppress(ZeroDivisionError), transaction.atomic():
            publish(connection, user_created(username="lost"))
            raise ZeroDivisionError
        with transaction.atomic():
            told["stored"] = publish(connection, user_created(username="first"))
            with suppress(ZeroDivisionError), transaction.atomic():
                publish(connections["default"], user_created(username="undone"))
                raise ZeroDivisionError
            publish(connections["default"], user_created(username="100% 'second'"))
        notices = [n.payload for n in listener.notifies(timeout=30, stop_after=1)]
    told["woken"] = notices

    try:
        publish(connection, user_created(username="outside"))
    except PublishOutsideTransaction as error:
        told["outside"] = str(error)
    try:
        publish(connections["lite"], user_created())
    except NotAConnection as error:
        told["sqlite"] = str(error)
    with suppress(ZeroDivisionError), transaction.atomic():
        transaction.set_rollback(True)
        try:
            publish(connection, user_created(username="doomed"))
        except MessageSaveFailed as error:
            told["doomed"] = str(error)
        raise ZeroDivisionError
    event = user_created()
    with transaction.atomic():
        told["once"] = [Inbox("mailer").once(connection, event.event_id) for _ in range(2)]
    listener.close()
    return told


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])))
