"""The messages of a group, and how what Solapi says of them is told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from allim.channels.channel import Message
from allim.channels.json_bytes import json_bytes
from allim.channels.solapi.answers import DELIVERY_KEY, SolapiMessage
from allim.relay.work import Work

KEY_SEPARATOR = ":"


@dataclass(frozen=True, slots=True)
class Letter:
    """A claimed work and the message that is made of it; `key` tells it among all of Solapi's."""

    work: Work[Message]
    body: Mapping[str, Any]
    key: str

    @property
    def to(self) -> str:
        """The recipient's number."""
        return str(self.body["to"])


def delivery_key(message: Message) -> str:
    """What tells a delivery's message among all of an account, whoever else sends by it."""
    return f"{message.notification_id}{KEY_SEPARATOR}{message.delivery_id}"


def delivery_of(key: str | None) -> int | None:
    """The delivery that a key tells; None where it is none of ours."""
    number = (key or "").rpartition(KEY_SEPARATOR)[2]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 19 else None


def make_letter(work: Work[Message], body: Mapping[str, Any]) -> Letter:
    """A letter: the message with its delivery's key."""
    key = delivery_key(work.content)
    return Letter(work, {**body, "customFields": {DELIVERY_KEY: key}}, key)


def ids_of(group_id: str, said: SolapiMessage | None) -> dict[str, str | None]:
    """What is kept with the attempt: the ids by which Solapi's console finds a message."""
    if said is None:
        return {"provider_id": group_id}
    shown = {"groupId": group_id, "messageId": said.message_id, "statusCode": said.code}
    if said.words:
        shown["statusMessage"] = said.words
    return {
        "provider_id": group_id,
        "provider_message_id": said.message_id,
        "response": json_bytes(shown).decode(),
    }


def by_work(letters: Sequence[Letter], told: Sequence[SolapiMessage]) -> dict[int, SolapiMessage]:
    """What is told of which work: by key, else by number, of which there is one in a group."""
    keys = {said.delivery_key: said for said in told if said.delivery_key is not None}
    numbers = {said.to: said for said in told if said.delivery_key is None and said.to}
    return {
        letter.work.id: said
        for letter in letters
        if (said := keys.get(letter.key) or numbers.get(letter.to)) is not None
    }


def one_number_each(letters: Sequence[Letter]) -> list[list[Letter]]:
    """Letters in groups that hold each number once."""
    groups: list[list[Letter]] = []
    seen: dict[str, int] = {}
    for letter in letters:
        place = seen.get(letter.to, 0)
        seen[letter.to] = place + 1
        if place == len(groups):
            groups.append([])
        groups[place].append(letter)
    return groups
