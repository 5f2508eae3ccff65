"""A process of Allim for the tests: opens the server of a home, then does as told on stdin.

Arguments: the home, and the user to become (or "-"). It answers with one JSON line once
the server is open, and one for each command: `close`, `leave` (leave running), `pid`.
"""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
from pathlib import Path

from allim.base.errors import EmbeddedServerError
from allim.database.embedded import EmbeddedServer


def become(name: str) -> None:
    # After the imports, as the interpreter may be where that user cannot read.
    entry = pwd.getpwnam(name)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def answer(**fields: object) -> None:
    sys.stdout.write(f"{json.dumps(fields)}\n")
    sys.stdout.flush()


def main() -> None:
    home, user = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if user != "-":
        become(user)
    try:
        server = EmbeddedServer.open(Path(home))
    except EmbeddedServerError as error:
        answer(error=str(error))
        return
    answer(url=server.url, data=str(server.data), pid=os.getpid())
    for line in sys.stdin:
        match line.strip():
            case "close":
                server.close()
            case "leave":
                server.close(leave_running=True)
        answer(done=line.strip())


main()
