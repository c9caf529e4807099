"""Migrates an empty or older state database to this version's tables."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from zapwatch.clock import Clock
from zapwatch.db import Database, StateError, lock_sqlite

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE = "zapwatch_schema"
"""The table with the current revision."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_NEWEST = max(path.stem[1:5] for path in (_MIGRATIONS / "versions").glob("v[0-9]*.py"))
_LOCK_SECONDS = 60
_UNKNOWN = "its tables are not known to this version"
_UNRELEASED = {"0001", "0002", "0003", "0004", "0005"}
# Alembic would log at each start that there is nothing to do.
logging.getLogger("alembic").setLevel(logging.WARNING)
_in_this_process = threading.Lock()


def open_state(url: sa.URL, *, clock: Clock | None = None) -> Database:
    """Open the state database and bring its tables up to date; raise StateError."""
    database = Database(url, upgrade, clock=clock)
    try:
        database.open()
    except StateError:
        database.close()
        raise
    return database


def upgrade(engine: sa.Engine) -> None:
    """Apply the missing revisions; of hooks that start together, one does and the others wait.

    Raises StateError if the database is newer than this version or from a checkout before revision
    0006, and SQLAlchemy's errors.
    """
    # Alembic keeps its context in globals.
    with _in_this_process, _alone(engine), engine.begin() as connection:
        lock_sqlite(connection)
        version = _version(connection)
        if version in _UNRELEASED:
            raise StateError(
                f"{_UNKNOWN}: revision {version} was never released; delete them, and alerts fill "
                "a new state, or start commit 4e622a2 once with them"
            )
        if version != _NEWEST:
            _take_steps(connection)


def _take_steps(connection: sa.Connection) -> None:
    # Importing it takes a seventh of the program's start.
    from alembic import command  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = configuration()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StateError(f"{_UNKNOWN}: {error}") from None


def configuration() -> Config:
    """Return Alembic's configuration, without an ini file."""
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


def _version(connection: sa.Connection) -> str | None:
    """Return the current revision, None for an empty database."""
    tables = sa.inspect(connection)
    version = None
    if tables.has_table(VERSION_TABLE):
        version = connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608
    first = version is None and tables.has_table("repairs")
    # A column of the first tables, which recorded no revision.
    if first and any(column["name"] == "not_before" for column in tables.get_columns("repairs")):
        version = "0001"
    return version


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[None]:
    """Lock out other programs until after the commit."""
    if engine.dialect.name == "sqlite":
        # SQLite's transaction locks, and rolls back a failed revision.
        yield
        return
    # MariaDB commits at every DDL statement, so a named lock on its own connection spans all of
    # them. MySQL limits its name to 64 characters.
    values = {"name": f"zapwatch/{engine.url.database}"[:64], "seconds": _LOCK_SECONDS}
    with engine.connect() as connection:
        if connection.scalar(sa.text("SELECT GET_LOCK(:name, :seconds)"), values) != 1:
            raise StateError(
                f"{_UNKNOWN}: another program has been changing them for {_LOCK_SECONDS} s"
            )
        try:
            yield
        finally:
            connection.execute(sa.text("DO RELEASE_LOCK(:name)"), {"name": values["name"]})
