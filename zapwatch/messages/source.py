"""Message sources: the protocol, PixelHub's log as one, and the factory."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.mysql import LONGTEXT

from zapwatch.channels import MAX_ID_LENGTH, Channel, Names, Status
from zapwatch.clock import STEP_SECONDS, Clock
from zapwatch.config import GatewaySettings, MessageSourceKind, Settings, SilenceMode
from zapwatch.db import Database, StateError, make_table
from zapwatch.messages.channel_list import Activity
from zapwatch.messages.event_store import EventStore, StoredMessages
from zapwatch.messages.history import History, read_histories
from zapwatch.messages.log_tailer import CLOCK_OFF_SECONDS, LogTailer
from zapwatch.messages.message import (
    ActivitySnapshot,
    Delivered,
    IdSet,
    MessageLogError,
    RecentMessages,
    no_pause,
)
from zapwatch.messages.webhook_log import Head, MessageLog, Row


class MessageSource(Protocol):
    """Messages of one gateway's channels; every query raises MessageLogError.

    Keys are those of channels, whatever their names in log and events. poll() and find() are for a
    single thread, recent() is thread-safe.
    """

    def poll(self, channels: Collection[Channel], /) -> ActivitySnapshot:
        """Return the current knowledge of the channels.

        Slow queries are spread over the following calls.
        """

    def find(self, channels: Collection[Channel], /) -> ActivitySnapshot:
        """Return complete knowledge of just listed channels, even if that takes long."""

    def checkpoint(self) -> str:
        """Return the position of find(), for restore() in another process."""

    def restore(self, checkpoint: str) -> None:
        """Resume from a checkpoint, before the first find(); ignore an unusable one."""

    def recent(self, seconds: float) -> RecentMessages:
        """Return the messages of the last ``seconds``."""

    def delivered(
        self, channels: Collection[Channel], since: float, pause: Callable[[], None] = ..., /
    ) -> Delivered:
        """Return what has arrived at the channels since ``since`` (Unix seconds).

        ``pause`` is called between statements.
        """

    def histories(
        self, wanted: Collection[str], pause: Callable[[], None], /
    ) -> dict[str, History]:
        """Return the last 28 days of the ``wanted`` keys.

        ``pause`` is called between steps of some milliseconds.
        """

    def close(self) -> None:
        """Close the connections; the next query opens new ones."""


_CHUNK = 500  # rows per statement
_MOST_ROWS = 50_000  # read for one window; in a larger one, the oldest are omitted
_MOST_MARKS = 1000
_MOST_COMPARED = 3_000_000  # rows read for one audit
_EARLIER_SECONDS = 1200.0
"""Tolerance for a message that arrives before its listed time.

Clocks differ, and Evolution dates an edited message by its edit, up to 15 minutes later.
"""


class _Marks:
    """Newest row ids of a log with times: rows above an id were written later. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._marks: list[tuple[int, float]] = []

    def note(self, head: Head) -> list[tuple[int, float]]:
        """Add the current mark; return all, by the highest id, as id and Unix seconds."""
        newest = (head.newest_id, head.now)
        with self._lock:
            # Larger ones belong to another log, or to a wrong clock. For the same id, the latest
            # time is the most precise.
            known = [one for one in self._marks if one[0] < newest[0] and one[1] <= newest[1]]
            self._marks = [*known, newest][-_MOST_MARKS:]
            return self._marks


def _arrived(row: Row, marks: Sequence[tuple[int, float]], now: float) -> float | None:
    """Return the time of a row's writing: its own unless a mark shows that it came hours later.

    None if its own time is in the future and no mark precedes it.
    """
    place = bisect_left(marks, (row.id,))
    since = marks[place - 1][1] if place else None
    if row.time is None or row.time > now + STEP_SECONDS:
        return since
    if since is not None and since - row.time > CLOCK_OFF_SECONDS:
        return since
    return min(row.time, now)


class LogMessages:
    """Message source: PixelHub's log."""

    def __init__(
        self,
        log: MessageLog,
        lookback_seconds: float,
        listed: Callable[[], Collection[Channel]] = list,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._log = log
        self._listed = listed
        self._clock = clock or Clock()
        self._last = LogTailer(log, lookback_seconds, clock=clock)
        self._names = Names()
        self._marks = _Marks()

    def poll(self, channels: Collection[Channel]) -> ActivitySnapshot:
        """Read new rows; read backwards for a second for channels without a message."""
        self._learn_names(channels)
        return self._last.poll([channel.key for channel in channels])

    def find(self, channels: Collection[Channel]) -> ActivitySnapshot:
        """Read backwards until all are found or the lookback period has been read."""
        self._learn_names(channels)
        return self._last.find([channel.key for channel in channels])

    def checkpoint(self) -> str:
        """Return the position in the log."""
        return self._last.checkpoint()

    def restore(self, checkpoint: str) -> None:
        """Resume from a position, without reading backwards again."""
        self._last.restore(checkpoint)

    def recent(self, seconds: float) -> RecentMessages:
        """Read the newest rows.

        A row dated hours back that was absent at an earlier call counts as new: a backlog that
        finally arrives shows that a repair has worked.
        """
        self._list_names()
        recent = RecentMessages()
        head = self._log.head(0)
        marks = self._marks.note(head)
        before = head.newest_id + 1
        for _ in range(0, _MOST_ROWS, _CHUNK):
            rows = self._log.rows_before(before, _CHUNK)
            in_window = False
            for row in rows:
                at = _arrived(row, marks, head.now)
                if at is None or at < head.now - seconds:
                    continue
                in_window = True
                if row.key is not None and row.heard and row.readable:
                    recent.ages.setdefault(row.key, head.now - at)
                    if row.echo is not None:
                        recent.echoes.add(row.echo)
            if not in_window:
                break
            before = rows[-1].id
        return recent

    def delivered(
        self, channels: Collection[Channel], since: float, pause: Callable[[], None] = no_pause
    ) -> Delivered:
        """Read the log backwards, and keep the hashes of ids in memory."""
        self._list_names(channels)
        arrived = {channel.key: IdSet() for channel in channels}
        heard: set[str] = set()
        head = self._log.head(0)
        ahead = head.now - self._clock.time()
        since += ahead
        before, oldest = head.newest_id + 1, head.now
        # An old newest row may be a new one, dated back by a writer in another time zone.
        behind = head.now - min(head.newest_time or head.now, head.now)
        for _ in range(0, _MOST_COMPARED, _CHUNK):
            rows = self._log.arrivals_before(before, _CHUNK)
            pause()
            for row in rows:
                if row.key not in arrived or not row.ids:
                    continue
                if row.time is not None and row.time >= since:
                    heard.add(row.key)
                arrived[row.key].add(row.ids)
            times = [row.time for row in rows if row.time is not None]
            oldest = min(times, default=oldest)
            if not rows or (times and max(times) < since - _EARLIER_SECONDS - behind):
                # Nothing is known before the first row of a new or purged log.
                gaps = () if rows else ((0.0, oldest - ahead),)
                return Delivered(lambda key, ids: arrived[key].among(ids), heard, gaps)
            before = rows[-1].id
        raise MessageLogError(f"more than {_MOST_COMPARED} rows in that time")

    def histories(self, wanted: Collection[str], pause: Callable[[], None]) -> dict[str, History]:
        """Read the log backwards."""
        self._list_names()
        return read_histories(self._log, wanted, pause)

    def close(self) -> None:
        """Close the connections."""
        self._log.close()

    def _learn_names(self, channels: Collection[Channel]) -> None:
        names = self._log.names = Names(channels)
        if names.has_new(self._names):
            # Rows may have been read under a name that was still unknown.
            self._last.rename(names.key_of)
        self._names = names

    def _list_names(self, channels: Collection[Channel] = ()) -> None:
        if channels := [*self._listed(), *channels]:
            self._log.names = Names(channels)


def lookback_hours(settings: Settings, gateway: GatewaySettings) -> float:
    """Return how many hours back the log is searched: at least as many as a silence may last."""
    limits = [gateway.silent_hours, *gateway.silent_hours_overrides.values()]
    if gateway.silence_mode is SilenceMode.ADAPTIVE:
        limits.append(settings.silence_ceiling_hours)
    return max(settings.message_lookback_hours, *limits)


def open_source(
    settings: Settings,
    gateway: GatewaySettings,
    listed: Callable[[], Collection[Channel]] = list,
    received: Callable[[str], MessageSource] | None = None,
    *,
    clock: Clock | None = None,
) -> MessageSource | None:
    """Open a gateway's message source, with its own connections; None if it has none.

    ``listed`` returns the gateway's recent channel list, or raises MessageLogError. ``received``
    returns the source of events by the gateway's name, in the program that receives them.
    """

    def known() -> Collection[Channel]:
        named = [Channel(one.name, Status.UNKNOWN, alias=one.id) for one in gateway.channels]
        # Without a list, only these and exact names are known.
        with suppress(MessageLogError):
            return [*named, *listed()]
        return named

    if gateway.message_log_url is not None:
        log = MessageLog(gateway.message_log_url, clock=clock)
        return LogMessages(log, lookback_hours(settings, gateway) * 3600, known, clock=clock)
    if gateway.messages is MessageSourceKind.EVENTS:
        if received is not None:
            return received(gateway.name)
        store = EventStore(settings.messages_state_url, read_only=True)
        return StoredMessages(store, gateway.name, known, clock=clock)
    if gateway.messages is MessageSourceKind.ACTIVITY:
        return Activity(listed, clock=clock)
    return None


_CHECKPOINTS = make_table(
    sa.MetaData(),
    "message_checkpoint",
    sa.Column("gateway", sa.String(MAX_ID_LENGTH), primary_key=True),
    # Hash of the source, since a checkpoint is only valid for the same log and kind of source.
    sa.Column("source", sa.String(64), nullable=False),
    sa.Column("checkpoint", sa.Text().with_variant(LONGTEXT(), "mysql"), nullable=False),
)


def find_since_last_run(
    source: MessageSource,
    channels: Collection[Channel],
    database: Database,
    gateway: GatewaySettings,
) -> ActivitySnapshot:
    """Call find(), starting from the last run's checkpoint; raise MessageLogError.

    The checkpoint is in its own table of ``database``. While that is unavailable, each run costs as
    much as the first.
    """
    place = _source_of(gateway)
    kept = None
    with suppress(StateError):
        kept = _read_checkpoint(database, gateway.name, place)
    source.restore(kept or "")
    view = source.find(channels)
    checkpoint = source.checkpoint()
    if checkpoint and checkpoint != kept:
        with suppress(StateError):
            _keep_checkpoint(database, gateway.name, place, checkpoint)
    return view


def _read_checkpoint(database: Database, gateway: str, place: str) -> str | None:
    with database.write() as connection:
        _CHECKPOINTS.create(connection, checkfirst=True)
    of_source = (_CHECKPOINTS.c.gateway == gateway) & (_CHECKPOINTS.c.source == place)
    with database.read() as connection:
        return connection.scalar(sa.select(_CHECKPOINTS.c.checkpoint).where(of_source))


def _keep_checkpoint(database: Database, gateway: str, place: str, checkpoint: str) -> None:
    with database.write() as connection:
        connection.execute(_CHECKPOINTS.delete().where(_CHECKPOINTS.c.gateway == gateway))
        row = {"gateway": gateway, "source": place, "checkpoint": checkpoint}
        connection.execute(_CHECKPOINTS.insert().values(row))


def _source_of(gateway: GatewaySettings) -> str:
    url = gateway.message_log_url
    place = url.set(password=None).render_as_string() if url is not None else ""
    # "exact": the keys of earlier checkouts are folded.
    return hashlib.sha256(f"exact {gateway.messages} {place}".encode()).hexdigest()
