"""Keeps the newest message of each channel: looks back once, then reads only what is new."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from zapwatch.clock import Clock
from zapwatch.messages.webhook_log import Direction, Head, Ids, MessageLog, MessageLogError, Row

_SLACK_SECONDS = 300.0  # by which rows may be out of order, or a clock be corrected


def resolve_dst_fold(rows: Iterable[Row], not_after: float) -> list[Row]:
    """Return rows newest first, each with one time.

    The log keeps local time, which an hour in autumn has twice. Ids grow with time, so a row was
    not written after the one that follows it: the later of its two times counts unless that is
    after ``not_after`` (Unix seconds: the time of the row that follows the last of these, or now).
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


_CHUNK = 1000  # rows a statement, at first
_CHUNK_MOST = 4000
_CHUNK_SECONDS = 0.25  # a chunk that takes longer is followed by a smaller one
_LOOK_BACK_SECONDS = 1.0  # of looking back in one poll, so that new rows do not wait for it
_CATCH_UP_SECONDS = (
    2.0  # of reading new rows in one poll, so that it can be said that there are more
)
_OVERLAP_SECONDS = 60.0  # for so long a row may be committed after one with a larger id
_OVERLAP_ROWS = 5000  # and no more rows than this are looked at again
CLOCK_OFF_SECONDS = 1800.0
"""By which a row may be dated before the time in which it was written, as by a replica that lags.

What is further off has a writer with another time zone, or brings what was kept back for long.
"""
FUTURE_SECONDS = 300.0  # a clock may be corrected by so much; what is later is no real time
_MOST_CHANNELS = 100_000
_MOST_KEPT = 20_000  # channels in a checkpoint
_MOST_SINCE = 20_000  # rows since a checkpoint: of more, a look back is the shorter way


@dataclass(frozen=True, slots=True)
class ActivitySnapshot:
    """What one poll knew. Times are Unix seconds by the database's clock, keys are channel keys.

    ``last_heard`` is when a message last came through WhatsApp, see Row. ``unread`` is how many ids
    are yet to be read. While there are any, a channel's true last message may be among them.
    ``receiver_gaps`` is from when until when no message could be noticed. Where messages are not
    ``counted``, a channel without an age is unknown, not unheard.

    Counted apart, since they prove nothing: ``undecryptable`` messages by channel key, and rows of
    messages that are ``unnamed``. ``clock_offset`` is by how many seconds the newest rows are dated
    before (negative) or after the time in which they were written by the database's clock, 0 for
    less than half an hour.
    """

    now: float
    last_message: Mapping[str, float]
    messages: Mapping[tuple[str, Direction], int]
    rows_read: int
    unread: int = 0
    receiver_gaps: Sequence[tuple[float, float]] = ()
    counted: bool = True
    last_heard: Mapping[str, float] = field(default_factory=dict)
    undecryptable: Mapping[str, int] = field(default_factory=dict)
    unnamed: int = 0
    clock_offset: float = 0.0

    def heard_age(self, key: str) -> float | None:
        """Return the seconds since the channel was last heard, as age() does."""
        return self._age(self.last_heard.get(key))

    def age(self, key: str) -> float | None:
        """Return the seconds since the channel's last known message, None where there is none.

        Those in which none could have been noticed do not count.
        """
        return self._age(self.last_message.get(key))

    def _age(self, last: float | None) -> float | None:
        if last is None:
            return None
        unheard = sum(max(0.0, ends - max(begins, last)) for begins, ends in self.receiver_gaps)
        return max(0.0, self.now - last - unheard)


@dataclass(slots=True)
class RecentMessages:
    """The messages of a time window that ends now.

    ``ages`` are the seconds since a channel key was last heard, ``echoes`` the tokens of the echoes
    that were received, and ``gap`` is why others may be missing, empty where none are.
    """

    ages: dict[str, float] = field(default_factory=dict)
    echoes: set[str] = field(default_factory=set)
    gap: str = ""

    def complete(self) -> RecentMessages:
        """Return the messages; raise MessageLogError where others may be missing."""
        if self.gap:
            raise MessageLogError(self.gap)
        return self


class _Recent(NamedTuple):
    """A row that late ones may stand next to: when it was read (monotonic), and its own time."""

    read_at: float
    time: float | None


class _PutBack(NamedTuple):
    """What was known when the database's clock was put back.

    ``ahead`` is by how many seconds it was ahead of this machine's monotonic clock, before and
    then.
    """

    at: float
    ahead_before: float
    ahead: float
    last_message: Mapping[str, float]
    last_heard: Mapping[str, float]

    def is_corrected(self, ahead: float) -> bool:
        """Whether the clock has been set forward again, by most of it."""
        return ahead > (self.ahead_before + self.ahead) / 2

    def correct(
        self, before: Mapping[str, float], times: Mapping[str, float], head: Head, ahead: float
    ) -> dict[str, float]:
        """Return times as they would be had the clock never been put back."""
        corrected = dict(before)
        for key, at in times.items():
            known = before.get(key)
            if known is None or at > min(known, self.at):  # noted since
                corrected[key] = max(known or 0.0, min(head.now, at + ahead - self.ahead))
        return corrected


class LogTailer:
    """Polls one message log. For one thread; poll() raises MessageLogError and may be called again.

    A poll reads the rows above the highest id it has read, and looks for rows that appeared below
    it within the last minute, since writers commit out of order. Where ids start again (TRUNCATE,
    another table), it looks back as far as it has not looked yet.

    A row that was not there at the last poll was written since, where its own time is hours off.
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
        self._read_all_at = 0.0
        self._recent: dict[int, _Recent] = {}
        self._recent_above = 0
        self._look_back_from: int | None = None
        self._look_back_time = float("inf")
        self._unread_since: float | None = None

    def poll(self, wanted: Collection[str]) -> ActivitySnapshot:
        """Read what is new, and look back for those of the ``wanted`` keys that were never seen."""
        self._forget_recent()
        gaps = self._gaps()
        head = self._log.head(self._watermark, *gaps)
        too_far = self._restored and head.newest_id - self._watermark > _MOST_SINCE
        self._restored = False
        if not self._started or too_far:
            self._begin(head)
        else:
            self._check_clock(head)
            if self._check_known_row(head):
                self._read_late(head, *gaps)
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
            last_heard=dict(self._last_heard),
            undecryptable=dict(self._undecryptable),
            unnamed=self._unnamed,
            clock_offset=self._clock_offset,
        )

    def find(self, wanted: Collection[str]) -> ActivitySnapshot:
        """Poll until the ``wanted`` keys are found or the look back has gone far enough."""
        view = self.poll(wanted)
        while self.looking_back(wanted):
            view = self.poll(wanted)
        return view

    def looking_back(self, wanted: Collection[str]) -> bool:
        """Whether a further poll may yet find older messages of the ``wanted`` keys."""
        if self._look_back_from is None:
            return False
        return self._unread_since is not None or bool(set(wanted).difference(self._last_heard))

    def checkpoint(self) -> str:
        """Return how far the log was read, for restore(); the empty string in the middle of it."""
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
        """Go on where another process was, before the first poll; else look back as usual."""
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

    def _begin(self, head: Head) -> None:
        self._recent.clear()
        self._watermark, self._watermark_time = head.newest_id, head.newest_time
        present = self._log.ids_between(0, head.newest_id, _CHUNK)
        # Oldest first, as they will be forgotten.
        newest = {head.newest_id: head.newest_time}
        self._remember_recent({row_id: newest.get(row_id) for row_id in reversed(present)})
        self._recent_above = present[-1] - 1 if len(present) == _CHUNK else 0
        self._look_back_from = head.newest_id + 1
        self._started = True

    def _check_clock(self, head: Head) -> None:
        """Take back what a clock that was ahead has claimed: else nothing could ever be newer.

        If it was right, and is corrected, what it claimed counts again.
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
        """Return whether ids still tell what is new; where they do not, go by time instead."""
        if head.newest_id < self._watermark and self._is_remembered(head):
            # Another server of the same rows, which has not got as far yet. It will.
            return True
        if head.newest_id < self._watermark or head.known_time not in {None, self._watermark_time}:
            self._watermark, self._watermark_time = head.newest_id, head.newest_time
            self._recent_above = head.newest_id
            self._recent.clear()
            self._look_again(head)
            return False
        if head.known_time != self._watermark_time:
            # Most likely purged. Had the ids started again and come past it, that looks the same.
            self._watermark_time = None
            self._look_again(head)
        return True

    def _is_remembered(self, head: Head) -> bool:
        known = self._recent.get(head.newest_id)
        return known is not None and known.time is not None and known.time == head.newest_time

    def _look_again(self, head: Head) -> None:
        """Have all rows read backwards that have come since the last poll."""
        # What is above the watermark is new and will be read as such.
        self._look_back_from = min(self._watermark, head.newest_id) + 1
        self._look_back_time = float("inf")
        self._unread_since = self._polled_at - _OVERLAP_SECONDS

    def _gaps(self) -> tuple[int, int]:
        """Return between which ids (above the first, up to the second) a late row could appear."""
        above, up_to = self._recent_above, self._watermark
        first = next((i for i in range(above + 1, up_to + 1) if i not in self._recent), None)
        if first is None:
            return up_to, up_to
        return first - 1, next(i for i in range(up_to, above, -1) if i not in self._recent)

    def _read_late(self, head: Head, above: int, up_to: int) -> None:
        """Read rows that were committed after one with a larger id was read."""
        up_to = min(up_to, head.newest_id)
        if above >= up_to:
            return
        known = [row_id for row_id in self._recent if above < row_id <= up_to]
        # Nearly always nothing is late, and the server can say so without sending ids. The least
        # one tells where as many were purged as came late.
        if head.among == Ids.of(known):
            return
        present = self._log.ids_between(above, up_to, _OVERLAP_ROWS)
        late = [row_id for row_id in present if row_id not in self._recent]
        while late:
            rows = self._timed(partial(self._log.rows_among, late))
            self._note_new(rows, head.now)
            # Those above the last one that came were purged meanwhile.
            late = [row_id for row_id in late if row_id < rows[-1].id] if rows else []

    def _read_new(self, head: Head) -> int:
        """Read new rows, oldest first, for a while; return how many ids are yet to be read."""
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
        """Read backwards: to the last poll without a break where told so, else for a while."""
        until = self._clock.monotonic() + _LOOK_BACK_SECONDS
        while self.looking_back(wanted):
            if self._unread_since is None and self._clock.monotonic() >= until:
                return
            assert self._look_back_from is not None  # noqa: S101 - looking_back() said so
            rows = self._timed(partial(self._log.rows_before, self._look_back_from))
            self._look_back_time = self._note_old(rows, head.now)
            done = not rows or _all_older(rows, head.now - self._lookback_seconds)
            self._look_back_from = None if done else rows[-1].id
            if done or (self._unread_since is not None and _all_older(rows, self._unread_since)):
                self._unread_since = None

    def _note_new(self, rows: Sequence[Row], now: float) -> None:
        """Count rows that were written since all others were read; one from the future was now."""
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
            # An echo moves the clocks, but it is nobody's traffic.
            if row.echo is None:
                self._messages[row.key, row.direction] += 1
            self._note(row, row.key, at)
        if rows:
            self._clock_offset = max(offsets, key=abs)

    def _note_old(self, rows: Sequence[Row], now: float) -> float:
        """Take over times of older rows, and return that of the oldest.

        When one that is dated in the future was written cannot be known.
        """
        not_after = min(now, self._look_back_time)
        self._rows_read += len(rows)
        for row in resolve_dst_fold(rows, not_after):
            self._unnamed += row.unnamed
            if row.time is not None and row.time <= now + FUTURE_SECONDS:
                not_after = row.time
                if row.key is not None and row.readable:
                    self._note(row, row.key, min(row.time, now))
        return not_after

    def _note(self, row: Row, key: str, at: float) -> None:
        self._last_message[key] = max(at, self._last_message.get(key, 0.0))
        if row.heard:
            self._last_heard[key] = max(at, self._last_heard.get(key, 0.0))

    def _remember_recent(self, times: Mapping[int, float | None]) -> None:
        """Remember ids, with the times of their rows, as read just now."""
        read_at = self._clock.monotonic()
        self._recent.update({row_id: _Recent(read_at, at) for row_id, at in times.items()})

    def _forget_recent(self) -> None:
        """Let go of ids that no late row can stand next to any more."""
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
        """Keep payloads that name ever new channels from filling the memory."""
        if len(self._last_message) > _MOST_CHANNELS:
            listed = set(wanted)
            self._last_message = {k: v for k, v in self._last_message.items() if k in listed}
            self._last_heard = {k: v for k, v in self._last_heard.items() if k in listed}
            self._messages = Counter({k: v for k, v in self._messages.items() if k[0] in listed})
            self._undecryptable = Counter(
                {k: v for k, v in self._undecryptable.items() if k in listed}
            )

    def _timed(self, read: Callable[[int], list[Row]]) -> list[Row]:
        """Read a chunk and size the next one by how long it took: rows may hold 1 KB or 16 MB."""
        started = self._clock.monotonic()
        try:
            return read(self._chunk)
        finally:
            # Also where it failed: it may have been the size that took too long.
            seconds = self._clock.monotonic() - started
            if seconds > _CHUNK_SECONDS:
                self._chunk = max(1, self._chunk // 4)
            elif seconds < _CHUNK_SECONDS / 4:
                self._chunk = min(_CHUNK_MOST, self._chunk * 2)


def _all_older(rows: Iterable[Row], than: float) -> bool:
    return all(row.time is not None and row.time < than for row in rows)
