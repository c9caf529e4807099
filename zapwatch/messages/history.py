"""History of a channel: the minutes with a message in the last 28 days."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from zapwatch.messages.log_tailer import resolve_dst_fold
from zapwatch.messages.webhook_log import MessageLog

DAYS = 28
HOURS = DAYS * 24
_CHUNK = 1000  # rows per statement
_WHOLE = (1 << 60) - 1  # an hour with a message in every minute


class Gap(NamedTuple):
    """Last minute before and first minute after a gap, counted from the history's start."""

    start: int
    end: int


class History:
    """The last 28 days of one channel, one bit per minute: 5 KB for any traffic.

    Times are Unix seconds. ``messages`` is the number of noted messages.
    """

    def __init__(self, ends: float) -> None:
        """Create an empty history up to and including the hour of ``ends``."""
        self.begins = (math.floor(ends / 3600) + 1 - HOURS) * 3600.0
        self.messages = 0
        self._hours = array("Q", bytes(8 * HOURS))

    def note(self, at: float) -> None:
        """Add one message; ignore one outside the 28 days."""
        hour, second = divmod(at - self.begins, 3600)
        if 0 <= hour < HOURS:
            self._hours[int(hour)] |= 1 << int(second // 60)
            self.messages += 1

    def note_hour(self, hour: int, minutes: int, messages: int) -> None:
        """Add a whole hour (since 1970): one bit per minute, and the number of messages."""
        place = hour - int(self.begins // 3600)
        if 0 <= place < HOURS:
            self._hours[place] |= minutes & _WHOLE
            self.messages += messages

    def busy_minutes(self) -> list[int]:
        """Return the number of minutes with a message for each hour."""
        return [word.bit_count() for word in self._hours]

    def busy_quarters(self) -> Iterator[float]:
        """Yield the start of each quarter of an hour with a message, oldest first."""
        for hour, word in enumerate(self._hours):
            for quarter in range(4):
                if word >> (15 * quarter) & 0x7FFF:
                    yield self.begins + hour * 3600.0 + quarter * 900.0

    def gaps(self) -> Iterator[Gap]:
        """Yield each gap of at least one whole minute, oldest first."""
        last = -1
        for hour, word in enumerate(self._hours):
            if word == _WHOLE and last == hour * 60 - 1:
                last = hour * 60 + 59
                continue
            bits = word
            while bits:
                minute = hour * 60 + (bits & -bits).bit_length() - 1
                if last >= 0 and minute > last + 1:
                    yield Gap(last, minute)
                last = minute
                bits &= bits - 1

    def span(self) -> Gap | None:
        """Return the first and the last minute with a message, None without any."""
        first = next((hour for hour, word in enumerate(self._hours) if word), None)
        if first is None:
            return None
        last = next(hour for hour in range(HOURS - 1, -1, -1) if self._hours[hour])
        low, high = self._hours[first], self._hours[last]
        return Gap(first * 60 + (low & -low).bit_length() - 1, last * 60 + high.bit_length() - 1)


def read_histories(
    log: MessageLog, wanted: Collection[str], pause: Callable[[], None]
) -> dict[str, History]:
    """Read the log backwards; return the histories of the ``wanted`` keys that have messages.

    ``pause`` is called between two statements. Raises MessageLogError.
    """
    head = log.head(0)
    now = head.now
    begins = History(now).begins
    histories: dict[str, History] = {}
    before, not_after, chunk = head.newest_id + 1, now, _CHUNK
    while rows := log.rows_before(before, chunk):
        for row in resolve_dst_fold(rows, not_after):
            if row.time is None:
                continue
            not_after = min(now, row.time)
            # Zapwatch's own echoes are not part of a channel's traffic.
            if row.key is None or not row.readable:
                continue
            if row.key in wanted and row.echo is None:
                history = histories.get(row.key)
                if history is None:
                    history = histories[row.key] = History(now)
                history.note(row.time)
        if all(row.time is not None and row.time < begins for row in rows):
            break
        before = rows[-1].id
        # The server returns fewer rows if more would take too long.
        chunk = min(_CHUNK, 2 * len(rows))
        pause()
    return histories
