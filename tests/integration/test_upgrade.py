"""Databases of other versions: brought up to date with all that is in them, or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from reconnect_hook.history import RepairHistory
from reconnect_hook.migrate import VERSION_TABLE, configuration, open_state
from reconnect_hook.models import Backoff, Intent
from reconnect_hook.schema import channel, echoes, gateway, metadata
from tests.support.programs import environment
from tests.support.states import sqlite_url
from tests.support.world import World
from zapwatch.channels import Status
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
_NAMES = "gateway, `key`, channel"
_REPAIR = f"INSERT INTO repairs (id, {_NAMES}, reason, look_only, accepted_at"
_ROWS = f"""
{_REPAIR}, finished_at, attempt, action, outcome, detail)
    VALUES (1, 'wpp', 'old', 'Old', 'silent', 0, 1000, 1700000000, 1, 'getQr', 'failed', 'words');
{_REPAIR}, finished_at) VALUES (2, 'wpp', 'old', 'Old', 'silent', 1, 1000, 1700000000);
{_REPAIR}, active_key, due_at)
    VALUES (3, 'wpp', 'loja', 'loja', 'disconnected', 0, 1000, 'loja', 1600);
{_REPAIR}, active_key, due_at, holder, lease_until)
    VALUES (4, 'wpp', 'held', 'held', 'silent', 0, 1001, 'held', 1030, 'somebody', 1030);
{_REPAIR}, active_key, due_at)
    VALUES (5, 'wpp', 'scanned', 'scanned', 'manual', 1, 1002, 'scanned', 1002);
{_REPAIR}, active_key, due_at, repair_at)
    VALUES (6, 'wpp', 'looked', 'looked', 'disconnected', 1, 1003, 'looked', 1033, 1900);
{_REPAIR}, active_key, due_at)
    VALUES (7, 'wpp', 'asked', 'asked', 'suspect', 0, 1004, 'asked', 1004);
{_REPAIR}, active_key) VALUES (8, 'second', 'loja', 'Loja', 'disconnected', 0, 1005, 'loja');
INSERT INTO channels ({_NAMES}, attempts, consecutive_failures, qr_required, called_at, reason,
    status, unheard_since, seen_at)
    VALUES ('wpp', 'old', 'Old', 3, 2, 1, 1500, 'silent', 'disconnected', 1400, 1300);
INSERT INTO channels ({_NAMES}, attempts, consecutive_failures, qr_required, restarting)
    VALUES ('wpp', 'loja', 'Loja', 1, 1, 0, 1);
INSERT INTO pauses ({_NAMES}, until) VALUES ('wpp', 'loja', 'loja', 2000);
INSERT INTO pauses ({_NAMES}) VALUES ('wpp', 'paused', 'Paused');
INSERT INTO probes ({_NAMES}, began_at, kind, outcome, ended_at, halted)
    VALUES ('wpp', 'old', 'Old', 1450, 'echo', 'failed', 1460, 1);
INSERT INTO gateways (gateway, failures, failed_at, paused_until) VALUES ('wpp', 6, 1700, 1730);
INSERT INTO echoes (id, gateway, sender, receiver, token, sent_at)
    VALUES (1, 'wpp', 'loja', 'old', 'token', 1455)
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
    """Check that all that was in the tables of before is in those of the program."""
    database = open_state(url)
    with database.read() as connection:
        mine = sa.select(channel).where(channel.c.gateway == "wpp")
        rows = {row.key: row for row in connection.execute(mine)}
        there = connection.execute(sa.select(channel).where(channel.c.gateway == "second")).all()
        gateway_row = connection.execute(sa.select(gateway)).one()
        tokens = connection.scalars(sa.select(echoes.c.token)).all()
    repair = {"Loja": Intent.REPAIR, "held": Intent.REPAIR, "looked": Intent.REPAIR}
    less = {"scanned": Intent.RECHECK, "asked": Intent.PROBE}
    assert {key: row.intent for key, row in rows.items() if row.next_at is not None} == {
        **repair,
        **less,
    }
    wanted = rows["Loja"]
    assert (wanted.cause, wanted.since, wanted.next_at) == ("disconnected", 1000, 1600)
    assert (wanted.channel, wanted.listed, wanted.failures, wanted.restarting) == ("Loja", 1, 1, 1)
    assert (wanted.paused, wanted.paused_until) == (1, 2000)
    assert (rows["Paused"].paused, rows["Paused"].paused_until) == (1, None)
    assert not rows["Paused"].listed
    assert (rows["held"].cause, rows["held"].phase) == ("silent", "idle")
    assert [(row.channel, row.next_at) for row in there] == [("Loja", 1005)]
    old = rows["Old"]
    assert (old.attempts, old.failures, old.qr_required, old.called_at) == (3, 2, 1, 1500)
    assert (old.last_cause, old.last_status) == ("silent", "disconnected")
    assert (old.unheard_since, old.seen_at, old.next_at) == (1400, 1300, None)
    assert (old.probe_began_at, old.probe_kind, old.probe_outcome) == (1450, "echo", "failed")
    assert (old.probe_ended_at, old.suspended) == (1460, 1)
    breaker = (gateway_row.failures, gateway_row.failed_at, gateway_row.rests_until)
    assert (gateway_row.gateway, breaker) == ("wpp", (6, 1700, 1730))
    assert tokens == ["token"]
    (attempt,) = RepairHistory(database, "wpp", Backoff(300)).of_channel("Old")
    assert (attempt.id, attempt.outcome, attempt.detail) == (1, "failed", "words")
    assert (attempt.reason, attempt.accepted_at) == ("silent", 1000)
    database.close()


def _before(url: sa.URL, engine: sa.Engine) -> None:
    """Make a database as revision 0006 left it, with something of everything in it."""
    if engine.dialect.name == "sqlite":
        _run(engine, _BEFORE)
    else:
        with engine.begin() as connection:
            config = configuration()
            config.attributes["connection"] = connection
            command.upgrade(config, "0006")
    _run(engine, _ROWS)


def test_a_new_database_has_the_tables_of_the_program(url: sa.URL, engine: sa.Engine) -> None:
    open_state(url).close()
    _check(engine)


def test_the_database_of_the_last_unreleased_version_goes_on(
    url: sa.URL, engine: sa.Engine
) -> None:
    _before(url, engine)
    open_state(url).close()
    _check(engine)
    _check_work(url)


# Of revision 0011, in which keys are folded.
_FOLDED = """
INSERT INTO channel (gateway, `key`, channel, listed, paused)
    VALUES ('wpp', 'loja1', 'Loja 1', 1, 1), ('wpp', 'obra', 'obra', 1, 0),
    ('second', 'loja1', 'LOJA1', 1, 0);
INSERT INTO repair_log (id, gateway, `key`, channel, cause, accepted_at, finished_at, attempt,
    action, outcome, detail)
    VALUES (1, 'wpp', 'loja1', 'Loja 1', 'silent', 1, 2, 1, 'getQr', 'failed', ''),
    (2, 'wpp', 'gone', 'GONE', 'silent', 1, 2, 1, 'getQr', 'failed', '');
INSERT INTO attempt_log (id, gateway, `key`, kind, outcome, ended_at, steps)
    VALUES (1, 'wpp', 'loja1', 'repair', 'failed', 2, '[]'),
    (2, 'wpp', 'gone', 'repair', 'failed', 2, '[]'),
    (3, 'wpp', 'older', 'repair', 'failed', 2, '[]');
INSERT INTO scan_links (id, token_hash, gateway, `key`, channel, name, created_at, expires_at)
    VALUES ('1', 'x', 'wpp', 'loja1', 'Loja 1', '', 1, 2);
INSERT INTO message_audit (gateway, `key`, channel)
    VALUES ('wpp', '', ''), ('wpp', 'loja1', 'Loja 1');
INSERT INTO missed_message (gateway, `key`, id, at, kind, chat, found_at)
    VALUES ('wpp', 'loja1', 'A', 1, 'text', '0001', 1);
INSERT INTO echoes (id, gateway, sender, receiver, token, sent_at)
    VALUES (1, 'wpp', 'obra', 'loja1', 'token', 1);
INSERT INTO listed_channels (gateway, channels)
    VALUES ('wpp', '{"loja1": ["Loja 1", null], "gone": ["GONE", 5.0]}')
"""


def test_keys_that_were_folded_become_exact(url: sa.URL, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        config = configuration()
        config.attributes["connection"] = connection
        command.upgrade(config, "0011")
    _run(engine, _FOLDED)
    open_state(url).close()
    _check(engine)
    with engine.connect() as connection:
        found = {
            table: connection.exec_driver_sql(f"SELECT {columns} FROM {table}").all()
            for table, columns in {
                "channel": "gateway, `key`, paused",
                "repair_log": "`key`",
                "attempt_log": "`key`",
                "scan_links": "`key`",
                "message_audit": "`key`",
                "missed_message": "`key`",
                "echoes": "sender, receiver",
            }.items()
        }
        (listed,) = connection.exec_driver_sql("SELECT channels FROM listed_channels").one()
    assert {table: {tuple(row) for row in rows} for table, rows in found.items()} == {
        "channel": {("wpp", "Loja 1", 1), ("wpp", "obra", 0), ("second", "LOJA1", 0)},
        "repair_log": {("Loja 1",), ("GONE",)},
        "attempt_log": {("Loja 1",), ("GONE",), ("older",)},
        "scan_links": {("Loja 1",)},
        "message_audit": {("",), ("Loja 1",)},
        "missed_message": {("Loja 1",)},
        "echoes": {("obra", "Loja 1")},
    }
    assert json.loads(listed) == {"Loja 1": ["Loja 1", None], "GONE": ["GONE", 5.0]}


def test_what_was_under_way_is_gone_on_with(tmp_path: Path) -> None:
    engine = sa.create_engine(sqlite_url(tmp_path))
    (tmp_path / "var").mkdir()
    _before(sqlite_url(tmp_path), engine)
    _run(engine, "DELETE FROM pauses", "DELETE FROM gateways")
    engine.dispose()
    open_state(sqlite_url(tmp_path)).close()
    world = World(tmp_path)
    for name in ("Loja", "held", "looked", "scanned"):
        world.put(name, Status.DISCONNECTED)
    world.put("asked")
    world.run(10)
    assert sorted(name for _, name, _ in world.gateway.calls) == ["Loja", "held", "looked"]
    world.close()


class CutShortError(Exception):
    """The program has died."""


@contextmanager
def _dies_after(changes: int) -> Iterator[None]:
    """Let the program die after so many statements that change something."""
    left = [changes]

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.split(maxsplit=1)[0] in {"CREATE", "INSERT", "UPDATE", "DELETE", "DROP"}:
            left[0] -= 1
            if left[0] < 0:
                raise CutShortError

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)


@pytest.mark.parametrize("changes", [1, 4, 7, 11, 15, 19, 21, 23])
def test_an_upgrade_that_is_cut_short_is_taken_up(
    url: sa.URL, engine: sa.Engine, changes: int
) -> None:
    """MariaDB commits at every change of a table: what was made stays."""
    _before(url, engine)
    with pytest.raises(StateError), _dies_after(changes):
        open_state(url)
    open_state(url).close()
    _check(engine)
    _check_work(url)


@pytest.mark.parametrize("changes", [2, 9, 16])
def test_a_database_that_was_made_by_half_is_completed(
    url: sa.URL, engine: sa.Engine, changes: int
) -> None:
    with pytest.raises(StateError), _dies_after(changes):
        open_state(url)
    open_state(url).close()
    _check(engine)


@pytest.mark.parametrize("version", ["0001", "0005"])
def test_an_older_database_is_refused_with_what_to_do(
    url: sa.URL, engine: sa.Engine, version: str
) -> None:
    open_state(url).close()
    _run(engine, f"UPDATE {VERSION_TABLE} SET version_num = '{version}'")
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
