"""The command `allim`. Each command imports what it needs when it runs, and no more."""

from __future__ import annotations

import sys

from allim.base.errors import AllimError, ConfigurationError, RequestError
from allim.base.visible import visible_lines

USAGE = 2
FAILURE = 1


def main() -> None:
    """Run the command line: one clear line for what goes wrong, and an exit code.

    2 is for settings and usage (what is named and is not there, too), 1 for everything else,
    128 + n for a signal n.
    """
    from allim.cli.commands import app
    from allim.composition.stopping import Interrupted

    try:
        app()
    except AllimError as error:
        sys.stderr.write(f"allim: {visible_lines(str(error))}\n")
        sys.exit(USAGE if isinstance(error, (ConfigurationError, RequestError)) else FAILURE)
    except Interrupted as interrupted:
        sys.exit(interrupted.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(FAILURE)
