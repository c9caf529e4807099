"""The event log of failures and repairs: one line an event, none if all is well."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from copy import copy
from datetime import datetime
from pathlib import Path

_log = logging.getLogger("reconnect_hook")
_MODE = 0o640
_PLAIN = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f]+")


class EventLogError(Exception):
    """The log is not writable. ``str()`` is one line."""


class EventLog:
    """Appends to one file, which logrotate may move at any time; thread-safe."""

    def __init__(self, path: Path) -> None:
        """Create the file and its folder if missing; raise EventLogError."""
        self._path = path
        self._always: dict[str, object] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(_open(path))
        except OSError as error:
            raise EventLogError(f"{error.filename}: {error.strerror}") from None

    def with_pairs(self, **always: object) -> EventLog:
        """Return the same log with these pairs at the end of each line."""
        other = copy(self)
        other._always = always  # noqa: SLF001 - an instance of this class
        return other

    def write(self, **values: object) -> None:
        """Write one line of ``name=value`` pairs; see write_all()."""
        self.write_all([values])

    def write_all(self, events: Iterable[Mapping[str, object]]) -> None:
        """Write a line of ``name=value`` pairs for each event; None values are left out.

        If the file is not writable, the lines go to stderr instead.
        """
        now = datetime.now().astimezone()
        lines = [f"{format_event(now, {**event, **self._always})}\n".encode() for event in events]
        try:
            if lines:
                self._append(lines)
        except OSError as error:
            for line in lines:
                _log.error(
                    "the log file cannot be written (%s); its line was: %s",
                    error.strerror,
                    line.decode().rstrip("\n"),
                )

    def _append(self, lines: list[bytes]) -> None:
        """Append lines and remove the written ones from the list; raise OSError."""
        # Opened each time, since events are rare and logrotate may have moved the file. A single
        # unbuffered write does not mix with those of other processes.
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(_open(self._path), "ab", buffering=0) as file:
            while lines:
                written = file.write(b"".join(lines))
                while lines and written >= len(lines[0]):
                    written -= len(lines.pop(0))
                if written:
                    lines[0] = lines[0][written:]


def _open(path: Path) -> int:
    """Open the file for appending; a new one is readable by owner and group only."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _MODE)


def format_event(at: datetime, values: Mapping[str, object]) -> str:
    """Return the line of one event; ``at`` must be time zone aware."""
    pairs = (f"{name}={quoted(str(v))}" for name, v in values.items() if v is not None)
    return f"{at.isoformat(timespec='seconds')} [healthcheck-sessions] {' '.join(pairs)}"


def quoted(value: str) -> str:
    """Return a value quoted for one line, reversibly, if it needs quotes."""
    if _PLAIN.fullmatch(value) and value.isprintable():
        return value
    escaped = "".join(_escape(character) for character in value)
    return f'"{escaped}"'


def _escape(character: str) -> str:
    if character in {'"', "\\"}:
        return "\\" + character
    if character.isprintable():
        return character
    # All other Unicode spaces and line ends, and lone surrogates, which UTF-8 cannot encode.
    return character.encode("unicode_escape").decode("ascii")
