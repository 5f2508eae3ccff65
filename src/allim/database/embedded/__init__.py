"""PostgreSQL that Allim runs for itself: used where no `DATABASE_URL` is set.

`EmbeddedServer.open` starts the server of a home directory, or joins the one that
another Allim process started; the last one out stops it.
"""

from allim.database.embedded.server import EmbeddedServer
from allim.database.embedded.settings import EmbeddedSettings

__all__ = ["EmbeddedServer", "EmbeddedSettings"]
