"""`allim template …`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from allim.base.errors import FieldProblem, InvalidRequest
from allim.cli.printing import echo, echo_json
from allim.cli.recording import operator_name
from allim.cli.start import with_database

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allim.base.settings import Environment
    from allim.channels.channel import Channel
    from allim.database.pool import Database
    from allim.hub.templates.book import TemplateBook

app = typer.Typer(help="Templates of messages.", no_args_is_help=True, rich_markup_mode="markdown")

Answer = TypeVar("Answer")
Tenant = Annotated[int | None, typer.Option(help="The tenant.  [for all]", min=1)]
ChannelOption = Annotated[str | None, typer.Option(help="Of this channel only.")]
LanguageOption = Annotated[str | None, typer.Option(help="The language, as ko or en-US.")]


@app.command("list")
def list_(channel: ChannelOption = None) -> None:
    """List the newest version of each template."""
    wanted = channel.upper() if channel else None
    page = _with_book(lambda book, _: book.list(channel=wanted, limit=250))
    for each in page.items:
        language = each.language or "-"
        state = "" if each.active else "  not in use"
        tenant = f"  tenant {each.tenant_id}" if each.tenant_id else ""
        echo(f"{each.code:<30} {each.channel:<9} {language:<6} v{each.version}{tenant}{state}")
    if not page.items:
        echo("no templates")


@app.command()
def show(
    code: Annotated[str, typer.Argument(help="The template's code.")],
    channel: ChannelOption = None,
    language: LanguageOption = None,
) -> None:
    """Show the versions of a template as JSON, newest first."""
    where = channel.upper() if channel else None
    said = language.lower() if language else None
    page = _with_book(lambda book, _: book.versions(code, channel=where, language=said))
    for each in page.items:
        echo_json(json.dumps(each.model_dump(mode="json"), ensure_ascii=False, indent=2))


@app.command()
def push(
    files: Annotated[
        list[Path],
        typer.Argument(help="TOML or JSON with code, channel, subject …", exists=True),
    ],
) -> None:
    """Store new versions from files; a file that says nothing new changes nothing.

    `allim template push templates/*.toml`
    """
    from pydantic import ValidationError

    from allim.base.validation import invalid_body
    from allim.hub.templates.model import TemplateRequest, TemplateView

    requests = []
    for file in files:
        try:
            requests.append(TemplateRequest.model_validate(_read(file)))
        except ValidationError as error:
            raise _in_file(file, invalid_body(error)) from None

    async def add(
        book: TemplateBook, channels: Mapping[str, Channel]
    ) -> list[tuple[TemplateView, bool]]:
        stored = []
        for file, request in zip(files, requests, strict=True):
            if request.channel not in channels:
                words = f"must be one of: {', '.join(sorted(channels))}"
                problem = FieldProblem("/channel", "unknown_channel", words)
                raise _in_file(file, InvalidRequest([problem]))
            try:
                stored.append(
                    await book.add(request, tenant=request.tenant_id, actor=operator_name())
                )
            except InvalidRequest as error:
                raise _in_file(file, error) from None
        return stored

    for view, is_new in _with_book(add):
        language = f" {view.language}" if view.language else ""
        state = "stored" if is_new else "nothing new"
        echo(f"{view.code} {view.channel}{language} v{view.version}: {state}")


@app.command()
def preview(
    code: Annotated[str, typer.Argument(help="The template's code.")],
    channel: Annotated[str, typer.Option(help="Its channel.")],
    data: Annotated[str, typer.Option(help="The notification's data, as JSON.")] = "{}",
    language: LanguageOption = None,
    version: Annotated[int | None, typer.Option(help="The version.  [the newest]")] = None,
    title: Annotated[str | None, typer.Option(help="The notification's title.")] = None,
    message: Annotated[str | None, typer.Option(help="The notification's message.")] = None,
    recipient: Annotated[str | None, typer.Option(help="Whom it is for.")] = None,
    tenant: Tenant = None,
) -> None:
    """Show what would be sent, as JSON; nothing is.

    `allim template preview ORDER_DONE --channel email --data '{"name": "Kim"}'`
    """
    from pydantic import ValidationError

    from allim.base.validation import invalid_body
    from allim.hub.templates.model import PreviewRequest

    try:
        request = PreviewRequest.model_validate(
            {
                "channel": channel,
                "language": language,
                "version": version,
                "title": title,
                "message": message,
                "recipient": recipient,
                "data": json.loads(data),
            }
        )
    except json.JSONDecodeError as error:
        raise InvalidRequest([FieldProblem("--data", "json", f"is not JSON: {error}")]) from None
    except ValidationError as error:
        raise invalid_body(error) from None
    shown = _with_book(
        lambda book, channels: book.preview(code, request, tenant, channels.get(request.channel))
    )
    echo_json(json.dumps(shown.model_dump(mode="json"), ensure_ascii=False, indent=2))


def _read(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    try:
        return json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        problem = FieldProblem(str(file), "not_readable", f"cannot be read: {error}")
        raise InvalidRequest([problem]) from None


def _in_file(file: Path, error: Exception) -> InvalidRequest:
    problems = getattr(error, "problems", ())
    return InvalidRequest(
        [FieldProblem(f"{file} {each.place}", each.code, each.message) for each in problems]
    )


def _with_book(
    use: Callable[[TemplateBook, Mapping[str, Channel]], Awaitable[Answer]],
) -> Answer:
    from allim.composition.ways import open_channels
    from allim.hub.templates.book import TemplateBook
    from allim.hub.templates.shelf import TemplateShelf

    async def run(database: Database, environment: Environment) -> Answer:
        async with open_channels(database, environment) as ways:
            return await use(TemplateBook(database, TemplateShelf()), ways.channels)

    return with_database("allim template", run)
