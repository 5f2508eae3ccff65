"""`allim webpush …`."""

from __future__ import annotations

import typer

from allim.cli.printing import echo

app = typer.Typer(help="Messages to browsers.", no_args_is_help=True, rich_markup_mode="markdown")


@app.callback()
def webpush() -> None:
    """Messages to browsers."""


@app.command()
def keys() -> None:
    """Make a pair of VAPID keys and print it as lines for `.env`.

    `allim webpush keys >> .env`

    The private one is the setting; the public one, in the comment, is for the page that
    subscribes. `allim doctor` shows it again. Nothing is stored.
    """
    from allim.channels.vapid import VapidKey

    key = VapidKey.generate()
    echo(f"# applicationServerKey: {key.public_text}")
    echo(f"WEBPUSH_VAPID_PRIVATE_KEY={key.private_text}")
    echo("WEBPUSH_VAPID_SUBJECT, an address for push services, is needed too", err=True)
