"""What the message log has heard lately: of which channels, and which echoes."""

from __future__ import annotations

from dataclasses import dataclass, field

from whatsapp.message_log import MessageLog

_CHUNK = 500  # rows a statement
_MOST_ROWS = 50_000  # looked at for one answer; where so many came later, the log is no witness


@dataclass(slots=True)
class Heard:
    """Channel keys, each with the seconds since it was last heard, and tokens of echoes."""

    ages: dict[str, float] = field(default_factory=dict)
    echoes: set[str] = field(default_factory=set)


class Ear:
    """Listens to one message log, for any number of threads."""

    def __init__(self, log: MessageLog) -> None:
        self._log = log

    def listen(self, seconds: float) -> Heard:
        """Return what came within so many seconds; raise MessageLogError."""
        heard = Heard()
        head = self._log.head(0)
        before = head.newest_id + 1
        for _ in range(0, _MOST_ROWS, _CHUNK):
            rows = self._log.rows_before(before, _CHUNK)
            recent = [
                row for row in rows if row.time is not None and row.time >= head.now - seconds
            ]
            for row in recent:
                if row.key is not None and row.heard and row.time is not None:
                    heard.ages.setdefault(row.key, max(0.0, head.now - row.time))
                    if row.echo is not None:
                        heard.echoes.add(row.echo)
            if not recent:
                break
            before = rows[-1].id
        return heard

    def close(self) -> None:
        """Close the connections."""
        self._log.close()
