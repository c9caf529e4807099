"""A program that runs once goes on where its last run has left off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.message_logs import WrittenLog, on_sqlite
from tests.support.states import sqlite_url
from zapwatch.channels import Channel, Status
from zapwatch.config import GatewaySettings, parse
from zapwatch.db import Database
from zapwatch.messages.channel_list import Activity
from zapwatch.messages.message import ActivitySnapshot
from zapwatch.messages.source import LogMessages, find_since_last_run
from zapwatch.messages.webhook_log import MessageLog

_WEEK = 7 * 24 * 3600.0
_NEVER, _LOJA = Channel("nunca", Status.CONNECTED), Channel("loja", Status.CONNECTED)


def _gateway(log: sa.URL | None, **more: str) -> GatewaySettings:
    least = {"WPP_GATEWAY_BASE_URL": "http://127.0.0.1:1", "WPP_GATEWAY_SECRET": "0" * 32}
    source = {"MESSAGE_SOURCE": "activity"} if log is None else {"MESSAGE_LOG_URL": str(log)}
    (gateway,) = parse({**least, **source, **more}).gateways
    return gateway


Run = Callable[[sa.URL, WrittenLog], ActivitySnapshot]


@pytest.fixture
def run() -> Iterator[Run]:
    opened: list[Database] = []

    def check(state: sa.URL, written: WrittenLog) -> ActivitySnapshot:
        opened.append(Database(state, lambda _: None))
        messages = LogMessages(MessageLog(written.reader), _WEEK)
        gateway = _gateway(written.reader)
        try:
            return find_since_last_run(messages, (_LOJA, _NEVER), opened[-1], gateway)
        finally:
            messages.close()

    yield check
    for database in opened:
        database.close()


def test_a_channel_that_is_never_heard_costs_one_look_back_and_no_more(
    url: sa.URL, sqlite_log: WrittenLog, run: Run
) -> None:
    sqlite_log.write("loja", age_seconds=500)
    sqlite_log.write_many(["noise"] * 3000, age_seconds=400)
    assert run(url, sqlite_log).rows_read == 3001
    sqlite_log.write_many(["noise"] * 2)
    second = run(url, sqlite_log)
    assert second.rows_read == 2
    assert 500 <= (second.age("loja") or 0) < 560
    assert second.heard_age("loja") == second.age("loja")
    assert second.age("nunca") is None
    assert run(url, sqlite_log).rows_read == 0
    sqlite_log.write("nunca")
    assert (run(url, sqlite_log).age("nunca") or 0) < 60


def test_another_log_is_read_from_its_own_beginning(
    tmp_path: Path, sqlite_log: WrittenLog, run: Run
) -> None:
    state = sqlite_url(tmp_path / "state")
    sqlite_log.write("loja")
    run(state, sqlite_log)
    other = tmp_path / "other"
    other.mkdir()
    with on_sqlite(other) as log:
        log.write("loja", age_seconds=5000)
        assert (run(state, log).age("loja") or 0) >= 5000


def test_a_state_that_cannot_be_used_only_makes_it_dearer(
    tmp_path: Path, sqlite_log: WrittenLog, run: Run
) -> None:
    (tmp_path / "file").write_text("no folder")
    state = sqlite_url(tmp_path / "file" / "state")
    sqlite_log.write("loja", age_seconds=500)
    for _ in range(2):
        assert run(state, sqlite_log).rows_read == 1


def test_a_count_that_grows_between_two_runs_is_a_message(url: sa.URL) -> None:
    database = Database(url, lambda _: None)
    ages = []
    for count in (10, 10, 21, 21):
        channels = (replace(_LOJA, message_count=count),)
        view = find_since_last_run(Activity(list), channels, database, _gateway(None))
        ages.append(view.age("loja"))
    database.close()
    assert ages[:3] == [None, None, 0], "that it is there proves nothing"
    assert ages[3] is not None
    assert 0 <= ages[3] < 60
