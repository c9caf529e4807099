"""The hook's state in a test's hands."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from reconnect_hook.alerts import Alert, AlertStatus, RepairCause, Target
from zapwatch.clock import Clock


class StateClock(Clock):
    """A database's clock; ``seconds``, since 1970, may be set to anything."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def time(self) -> float:
        return self.seconds


def firing(channel: str = "loja", reason: RepairCause = RepairCause.DISCONNECTED) -> Alert:
    """Return an alert that asks for a repair."""
    return Alert(AlertStatus.FIRING, Target(channel, reason))


def resolved(channel: str = "loja", reason: RepairCause = RepairCause.DISCONNECTED) -> Alert:
    """Return an alert that is over."""
    return Alert(AlertStatus.RESOLVED, Target(channel, reason))


def sqlite_url(directory: Path) -> sa.URL:
    """Return the URL of a state file in a folder that is not there yet."""
    return sa.URL.create("sqlite", database=str(directory / "var" / "state.sqlite3"))


@contextmanager
def locked(url: sa.URL) -> Iterator[None]:
    """Let nobody else write into an SQLite state meanwhile."""
    connection = sqlite3.connect(str(url.database), isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()
