"""Signs of life that a gateway gives in its own channel list."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

from zapwatch.channels import Channel
from zapwatch.clock import Clock
from zapwatch.messages.history import History
from zapwatch.messages.log_tailer import ActivitySnapshot, RecentMessages
from zapwatch.messages.received import Delivered
from zapwatch.messages.webhook_log import MessageLogError


class _Counted(NamedTuple):
    messages: int
    since: float
    grown: bool


class Activity:
    """When channels were last active, as the list says, or when it was seen to count more messages.

    A channel of which the list says neither is unknown, not silent: it has no age. Where messages
    are only counted, the clock begins when the channel is first seen, for nobody knows how old its
    newest one is. Times are of this machine, but for those that the gateway itself reports.
    """

    def __init__(
        self, listed: Callable[[], Collection[Channel]], *, clock: Clock | None = None
    ) -> None:
        """Have ``listed`` give the channels of a moment ago, or raise MessageLogError."""
        self._listed = listed
        self._clock = clock or Clock()
        self._counted: dict[str, _Counted] = {}

    def poll(self, _channels: Collection[Channel]) -> ActivitySnapshot:
        """Look at the list; raise MessageLogError where there is none."""
        channels = self._listed()
        view = self.find(channels)
        began = {key: counted.since for key, counted in self._counted.items()}
        last = {**began, **view.last_message}
        return replace(view, last_message=last, last_heard=last)

    def find(self, channels: Collection[Channel]) -> ActivitySnapshot:
        """Look at channels that were listed just now, and tell what is known for certain."""
        now = self._clock.time()
        self._count(channels, now)
        last = {key: counted.since for key, counted in self._counted.items() if counted.grown}
        last |= {c.key: min(now, c.activity) for c in channels if c.activity is not None}
        # Whether that was sent or heard, no list tells.
        return ActivitySnapshot(now, last, messages={}, rows_read=0, counted=False, last_heard=last)

    def _count(self, channels: Collection[Channel], now: float) -> None:
        counted = {}
        for channel in channels:
            count = channel.message_count
            if count is None:
                continue
            before = self._counted.get(channel.key)
            if before is None:
                counted[channel.key] = _Counted(count, now, grown=False)
            elif count > before.messages:
                counted[channel.key] = _Counted(count, now, grown=True)
            else:
                # Fewer are left where the gateway purges.
                counted[channel.key] = before._replace(messages=count)
        self._counted = counted

    def checkpoint(self) -> str:
        """Return how many messages were counted, for restore()."""
        return json.dumps(self._counted)

    def restore(self, checkpoint: str) -> None:
        """Go on with the counts of another process, so that one that has grown since shows."""
        try:
            self._counted = {
                str(key): _Counted(int(messages), float(since), bool(grown))
                for key, (messages, since, grown) in json.loads(checkpoint).items()
            }
        except (ValueError, TypeError, AttributeError):
            self._counted = {}

    def recent(self, seconds: float) -> RecentMessages:
        """Look at the list; raise MessageLogError where there is none."""
        view = self.find(self._listed())
        ages = {key: view.now - last for key, last in view.last_message.items()}
        return RecentMessages({key: age for key, age in ages.items() if age <= seconds})

    def delivered(self, _wanted: Mapping[str, Collection[str]], _since: float) -> Delivered:
        """Raise MessageLogError: the list shows no single messages."""
        raise MessageLogError("the channel list shows no single messages")

    def histories(self, _wanted: Collection[str], _pause: Callable[[], None]) -> dict[str, History]:
        """Return none: the list shows the last activity only."""
        return {}

    def close(self) -> None:
        """Do nothing: there is no connection."""
