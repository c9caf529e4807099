"""Message source: times of activity and message counts in the gateway's channel list."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import NamedTuple

from zapwatch.channels import Channel
from zapwatch.clock import Clock, SkippedTime
from zapwatch.messages.history import History
from zapwatch.messages.message import ActivitySnapshot, Delivered, MessageLogError, RecentMessages


class _Counted(NamedTuple):
    messages: float
    """Their number, or the listed time of activity."""
    since: float
    """By the monotonic clock; in a checkpoint Unix seconds."""
    grown: bool


class Activity:
    """Channels' last activity: the time in the list, or that of the last growth of the count.

    A channel with neither is unknown rather than silent, and has no age. With counts only, the age
    starts when the channel is first seen, since the age of its newest message is unknown. Times
    are by this machine's clock, except those that the gateway reports.
    """

    def __init__(
        self, listed: Callable[[], Collection[Channel]], *, clock: Clock | None = None
    ) -> None:
        """Take ``listed``, which returns the recent channel list or raises MessageLogError."""
        self._listed = listed
        self._clock = clock or Clock()
        self._counted: dict[str, _Counted] = {}
        self._ahead = self._clock.time() - self._clock.monotonic()
        self._skipped = SkippedTime(self._clock)

    def poll(self, _channels: Collection[Channel]) -> ActivitySnapshot:
        """Read the list; raise MessageLogError if it is unavailable."""
        channels = self._listed()
        self._skipped.note(self._clock.time())
        view = self.find(channels)
        began = {key: self._unix(counted.since) for key, counted in self._counted.items()}
        last = {**began, **view.last_message}
        gaps = self._skipped.periods
        return replace(view, last_message=last, last_heard=last, receiver_gaps=gaps)

    def find(self, channels: Collection[Channel]) -> ActivitySnapshot:
        """Read just listed channels; return proven activity only."""
        now, monotonic = self._clock.time(), self._clock.monotonic()
        self._ahead = now - monotonic
        counted = self._counted = self._count(channels, monotonic)
        last = {key: self._unix(one.since) for key, one in counted.items() if one.grown}
        # A time in the future counts from when it was first listed.
        last |= {
            c.key: min(c.activity, self._unix(counted[c.key].since))
            for c in channels
            if c.activity is not None
        }
        # Lists do not distinguish sent from heard messages.
        return ActivitySnapshot(now, last, messages={}, rows_read=0, counted=False, last_heard=last)

    def _unix(self, monotonic: float) -> float:
        at = monotonic + self._ahead
        for begins, ends in reversed(self._skipped.periods):
            at -= ends - begins if at < ends else 0.0
        return at

    def _count(self, channels: Collection[Channel], now: float) -> dict[str, _Counted]:
        counted = {}
        for channel in channels:
            count = channel.message_count if channel.activity is None else channel.activity
            if count is None:
                continue
            before = self._counted.get(channel.key)
            if before is None:
                counted[channel.key] = _Counted(count, now, grown=False)
            elif count > before.messages or (channel.activity and count < before.messages):
                counted[channel.key] = _Counted(count, now, grown=True)
            else:
                # The count shrinks when the gateway purges.
                counted[channel.key] = before._replace(messages=count)
        return counted

    def checkpoint(self) -> str:
        """Return the message counts, for restore()."""
        return json.dumps(
            {k: one._replace(since=one.since + self._ahead) for k, one in self._counted.items()}
        )

    def restore(self, checkpoint: str) -> None:
        """Load the counts of another process, so that growth since then shows."""
        try:
            self._counted = {
                str(key): _Counted(float(messages), float(since) - self._ahead, bool(grown))
                for key, (messages, since, grown) in json.loads(checkpoint).items()
            }
        except (ValueError, TypeError, AttributeError):
            self._counted = {}

    def recent(self, seconds: float) -> RecentMessages:
        """Read the list; raise MessageLogError if it is unavailable."""
        view = self.find(self._listed())
        ages = {key: view.now - last for key, last in view.last_message.items()}
        return RecentMessages({key: age for key, age in ages.items() if age <= seconds})

    def delivered(self, *_: object) -> Delivered:
        """Raise MessageLogError: the list shows no single messages."""
        raise MessageLogError("the channel list has no single messages")

    def histories(self, _wanted: Collection[str], _pause: Callable[[], None]) -> dict[str, History]:
        """Return an empty mapping: the list only has the last activity."""
        return {}

    def close(self) -> None:
        """Do nothing: there are no connections."""
