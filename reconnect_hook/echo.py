"""The echoes of one probe, its dependencies, and the diagnosis of a lost echo."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import dropwhile

from reconnect_hook.delivery import DeliveryCheck
from reconnect_hook.event_log import AttemptStep, StepKind
from reconnect_hook.probe_limits import Echo, LimitReason, ProbeRepository
from zapwatch.channels import Channel, folded
from zapwatch.config.readers import ProbeKind, is_number
from zapwatch.config.settings import ProbeSettings
from zapwatch.gateways.base import Gateway, GatewayError, GatewayErrorKind
from zapwatch.messages.message import MessageLogError, RecentMessages, make_token
from zapwatch.messages.source import MessageSource


class PostponedError(Exception):
    """The probe can resume in ``seconds``. ``str()`` is the reason."""

    def __init__(self, why: str, seconds: float) -> None:
        super().__init__(why)
        self.seconds = seconds


class QueryFailedOnceError(PostponedError):
    """A second query, a minute later, must confirm the failure."""


class UnableError(Exception):
    """The probe cannot run. ``str()`` is the reason."""


class Interrupted(Exception):  # noqa: N818 - not an error
    """The probe was cancelled, or the program ends."""


@dataclass(frozen=True, slots=True)
class ProbeContext:
    """The dependencies of probes.

    ``messages`` is a source that shows echoes, or None; ``wait`` sleeps for some seconds or raises
    Interrupted; ``steps`` are those of one probe; ``delivery`` is None if messages cannot be
    compared.
    """

    client: Gateway
    messages: MessageSource | None
    book: ProbeRepository
    settings: ProbeSettings
    wait: Callable[[float], None] = time.sleep
    steps: list[AttemptStep] = field(default_factory=list)
    delivery: DeliveryCheck | None = None

    def note(self, kind: StepKind, words: str = "") -> None:
        """Record a step of the probe and its details."""
        self.steps.append(AttemptStep(self.book.clock.monotonic(), kind, words))

    def kind_of(self, channel: Channel) -> ProbeKind:
        """Return how a channel is probed; without a source of echoes, by query at most."""
        client = self.client
        kind = self.settings.kind_of(
            channel,
            can_query=client.can_query,
            can_compare=self.delivery is not None,
            asks_number=client.asks_number,
        )
        if kind is ProbeKind.ECHO and self.messages is None:
            return ProbeKind.QUERY if client.can_query else ProbeKind.OFF
        return kind

    def number_of(self, channel: Channel) -> str | None:
        """Return the phone number for echoes to a channel; raise GatewayError.

        The operator's number wins over the gateway's own. Other sources are not trusted.
        """
        number = self.settings.echo_numbers.of(channel)
        if number is None:
            own = self.client.own_number(channel)
            number = own if own and is_number(own) else None
        return number

    def can_ask(self, channel: Channel) -> bool:
        """Whether settings and gateway allow any probe of a channel."""
        wanted = self.settings.wanted(channel)
        by_echo = wanted is ProbeKind.ECHO and self.messages is not None
        return wanted is not ProbeKind.OFF and (self.client.can_query or by_echo)


DELIVERY_SECONDS = 30.0
"""Longest time until a sent echo is in the log; later messages without it prove it lost."""

_NEVER = float("-inf")


@dataclass(slots=True)
class Evidence:
    """Evidence since a probe began, by channel key.

    Values are times of the monotonic clock: channels die and recover meanwhile, so evidence counts
    only relative to the time of an echo.
    """

    heard: dict[str, float] = field(default_factory=dict)
    """A message arrived: both its session and the log work."""
    spoke: dict[str, float] = field(default_factory=dict)
    """An echo from it arrived."""
    answered: dict[str, float] = field(default_factory=dict)
    """A query succeeded: its connection works."""
    mute: set[str] = field(default_factory=set)
    """Two consecutive queries failed."""
    lost: dict[tuple[str, str], float] = field(default_factory=dict)
    """Lost echoes by (sender, receiver)."""

    def without(self, keys: AbstractSet[str]) -> Evidence:
        """Return this without the evidence against these channels, repaired since."""
        lost = {pair: at for pair, at in self.lost.items() if keys.isdisjoint(pair)}
        return replace(self, mute=self.mute - keys, lost=lost)

    def connected_at(self, key: str) -> float:
        """Return when a channel was last shown to be connected."""
        return max(shown.get(key, _NEVER) for shown in (self.heard, self.spoke, self.answered))


def find_dead(evidence: Evidence) -> set[str]:
    """Return the keys of the channels proved dead.

    A lost echo alone does not show which side is dead. The receiver is if the sender is shown to be
    connected afterwards, which a zombie that only receives nothing still is; the sender is if the
    receiver receives a message afterwards. Until the log shows any later message, the log itself
    may be late or dead, and a lost echo proves nothing.
    """
    found = evidence.mute - evidence.heard.keys()
    told_until = max(evidence.heard.values(), default=_NEVER)
    for (sender, receiver), sent_at in evidence.lost.items():
        if told_until < sent_at + DELIVERY_SECONDS:
            continue
        if evidence.heard.get(receiver, _NEVER) >= sent_at:
            if evidence.connected_at(sender) < sent_at:
                found.add(sender)
        elif evidence.connected_at(sender) >= sent_at:
            found.add(receiver)
    return found


ECHO_SECONDS = 60.0
"""An echo not heard within this time is lost."""

_LISTEN_PAUSE = 1.0
_LATELY_SECONDS = 3600.0  # channels heard within are preferred as senders, the latest first
_AS_GOOD_SECONDS = 600.0  # among channels heard within, the one with the fewest sent echoes is next
_SLACK_SECONDS = 2.0  # the log's times are truncated to seconds
# After these errors nothing was sent. After any other, the text may have been sent anyway: a
# wrapper reports success=false for a message that WPPConnect sends a moment later.
_SURELY_UNSENT = frozenset(
    {GatewayErrorKind.TLS, GatewayErrorKind.UNAUTHORIZED, GatewayErrorKind.LIMIT}
)


class Echoes:
    """Sends and hears the echoes of one channel's probe, and collects the evidence.

    Raises StateError, MessageLogError and the exceptions of ``means.wait``. ``since`` is the start
    of the evidence, by the monotonic clock.
    """

    def __init__(self, means: ProbeContext, probed: Channel, listed: Mapping[str, Channel]) -> None:
        self.evidence = Evidence()
        self._clock = means.book.clock
        self.since = self._clock.monotonic()
        self._means = means
        self._probed = probed
        self._listed = listed
        self._earlier: dict[tuple[str, str], Echo] = {}
        self._under_way: dict[str, tuple[str, str, float]] = {}

    def recall(self) -> None:
        """Load the echoes of the channel's current probe from a hook that died."""
        key = self._probed.key
        # A probe's first echo goes to its channel; older echoes belong to other probes.
        for echo in dropwhile(
            lambda one: one.receiver != key, self._means.book.earlier_echoes(key)
        ):
            self._earlier[echo.sender, echo.receiver] = echo
            self.take_up(echo)

    def take_up(self, echo: Echo) -> None:
        """Load an echo of an earlier probe."""
        sent_at = self._clock.monotonic() - echo.seconds
        self.since = min(self.since, sent_at)
        self._under_way[echo.token] = (echo.sender, echo.receiver, sent_at)
        if echo.heard:
            self._note_heard(echo.token)
        elif echo.heard is False and echo.sent:
            self.evidence.lost[echo.sender, echo.receiver] = sent_at

    @cached_property
    def _others(self) -> list[Channel]:
        """The channels that can write to the probed one."""
        # A token does not tell channels apart whose names are folded alike.
        alike = folded(self._probed.message_key)
        return [
            one
            for one in self._listed.values()
            if one.connected
            and folded(one.message_key) != alike
            and self._means.kind_of(one) is ProbeKind.ECHO
        ]

    def senders(self) -> Iterator[Channel]:
        """Yield possible senders to the probed channel, the best first; itself without others."""
        if not self._others:
            yield self._probed
            return
        suspended, sent = self._means.book.senders()
        ages = self.listen(_LATELY_SECONDS).ages

        def rank(one: Channel) -> tuple[float, int]:
            age = ages.get(one.key, _LATELY_SECONDS)
            return (0.0 if age <= _AS_GOOD_SECONDS else age, sent.get(one.key, 0))

        yield from sorted((one for one in self._others if one.key not in suspended), key=rank)

    def known_first(self, channels: Iterable[Channel]) -> list[Channel]:
        """Return the channels, those with recorded echoes first."""
        known = {key for pair in self._earlier for key in pair}
        return sorted(channels, key=lambda one: one.key not in known)

    def send(
        self, sender: Channel, receiver: Channel, *, again: bool = False
    ) -> tuple[bool | None, LimitReason | None]:
        """Send an echo; return whether it was heard, or None and the reason against sending.

        ``again``: send although echoes of one of the two are suspended.
        """
        earlier = self._earlier.pop((sender.key, receiver.key), None)
        if earlier is not None:
            heard = self._end_of(earlier)
            if heard is not None:
                return heard, None
        number = self._number_of(receiver)
        if number is None:
            return None, LimitReason.NO_NUMBER
        if sender.key != receiver.key and self._number_of(sender) == number:
            return None, LimitReason.SAME_NUMBER
        # A late answer may have kept the probe until after it was cancelled.
        self._means.wait(0.0)
        token = make_token(receiver.message_key)
        refusal = self._means.book.reserve(sender.key, receiver.key, token, again=again)
        if refusal is not None:
            return None, refusal
        self._under_way[token] = (sender.key, receiver.key, self._clock.monotonic())
        self._means.note(StepKind.SENT, f"{sender.id} → {receiver.id}")
        return self._send(sender, number, token), None

    def _end_of(self, earlier: Echo) -> bool | None:
        """Return whether a dead hook's echo is heard, None if it was probably never sent."""
        if earlier.heard is not None:
            return earlier.heard
        heard = self._hear(earlier.token, sent=earlier.sent)
        return heard if heard or earlier.sent else None

    def _number_of(self, receiver: Channel) -> str | None:
        with suppress(GatewayError):
            return self._means.number_of(receiver)
        return None

    def _send(self, sender: Channel, number: str, token: str) -> bool:
        means = self._means
        message_id: str | None = None
        sent, listen_for = False, ECHO_SECONDS
        try:
            message_id = means.client.send_text(
                sender, number, f"{means.settings.echo_text} {token}"
            )
            sent = True
        except GatewayError as error:
            means.note(StepKind.FAILED, str(error))
            if error.reason in _SURELY_UNSENT:
                listen_for = 0.0
        if sent:
            means.book.note_echo(token, sent=True)
        heard = self._hear(token, sent=sent, seconds=listen_for)
        if message_id is not None and means.client.can_take_back:
            # Otherwise it remains in the chat between two of the operator's channels.
            with suppress(GatewayError):
                means.client.take_back(sender, number, message_id)
        return heard

    def _hear(self, token: str, *, sent: bool, seconds: float | None = None) -> bool:
        """Listen for an echo and record the result.

        A missing echo is evidence only if it was surely ``sent``.
        """
        seconds = ECHO_SECONDS if seconds is None else seconds
        began = self._clock.monotonic()
        while True:
            listened_at = self._clock.monotonic()
            heard = self._listen_for(token)
            if token in heard.echoes:
                self._means.note(StepKind.HEARD)
                return True
            if listened_at - began >= seconds:
                break
            self._means.wait(_LISTEN_PAUSE)
        self._means.note(StepKind.LOST)
        if sent:
            sender, receiver, sent_at = self._under_way[token]
            self.evidence.lost[sender, receiver] = sent_at
        self._means.book.note_echo(token, heard=False)
        return False

    def _listen_for(self, token: str) -> RecentMessages:
        try:
            return self.listen_since()
        except MessageLogError:
            # The log may have gaps, so the missing echo proves nothing.
            self._means.book.note_echo(token, sent=False)
            raise

    def listen_since(self) -> RecentMessages:
        """Return the messages heard since ``since``, and record them as evidence."""
        return self.listen(self._clock.monotonic() - self.since + _SLACK_SECONDS)

    def listen(self, seconds: float) -> RecentMessages:
        """Return the messages heard within so many seconds, and record them as evidence."""
        messages = self._means.messages
        if messages is None:
            raise UnableError("no message log reports echoes")
        asked_at = self._clock.monotonic()
        heard = messages.recent(seconds)
        if heard.gap:
            raise MessageLogError(heard.gap)
        since = self._clock.monotonic() - self.since
        for key, age in heard.ages.items():
            # Without the log's rounding to seconds: messages before ``since`` prove nothing.
            if age < since - 1:
                self._note_came(key, asked_at - age)
        # Late echoes count too, since the log may lag.
        for token in heard.echoes & self._under_way.keys():
            self._note_heard(token)
            self._means.book.note_echo(token, heard=True)
        return heard

    def _note_heard(self, token: str) -> None:
        sender, receiver, sent_at = self._under_way.pop(token)
        self.evidence.spoke[sender] = max(sent_at, self.evidence.spoke.get(sender, sent_at))
        self._note_came(receiver, sent_at)
        if self.evidence.lost.get((sender, receiver)) == sent_at:
            del self.evidence.lost[sender, receiver]

    def _note_came(self, key: str, at: float) -> None:
        self.evidence.heard[key] = max(at, self.evidence.heard.get(key, at))
