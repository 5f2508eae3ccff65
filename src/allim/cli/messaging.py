"""`allim consume`, `messaging-worker`, `sqs …`, `tenant …`, `trace`."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from allim.cli.printing import echo, echo_json, echo_lines
from allim.cli.recording import on_record
from allim.cli.start import run_program, start, with_database

if TYPE_CHECKING:
    from allim.base.settings import Environment
    from allim.database.pool import Database
    from allim.messaging.settings import QueueSettings
    from allim.messaging.tenant_model import TenantView
    from allim.messaging.tracing import TraceView

sqs = typer.Typer(
    help="The Amazon SQS queue of messaging jobs.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
tenant = typer.Typer(
    help="Tenants and their money.", no_args_is_help=True, rich_markup_mode="markdown"
)

SESSION = "allim messaging"

TenantId = Annotated[int, typer.Argument(help="The tenant's id.", min=1)]


def consume() -> None:
    """Take jobs from the SQS queue into the box; relays elsewhere send them."""
    from allim.composition.running import run_consume

    run_program(run_consume)


def messaging_worker(
    channel: Annotated[
        list[str] | None,
        typer.Option(help="Deliver only this channel; may be given several times.  [all]"),
    ] = None,
) -> None:
    """Take jobs from the SQS queue and send them: consumer and relay in one small process."""
    from allim.composition.running import run_messaging_worker

    run_program(partial(run_messaging_worker, channels=channel or ()))


def trace(
    recipient: Annotated[
        str,
        typer.Argument(
            help="A phone number, however it is written; or a provider's id of a message or group."
        ),
    ],
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=250)] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Why did my text not come? All that was sent to a number, try by try.

    `allim trace 010-1234-5678`
    """
    from allim.cli.tracing import print_trace

    view = with_database(SESSION, lambda database, _: _trace(database, recipient, limit))
    if as_json:
        echo_json(view.model_dump_json(indent=2))
    else:
        print_trace(view)


async def _trace(database: Database, recipient: str, limit: int) -> TraceView:
    from allim.messaging.tracing import Tracer

    return await Tracer(database).trace(recipient, limit=limit)


@sqs.command("create")
def sqs_create(
    region: Annotated[str | None, typer.Argument(help="Where.  [AWS_REGION]")] = None,
) -> None:
    """Create the queue, its dead letters and the redrive between them, or set them right.

    `allim sqs create ap-northeast-2`
    """
    environment, _ = start({"AWS_REGION": region}, quiet=True)
    from allim.messaging.queue import sqs_client
    from allim.messaging.queues import create_queues
    from allim.messaging.settings import QueueSettings

    settings = environment.read(QueueSettings)

    async def run() -> None:
        async with sqs_client(settings) as client:
            for queue in await create_queues(client, settings):
                echo(queue.url)

    asyncio.run(run())
    echo(
        f"after {settings.messaging_sqs_max_receives} receives a job goes to"
        f" {settings.dead_letter_queue_name}; visibility"
        f" {settings.messaging_sqs_visibility_seconds} s, region {settings.aws_region}",
        err=True,
    )


@sqs.command("status")
def sqs_status(
    letters: Annotated[int, typer.Option(help="Show so many dead letters.", min=0, max=10)] = 5,
) -> None:
    """Show how many jobs wait, how many are dead letters, and why some of those are."""
    from allim.messaging.queue import sqs_client
    from allim.messaging.queues import queue_state
    from allim.messaging.settings import QueueSettings

    async def run(database: Database, environment: Environment) -> bool:
        settings = environment.read(QueueSettings)
        async with sqs_client(settings) as client:
            names = (settings.messaging_sqs_queue_name, settings.dead_letter_queue_name)
            missing = False
            for name in names:
                state = await queue_state(client, name)
                if state is None:
                    missing = True
                    echo(f"{name:<32} there is none: `allim sqs create`")
                else:
                    echo(
                        f"{name:<32} {state.waiting:>7} waiting {state.in_flight:>7} in flight"
                        f" {state.delayed:>7} delayed"
                    )
            if not missing and letters:
                await _show_letters(client, settings, database, letters)
            return missing

    if with_database(SESSION, run):
        raise typer.Exit(1)


async def _show_letters(
    client: object, settings: QueueSettings, database: Database, count: int
) -> None:
    from allim.messaging.queue import find_queue
    from allim.messaging.queues import peek, reasons_of

    found = await peek(await find_queue(client, settings.dead_letter_queue_name), count)
    reasons = await reasons_of(database, [letter.first_id for letter in found])
    for letter in found:
        reason = letter.attributes.get("reason") or reasons.get(letter.first_id)
        what = letter.attributes.get("delivery_id")
        name = f"delivery {what}" if what else f"job in message {letter.message_id}"
        echo(f"  {name}: {reason or 'no reason is on record'}")


@sqs.command("redrive")
def sqs_redrive(
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=10_000)] = 1000,
) -> None:
    """Give dead letters another chance.

    Jobs go back to the queue; deliveries that died are sent again themselves.
    """
    from allim.hub.operations import Operations
    from allim.messaging.queue import find_queue, sqs_client
    from allim.messaging.queues import redrive
    from allim.messaging.settings import QueueSettings

    async def run(database: Database, environment: Environment) -> int:
        settings = environment.read(QueueSettings)
        operations = Operations(database)

        async def retry(delivery: int) -> str:
            await on_record(
                database,
                "delivery.retry",
                f"delivery {delivery}",
                lambda: operations.retry(delivery),
            )
            return f"delivery {delivery} is sent again"

        kept = done = 0
        async with sqs_client(settings) as client:
            queue = await find_queue(client, settings.messaging_sqs_queue_name)
            dead_letters = await find_queue(client, settings.dead_letter_queue_name)
            async for one in redrive(queue, dead_letters, retry, limit=limit):
                done, kept = done + one.done, kept + (not one.done)
                echo(f"{'✓' if one.done else '✗'} {one.message_id}: {one.words}")
        echo(f"{done} redriven, {kept} kept")
        return kept

    if with_database(SESSION, run):
        raise typer.Exit(1)


@sqs.command("schema")
def sqs_schema() -> None:
    """Print the JSON schema of a job, for producers in other languages."""
    import json

    from allim.messaging.job import job_schema

    echo_json(json.dumps(job_schema(), ensure_ascii=False, indent=2))


@tenant.command("create")
def tenant_create(
    identity: Annotated[int, typer.Argument(metavar="ID", help="Your own id for it.", min=1)],
    name: Annotated[str, typer.Argument(help="Its name.")],
    balance: Annotated[int, typer.Option(help="Opening balance in KRW.", min=0)] = 0,
    sender: Annotated[str | None, typer.Option(help="Its registered sender number.")] = None,
    pf_id: Annotated[str | None, typer.Option(help="Its Kakao channel.")] = None,
) -> None:
    """Open a tenant."""
    from allim.base.validation import validated
    from allim.messaging.tenant_model import TenantRequest
    from allim.messaging.tenants import Tenants

    given = {"id": identity, "name": name, "balance": balance}
    request = validated(TenantRequest, {**given, "sender": sender, "kakao_pf_id": pf_id})
    with_database(SESSION, lambda database, _: Tenants(database).create(request))
    echo(f"opened tenant {identity}")


@tenant.command("list")
def tenant_list() -> None:
    """List tenants by id, with their balance."""
    from allim.messaging.tenants import Tenants

    async def run(database: Database, _: Environment) -> int:
        tenants, cursor, shown = Tenants(database), None, 0
        while True:
            page = await tenants.list(own=None, limit=250, cursor=cursor)
            for view in page.items:
                echo(_tenant_line(view))
            shown += len(page.items)
            cursor = page.next
            if cursor is None:
                return shown

    if not with_database(SESSION, run):
        echo("no tenants: open one with `allim tenant create`", err=True)


@tenant.command("show")
def tenant_show(identity: TenantId) -> None:
    """Show a tenant and its balance."""
    from allim.messaging.tenants import Tenants

    view = with_database(SESSION, lambda database, _: Tenants(database).show(identity))
    echo(_tenant_line(view))
    echo(f"sender {view.sender or '(setting)'}  PF id {view.kakao_pf_id or '(setting)'}")


@tenant.command("credit")
def tenant_credit(
    identity: TenantId,
    amount: Annotated[int, typer.Argument(help="KRW; negative takes money back.")],
    note: Annotated[str | None, typer.Option(help="What for.")] = None,
    key: Annotated[str | None, typer.Option(help="Counts once, however often it is given.")] = None,
) -> None:
    """Top a tenant up."""
    from allim.base.validation import validated
    from allim.messaging.tenant_model import CreditRequest
    from allim.messaging.tenants import Tenants

    request = validated(CreditRequest, {"amount": amount, "note": note})
    view = with_database(
        SESSION,
        lambda database, _: Tenants(database).credit(identity, request, idempotency_key=key),
    )
    again = " (written before)" if view.replayed else ""
    echo(f"{view.amount:+,} KRW: {view.balance_after:,} KRW{again}")


@tenant.command("ledger")
def tenant_ledger(
    identity: TenantId,
    month: Annotated[str | None, typer.Option(help="As in 2026-11; all of it if left out.")] = None,
) -> None:
    """Print what a tenant paid, as CSV."""
    from allim.messaging.tenant_model import Month
    from allim.messaging.tenants import Tenants

    wanted = None if month is None else Month.parse(month)

    async def run(database: Database, _: Environment) -> None:
        tenants = Tenants(database)
        await tenants.show(identity)
        async for piece in tenants.statement(identity, wanted):
            echo_lines(piece.replace("\r\n", "\n"), nl=False)

    with_database(SESSION, run)


def _tenant_line(view: TenantView) -> str:
    return f"{view.id}  {view.name}  {view.balance:,} KRW"
