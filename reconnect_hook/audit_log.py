"""The log of everything that went wrong or was repaired: one line an event, none on a good day."""

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
    """The log cannot be written. ``str()`` is one line."""


class EventLog:
    """Appends to one file, which logrotate may move at any time; for any number of threads."""

    def __init__(self, path: Path) -> None:
        """Make the file and its folder where they are missing; raise EventLogError."""
        self._path = path
        self._always: dict[str, object] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(_open(path))
        except OSError as error:
            raise EventLogError(f"{error.filename}: {error.strerror}") from None

    def with_pairs(self, **always: object) -> EventLog:
        """Return the same log, each of whose lines ends with these pairs."""
        other = copy(self)
        other._always = always  # noqa: SLF001 - it is one of this very class
        return other

    def write(self, **values: object) -> None:
        """Write one line of ``name=value`` pairs; see write_all()."""
        self.write_all([values])

    def write_all(self, events: Iterable[Mapping[str, object]]) -> None:
        """Write a line of ``name=value`` pairs for each event; what is None is left out.

        Where the file cannot be written, a line goes to stderr instead, and the program goes on.
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
        """Append lines, and take from the list what was written; raise OSError."""
        # Opened each time, since events are rare and the file may have been moved. Without a
        # buffer it is one write, between which and others of other processes nothing mixes.
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(_open(self._path), "ab", buffering=0) as file:
            while lines:
                written = file.write(b"".join(lines))
                while lines and written >= len(lines[0]):
                    written -= len(lines.pop(0))
                if written:
                    lines[0] = lines[0][written:]


def _open(path: Path) -> int:
    """Open the file to append to; a new one is nobody's but the group's to read."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _MODE)


def format_event(at: datetime, values: Mapping[str, object]) -> str:
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
