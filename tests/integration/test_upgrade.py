"""Databases of older versions become today's, with all that is in them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from reconnect_hook.backoff import Backoff
from reconnect_hook.migrate import VERSION_TABLE, open_state
from reconnect_hook.queue import Jobs
from reconnect_hook.repository import ChannelRepository
from reconnect_hook.schema import metadata
from tests.support.programs import environment
from tests.support.states import sqlite_url
from zapwatch.db import StateError

# What the version made that noted no version: commit dd4bdbd. Not to be changed.
_FIRST = {
    "sqlite": (
        """CREATE TABLE repairs (
            id INTEGER NOT NULL, gateway VARCHAR(255) NOT NULL, "key" VARCHAR(255) NOT NULL,
            channel VARCHAR(255) NOT NULL, reason VARCHAR(20) NOT NULL, look_only BOOLEAN NOT NULL,
            active_key VARCHAR(255), accepted_at DOUBLE NOT NULL, not_before DOUBLE NOT NULL,
            holder VARCHAR(40), lease_until DOUBLE, finished_at DOUBLE, attempt INTEGER,
            action VARCHAR(20), outcome VARCHAR(20), detail VARCHAR(500), PRIMARY KEY (id),
            UNIQUE (gateway, active_key))""",
        "CREATE INDEX ix_repairs_finished_at ON repairs (finished_at)",
        """CREATE TABLE channels (
            gateway VARCHAR(255) NOT NULL, "key" VARCHAR(255) NOT NULL,
            channel VARCHAR(255) NOT NULL, attempts INTEGER NOT NULL,
            consecutive_failures INTEGER NOT NULL, qr_required BOOLEAN NOT NULL,
            called_at DOUBLE, unheard_since DOUBLE, PRIMARY KEY (gateway, "key"))""",
    ),
    "mysql": (
        """CREATE TABLE repairs (
            id INTEGER NOT NULL AUTO_INCREMENT, gateway VARCHAR(255) NOT NULL,
            `key` VARCHAR(255) NOT NULL, channel VARCHAR(255) NOT NULL, reason VARCHAR(20) NOT NULL,
            look_only BOOL NOT NULL, active_key VARCHAR(255), accepted_at DOUBLE NOT NULL,
            not_before DOUBLE NOT NULL, holder VARCHAR(40), lease_until DOUBLE, finished_at DOUBLE,
            attempt INTEGER, action VARCHAR(20), outcome VARCHAR(20), detail VARCHAR(500),
            PRIMARY KEY (id), UNIQUE (gateway, active_key))
            ENGINE=InnoDB COLLATE utf8mb4_bin CHARSET=utf8mb4""",
        "CREATE INDEX ix_repairs_finished_at ON repairs (finished_at)",
        """CREATE TABLE channels (
            gateway VARCHAR(255) NOT NULL, `key` VARCHAR(255) NOT NULL,
            channel VARCHAR(255) NOT NULL, attempts INTEGER NOT NULL,
            consecutive_failures INTEGER NOT NULL, qr_required BOOL NOT NULL, called_at DOUBLE,
            unheard_since DOUBLE, PRIMARY KEY (gateway, `key`))
            ENGINE=InnoDB COLLATE utf8mb4_bin CHARSET=utf8mb4""",
    ),
}
_ROWS = (
    (
        "INSERT INTO repairs VALUES (1, 'wpp', 'old', 'Old', 'silent', 0, NULL, 1000, 1000, NULL,"
        " NULL, 1700000000, 1, 'getQr', 'failed', 'words')"
    ),
    (
        "INSERT INTO repairs VALUES (2, 'wpp', 'loja', 'loja', 'disconnected', 0, 'loja', 1000,"
        " 1000, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
    ),
    (
        "INSERT INTO repairs VALUES (3, 'wpp', 'held', 'held', 'disconnected', 0, 'held', 1000,"
        " 1000, 'somebody', 1030, NULL, NULL, NULL, NULL, NULL)"
    ),
    "INSERT INTO channels VALUES ('wpp', 'old', 'Old', 3, 2, 1, 1500, NULL)",
)


@pytest.fixture(params=["sqlite", "mysql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> sa.URL:
    if request.param == "sqlite":
        (tmp_path / "var").mkdir()
        return sqlite_url(tmp_path)
    made = request.getfixturevalue("database")
    assert isinstance(made, sa.URL)
    return made


@pytest.fixture
def engine(url: sa.URL) -> Iterator[sa.Engine]:
    made = sa.create_engine(url)
    yield made
    made.dispose()


@pytest.fixture
def old(engine: sa.Engine) -> sa.Engine:
    """Make a database as the first version left it, with work in it."""
    with engine.begin() as connection:
        for statement in (*_FIRST[engine.dialect.name], *_ROWS):
            connection.exec_driver_sql(statement)
    return engine


def _check(engine: sa.Engine) -> None:
    """Check that the tables are those that the program believes in."""
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": False,
                "include_name": lambda name, kind, _: kind != "table" or name != VERSION_TABLE,
            },
        )
        assert compare_metadata(context, metadata) == []


def _check_work(url: sa.URL) -> None:
    database = open_state(url)
    jobs = Jobs(database, "wpp", Backoff(300))
    claimed = [jobs.claim(), jobs.claim()]
    assert [job.channel for job in claimed if job] == ["loja", "held"]
    assert jobs.claim() is None
    memory = ChannelRepository(database, "wpp")
    assert memory.outcome(1) == "failed"
    (record,) = memory.queue().channels
    assert (record.channel, record.consecutive_failures, record.qr_required) == ("Old", 2, True)
    database.close()


def test_a_new_database_has_the_tables_of_the_program(url: sa.URL, engine: sa.Engine) -> None:
    open_state(url).close()
    _check(engine)


def test_the_first_versions_database_goes_on(url: sa.URL, old: sa.Engine) -> None:
    open_state(url).close()
    _check(old)
    _check_work(url)


def test_an_upgrade_that_was_cut_short_is_ended(url: sa.URL, old: sa.Engine) -> None:
    with old.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE repairs ADD COLUMN due_at DOUBLE")
        connection.exec_driver_sql("ALTER TABLE channels ADD COLUMN reason VARCHAR(20)")
    open_state(url).close()
    _check(old)
    _check_work(url)


_OPEN = """
import sys
import sqlalchemy as sa
from reconnect_hook.migrate import open_state
url = sa.make_url(sys.argv[1])
sys.stdin.readline()
open_state(url).close()
"""


def test_programs_that_start_at_once_upgrade_once(url: sa.URL, old: sa.Engine) -> None:
    text = url.render_as_string(hide_password=False)
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", _OPEN, text],
            env=environment({}),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    try:
        ends = [program.communicate(b"\n", timeout=60)[1] for program in programs]
    finally:
        for program in programs:
            program.kill()
    assert ends == [b""] * 4
    _check(old)
    _check_work(url)


def test_a_newer_database_is_left_alone(url: sa.URL, engine: sa.Engine) -> None:
    open_state(url).close()
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(StateError, match=r"not known to this version.*9999") as caught:
        open_state(url)
    assert str(caught.value).isprintable()
