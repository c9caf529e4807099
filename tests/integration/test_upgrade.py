"""Databases of other versions: brought up to date with all that is in them, or refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from reconnect_hook.queue import Jobs

from reconnect_hook.backoff import Backoff
from reconnect_hook.migrate import VERSION_TABLE, open_state
from reconnect_hook.repository import ChannelRepository
from reconnect_hook.schema import metadata
from tests.support.programs import environment
from tests.support.states import sqlite_url
from zapwatch.db import StateError

# What the last version before the release made on SQLite: commit cf95e85. Not to be changed.
_BEFORE = """
CREATE TABLE zapwatch_schema (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
CREATE TABLE channels (
    gateway VARCHAR(255) NOT NULL, "key" VARCHAR(255) NOT NULL, channel VARCHAR(255) NOT NULL,
    attempts INTEGER NOT NULL, consecutive_failures INTEGER NOT NULL, qr_required BOOLEAN NOT NULL,
    called_at DOUBLE, unheard_since DOUBLE, reason VARCHAR(20), status VARCHAR(20),
    restarting BOOLEAN DEFAULT 0 NOT NULL, seen_at DOUBLE, PRIMARY KEY (gateway, "key"));
CREATE TABLE repairs (
    id INTEGER NOT NULL, gateway VARCHAR(255) NOT NULL, "key" VARCHAR(255) NOT NULL,
    channel VARCHAR(255) NOT NULL, reason VARCHAR(20) NOT NULL, look_only BOOLEAN NOT NULL,
    active_key VARCHAR(255), accepted_at DOUBLE NOT NULL, holder VARCHAR(40), lease_until DOUBLE,
    finished_at DOUBLE, attempt INTEGER, action VARCHAR(20), outcome VARCHAR(20),
    detail VARCHAR(500), due_at DOUBLE, repair_at DOUBLE, PRIMARY KEY (id),
    UNIQUE (gateway, active_key));
CREATE INDEX ix_repairs_finished_at ON repairs (finished_at);
CREATE INDEX ix_repairs_due ON repairs (gateway, due_at);
CREATE INDEX ix_repairs_key ON repairs (gateway, "key");
CREATE TABLE gateways (
    gateway VARCHAR(255) NOT NULL, failures INTEGER NOT NULL, failed_at DOUBLE NOT NULL,
    paused_until DOUBLE, PRIMARY KEY (gateway));
CREATE TABLE pauses (
    gateway VARCHAR(255) NOT NULL, "key" VARCHAR(255) NOT NULL, channel VARCHAR(255) NOT NULL,
    until DOUBLE, PRIMARY KEY (gateway, "key"));
CREATE TABLE probes (
    gateway VARCHAR(255) NOT NULL, "key" VARCHAR(255) NOT NULL, channel VARCHAR(255) NOT NULL,
    began_at DOUBLE, job INTEGER, kind VARCHAR(10), outcome VARCHAR(20), ended_at DOUBLE,
    halted BOOLEAN DEFAULT 0 NOT NULL, PRIMARY KEY (gateway, "key"));
CREATE TABLE echoes (
    id INTEGER NOT NULL, gateway VARCHAR(255) NOT NULL, sender VARCHAR(255) NOT NULL,
    receiver VARCHAR(255) NOT NULL, token VARCHAR(64) NOT NULL, sent_at DOUBLE NOT NULL,
    heard BOOLEAN, sent BOOLEAN, PRIMARY KEY (id));
CREATE INDEX ix_echoes_sent ON echoes (gateway, sent_at);
INSERT INTO zapwatch_schema VALUES ('0006')
"""
_ROWS = """
INSERT INTO repairs (id, gateway, `key`, channel, reason, look_only, accepted_at, finished_at,
    attempt, action, outcome)
    VALUES (1, 'wpp', 'old', 'Old', 'silent', 0, 1000, 1700000000, 1, 'getQr', 'failed');
INSERT INTO repairs (id, gateway, `key`, channel, reason, look_only, active_key, accepted_at,
    due_at) VALUES (2, 'wpp', 'loja', 'loja', 'disconnected', 0, 'loja', 1000, 1000);
INSERT INTO repairs (id, gateway, `key`, channel, reason, look_only, active_key, accepted_at,
    due_at, holder, lease_until)
    VALUES (3, 'wpp', 'held', 'held', 'disconnected', 0, 'held', 1000, 1030, 'somebody', 1030);
INSERT INTO channels (gateway, `key`, channel, attempts, consecutive_failures, qr_required,
    called_at) VALUES ('wpp', 'old', 'Old', 3, 2, 1, 1500)
"""


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


def _run(engine: sa.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in ";".join(statements).split(";"):
            connection.exec_driver_sql(statement)


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


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_database_of_the_last_unreleased_version_goes_on(
    url: sa.URL, engine: sa.Engine
) -> None:
    _run(engine, _BEFORE, _ROWS)
    open_state(url).close()
    _check(engine)
    _check_work(url)


def test_a_database_that_was_made_by_half_is_completed(url: sa.URL, engine: sa.Engine) -> None:
    open_state(url).close()
    _run(
        engine,
        f"DELETE FROM {VERSION_TABLE}",
        "DROP TABLE echoes",
        "DROP INDEX ix_repairs_key" + (" ON repairs" if engine.dialect.name == "mysql" else ""),
        _ROWS,
    )
    open_state(url).close()
    _check(engine)
    _check_work(url)


@pytest.mark.parametrize("version", ["0001", "0005"])
def test_an_older_database_is_refused_with_what_to_do(
    url: sa.URL, engine: sa.Engine, version: str
) -> None:
    open_state(url).close()
    _run(engine, f"UPDATE {VERSION_TABLE} SET version_num = '{version}'", _ROWS)
    with pytest.raises(StateError, match=rf"revision {version} was never released; delete them"):
        open_state(url)


def test_the_very_first_tables_are_refused_as_well(url: sa.URL, engine: sa.Engine) -> None:
    """They note no version."""
    _run(engine, "CREATE TABLE repairs (id INTEGER, not_before DOUBLE)")
    with pytest.raises(StateError, match="revision 0001 was never released"):
        open_state(url)


_OPEN = """
import sys
import sqlalchemy as sa
from reconnect_hook.migrate import open_state
url = sa.make_url(sys.argv[1])
sys.stdin.readline()
open_state(url).close()
"""


def test_programs_that_start_at_once_upgrade_once(url: sa.URL, engine: sa.Engine) -> None:
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
    _check(engine)


def test_a_newer_database_is_left_alone(url: sa.URL, engine: sa.Engine) -> None:
    open_state(url).close()
    _run(engine, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(StateError, match=r"not known to this version.*9999") as caught:
        open_state(url)
    assert str(caught.value).isprintable()
