"""How an event becomes bytes: JSON, Avro or Protobuf.

Bytes of any other making come from an event's own `serialize`, or as a `RawEvent`.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import BaseModel

from allim.events.errors import SerializerUnavailable

_REGISTRY_MAGIC = b"\x00"


class Serializer(Protocol):
    """Makes the payload of an event; `content_type` says in what form."""

    content_type: str

    def serialize(self, event: BaseModel, /) -> bytes:
        """The payload. Whatever is raised becomes MessageSerializationFailed."""


class JsonSerializer:
    """The model's own JSON, without an envelope."""

    content_type = "application/json"

    def serialize(self, event: BaseModel, /) -> bytes:
        """What `model_dump_json` says, as bytes."""
        return event.__pydantic_serializer__.to_json(event)


class AvroSerializer:
    """Avro by a schema, with `fastavro` (``pip install 'allim[avro]'``).

    With `schema_id` the payload begins with a zero byte and that id in four bytes, as Confluent's
    schema registry wants it; registering schemas is the business of your deployment. Values
    are those of `model_dump()`, so that Avro's logical types (uuid, decimal, timestamps) apply.
    """

    content_type = "application/avro"

    def __init__(self, schema: Mapping[str, Any], *, schema_id: int | None = None) -> None:
        self._fastavro = _imported("fastavro", extra="avro")
        self._schema = self._fastavro.parse_schema(dict(schema))
        self._prefix = _registry_prefix(schema_id)

    def serialize(self, event: BaseModel, /) -> bytes:
        """One Avro datum, without a file header; a value that does not fit the schema raises."""
        out = io.BytesIO()
        out.write(self._prefix)
        self._fastavro.schemaless_writer(out, self._schema, event.model_dump(), strict=True)
        return out.getvalue()


class ProtobufSerializer:
    """Protobuf, with `protobuf` (``pip install 'allim[protobuf]'``).

    `message` is a generated message class. Fields of the event go into its fields by their
    JSON names. With `schema_id` the payload begins as Confluent's schema registry wants it, for
    the first message of its file.
    """

    content_type = "application/protobuf"

    def __init__(self, message: type[Any], *, schema_id: int | None = None) -> None:
        self._json = _imported("google.protobuf.json_format", extra="protobuf")
        self._message = message
        prefix = _registry_prefix(schema_id)
        # The path to the message within its file; the first one's is a single zero.
        self._prefix = prefix + b"\x00" if prefix else b""

    def serialize(self, event: BaseModel, /) -> bytes:
        """The message's bytes, the same for the same event."""
        message = self._json.ParseDict(event.model_dump(mode="json"), self._message())
        encoded: bytes = message.SerializeToString(deterministic=True)
        return self._prefix + encoded


def _registry_prefix(schema_id: int | None) -> bytes:
    return b"" if schema_id is None else _REGISTRY_MAGIC + schema_id.to_bytes(4, "big")


def _imported(module: str, *, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SerializerUnavailable(
            f"this needs {module.partition('.')[0]}, which is not installed:"
            f" pip install 'allim[{extra}]'"
        ) from error
