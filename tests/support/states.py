"""The hook's state for tests."""

from __future__ import annotations

import functools
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from reconnect_hook.alerts import Alert, AlertStatus, Target
from reconnect_hook.models import COLUMNS, ChannelRow, RepairCause
from reconnect_hook.schema import channel, open_state
from zapwatch.clock import Clock


class StateClock(Clock):
    """A database's clock; tests set ``seconds``, the Unix time."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def time(self) -> float:
        return self.seconds


def firing(channel: str = "loja", reason: RepairCause = RepairCause.DISCONNECTED) -> Alert:
    return Alert(AlertStatus.FIRING, Target(channel, reason))


def resolved(channel: str = "loja", reason: RepairCause = RepairCause.DISCONNECTED) -> Alert:
    return Alert(AlertStatus.RESOLVED, Target(channel, reason))


def hurry(engine: sa.Engine) -> None:
    """Let SQLite flush nothing: tests need no durability, and it takes most of the time."""
    sa.event.listen(engine, "connect", lambda one, _: one.execute("PRAGMA synchronous=OFF"))
    engine.dispose()


def sqlite_url(directory: Path) -> sa.URL:
    """Return the URL of a state file in a folder that does not exist yet."""
    return sa.URL.create("sqlite", database=str(directory / "var" / "state.sqlite3"))


def state_url(directory: Path) -> sa.URL:
    """Return the URL of a state file that already has its tables, which saves 0.1 s."""
    url = sqlite_url(directory)
    file = Path(str(url.database))
    if not file.exists():
        file.parent.mkdir(parents=True)
        file.write_bytes(_empty_state())
    return url


@functools.cache
def _empty_state() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        url = sqlite_url(Path(folder))
        open_state(url).close()
        return Path(str(url.database)).read_bytes()


@contextmanager
def locked(url: sa.URL) -> Iterator[None]:
    """Hold the write lock of an SQLite state."""
    connection = sqlite3.connect(str(url.database), isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


def open_rows(connection: sa.Connection, gateway: str, *, lock: bool = False) -> list[ChannelRow]:
    """Return a gateway's open rows, sorted by key; ``lock``: SELECT FOR UPDATE."""
    mine = (channel.c.gateway == gateway, channel.c.next_at.is_not(None))
    query = sa.select(*(channel.c[name] for name in COLUMNS)).where(*mine).order_by(channel.c.key)
    found = connection.execute(query.with_for_update() if lock else query)
    return [ChannelRow.load(row) for row in found]
