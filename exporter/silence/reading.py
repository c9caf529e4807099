"""Reads the histories of channels out of the message log, the newest row first."""

from __future__ import annotations

from collections.abc import Callable, Collection

from exporter.silence.history import History
from whatsapp.message_log import MessageLog
from whatsapp.repeated_hour import settled

_CHUNK = 1000  # rows a statement


def read_histories(
    log: MessageLog, wanted: Collection[str], pause: Callable[[], None]
) -> dict[str, History]:
    """Return what the last 28 days hold of the ``wanted`` keys; raise MessageLogError.

    ``pause`` is called between two statements.
    """
    head = log.head(0)
    now = head.now
    begins = History(now).begins
    histories: dict[str, History] = {}
    before, not_after, chunk = head.newest_id + 1, now, _CHUNK
    while rows := log.rows_before(before, chunk):
        for row in settled(rows, not_after):
            if row.time is None:
                continue
            not_after = min(now, row.time)
            # What Zapwatch itself has sent says nothing of how the channel talks.
            if row.key is not None and row.key in wanted and row.echo is None:
                history = histories.get(row.key)
                if history is None:
                    history = histories[row.key] = History(now)
                history.note(row.time)
        if all(row.time is not None and row.time < begins for row in rows):
            break
        before = rows[-1].id
        # Fewer came where so many would have taken the server too long.
        chunk = min(_CHUNK, 2 * len(rows))
        pause()
    return histories
