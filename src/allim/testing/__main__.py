"""`python -m allim.testing`: something to send to, for trying out on one machine.

python -m allim.testing sink     takes what is posted, prints it, answers as Slack does
python -m allim.testing kafka    a Kafka of one node, gone at the end
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from allim.testing.kafka import KafkaNode, free_ports, missing

BODY_LIMIT = 1024 * 1024
PATIENCE_SECONDS = 30.0

app = typer.Typer(
    help="Something to send to, for trying out on one machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Port = Annotated[int, typer.Option(help="The port on 127.0.0.1 that it listens on.")]


class _Printing(BaseHTTPRequestHandler):
    """Prints each body as one line."""

    def do_POST(self) -> None:
        length = min(int(self.headers.get("Content-Length") or 0), BODY_LIMIT)
        body = self.rfile.read(length).decode("utf-8", "replace")
        try:
            body = json.dumps(json.loads(body), ensure_ascii=False)
        except ValueError:
            body = repr(body)
        typer.echo(f"{self.path} {body}")
        sys.stdout.flush()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_words: object) -> None:
        """Say nothing: the body is what counts."""


@app.command()
def sink(port: Port = 18099) -> None:
    """Take what is posted, print it line by line, and answer 200 `ok`."""
    with ThreadingHTTPServer(("127.0.0.1", port), _Printing) as server:
        typer.echo(f"listening on http://127.0.0.1:{port}")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


@app.command()
def kafka(
    port: Port = 19092,
    topic: Annotated[str, typer.Option(help="A topic to begin with.")] = "user-events",
    read: Annotated[
        str | None, typer.Option(help="Start none: print what stands in this topic, and end.")
    ] = None,
) -> None:
    """Run a Kafka of one node until Ctrl-C. Needs Java 17 and Maven, which fetches it once."""
    if read is not None:
        _read(f"127.0.0.1:{port}", read)
        return
    if (lacking := missing()) is not None:
        raise typer.BadParameter(f"{lacking} (Debian: default-jdk maven)")
    typer.echo("starting Kafka; the first time it is fetched, which takes a while …")
    with tempfile.TemporaryDirectory(prefix="allim-kafka-") as folder:
        options = {"auto.create.topics.enable": "true"}
        node = KafkaNode(Path(folder), port, free_ports()[1], options)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        node.format()
        try:
            node.start()
            node.create(topic)
            typer.echo(f"Kafka is at {node.servers}")
            sys.stdout.flush()
            node.wait()
        except KeyboardInterrupt:
            typer.echo("stopping")
        finally:
            node.stop()


def _read(servers: str, topic: str) -> None:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": f"allim-look-{uuid4().hex}", "log_level": 0}
    )
    try:
        partitions = consumer.list_topics(topic, PATIENCE_SECONDS).topics[topic].partitions
        for number in partitions:
            at = TopicPartition(topic, number, 0)
            _, end = consumer.get_watermark_offsets(at, PATIENCE_SECONDS)
            consumer.assign([at])
            seen = 0
            while seen < end and (message := consumer.poll(PATIENCE_SECONDS)) is not None:
                if message.error() is not None:
                    continue
                seen = (message.offset() or 0) + 1
                key, value = message.key() or b"", message.value() or b""
                typer.echo(f"{key.decode('utf-8', 'replace')} {value.decode('utf-8', 'replace')}")
    finally:
        consumer.close()


if __name__ == "__main__":
    app()
