"""Brings a state database to the tables of this version: an empty one, and any older one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from zapwatch.db import Database, StateError, mysql_engine

VERSION_TABLE = "zapwatch_schema"
"""Holds the number of the last step that was taken."""

_LOCK_SECONDS = 60
_UPGRADE_SECONDS = 600  # for a change of a table that holds the history of 90 days
# Each start would tell that there was nothing to do.
logging.getLogger("alembic").setLevel(logging.WARNING)
_in_this_process = threading.Lock()


def open_state(url: sa.URL) -> Database:
    """Open the state database and bring its tables up to date; raise StateError."""
    database = Database(url, upgrade)
    try:
        database.open()
    except StateError:
        database.close()
        raise
    return database


def upgrade(engine: sa.Engine) -> None:
    """Take the steps that are missing; of hooks that start at once, one does and the others wait.

    Raises StateError where the database is of a newer version, else what SQLAlchemy raises.
    """
    try:
        # Alembic keeps what it works on in globals.
        with (
            _in_this_process,
            _patient(engine) as patient,
            _alone(patient),
            patient.begin() as connection,
        ):
            config = configuration()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise StateError(f"its tables are not known to this version: {error}") from None


@contextmanager
def _patient(engine: sa.Engine) -> Iterator[sa.Engine]:
    """Open an engine that waits long enough for the change of a large table."""
    if engine.dialect.name == "sqlite":
        yield engine
        return
    patient = mysql_engine(engine.url, _UPGRADE_SECONDS)
    try:
        yield patient
    finally:
        patient.dispose()


def configuration() -> Config:
    """Return what Alembic has to know."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[None]:
    """Keep other programs out, until after the commit."""
    if engine.dialect.name == "sqlite":
        # A transaction does, and it also takes back a step that fails.
        yield
        return
    # MariaDB commits at every change of a table: a lock of its own has to hold over all of them. It
    # ends with its connection. 64 characters are the most that MySQL takes for the name.
    values = {"name": f"zapwatch/{engine.url.database}"[:64], "seconds": _LOCK_SECONDS}
    with engine.connect() as connection:
        if connection.scalar(sa.text("SELECT GET_LOCK(:name, :seconds)"), values) != 1:
            raise CommandError(f"another program has been changing them for {_LOCK_SECONDS} s")
        try:
            yield
        finally:
            connection.execute(sa.text("DO RELEASE_LOCK(:name)"), {"name": values["name"]})
