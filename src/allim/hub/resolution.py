"""From what a caller asked for to what is stored: every delivery complete in itself.

A child inherits from its parent what it does not name itself. That is resolved when the
caller posts, so that what is wrong is told to the caller and nothing is left to guess when
the child's turn comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from allim.base.errors import FieldProblem, InvalidRequest
from allim.channels.channel import Channel, HasOwnTemplates
from allim.hub.channel_names import unknown_channel
from allim.hub.inheriting import Said, fills_in, own_or
from allim.hub.model import (
    DELIVERIES_PER_BRANCH,
    RECIPIENTS_PER_NOTIFICATION,
    DeliveryRequest,
    NotificationRequest,
)
from allim.hub.recipients import (
    PROBLEMS_OF_A_LIST,
    WRITTEN_OUT_LIMIT,
    for_one,
    size_of,
    unfit_for_many,
    written_out,
)
from allim.hub.templates.naming import NOTHING, Named, NotStored, Templates, TooMuch

RECIPIENT_BYTES = 2048
"""Recipients are indexed, and an index entry must fit a third of a page."""

Entry = dict[str, Any]
"""One resolved delivery, as stored in `then_steps` and `fallback_steps`; nulls are left out."""


def resolve(
    request: NotificationRequest,
    channels: Mapping[str, Channel],
    *,
    tenant: int | None = None,
    templates: Templates | None = None,
) -> Sequence[Entry]:
    """Complete every delivery of a request, to any depth.

    `templates` are those that it names, as they are stored for `tenant`; None where nobody looked.

    Raises InvalidRequest with every problem of every delivery, each with its place.
    """
    _refuse_too_many(request.deliveries)
    resolution = _Resolution(request, channels, tenant, templates)
    entries: list[Entry] = []
    single: list[tuple[str, Entry]] = []
    for position, delivery in enumerate(request.deliveries):
        place = f"/deliveries/{position}"
        if delivery.recipients is None:
            entries.append(resolution.entry(delivery, None, place))
            single.append((place, entries[-1]))
        else:
            entries.extend(resolution.entries(delivery, delivery.recipients, place))
    for position, delivery in enumerate(request.deliveries):
        if (delivery.then or delivery.fallback) and _size(delivery) > DELIVERIES_PER_BRANCH:
            resolution.problems.append(
                FieldProblem(
                    f"/deliveries/{position}",
                    "too_many_steps",
                    f"has more than {DELIVERIES_PER_BRANCH} deliveries, counting all its steps",
                )
            )
    resolution.refuse_repeated_row_keys(single)
    if resolution.problems:
        raise InvalidRequest(resolution.problems)
    return entries


def _refuse_too_many(deliveries: Sequence[DeliveryRequest]) -> None:
    """Before anything is written out: what will be refused must not cost that much."""
    if sum(len(each.recipients or (each,)) for each in deliveries) > RECIPIENTS_PER_NOTIFICATION:
        words = f"are more than {RECIPIENTS_PER_NOTIFICATION} with all their recipients"
        raise InvalidRequest([FieldProblem("/deliveries", "too_many_deliveries", words)])


class _Resolution:
    def __init__(
        self,
        request: NotificationRequest,
        channels: Mapping[str, Channel],
        tenant: int | None,
        templates: Templates | None,
    ) -> None:
        self._request = request
        self._channels = channels
        self._tenant = tenant
        self._templates = templates
        self._row_keys = 0
        self._written_out = 0
        self.problems: list[FieldProblem] = []

    def entries(
        self, delivery: DeliveryRequest, recipients: Sequence[str], place: str
    ) -> list[Entry]:
        """A delivery that has many recipients, written out: one of them for each.

        All but the recipient is checked once, with the first.
        """
        if unfit := unfit_for_many(delivery, recipients):
            self.problems.append(replace(unfit, place=f"{place}/{unfit.place}"))
            return []
        if self._makes_too_much(written_out(delivery, recipients), place):
            return []
        before = len(self.problems)
        entry = self.entry(for_one(delivery, recipients[0]), None, place)
        if self.problems[before:]:
            self._rename(before, f"{place}/recipient", f"{place}/recipients/0")
            if not all(p.place == f"{place}/recipients/0" for p in self.problems[before:]):
                return []
        written, channel = [entry], self._channels[delivery.channel]
        # A template may say the recipient's name.
        is_rendered = delivery.template_code is not None and self._templates is not None
        alike = not (delivery.then or delivery.fallback or is_rendered or fills_in(type(channel)))
        draft = Said.by(delivery, channel, None).draft(self._request, self._tenant)
        first = before
        for at, recipient in enumerate(recipients[1:], 1):
            before = len(self.problems)
            if before - first > PROBLEMS_OF_A_LIST:
                break
            if alike:
                self._check_recipient(recipient, place)
                for problem in channel.check(replace(draft, recipient=recipient)):
                    self._problem(place + problem.place, problem.code, problem.message)
                written.append({**entry, "recipient": recipient})
            else:
                written.append(self.entry(for_one(delivery, recipient), None, place))
                # What templates made of it comes on top of what was asked for.
                made = 0 if self._templates is None else size_of(written[-1])
                if self._makes_too_much(made, place):
                    return []
            self._rename(before, f"{place}/recipient", f"{place}/recipients/{at}")
        return written

    def _makes_too_much(self, size: int, place: str) -> bool:
        self._written_out += size
        if self._written_out <= WRITTEN_OUT_LIMIT:
            return False
        words = f"make more than {WRITTEN_OUT_LIMIT} bytes of the notification"
        self._problem(f"{place}/recipients", "too_large", words)
        return True

    def _rename(self, since: int, place: str, other: str) -> None:
        for at, problem in enumerate(self.problems[since:], since):
            if problem.place == place:
                self.problems[at] = replace(problem, place=other)

    def entry(self, delivery: DeliveryRequest, parent: Said | None, place: str) -> Entry:
        channel = self._channels.get(delivery.channel)
        if channel is None:
            self.problems.append(unknown_channel(self._channels, f"{place}/channel"))
            return {}
        if delivery.recipients is not None and parent is not None:
            words = "are for the deliveries of the notification itself"
            self._problem(f"{place}/recipients", "not_a_step", words)
        said = own = Said.by(delivery, channel, parent).filled_in(self._request, self._tenant)
        problems = len(self.problems)
        if said.named is not NOTHING and (said.named.code or said.named.version):
            own = self._rendered(said, place)
        if len(self.problems) == problems:
            self._check(own, delivery, place)
        entry: Entry = {
            "channel": delivery.channel,
            "max_attempts": delivery.max_attempts or channel.limits.retry.attempts,
        }
        if own.recipient is not None:
            entry["recipient"] = own.recipient
        if own.template_code is not None:
            entry["template_code"] = own.template_code
        if payload := own.stored_payload():
            entry["payload"] = payload
        if delivery.row_key is not None:
            entry["row_key"] = delivery.row_key
            self._row_keys += 1
        if own.guard is not None:
            entry["guard"] = own.guard
        if delivery.then:
            entry["then"] = self._steps(delivery.then, said, f"{place}/then")
        if delivery.fallback:
            entry["fallback"] = self._steps(delivery.fallback, said, f"{place}/fallback")
        return entry

    def refuse_repeated_row_keys(self, single: Sequence[tuple[str, Entry]]) -> None:
        """One request that names a row key twice in a channel could never keep it unique.

        `single` are the entries that are not of a list, with their places: a list has no row keys.
        """
        if self._row_keys < 2:
            return
        seen: dict[tuple[str, str], str] = {}
        for place, entry in _walk(single):
            if (row_key := entry.get("row_key")) is None:
                continue
            first = seen.setdefault((entry["channel"], row_key), place)
            if first != place:
                self._problem(f"{place}/row_key", "row_key_repeated", f"is also {first}'s")

    def _steps(self, steps: Sequence[DeliveryRequest], parent: Said, place: str) -> list[Entry]:
        return [self.entry(step, parent, f"{place}/{at}") for at, step in enumerate(steps)]

    def _rendered(self, own: Said, place: str) -> Said:
        """With the words of the stored template that it names, where there is one.

        Children inherit what was said, not what was rendered: a mail's text is no SMS.
        """
        named = own.named
        if named.code is None:
            words = "is the version of a template, and no template_code is given"
            self._problem(f"{place}/template_version", "missing", words)
            return own
        if self._templates is None:
            return own
        found = self._templates[self._tenant, named]
        if isinstance(found, NotStored):
            if found.languages or named.version or not isinstance(own.channel, HasOwnTemplates):
                self._problem(f"{place}/template_code", "unknown_template", _unknown(named, found))
            return own
        # Here, since few requests name a template, and most processes never meet one.
        from allim.hub.templates.rendering import Occasion

        occasion = Occasion(
            source=self._request.source,
            type=self._request.type,
            title=own_or(own.title, self._request.title),
            message=own_or(own.message, self._request.message),
            recipient=own.recipient,
            data=self._request.data,
            own_message=own.message,
            payload=own.payload,
        )
        try:
            with self._templates.spending():
                rendered = found.render(occasion)
        except TooMuch as error:
            words = f"the template {named.code!r} {error}"
            self._problem(f"{place}/template_code", "template_failed", words)
            return own
        if isinstance(rendered, list):
            for problem in rendered:
                self._problem(place + problem.place, problem.code, problem.message)
            return own
        parts = (rendered.title, rendered.message, rendered.payload)
        self._templates.made(size_of(parts))
        return replace(
            own,
            title=own_or(rendered.title, own.title),
            message=own_or(rendered.message, own.message),
            payload=rendered.over(own.payload),
            rendered_by=named.code,
        )

    def _check(self, own: Said, delivery: DeliveryRequest, place: str) -> None:
        for name in ("title", "message"):
            if delivery.payload and name in delivery.payload:
                self._problem(
                    f"{place}/payload/{name}", "reserved", f"belongs into the delivery's {name}"
                )
        self._check_recipient(own.recipient, place)
        by = f" (as the template {own.rendered_by!r} renders it)" if own.rendered_by else ""
        for problem in own.channel.check(own.draft(self._request, self._tenant)):
            self._problem(place + problem.place, problem.code, problem.message + by)

    def _check_recipient(self, recipient: str | None, place: str) -> None:
        if (
            recipient is not None
            and len(recipient) * 4 > RECIPIENT_BYTES
            and len(recipient.encode("utf-8", "surrogatepass")) > RECIPIENT_BYTES
        ):
            words = f"has more than {RECIPIENT_BYTES} bytes"
            self._problem(f"{place}/recipient", "too_long", words)

    def _problem(self, place: str, code: str, message: str) -> None:
        self.problems.append(FieldProblem(place, code, message))


def _unknown(named: Named, found: NotStored) -> str:
    asked = f"{named.channel} template {named.code!r}"
    if named.version is not None:
        asked += f", version {named.version},"
    if not found.languages:
        return f"there is no {asked}: POST /templates"
    language = f"in the language {named.language}" if named.language else "without a language"
    have = ", ".join(each or "one without a language" for each in found.languages)
    return f"there is no {asked} {language}; there is: {have}"


def _size(delivery: DeliveryRequest) -> int:
    return 1 + sum(_size(step) for step in (*delivery.then, *delivery.fallback))


def _walk(placed: Iterable[tuple[str, Entry]]) -> Iterator[tuple[str, Entry]]:
    for place, entry in placed:
        yield place, entry
        for name in ("then", "fallback"):
            steps: Sequence[Entry] = entry.get(name, ())
            yield from _walk((f"{place}/{name}/{at}", step) for at, step in enumerate(steps))
