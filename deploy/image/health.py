"""Ends with 0 when the Allim of this container is ready: its API, or the port of a relay."""

from __future__ import annotations

import os
import sys
from http.client import HTTPConnection, HTTPException

SECONDS = 5.0


def ready(port: int) -> bool:
    """Whether something on this port says that it is ready."""
    connection = HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    ports = (
        os.environ.get("ALLIM_PORT") or "18080",
        os.environ.get("ALLIM_RELAY_METRICS_PORT") or "18081",
    )
    sys.exit(not any(ready(int(port)) for port in ports))
