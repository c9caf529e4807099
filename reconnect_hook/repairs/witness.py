"""Whether a message of a channel has arrived: the only proof that a silent channel is back."""

from __future__ import annotations

from whatsapp.message_log import MessageLog, MessageLogError

_CHUNK = 500  # rows a statement
_MOST_ROWS = 50_000  # looked at for one answer; where so many came later, the log is no witness


def heard_within(log: MessageLog | None, key: str, seconds: float) -> bool:
    """Whether the log has a message of the channel that is not older than ``seconds``.

    One that the gateway may have written by itself proves nothing. Where there is no log, or it
    cannot be read, nothing has been heard.
    """
    if log is None:
        return False
    try:
        head = log.head(0)
        before = head.newest_id + 1
        for _ in range(0, _MOST_ROWS, _CHUNK):
            rows = log.rows_before(before, _CHUNK)
            recent = [
                row for row in rows if row.time is not None and row.time >= head.now - seconds
            ]
            if any(row.key == key and row.heard for row in recent):
                return True
            if not recent:
                break
            before = rows[-1].id
    except MessageLogError:
        pass
    return False
