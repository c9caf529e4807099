"""One probe of one channel: a query, an echo, and where that is lost, who is to blame."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from reconnect_hook.probes.blame import Evidence, dead
from reconnect_hook.probes.ear import Ear, Heard
from reconnect_hook.state.probes import ProbeBook, ProbeOutcome, Refusal
from whatsapp.channels import Channel
from whatsapp.echo import make_token
from whatsapp.gateways.gateway import Gateway, GatewayError, Reason
from whatsapp.probe_settings import ProbeKind, ProbeSettings

ECHO_SECONDS = 60.0
"""So soon an echo is heard, or it is lost."""

SECOND_QUERY_SECONDS = 60.0
"""After a query that failed, before the second one that counts."""

GAP_SECONDS = 10.0
"""For another echo of the same probe."""

_LISTEN_PAUSE = 1.0
_LATELY_SECONDS = 3600.0  # whoever was heard within is a good sender, the later the better
_AS_GOOD_SECONDS = 600.0  # between those heard within, who has sent least takes the next
_RECONSIDER_SECONDS = 6 * 3600.0  # for which it counts who was heard since an echo was lost
_SLACK_SECONDS = 2.0  # the log's times are cut to whole seconds
# These are the gateway's trouble, and say nothing of the channel.
_NOT_OF_CHANNEL = frozenset({Reason.CONNECTION, Reason.TLS, Reason.UNAUTHORIZED})
# After these the text may have been sent all the same.
_UNCERTAIN = frozenset({Reason.TIMEOUT, Reason.CONNECTION, Reason.HTML})


class PostponedError(Exception):
    """The probe can be made in a moment. ``str()`` says why not now."""


class UnableError(Exception):
    """The probe cannot be made. ``str()`` says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe has found: how it was made, how it ended, and who is dead."""

    kind: ProbeKind
    outcome: ProbeOutcome
    dead: tuple[Channel, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ProbeMeans:
    """What probes are made with; ``wait`` pauses for some seconds, or raises Interrupted."""

    client: Gateway
    ear: Ear | None
    book: ProbeBook
    settings: ProbeSettings
    wait: Callable[[float], None] = time.sleep

    def kind_of(self, channel: Channel) -> ProbeKind:
        """Return how a channel is asked; without a log that tells of echoes, by query at most."""
        kind = self.settings.kind_of(channel, can_query=self.client.can_query)
        if kind is ProbeKind.ECHO and self.ear is None:
            return ProbeKind.QUERY if self.client.can_query else ProbeKind.OFF
        return kind

    def can_ask(self, key: str) -> bool:
        """Whether the settings and the gateway let a channel be asked at all."""
        wanted = self.settings.overrides.get(key, self.settings.kind)
        by_echo = wanted is ProbeKind.ECHO and self.ear is not None
        return wanted is not ProbeKind.OFF and (self.client.can_query or by_echo)


class Examination:
    """Asks one of the ``listed`` channels.

    Raises StateError, MessageLogError, what ``wait`` raises, and where nothing can be asked
    PostponedError or UnableError.

    1. A query, where there is one: two failures a minute apart, and it is dead.
    2. An echo, where that is wanted: another channel writes to it, and it must be heard.
    3. If that is lost: the other way round, then with a third, until it is clear who is dead.
    """

    def __init__(self, means: ProbeMeans, channel: Channel, listed: Mapping[str, Channel]) -> None:
        self._means = means
        self._channel = channel
        self._listed = listed
        self._evidence = Evidence()
        self._since = time.monotonic()

    def run(self, kind: ProbeKind) -> Finding:
        """Ask in this way."""
        if self._means.client.can_query and not self._passes_query(self._channel):
            self._evidence.mute.add(self._channel.key)
            return Finding(
                ProbeKind.QUERY, ProbeOutcome.FAILED, (self._channel,), "two queries failed"
            )
        if kind is ProbeKind.QUERY:
            return Finding(ProbeKind.QUERY, ProbeOutcome.PASSED)
        return self._echo()

    def _passes_query(self, channel: Channel) -> bool:
        for again in (False, True):
            if again:
                self._means.wait(SECOND_QUERY_SECONDS)
            try:
                self._means.client.query(channel)
            except GatewayError as error:
                if error.reason in _NOT_OF_CHANNEL:
                    raise UnableError("the gateway itself cannot be reached") from None
                continue
            self._evidence.answered.add(channel.key)
            return True
        return False

    # Echoes.

    def _echo(self) -> Finding:
        key = self._channel.key
        if key in self._means.book.halted():
            return self._reconsider()
        under_way = self._means.book.open_echo(key, 10 * ECHO_SECONDS)
        if under_way is not None and under_way.sender in self._listed:
            # Somebody has died between sending it and hearing it: it is not sent again.
            self._since = time.monotonic() - under_way.seconds
            sender = self._listed[under_way.sender]
            heard = self._hear(sender, self._channel, under_way.token, ECHO_SECONDS)
        else:
            sender, heard = self._first_echo()
        if heard or key in self._evidence.heard:
            return Finding(ProbeKind.ECHO, ProbeOutcome.PASSED)
        if sender.key == key:
            return self._alone()
        return self._settle(sender)

    def _first_echo(self) -> tuple[Channel, bool]:
        refusal: Refusal | None = None
        for sender in self._senders(self._channel):
            heard, refusal = self._send(sender, self._channel)
            if heard is not None:
                return sender, heard
            if refusal is Refusal.TOO_SOON:
                raise PostponedError(refusal.value)
        raise UnableError(refusal.value if refusal else "no other channel can write to it")

    def _reconsider(self) -> Finding:
        """Judge by what was heard since an echo was lost, and send no other."""
        lost = self._means.book.lost_echoes(self._channel.key, _RECONSIDER_SECONDS)
        if not lost:
            raise UnableError(Refusal.HALTED.value)
        self._since = time.monotonic() - max(seconds for _, _, seconds in lost)
        self._evidence.lost = {(sender, receiver) for sender, receiver, _ in lost}
        self._listen(time.monotonic() - self._since)
        found = self._verdict()
        if not found:
            raise UnableError(Refusal.HALTED.value)
        return self._found(found)

    def _senders(self, receiver: Channel) -> Iterator[Channel]:
        """Return who may write to a channel, the best first; itself where there is no other."""
        means = self._means
        others = [
            one
            for one in self._listed.values()
            if one.connected
            and one.key != receiver.key
            and means.settings.number_of(one) is not None
            and means.kind_of(one) is ProbeKind.ECHO
        ]
        if not others:
            yield receiver
            return
        halted = means.book.halted()
        ages = self._listen(_LATELY_SECONDS).ages
        sent = means.book.sent_today()

        def rank(one: Channel) -> tuple[float, int]:
            age = ages.get(one.key, _LATELY_SECONDS)
            return (0.0 if age <= _AS_GOOD_SECONDS else age, sent.get(one.key, 0))

        yield from sorted((one for one in others if one.key not in halted), key=rank)

    def _send(self, sender: Channel, receiver: Channel) -> tuple[bool | None, Refusal | None]:
        """Send an echo; return whether it was heard, None where it must not be sent, and why."""
        means = self._means
        number = means.settings.number_of(receiver)
        if number is None:
            return None, None
        token = make_token(receiver.key)
        refusal = means.book.reserve(sender.key, receiver.key, token)
        if refusal is not None:
            return None, refusal
        listen_for = ECHO_SECONDS
        message_id: str | None = None
        try:
            message_id = means.client.send_text(
                sender, number, f"{means.settings.echo_text} {token}"
            )
        except GatewayError as error:
            if error.reason not in _UNCERTAIN:
                listen_for = 0.0
        heard = self._hear(sender, receiver, token, listen_for)
        if message_id is not None and means.client.can_take_back:
            # Else it stays in the chat of two channels that are the operator's own.
            with suppress(GatewayError):
                means.client.take_back(sender, number, message_id)
        return heard, None

    def _hear(self, sender: Channel, receiver: Channel, token: str, seconds: float) -> bool:
        """Listen for an echo, and note what becomes of it."""
        began = time.monotonic()
        while True:
            listened_at = time.monotonic()
            heard = self._listen(listened_at - self._since + _SLACK_SECONDS)
            if token in heard.echoes:
                self._evidence.spoke.add(sender.key)
                self._evidence.heard.add(receiver.key)
                self._means.book.note_echo(token, heard=True)
                return True
            if listened_at - began >= seconds:
                break
            self._means.wait(_LISTEN_PAUSE)
        self._evidence.lost.add((sender.key, receiver.key))
        self._means.book.note_echo(token, heard=False)
        return False

    def _listen(self, seconds: float) -> Heard:
        ear = self._means.ear
        if ear is None:
            raise UnableError("there is no message log that tells of echoes")
        heard = ear.listen(seconds)
        since = time.monotonic() - self._since
        # Not the seconds that the log's times are cut by: what came before proves nothing.
        self._evidence.heard |= {key for key, age in heard.ages.items() if age < since - 1}
        return heard

    # Who is dead?

    def _settle(self, sender: Channel) -> Finding:
        """Ask further until it is clear whose fault a lost echo is, or nothing is left to ask."""
        for step in (self._query_sender, self._turn_round, self._ask_third, self._third_asks):
            if self._verdict():
                break
            step(sender)
        return self._found(self._verdict())

    def _found(self, found: set[str]) -> Finding:
        mine = self._channel.key
        if mine in self._evidence.heard:
            outcome = ProbeOutcome.OTHER_FAILED if found else ProbeOutcome.PASSED
        elif mine in found:
            outcome = ProbeOutcome.FAILED
        else:
            outcome = ProbeOutcome.OTHER_FAILED if found else ProbeOutcome.UNDECIDED
        for key in {mine, *found} - self._evidence.heard:
            self._means.book.halt(key, self._listed[key].id)
        return Finding(
            ProbeKind.ECHO,
            outcome,
            tuple(self._listed[key] for key in sorted(found) if key in self._listed),
            f"{len(self._evidence.lost)} echoes were lost",
        )

    def _verdict(self) -> set[str]:
        return dead(self._evidence)

    def _query_sender(self, sender: Channel) -> None:
        if self._means.client.can_query and not self._passes_query(sender):
            self._evidence.mute.add(sender.key)

    def _turn_round(self, sender: Channel) -> None:
        self._another(self._channel, sender)

    def _ask_third(self, sender: Channel) -> None:
        third = self._third(sender)
        if third is not None:
            self._another(sender, third)

    def _third_asks(self, sender: Channel) -> None:
        third = self._third(sender)
        if third is not None:
            self._another(third, self._channel)

    def _third(self, sender: Channel) -> Channel | None:
        return next((one for one in self._senders(self._channel) if one.key != sender.key), None)

    def _another(self, sender: Channel, receiver: Channel) -> None:
        """Send one more, as soon as that may be."""
        for _ in range(6):
            _, refusal = self._send(sender, receiver)
            if refusal is not Refusal.TOO_SOON:
                return
            self._means.wait(GAP_SECONDS)

    def _alone(self) -> Finding:
        """Judge a channel that has written to itself, which not every gateway reports."""
        key = self._channel.key
        self._means.book.halt(key, self._channel.id)
        if self._means.book.was_heard_by_echo(key):
            return Finding(
                ProbeKind.ECHO, ProbeOutcome.FAILED, (self._channel,), "its echo to itself was lost"
            )
        detail = "a message to itself was not reported; does the gateway report such messages?"
        return Finding(ProbeKind.ECHO, ProbeOutcome.UNDECIDED, (), detail)
