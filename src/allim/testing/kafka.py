"""A real Apache Kafka for tests: fetched with Maven, one KRaft node on loopback.

    with kafka_node() as node:
        Producer({"bootstrap.servers": node.servers})

Needs Java 17 and Maven; `missing()` says what is not there. The jars are kept in
`~/.cache/allim/kafka-<version>` (or `ALLIM_KAFKA_CACHE`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from allim.testing.maven import fetch_jars, missing

__all__ = ["KafkaNode", "fetch_kafka", "free_ports", "kafka_node", "missing"]

VERSION = "4.1.0"
START_SECONDS = 90.0

OPTIONS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "num.partitions": "4",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
}


def fetch_kafka() -> Path:
    """The folder of Kafka's jars. Raises subprocess.CalledProcessError where Maven fails."""
    kept = os.environ.get("ALLIM_KAFKA_CACHE")
    return fetch_jars(
        f"kafka-{VERSION}",
        [f"org.apache.kafka:kafka_2.13:{VERSION}"],
        cache=Path(kept) if kept else None,
    )


@dataclass(slots=True)
class KafkaNode:
    """A node: where it is, and its process while it runs."""

    folder: Path
    port: int
    controller_port: int
    options: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def servers(self) -> str:
        """For `bootstrap.servers`."""
        return f"127.0.0.1:{self.port}"

    def format(self) -> None:
        """Prepare its storage."""
        properties = {
            **OPTIONS,
            "controller.quorum.voters": f"1@127.0.0.1:{self.controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},"
            f"CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.folder / "log"),
            **self.options,
        }
        text = "".join(f"{name}={value}\n" for name, value in properties.items())
        self._file.write_text(text)
        command = ["format", "-t", uuid4().hex[:22], "-c", str(self._file)]
        subprocess.run(
            [*self._java("kafka.tools.StorageTool"), *command],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=START_SECONDS,
        )

    def start(self) -> None:
        """Start it and wait until it answers. Raises TimeoutError, with where its log is."""
        with (self.folder / "server.out").open("ab") as out:
            self._process = subprocess.Popen(
                [*self._java("kafka.Kafka"), str(self._file)], stdout=out, stderr=out
            )
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        deadline = time.monotonic() + START_SECONDS
        client = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(KafkaException):
                if client.list_topics(timeout=1.0).brokers:
                    return
        raise TimeoutError(f"Kafka does not answer: {self._last_words()}")

    def create(self, topic: str) -> None:
        """Make a topic, and wait until it is there."""
        from confluent_kafka.admin import AdminClient
        from confluent_kafka.cimpl import NewTopic

        client = AdminClient({"bootstrap.servers": self.servers, "log_level": 0})
        client.create_topics([NewTopic(topic)])[topic].result(START_SECONDS)

    def wait(self) -> None:
        """Wait until it ends by itself, or somebody ends it."""
        if self._process is not None:
            self._process.wait()

    def stop(self, *, kill: bool = False) -> None:
        """Stop it and wait for its end."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def _file(self) -> Path:
        return self.folder / "server.properties"

    def _java(self, program: str) -> list[str]:
        return [
            "java",
            "-Xmx256m",
            "-Xms64m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
            "-cp",
            f"{fetch_kafka()}/*",
            program,
        ]

    def _last_words(self) -> str:
        return (self.folder / "server.out").read_text(errors="replace")[-2000:]


@contextlib.contextmanager
def kafka_node(**options: str) -> Iterator[KafkaNode]:
    """A running node with storage of its own; stopped and removed at the end."""
    with tempfile.TemporaryDirectory(prefix="allim-kafka-") as folder:
        node = KafkaNode(
            Path(folder), *free_ports(), {k.replace("_", "."): v for k, v in options.items()}
        )
        node.format()
        try:
            node.start()
            yield node
        finally:
            node.stop()


def free_ports() -> tuple[int, int]:
    """Two ports on loopback that nobody listens on."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(two.getsockname()[1])
