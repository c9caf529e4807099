"""One probe of one channel: a query, a comparison or an echo, and the diagnosis of a lost echo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconnect_hook.delivery import note_webhook
from reconnect_hook.echo import (
    Echoes,
    PostponedError,
    ProbeContext,
    QueryFailedOnceError,
    UnableError,
    find_dead,
)
from reconnect_hook.event_log import StepKind
from reconnect_hook.models import ProbeOutcome
from reconnect_hook.probe_limits import ECHO_GAP_SECONDS, LimitReason
from zapwatch.channels import Channel
from zapwatch.config.readers import ProbeKind
from zapwatch.gateways.base import GatewayError, GatewayErrorKind

SECOND_QUERY_SECONDS = 60.0
"""Pause after a failed query before the second, which decides."""

GAP_SECONDS = 10.0
"""Pause before another echo of the same probe."""

_RECONSIDER_SECONDS = 6 * 3600.0  # in which a lost echo is re-evaluated
_UNREACHABLE = "the gateway itself cannot be reached"
_UNSENT = "the gateway did not confirm the echo, and it did not arrive"
# Failures of the gateway, which show nothing about the channel.
_NOT_OF_CHANNEL = frozenset(
    {
        GatewayErrorKind.CONNECTION,
        GatewayErrorKind.TLS,
        GatewayErrorKind.UNAUTHORIZED,
        GatewayErrorKind.LIMIT,
    }
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a probe, with the dead channels."""

    kind: ProbeKind
    outcome: ProbeOutcome
    dead: tuple[Channel, ...] = ()
    detail: str = ""
    suspended: tuple[Channel, ...] = ()
    """Channels without further echoes until a repair or a received message."""

    def as_line(self, channel: str, seconds: float) -> Mapping[str, object]:
        """Return the pairs of its line in the event log, after a probe of so many seconds."""
        return {
            "channel": channel,
            "probe": self.kind,
            "outcome": self.outcome,
            "seconds": f"{seconds:.1f}",
            "detail": self.detail or None,
        }


class ProbeRun:
    """Probes one of the ``listed`` channels.

    Raises StateError, MessageLogError, the exceptions of ``wait``, and PostponedError or
    UnableError if the probe cannot run.

    1. A query, if the gateway has one: two failures a minute apart prove the channel dead.
    2. A comparison, if configured: the gateway's newest message must have arrived. If not, the
       delivery is broken and the session lives. If so, no echo is sent, unless the last probe
       passed in this way too and nothing came since: then only an echo shows a deaf session.
    3. An echo, if configured: another channel writes to this one, and the echo must be heard.
    4. After a lost echo: an echo in reverse, then with a third channel, until one is proved dead.

    The probe of a dead hook resumes without repeating its echoes. ``repaired``: the channel was
    just repaired, so earlier echoes do not count. ``query_failed``: its first query failed a minute
    ago.
    """

    def __init__(
        self,
        means: ProbeContext,
        channel: Channel,
        listed: Mapping[str, Channel],
        *,
        repaired: bool = False,
        query_failed: bool = False,
    ) -> None:
        self._means = means
        self._channel = channel
        self._listed = listed
        self._repaired = repaired
        self._query_failed = query_failed
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._echoes = Echoes(self._means, self._channel, self._listed)
        self._evidence = self._echoes.evidence

    def run(self, kind: ProbeKind, *, sends: bool = False) -> Finding:
        """Run the probe; ``sends``: skip the comparison and send an echo."""
        if self._means.client.can_query and not self._passes_query(self._channel):
            return Finding(
                ProbeKind.QUERY, ProbeOutcome.FAILED, (self._channel,), "two queries failed"
            )
        if kind is not ProbeKind.QUERY and not (self._repaired or sends):
            finding = self._compare(kind)
            if finding is not None:
                return finding
        if kind is not ProbeKind.ECHO:
            return Finding(ProbeKind.QUERY, ProbeOutcome.PASSED)
        return self._echo()

    def _compare(self, kind: ProbeKind) -> Finding | None:
        """Evaluate the gateway's newest message; None if that is inconclusive."""
        means, key = self._means, self._channel.key
        if means.delivery is None:
            return None
        last = means.book.last(key)
        found = means.delivery.compare(self._channel)
        means.note(StepKind.COMPARED, found.words)
        if found.arrives is None:
            if last is not None and last.outcome is ProbeOutcome.DELIVERY_BROKEN:
                raise UnableError(found.words)
            return None
        why = note_webhook(means.delivery, means.book, self._channel, found)
        if not found.arrives:
            detail = f"the newest message: {found.words}" + (f"; {why}" if why else "")
            return Finding(ProbeKind.DELIVERY, ProbeOutcome.DELIVERY_BROKEN, detail=detail)
        if kind is ProbeKind.ECHO and last is not None:
            passed = (last.kind, last.outcome) == (ProbeKind.DELIVERY, ProbeOutcome.PASSED)
            if passed and found.newest_at <= last.at:
                return None
        return Finding(ProbeKind.DELIVERY, ProbeOutcome.PASSED)

    def _passes_query(self, channel: Channel) -> bool:
        mine = channel is self._channel and not self._repaired
        for again in (False, True):
            if again and mine and not self._query_failed:
                raise QueryFailedOnceError("its query failed once", SECOND_QUERY_SECONDS)
            if again and not mine:
                self._means.wait(SECOND_QUERY_SECONDS)
            try:
                self._means.client.query(channel)
            except GatewayError as error:
                self._means.note(StepKind.FAILED, str(error))
                if error.reason in _NOT_OF_CHANNEL:
                    raise UnableError(_UNREACHABLE) from None
                if mine and self._query_failed:
                    break
                continue
            self._means.note(StepKind.QUERIED, channel.id)
            self._evidence.answered[channel.key] = self._means.book.clock.monotonic()
            return True
        # The whole gateway may be down, as behind a proxy's error pages.
        try:
            self._means.client.list_channels()
        except GatewayError:
            raise UnableError(_UNREACHABLE) from None
        return False

    # Echoes.

    def _echo(self) -> Finding:
        key = self._channel.key
        if not self._repaired:
            self._echoes.recall()
        if key in self._means.book.suspended():
            finding = self._recheck_suspended()
            if finding is not None:
                return finding
        sender, heard = self._first_echo()
        if heard or key in self._evidence.heard:
            return Finding(ProbeKind.ECHO, ProbeOutcome.PASSED)
        if sender.key == key:
            return self._alone()
        return self._settle(sender)

    def _first_echo(self) -> tuple[Channel, bool]:
        refusal: LimitReason | None = None
        for sender in self._echoes.known_first(self._echoes.senders()):
            heard, refusal = self._echoes.send(sender, self._channel)
            if heard is not None:
                return sender, heard
            if refusal is LimitReason.TOO_SOON:
                raise PostponedError(refusal.value, ECHO_GAP_SECONDS)
        raise UnableError(refusal.value if refusal else "no other channel can write to it")

    def _recheck_suspended(self) -> Finding | None:
        """Evaluate messages heard since a lost echo; None if another echo may be sent.

        A channel heard since may have been dead then and have recovered. So the diagnosis needs a
        last echo on the same path.
        """
        key = self._channel.key
        for lost in self._means.book.lost_echoes(key, _RECONSIDER_SECONDS):
            self._echoes.take_up(lost)
        self._echoes.listen_since()
        found = self._verdict()
        if key in found:
            senders = [one for one, receiver in self._evidence.lost if receiver == key]
            listed = [self._listed[one] for one in senders if one in self._listed]
            sender = next((one for one in listed if one.connected), None)
            if sender is not None:
                return self._confirm(sender)
        if not found and key not in self._evidence.heard:
            raise UnableError(LimitReason.SUSPENDED.value)
        self._means.book.resume([key])
        self._begin_anew()
        return None

    def _confirm(self, sender: Channel) -> Finding:
        pair = sender.key, self._channel.key
        sent_at = self._evidence.lost[pair]
        heard, refusal = self._echoes.send(sender, self._channel, again=True)
        if refusal is LimitReason.TOO_SOON:
            raise PostponedError(refusal.value, ECHO_GAP_SECONDS)
        if heard or self._channel.key in self._evidence.heard:
            return Finding(ProbeKind.ECHO, ProbeOutcome.PASSED)
        if heard is None or self._evidence.lost.get(pair) == sent_at:
            raise UnableError(refusal.value if refusal else _UNSENT)
        # Two were lost: messages heard after the first one count as evidence.
        self._evidence.lost[pair] = sent_at
        return self._found(self._verdict())

    # The diagnosis.

    def _settle(self, sender: Channel) -> Finding:
        """Collect evidence until a lost echo's dead side is proved, or no step is left."""
        found: set[str] = set()
        for _ in self._evidence_of(sender):
            found = self._verdict()
            if found:
                break
        return self._found(found)

    def _evidence_of(self, sender: Channel) -> Iterator[None]:
        """Take one more step at a time after the first echo was lost."""
        yield
        if self._means.client.can_query:
            if not self._passes_query(sender):
                self._evidence.mute.add(sender.key)
            yield
        self._another(self._channel, sender)
        yield
        others = (one for one in self._echoes.senders() if one.key != sender.key)
        for third in self._echoes.known_first(others)[:1]:
            self._another(sender, third)
            yield
            self._another(third, self._channel)
            yield

    def _found(self, found: set[str]) -> Finding:
        mine = self._channel.key
        if not found and not self._evidence.lost and mine not in self._evidence.heard:
            raise UnableError(_UNSENT)
        if mine in self._evidence.heard:
            outcome = ProbeOutcome.OTHER_FAILED if found else ProbeOutcome.PASSED
        elif mine in found:
            outcome = ProbeOutcome.FAILED
        else:
            outcome = ProbeOutcome.OTHER_FAILED if found else ProbeOutcome.UNDECIDED
        lost = len(self._evidence.lost)
        return Finding(
            ProbeKind.ECHO,
            outcome,
            self._these(found),
            "1 echo was lost" if lost == 1 else f"{lost} echoes were lost",
            # If another channel is dead, this one may be probed again.
            self._these(found or {mine} - self._evidence.heard.keys()),
        )

    def _these(self, keys: set[str]) -> tuple[Channel, ...]:
        return tuple(self._listed[key] for key in sorted(keys) if key in self._listed)

    def _verdict(self) -> set[str]:
        """Return the keys of dead channels.

        Raises UnableError if the evidence depends on a channel that was repaired meanwhile.
        """
        repaired = self._means.book.repaired(
            self._means.book.clock.monotonic() - self._echoes.since
        )
        if self._repaired:
            repaired.discard(self._channel.key)
        valid = self._evidence.without(repaired)
        found = find_dead(valid)
        if not found and valid != self._evidence:
            raise UnableError("a channel that took part in its echoes was repaired meanwhile")
        return found

    def _another(self, sender: Channel, receiver: Channel) -> None:
        """Send another echo as soon as the rate limit allows; give up after six tries."""
        for _ in range(6):
            _, refusal = self._echoes.send(sender, receiver)
            if refusal is not LimitReason.TOO_SOON:
                return
            self._means.wait(GAP_SECONDS)

    def _alone(self) -> Finding:
        """Evaluate an echo to itself, which some gateways do not report."""
        if not self._evidence.lost:
            raise UnableError(_UNSENT)
        me = (self._channel,)
        if self._means.book.hears_itself(self._channel.key):
            detail = "its echo to itself was lost"
            return Finding(ProbeKind.ECHO, ProbeOutcome.FAILED, me, detail, suspended=me)
        detail = "a message to itself was not reported; does the gateway report such messages?"
        return Finding(ProbeKind.ECHO, ProbeOutcome.UNDECIDED, (), detail, suspended=me)
