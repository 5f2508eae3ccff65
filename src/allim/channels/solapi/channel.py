"""What SMS and ALIMTALK share: they go by the same account and differ in what they write."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from yarl import URL

from allim.base.errors import FieldProblem
from allim.channels.channel import ChannelServices, Configured, Draft, Message, RecipientKind
from allim.channels.korean_sms import BadNumber, normalise_number
from allim.channels.sending import Sending
from allim.channels.solapi.client import Credentials, SolapiClient, SolapiFailure
from allim.channels.solapi.groups import DoubleCheck, GroupSender
from allim.channels.solapi.letters import Letter, delivery_key, make_letter
from allim.channels.solapi.settings import SolapiSettings
from allim.relay.outcomes import Outcome
from allim.relay.retry import RetryPolicy
from allim.relay.sender import RecordProviderId, SendingLimits
from allim.relay.work import Work

TIMEOUT_SECONDS = 20.0
LOW_BALANCE = 1.0
LIMITS = SendingLimits(
    batch=100,
    concurrency=8,
    can_be_asked=True,
    retry=RetryPolicy(attempts=3),
)
"""Works claimed together share a group; a text is paid for, so it is tried three times only."""

Body = Mapping[str, Any]


class SolapiChannel(ABC):
    """A channel by Solapi's group API; what a message looks like is the subclass's."""

    name: str
    recipient_kind = RecipientKind.PHONE

    def __init__(
        self, settings: SolapiSettings, sending: Sending, services: ChannelServices
    ) -> None:
        self.limits = sending.limits
        self.mode = settings.mode
        self._settings = settings
        self._timeout = sending.timeout
        self._print_line = services.print_line
        self.only_target: str | None = URL(settings.solapi_base_url).raw_host or "solapi"
        self.client: SolapiClient | None = None
        self._groups: GroupSender | None = None
        if self.mode == "live":
            key, secret = settings.solapi_api_key, settings.solapi_api_secret
            assert key is not None
            assert secret is not None
            credentials = Credentials(key.get_secret_value(), secret.get_secret_value())
            self.client = SolapiClient(services.http, settings.solapi_base_url, credentials)
            self._groups = GroupSender(self.client, timeout=sending.timeout)

    @abstractmethod
    def compose(self, draft: Draft) -> tuple[Body, Sequence[FieldProblem]]:
        """The message as Solapi takes it, without its custom fields; and what is wrong."""

    def check(self, draft: Draft) -> Sequence[FieldProblem]:
        """What is wrong with a draft."""
        return self.compose(draft)[1]

    def check_again(self, check: DoubleCheck) -> None:
        """Have `check` asked once more when a group stands ready, right before its send."""
        if self._groups is not None:
            self._groups.double_check = check

    def configured(self) -> Configured:
        """Live with a key; else printed or not sent at all, which must be seen."""
        if self.mode == "mock":
            return Configured(
                "mock", "SOLAPI_MOCK or DEBUG is on: messages are printed, nothing is sent"
            )
        if self.mode == "not_configured":
            words = "SOLAPI_API_KEY is not set: nothing is sent"
            return Configured("not_configured", words, needs="SOLAPI_API_KEY")
        return Configured("live", f"by {self.only_target}, from {self._sender_shown()}")

    def target(self, content: Message) -> str:
        """Solapi's host: there is one account."""
        return self.only_target or "solapi"

    async def send(
        self, batch: Sequence[Work[Message]], record: RecordProviderId[Message]
    ) -> Sequence[Outcome]:
        """Send a batch in as few groups as its numbers allow; see `solapi/groups.py`."""
        outcomes: dict[int, Outcome] = {}
        letters: list[Letter] = []
        for work in batch:
            body, problems = self.compose(Draft.of(work.content))
            if problems:
                told = "; ".join(f"{problem.place} {problem.message}" for problem in problems)
                outcomes[work.id] = Outcome.refused(problems[0].code, told)
            else:
                letters.append(make_letter(work, body))
        if self._groups is None:
            outcomes.update({letter.work.id: self._without_call(letter) for letter in letters})
        elif letters:
            outcomes.update(await self._groups.send(letters, record))
        return [outcomes[work.id] for work in batch]

    async def reconcile(self, work: Work[Message]) -> Outcome | None:
        """Ask for the group of this attempt; None when certainly nothing went out.

        The group's id is stored before anything is added to it: without one nothing was sent.
        """
        message = work.content
        if message.provider_id is None:
            return self._not_sent()
        if self._groups is None:
            # It was sent by a key that is no longer set; only an operator can look there.
            return Outcome.unknown("not_configured", "SOLAPI_API_KEY is gone: nobody can be asked")
        try:
            outcome = await self._groups.ask(
                delivery_key(message), self._number(message.recipient), message.provider_id
            )
        except SolapiFailure as failure:
            return Outcome.unknown(failure.code, str(failure))
        return outcome or self._not_sent()

    async def diagnose(self) -> str | None:
        """Ask for the balance: says whether key, secret, clock and network are right."""
        if self.client is None:
            return None
        try:
            balance = await self.client.balance(timeout=self._timeout)
        except SolapiFailure as failure:
            return str(failure)
        if balance is not None and balance < LOW_BALANCE:
            return f"the balance at Solapi is {balance:g} won: nothing can be sent"
        return None

    async def close(self) -> None:
        """The HTTP client is shared and closed by whoever made it."""
        return

    def _not_sent(self) -> Outcome | None:
        """Certainly not sent. None lets the engine count crashes; a held lane must be told."""
        if self.limits.at_most_once:
            return Outcome.snooze("not_sent", 0.0, "Solapi never had it")
        return None

    def _without_call(self, letter: Letter) -> Outcome:
        if self.mode == "mock":
            self._print_line(json.dumps(letter.body, ensure_ascii=False, indent=2))
            return Outcome.delivered("mock", detail="printed on stdout, nothing was sent")
        return Outcome.delivered("not_configured", detail="SOLAPI_API_KEY is not set")

    def _sender_shown(self) -> str:
        return self._settings.solapi_sender or "each message's own sender"

    @staticmethod
    def _number(recipient: str | None) -> str | None:
        try:
            return normalise_number(recipient or "")
        except BadNumber:
            return None
