"""Tracks each channel's newest message in the log: reads backwards once, then only new rows."""

from __future__ import annotations

import json
import operator
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from zapwatch.channels import rekeyed
from zapwatch.clock import STEP_SECONDS, Clock, SkippedTime
from zapwatch.messages.message import ActivitySnapshot, Direction
from zapwatch.messages.webhook_log import Head, Ids, MessageLog, Row

_SLACK_SECONDS = 300.0  # tolerance for rows out of order and for clock corrections


def resolve_dst_fold(rows: Iterable[Row], not_after: float) -> list[Row]:
    """Return rows newest first, each with one time.

    The log stores local time, which is ambiguous for an hour in autumn. Ids grow with time, so a
    row was written no later than its successor: the later of its two times counts unless it is
    after ``not_after`` (Unix seconds: the time of the row after the newest of these, or now).
    """
    result = []
    for row in sorted(rows, key=lambda row: row.id, reverse=True):
        time = row.time
        if time is not None and row.other_time is not None:
            earlier, later = sorted((time, row.other_time))
            time = later if later <= not_after + _SLACK_SECONDS else earlier
            row = replace(row, time=time, other_time=None)  # noqa: PLW2901
        if time is not None and time <= not_after + _SLACK_SECONDS:
            not_after = time
        result.append(row)
    return result


_CHUNK = 1000  # initial rows per statement
_CHUNK_MOST = 4000
_CHUNK_SECONDS = 0.25  # after a slower chunk, the next one is smaller
_LOOK_BACK_SECONDS = 1.0  # for reading backwards in one poll, so that new rows need not wait
_CATCH_UP_SECONDS = 2.0  # for reading new rows in one poll; the rest is reported as unread
_OVERLAP_SECONDS = 60.0  # a row may be committed this long after one with a larger id
_OVERLAP_ROWS = 5000  # limit of the ids remembered for that
CLOCK_OFF_SECONDS = 1800.0
"""Tolerance for a row's time before that of its writing, as with a replica that lags.

A larger offset means that the writer has another time zone, or delivers a backlog.
"""
_MOST_CHANNELS = 100_000
_MOST_KEPT = 20_000  # channels in a checkpoint
_MOST_SINCE = 20_000  # rows since a checkpoint; beyond that, reading backwards is shorter


class _Recent(NamedTuple):
    """Recently read row, near which late ones may appear; ``read_at`` is monotonic."""

    read_at: float
    time: float | None


class _PutBack(NamedTuple):
    """State when the database's clock was set back.

    ``ahead_before`` and ``ahead`` are its lead over this machine's monotonic clock in seconds.
    """

    at: float
    ahead_before: float
    ahead: float
    last_message: Mapping[str, float]
    last_heard: Mapping[str, float]

    def is_corrected(self, ahead: float) -> bool:
        """Whether the clock has been set forward again, by more than half of the step."""
        return ahead > (self.ahead_before + self.ahead) / 2

    def correct(
        self, before: Mapping[str, float], times: Mapping[str, float], head: Head, ahead: float
    ) -> dict[str, float]:
        """Return the times as if the clock had never been set back."""
        corrected = dict(before)
        for key, at in times.items():
            known = before.get(key)
            if known is None or at > min(known, self.at):  # noted since
                corrected[key] = max(known or 0.0, min(head.now, at + ahead - self.ahead))
        return corrected


class LogTailer:
    """Poller of one message log, for one thread; after a MessageLogError, poll again.

    A poll reads the rows above the highest known id, and rows that appeared below it within the
    last minute, since writers commit out of order. If ids restart (TRUNCATE, another table), it
    reads backwards to the last poll.

    If a new row's own time is hours off, it counts as written since the previous poll.
    """

    def __init__(
        self, log: MessageLog, lookback_seconds: float, *, clock: Clock | None = None
    ) -> None:
        self._log = log
        self._clock = clock or Clock()
        self._lookback_seconds = lookback_seconds
        self._last_message: dict[str, float] = {}
        self._last_heard: dict[str, float] = {}
        self._messages: Counter[tuple[str, Direction]] = Counter()
        self._undecryptable: Counter[str] = Counter()
        self._unnamed = 0
        self._clock_offset = 0.0
        self._rows_read = 0
        self._chunk = _CHUNK
        self._started = False
        self._restored = False
        self._watermark = 0
        self._watermark_time: float | None = None
        self._polled_at = 0.0
        self._ahead: float | None = None
        self._put_back: _PutBack | None = None
        self._skipped = SkippedTime(self._clock)
        self._read_all_at = 0.0
        self._recent: dict[int, _Recent] = {}
        self._recent_above = 0
        self._look_back_from: int | None = None
        self._look_back_time = float("inf")
        self._unread_since: float | None = None

    def poll(self, wanted: Collection[str]) -> ActivitySnapshot:
        """Read new rows, and read backwards for the ``wanted`` keys without a message."""
        gaps = self._gaps()
        head = self._log.head(self._watermark, *gaps)
        # Rows that were in the future may be found now.
        skipped = self._skipped.note(head.now)
        too_far = self._restored and head.newest_id - self._watermark > _MOST_SINCE
        self._restored = False
        if not self._started or too_far:
            self._begin(head)
        else:
            self._check_clock(head)
            if self._check_known_row(head):
                self._read_late(head, *gaps)
            if skipped:
                self._look_back_from, self._look_back_time = self._watermark + 1, float("inf")
        # Only now, since the last poll that worked may have been minutes ago.
        self._forget_recent()
        unread = self._read_new(head)
        if not unread and head.newest_id >= self._watermark:
            self._read_all_at = head.now
        self._look_back(head, wanted)
        self._bound(wanted)
        self._polled_at = head.now
        self._ahead = head.now - self._clock.monotonic()
        return ActivitySnapshot(
            head.now,
            dict(self._last_message),
            dict(self._messages),
            self._rows_read,
            unread,
            self._skipped.periods,
            last_heard=dict(self._last_heard),
            undecryptable=dict(self._undecryptable),
            unnamed=self._unnamed,
            clock_offset=self._clock_offset,
        )

    def find(self, wanted: Collection[str]) -> ActivitySnapshot:
        """Poll until all new rows, and all ``wanted`` keys or the lookback period, are read."""
        view = self.poll(wanted)
        while view.unread or self.looking_back(wanted):
            view = self.poll(wanted)
        return view

    def looking_back(self, wanted: Collection[str]) -> bool:
        """Whether a further poll may find older messages of the ``wanted`` keys."""
        if self._look_back_from is None:
            return False
        return self._unread_since is not None or bool(set(wanted).difference(self._last_heard))

    def checkpoint(self) -> str:
        """Return the position and times for restore(); empty while rows are unread."""
        done = self._read_all_at and self._unread_since is None
        if not done or len(self._last_message) > _MOST_KEPT:
            return ""
        above = max(self._gaps()[0], self._watermark - _OVERLAP_ROWS)
        known = {
            key: (at, self._last_heard.get(key, 0.0)) for key, at in self._last_message.items()
        }
        return json.dumps(
            {
                "lookback_seconds": self._lookback_seconds,
                "watermark": self._watermark,
                "watermark_time": self._watermark_time,
                "read_all_at": self._read_all_at,
                "above": above,
                "missing": [
                    i for i in range(above + 1, self._watermark + 1) if i not in self._recent
                ],
                "look_back_from": self._look_back_from,
                "last": known,
            }
        )

    def restore(self, checkpoint: str) -> None:
        """Resume from a checkpoint, before the first poll; ignore an unusable one."""
        try:
            kept = json.loads(checkpoint)
            last = {str(k): (float(at), float(heard)) for k, (at, heard) in kept["last"].items()}
            above, watermark = int(kept["above"]), int(kept["watermark"])
            missing = set(map(int, kept["missing"]))
            read_all_at, lookback = float(kept["read_all_at"]), float(kept["lookback_seconds"])
            self._look_back_from = kept["look_back_from"]
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        if lookback < self._lookback_seconds or not 0 <= watermark - above <= _OVERLAP_ROWS:
            return
        self._watermark, self._watermark_time = watermark, kept.get("watermark_time")
        self._read_all_at = self._polled_at = read_all_at
        self._last_message = {key: at for key, (at, _) in last.items()}
        self._last_heard = {key: heard for key, (_, heard) in last.items() if heard}
        present = (i for i in range(above + 1, watermark + 1) if i not in missing)
        self._remember_recent(dict.fromkeys(present))
        self._recent_above = above
        self._started = self._restored = True

    def rename(self, key_of: Callable[[str], str]) -> None:
        """Change the keys of all that was read."""
        self._last_message = rekeyed(self._last_message, key_of, max)
        self._last_heard = rekeyed(self._last_heard, key_of, max)
        self._undecryptable = Counter(rekeyed(self._undecryptable, key_of, operator.add))
        by_key = rekeyed(self._messages, lambda one: (key_of(one[0]), one[1]), operator.add)
        self._messages = Counter(by_key)

    def _begin(self, head: Head) -> None:
        self._recent.clear()
        self._watermark, self._watermark_time = head.newest_id, head.newest_time
        present = self._log.ids_between(0, head.newest_id, _CHUNK)
        # Oldest first, the order of _forget_recent().
        newest = {head.newest_id: head.newest_time}
        self._remember_recent({row_id: newest.get(row_id) for row_id in reversed(present)})
        self._recent_above = present[-1] - 1 if len(present) == _CHUNK else 0
        self._look_back_from = head.newest_id + 1
        self._started = True

    def _check_clock(self, head: Head) -> None:
        """Limit known times to now if the clock was set back, so that new ones can be later.

        If the clock is then set forward again, the original times are restored.
        """
        ahead, put_back = head.now - self._clock.monotonic(), self._put_back
        if put_back is not None and put_back.is_corrected(ahead):
            self._last_message = put_back.correct(
                put_back.last_message, self._last_message, head, ahead
            )
            self._last_heard = put_back.correct(put_back.last_heard, self._last_heard, head, ahead)
            self._put_back = None
        elif head.now < self._polled_at:
            if put_back is None and self._ahead is not None:
                self._put_back = _PutBack(
                    head.now, self._ahead, ahead, self._last_message, self._last_heard
                )
            self._last_message = {k: min(at, head.now) for k, at in self._last_message.items()}
            self._last_heard = {k: min(at, head.now) for k, at in self._last_heard.items()}

    def _check_known_row(self, head: Head) -> bool:
        """Whether ids above the watermark are the new rows; otherwise read backwards by time."""
        if head.newest_id < self._watermark and self._is_remembered(head):
            # A replica of the same log, which is behind and will catch up.
            return True
        if head.newest_id < self._watermark or head.known_time not in {None, self._watermark_time}:
            self._watermark, self._watermark_time = head.newest_id, head.newest_time
            self._recent_above = head.newest_id
            self._recent.clear()
            self._look_again(head)
            return False
        if head.known_time != self._watermark_time:
            # Most likely purged; restarted ids that have passed it look the same.
            self._watermark_time = None
            self._look_again(head)
        return True

    def _is_remembered(self, head: Head) -> bool:
        known = self._recent.get(head.newest_id)
        return known is not None and known.time is not None and known.time == head.newest_time

    def _look_again(self, head: Head) -> None:
        """Schedule a backward read of all rows since the last poll."""
        # Rows above the watermark are read as new ones.
        self._look_back_from = min(self._watermark, head.newest_id) + 1
        self._look_back_time = float("inf")
        self._unread_since = self._polled_at - _OVERLAP_SECONDS

    def _gaps(self) -> tuple[int, int]:
        """Return the id range where late rows can appear: above the first, up to the second."""
        above, up_to = self._recent_above, self._watermark
        first = next((i for i in range(above + 1, up_to + 1) if i not in self._recent), None)
        if first is None:
            return up_to, up_to
        return first - 1, next(i for i in range(up_to, above, -1) if i not in self._recent)

    def _read_late(self, head: Head, above: int, up_to: int) -> None:
        """Read rows that were committed after rows with larger ids had been read."""
        up_to = min(up_to, head.newest_id)
        if above >= up_to:
            return
        known = [row_id for row_id in self._recent if above < row_id <= up_to]
        # Rows are rarely late, and the server can rule it out without sending ids. The least id
        # reveals the case that as many rows were purged as came late.
        if head.among == Ids.of(known):
            return
        present = self._log.ids_between(above, up_to, _OVERLAP_ROWS)
        late = [row_id for row_id in present if row_id not in self._recent]
        while late:
            rows = self._timed(partial(self._log.rows_among, late))
            self._note_new(rows, head.now)
            # Ids above the last row returned were purged meanwhile.
            late = [row_id for row_id in late if row_id < rows[-1].id] if rows else []

    def _read_new(self, head: Head) -> int:
        """Read new rows, oldest first, for two seconds; return the number of unread ids."""
        until = self._clock.monotonic() + _CATCH_UP_SECONDS
        while self._watermark < head.newest_id:
            if self._clock.monotonic() >= until:
                return head.newest_id - self._watermark
            rows = self._timed(partial(self._log.rows_after, self._watermark))
            if not rows:
                break
            self._note_new(rows, head.now)
            self._forget_recent()
            self._watermark, self._watermark_time = rows[-1].id, rows[-1].time
        return 0

    def _look_back(self, head: Head, wanted: Collection[str]) -> None:
        """Read backwards: to ``_unread_since`` without a time limit, otherwise for a second."""
        until = self._clock.monotonic() + _LOOK_BACK_SECONDS
        while self.looking_back(wanted):
            if self._unread_since is None and self._clock.monotonic() >= until:
                return
            assert self._look_back_from is not None  # noqa: S101 - looking_back() checks it
            rows = self._timed(partial(self._log.rows_before, self._look_back_from))
            self._look_back_time = self._note_old(rows, head.now)
            done = not rows or _all_older(rows, head.now - self._lookback_seconds)
            self._look_back_from = None if done else rows[-1].id
            if done or (self._unread_since is not None and _all_older(rows, self._unread_since)):
                self._unread_since = None

    def _note_new(self, rows: Sequence[Row], now: float) -> None:
        """Count new rows; a time in the future counts as now."""
        self._rows_read += len(rows)
        self._remember_recent({row.id: row.time for row in rows})
        since = min(self._read_all_at, now)
        offsets = [0.0]
        for row in resolve_dst_fold(rows, now):
            at = now if row.time is None else min(row.time, now)
            if since - at > CLOCK_OFF_SECONDS:
                at = since
            if row.time is not None and abs(row.time - at) > CLOCK_OFF_SECONDS:
                offsets.append(row.time - at)
            self._unnamed += row.unnamed
            if row.key is None:
                continue
            if not row.readable:
                self._undecryptable[row.key] += 1
                continue
            # An echo updates the times, but is not traffic.
            if row.echo is None:
                self._messages[row.key, row.direction] += 1
            self._note(row, row.key, at)
        if rows:
            self._clock_offset = max(offsets, key=abs)

    def _note_old(self, rows: Sequence[Row], now: float) -> float:
        """Note the times of older rows, and return that of the oldest.

        Rows with a time in the future are skipped: the time of their writing is unknown.
        """
        not_after = min(now, self._look_back_time)
        self._rows_read += len(rows)
        for row in resolve_dst_fold(rows, not_after):
            self._unnamed += row.unnamed
            if row.time is not None and row.time <= now + STEP_SECONDS:
                not_after = row.time
                if row.key is not None and row.readable:
                    self._note(row, row.key, min(row.time, now))
        return not_after

    def _note(self, row: Row, key: str, at: float) -> None:
        self._last_message[key] = max(at, self._last_message.get(key, 0.0))
        if row.heard:
            self._last_heard[key] = max(at, self._last_heard.get(key, 0.0))

    def _remember_recent(self, times: Mapping[int, float | None]) -> None:
        """Remember ids as read now, with the times of their rows."""
        read_at = self._clock.monotonic()
        self._recent.update({row_id: _Recent(read_at, at) for row_id, at in times.items()})

    def _forget_recent(self) -> None:
        """Forget ids that are too old, or too many, for late rows near them."""
        oldest = self._clock.monotonic() - _OVERLAP_SECONDS
        excess = len(self._recent) - _OVERLAP_ROWS
        over: list[int] = []
        for row_id, known in self._recent.items():
            if known.read_at >= oldest and len(over) >= excess:
                break
            over.append(row_id)
        for row_id in over:
            del self._recent[row_id]
        self._recent_above = max([self._recent_above, *over])

    def _bound(self, wanted: Collection[str]) -> None:
        """Limit the memory when payloads name ever more channels."""
        if len(self._last_message) > _MOST_CHANNELS:
            listed = set(wanted)
            self._last_message = {k: v for k, v in self._last_message.items() if k in listed}
            self._last_heard = {k: v for k, v in self._last_heard.items() if k in listed}
            self._messages = Counter({k: v for k, v in self._messages.items() if k[0] in listed})
            self._undecryptable = Counter(
                {k: v for k, v in self._undecryptable.items() if k in listed}
            )

    def _timed(self, read: Callable[[int], list[Row]]) -> list[Row]:
        """Read a chunk and size the next by its duration: a row may have 1 KB or 16 MB."""
        started = self._clock.monotonic()
        try:
            return read(self._chunk)
        finally:
            # Also after an error, which may be due to the size.
            seconds = self._clock.monotonic() - started
            if seconds > _CHUNK_SECONDS:
                self._chunk = max(1, self._chunk // 4)
            elif seconds < _CHUNK_SECONDS / 4:
                self._chunk = min(_CHUNK_MOST, self._chunk * 2)


def _all_older(rows: Iterable[Row], than: float) -> bool:
    return all(row.time is not None and row.time < than for row in rows)
