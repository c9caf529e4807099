"""The simulated gateway's state: its channels, independent of the API that shows them."""

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from demo.simulator.channel import ACTIONS, SimulatedChannel
from demo.simulator.knobs import POSTING
from demo.simulator.messages import Births, SimulatedMessage
from demo.simulator.rules import Refused
from zapwatch.clock import Clock

T = TypeVar("T")

FIRST_NUMBER = 5500000000100
_KEPT = 20_000  # messages of a channel


class SimulatedGateway:
    """All channels; thread-safe."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.births = Births(self.clock)
        self.births.listen(self._count)
        self._channels: dict[str, SimulatedChannel] = {}
        self._sent: dict[str, SimulatedMessage] = {}
        self._kept: dict[str, deque[SimulatedMessage]] = defaultdict(partial(deque, maxlen=_KEPT))
        self._encrypted: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()
        self._numbers = FIRST_NUMBER
        self._qr_codes = 0

    def each(self, tell: Callable[[SimulatedChannel], T]) -> list[T]:
        """Return the result of `tell` for each channel, settled to the current time."""
        with self._lock:
            now = self.clock.monotonic()
            for channel in self._channels.values():
                channel.settle(now)
            return [tell(channel) for channel in self._channels.values()]

    def at(self, channel_id: str, work: Callable[[SimulatedChannel, float], T], otherwise: T) -> T:
        """Return `work` of a channel and the current time, or `otherwise` without a channel."""
        with self._lock:
            channel = self._channels.get(channel_id)
            if channel is None:
                return otherwise
            now = self.clock.monotonic()
            channel.settle(now)
            return work(channel, now)

    def posts(self, channel_id: str) -> bool:
        """Return whether a channel's webhook setting is one of POSTING."""
        return self.at(channel_id, lambda one, _: one.knobs.posting in POSTING, otherwise=True)

    def next_qr(self) -> int:
        """Return the number of a new QR code; call it within `at`."""
        self._qr_codes += 1
        return self._qr_codes

    def next_pairing_code(self) -> str:
        """Return a new pairing code; call it within `at`."""
        return f"SIMU{self.next_qr():04}"

    def enter_code(self, channel_id: str, code: str) -> dict[str, Any]:
        """Enter a pairing code on a channel's phone; raise Refused if it is not valid."""
        with self._lock:
            channel, now = self._found(channel_id)
            channel.enter_code(code, now)
            return channel.snapshot(now)

    def delete(self, channel_id: str) -> bool:
        """Delete a session; return whether it existed."""
        with self._lock:
            return self._channels.pop(channel_id, None) is not None

    def create(self, channel_id: str) -> bool:
        """Create a session without a paired phone; return False if it already exists."""
        with self._lock:
            if channel_id in self._channels:
                return False
            self._add(channel_id, paired=False)
            return True

    def put(self, channel_id: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Create a channel or change its settings, which the caller has validated.

        A new channel with a paired session is connected, any other new one is disconnected.
        """
        with self._lock:
            now = self.clock.monotonic()
            channel = self._channels.get(channel_id)
            if channel is None:
                paired = settings.get("session", "paired") == "paired"
                channel = self._add(channel_id, paired=paired)
            channel.settle(now)
            channel.change(settings, now)
            return channel.snapshot(now)

    def act(self, channel_id: str, action: str) -> dict[str, Any]:
        """Apply an action to a channel, and return its new state; raise Refused."""
        if action not in {*ACTIONS, "remove"}:
            raise Refused(404, f"unknown action {action!r}; known are {', '.join(ACTIONS)}, remove")
        with self._lock:
            channel, now = self._found(channel_id)
            if action == "remove":
                del self._channels[channel_id]
            else:
                channel.act(action, now)
            return channel.snapshot(now)

    def snapshot(self) -> list[dict[str, Any]]:
        """Describe every channel for the control API."""
        with self._lock:
            now = self.clock.monotonic()
            return [channel.snapshot(now) for channel in self._channels.values()]

    def send(self, channel_id: str, number: str, words: str) -> SimulatedMessage | None:
        """Deliver a message to a number; return None if the channel cannot send.

        The gateway reports it at once for the sender. It reports the arrival if the number belongs
        to a channel that is alive; a deaf channel gets the message without a report.
        """
        with self._lock:
            now = self.clock.monotonic()
            for channel in self._channels.values():
                channel.settle(now)
            sender = self._channels.get(channel_id)
            if sender is None or not sender.sends:
                return None
            receivers = [c for c in self._channels.values() if c.number == number and c.alive]
            sent = SimulatedMessage(
                channel_id,
                outgoing=True,
                by_api=True,
                sender=sender.number,
                receiver=number,
                words=words,
                at=self.clock.time(),
            )
            self._sent[sent.id] = sent
        self.births.bear(sent)
        for receiver in receivers:
            arrived = replace(sent, channel=receiver.id, outgoing=False, by_api=False)
            self.births.bear(arrived)
        return sent

    def take_back(self, channel_id: str, number: str, message_id: str) -> bool:
        """Delete a message at both ends; return False if the channel sent no such message there."""
        with self._lock:
            sent = self._sent.get(message_id)
            if sent is None or (sent.channel, sent.receiver) != (channel_id, number):
                return False
            del self._sent[message_id]
            return True

    def still_there(self) -> list[SimulatedMessage]:
        """Return the sent messages that were not deleted."""
        with self._lock:
            return list(self._sent.values())

    def messages_of(self, channel: SimulatedChannel) -> list[SimulatedMessage]:
        """Return a channel's stored messages, the oldest first; call it within `at`."""
        return sorted(self._kept[channel.id], key=lambda one: one.at)

    def _found(self, channel_id: str) -> tuple[SimulatedChannel, float]:
        """Return a channel, settled to the current time, and that time; raise Refused."""
        channel = self._channels.get(channel_id)
        if channel is None:
            raise Refused(404, f"there is no channel {channel_id!r}")
        now = self.clock.monotonic()
        channel.settle(now)
        return channel, now

    def _add(self, channel_id: str, *, paired: bool) -> SimulatedChannel:
        channel = SimulatedChannel(channel_id, "connected" if paired else "disconnected")
        channel.number = str(self._numbers)
        self._numbers += 1
        if not paired:
            channel.knobs.session = "unpaired"
        self._channels[channel_id] = channel
        return channel

    def _count(self, message: SimulatedMessage) -> None:
        with self._lock:
            channel = self._channels.get(message.channel)
            if channel is not None:
                channel.messages += 1
                channel.active_at = self.clock.time()
                self._keep(channel, message)

    def _keep(self, channel: SimulatedChannel, message: SimulatedMessage) -> None:
        if not channel.knobs.stores:
            return
        kept = self._kept[channel.id]
        if message.kind == "ciphertext":
            self._encrypted[channel.id, message.id] = message.at
        elif (channel.id, message.id) in self._encrypted:
            message = replace(message, at=self._encrypted.pop((channel.id, message.id)))
            kept.remove(next(one for one in kept if one.id == message.id))
        kept.append(message)
