"""Keeps the newest message of each channel: looks back once, then reads only what is new."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from whatsapp.message_log import Direction, Head, MessageLog, Row

_CHUNK = 1000  # rows a statement, at first
_CHUNK_MOST = 4000
_CHUNK_SECONDS = 0.25  # a chunk that takes longer is followed by a smaller one
_LOOK_BACK_SECONDS = 1.0  # of looking back in one poll, so that new rows do not wait for it
_OVERLAP_SECONDS = 60.0  # for so long a row may be committed after one with a larger id
_OVERLAP_ROWS = 5000  # and no more rows than this are looked at again
_FUTURE_SECONDS = 300.0  # a clock may be corrected by so much; what is later is no real time
_MOST_CHANNELS = 100_000


@dataclass(frozen=True, slots=True)
class LogView:
    """What one poll knew. Times are Unix seconds by the database's clock, keys are channel keys."""

    now: float
    last_message: Mapping[str, float]
    messages: Mapping[tuple[str, Direction], int]
    rows_read: int

    def age(self, key: str) -> float | None:
        """Return the seconds since the channel's last message, None where none is known."""
        last = self.last_message.get(key)
        return None if last is None else max(0.0, self.now - last)


class LastMessages:
    """Polls one message log. For one thread; poll() raises MessageLogError and may be called again.

    A poll reads the rows above the highest id it has read, and looks for rows that appeared below
    it within the last minute, since writers commit out of order. Where ids start again (TRUNCATE,
    another table), it looks back as far as it has not looked yet.
    """

    def __init__(self, log: MessageLog, lookback_seconds: float) -> None:
        self._log = log
        self._lookback_seconds = lookback_seconds
        self._last_message: dict[str, float] = {}
        self._messages: Counter[tuple[str, Direction]] = Counter()
        self._rows_read = 0
        self._chunk = _CHUNK
        self._started = False
        self._watermark = 0
        self._watermark_time: float | None = None
        self._polled_at = 0.0
        # When each id was read, by this machine's monotonic clock; the first read is the first.
        self._recent: dict[int, float] = {}
        self._recent_above = 0
        self._look_back_from: int | None = None
        self._unread_since: float | None = None

    def poll(self, wanted: Collection[str]) -> LogView:
        """Read what is new, and look back for those of the ``wanted`` keys that were never seen."""
        head = self._log.head(self._watermark)
        if not self._started:
            self._begin(head)
        else:
            self._check_known_row(head)
        self._read_late(head)
        self._read_new(head)
        self._look_back(head, wanted)
        self._bound(wanted)
        self._polled_at = head.now
        return LogView(head.now, dict(self._last_message), dict(self._messages), self._rows_read)

    def looking_back(self, wanted: Collection[str]) -> bool:
        """Whether a further poll may yet find older messages of the ``wanted`` keys."""
        if self._look_back_from is None:
            return False
        return self._unread_since is not None or not self._last_message.keys() >= set(wanted)

    def _begin(self, head: Head) -> None:
        self._watermark = head.newest_id
        present = self._log.ids_between(0, head.newest_id, _CHUNK)
        # Oldest first, as they will be forgotten.
        self._remember_recent(reversed(present))
        self._recent_above = present[-1] - 1 if len(present) == _CHUNK else 0
        self._watermark_time = self._log.head(head.newest_id).known_row_time
        self._look_back_from = head.newest_id + 1
        self._started = True

    def _check_known_row(self, head: Head) -> None:
        """Notice that ids do not tell any more what is new, and go by time instead."""
        if head.newest_id < self._watermark or head.known_row_time not in {
            None,
            self._watermark_time,
        }:
            self._watermark_time = self._log.head(head.newest_id).known_row_time
            self._watermark = self._recent_above = head.newest_id
            self._recent.clear()
            self._look_again(head)
        elif head.known_row_time != self._watermark_time:
            # Most likely purged. Had the ids started again and come past it, that looks the same.
            self._watermark_time = None
            self._look_again(head)

    def _look_again(self, head: Head) -> None:
        """Have all rows read backwards that have come since the last poll."""
        # What is above the watermark is new and will be read as such.
        self._look_back_from = min(self._watermark, head.newest_id) + 1
        self._unread_since = self._polled_at - _OVERLAP_SECONDS

    def _read_late(self, head: Head) -> None:
        """Read rows that were committed after one with a larger id was read."""
        self._forget_recent()
        if self._recent_above >= self._watermark:
            return
        up_to = min(self._watermark, head.newest_id)
        known = [row_id for row_id in self._recent if self._recent_above < row_id <= up_to]
        # Nearly always nothing is late, and the server can say so without sending ids. The least
        # one tells where as many were purged as came late.
        expected = (len(known), sum(known), min(known, default=0))
        if self._log.count_between(self._recent_above, up_to) == expected:
            return
        present = self._log.ids_between(self._recent_above, up_to, _OVERLAP_ROWS)
        late = [row_id for row_id in present if row_id not in self._recent]
        while late:
            batch, late = late[: self._chunk], late[self._chunk :]
            self._note_new(self._timed(partial(_rows_of, self._log, batch)), head.now)

    def _read_new(self, head: Head) -> None:
        while self._watermark < head.newest_id:
            rows = self._timed(partial(self._log.rows_after, self._watermark))
            if not rows:
                return
            self._note_new(rows, head.now)
            self._forget_recent()
            self._watermark, self._watermark_time = rows[-1].id, rows[-1].time

    def _look_back(self, head: Head, wanted: Collection[str]) -> None:
        """Read backwards: to the last poll without a break where told so, else for a while."""
        until = time.monotonic() + _LOOK_BACK_SECONDS
        while self.looking_back(wanted):
            if self._unread_since is None and time.monotonic() >= until:
                return
            assert self._look_back_from is not None  # noqa: S101 - looking_back() said so
            rows = self._timed(partial(self._log.rows_before, self._look_back_from))
            self._note_old(rows, head.now)
            done = not rows or _all_older(rows, head.now - self._lookback_seconds)
            self._look_back_from = None if done else rows[-1].id
            if done or (self._unread_since is not None and _all_older(rows, self._unread_since)):
                self._unread_since = None

    def _note_new(self, rows: Iterable[Row], now: float) -> None:
        """Count rows that were written just now; one dated later, or never, was written now."""
        rows = list(rows)
        self._rows_read += len(rows)
        self._remember_recent(row.id for row in rows)
        for row in rows:
            if row.key is not None:
                self._messages[row.key, row.direction] += 1
                self._heard(row.key, now if row.time is None else min(row.time, now))

    def _note_old(self, rows: Iterable[Row], now: float) -> None:
        """Take over times of older rows; when one from the future was written cannot be known."""
        for row in rows:
            self._rows_read += 1
            if row.key is not None and row.time is not None and row.time <= now + _FUTURE_SECONDS:
                self._heard(row.key, min(row.time, now))

    def _heard(self, key: str, at: float) -> None:
        self._last_message[key] = max(at, self._last_message.get(key, 0.0))

    def _remember_recent(self, ids: Iterable[int]) -> None:
        read_at = time.monotonic()
        self._recent.update(dict.fromkeys(ids, read_at))

    def _forget_recent(self) -> None:
        """Let go of ids that no late row can stand next to any more."""
        oldest = time.monotonic() - _OVERLAP_SECONDS
        excess = len(self._recent) - _OVERLAP_ROWS
        for position, (row_id, read_at) in enumerate(list(self._recent.items())):
            if read_at >= oldest and position >= excess:
                break
            del self._recent[row_id]
            self._recent_above = max(self._recent_above, row_id)

    def _bound(self, wanted: Collection[str]) -> None:
        """Keep payloads that name ever new channels from filling the memory."""
        if len(self._last_message) > _MOST_CHANNELS:
            listed = set(wanted)
            self._last_message = {k: v for k, v in self._last_message.items() if k in listed}
            self._messages = Counter({k: v for k, v in self._messages.items() if k[0] in listed})

    def _timed(self, read: Callable[[int], list[Row]]) -> list[Row]:
        """Read a chunk and size the next one by how long it took: rows may hold 1 KB or 16 MB."""
        started = time.monotonic()
        try:
            return read(self._chunk)
        finally:
            # Also where it failed: it may have been the size that took too long.
            seconds = time.monotonic() - started
            if seconds > _CHUNK_SECONDS:
                self._chunk = max(1, self._chunk // 4)
            elif seconds < _CHUNK_SECONDS / 4:
                self._chunk = min(_CHUNK_MOST, self._chunk * 2)


def _rows_of(log: MessageLog, ids: Collection[int], _limit: int) -> list[Row]:
    return log.rows(ids)


def _all_older(rows: Iterable[Row], than: float) -> bool:
    return all(row.time is not None and row.time < than for row in rows)
