"""The log of everything that went wrong or was repaired: one line an event, none on a good day."""

from __future__ import annotations

import logging
import logging.handlers
import re
from datetime import datetime
from pathlib import Path

_log = logging.getLogger("reconnect_hook")
_PLAIN = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f]+")


class EventLogError(Exception):
    """The log cannot be written. ``str()`` is one line."""


class EventLog:
    """Appends to one file, which logrotate may move at any time; for any number of threads."""

    def __init__(self, path: Path) -> None:
        """Open the file, making its folder where it is missing; raise EventLogError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handler = _Handler(path, encoding="utf-8")
        except OSError as error:
            raise EventLogError(f"{error.filename}: {error.strerror}") from None

    def write(self, **values: object) -> None:
        """Write one line of ``name=value`` pairs; what is None is left out.

        Where the disk is full, the line goes to stderr instead, and the program goes on.
        """
        line = format_event(datetime.now().astimezone(), values)
        record = logging.LogRecord("event", logging.INFO, "", 0, line, None, None)
        self._handler.handle(record)

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class _Handler(logging.handlers.WatchedFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        _log.error("the log file cannot be written; its line was: %s", record.getMessage())


def format_event(at: datetime, values: dict[str, object]) -> str:
    """Return the line for one event at ``at``, which must know its time zone."""
    pairs = (f"{name}={quoted(str(v))}" for name, v in values.items() if v is not None)
    return f"{at.isoformat(timespec='seconds')} [healthcheck-sessions] {' '.join(pairs)}"


def quoted(value: str) -> str:
    """Return a value that can be read back and makes no second line, whatever is in it."""
    if _PLAIN.fullmatch(value) and value.isprintable():
        return value
    escaped = "".join(_escape(character) for character in value)
    return f'"{escaped}"'


def _escape(character: str) -> str:
    if character in {'"', "\\"}:
        return "\\" + character
    if character.isprintable():
        return character
    # Every other space and line end that Unicode has, and halves of pairs that no file can hold.
    return character.encode("unicode_escape").decode("ascii")
