"""kill -9 at random moments, on SQLite and on MariaDB with two hooks."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import requests
import sqlalchemy as sa

from demo.simulator.messages import SimulatedMessage
from demo.simulator.server import SimulatorServer
from reconnect_hook.message_replay import DIED
from tests.support.crashes import Toll, crash
from tests.support.hooks import SECRET, TOKEN, hook_settings
from tests.support.http_servers import ConsumerWebhook
from tests.support.message_logs import WrittenLog
from tests.support.mortal_hooks import MortalHook
from tests.support.states import sqlite_url
from tests.support.waiting import wait_until

_KILLS = 25  # on each; `python -m benchmarks.hook_crashes` does as many as wanted


def _check(toll: Toll, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\ncrashes: {toll}")  # noqa: T201 - the seed must be seen
    assert toll.kills == _KILLS
    assert toll.accepted > _KILLS / 5, toll
    assert toll.calls > _KILLS / 8, toll
    assert (toll.lost, toll.unlogged, toll.too_many) == ([], [], []), toll


def _seed() -> int:
    return int.from_bytes(os.urandom(4), "big")


def test_what_was_accepted_survives_a_hook_on_sqlite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "var").mkdir()
    _check(crash(tmp_path, sqlite_url(tmp_path), hooks=1, kills=_KILLS, seed=_seed()), capsys)


def test_what_was_accepted_survives_two_hooks_on_mariadb(
    tmp_path: Path, database: sa.URL, capsys: pytest.CaptureFixture[str]
) -> None:
    _check(crash(tmp_path, database, hooks=2, kills=_KILLS, seed=_seed()), capsys)


_MISSED = 20
_WHILE_DELIVERING = 4  # kills
_HURRIED = {
    "reconnect_hook.message_audit._CLAIM_SECONDS": 2.0,
    "reconnect_hook.message_replay.CLAIM_SECONDS": 2.0,
    "reconnect_hook.message_replay.PAUSE_SECONDS": 0.0,
}


def test_killed_while_it_delivers_each_message_comes_once_at_most(
    tmp_path: Path, database: sa.URL
) -> None:
    seed = _seed()
    chance = random.Random(seed)
    log = WrittenLog(sa.make_url(f"sqlite:///{tmp_path}/log.sqlite3"))
    log.write_history("loja", [7200])
    ids = [f"LOST{number:02d}" for number in range(_MISSED)]
    engine = sa.create_engine(database)

    def state() -> dict[str, tuple[str | None, str]]:
        with engine.connect() as connection:
            rows = connection.execute(_REPLAYS)
            return {row.id: (row.replay, row.replay_detail) for row in rows}

    with (
        SimulatorServer(SECRET, api="waha", traffic_seconds=3600) as server,
        ConsumerWebhook() as to,
    ):
        server.gateway.put("loja", {"quiet": True})
        for number, one in enumerate(ids):
            at = time.time() - 900 + number
            server.gateway.births.bear(SimulatedMessage("loja", outgoing=False, id=one, at=at))
        settings = hook_settings(
            server.url,
            WPP_GATEWAY_TYPE="waha",
            HOOK_STATE_URL=database.render_as_string(hide_password=False),
            MESSAGE_LOG_URL=log.reader.render_as_string(hide_password=False),
            MESSAGE_REPLAY_URL=to.url,
            MESSAGE_REPLAY="auto",
        )
        group = [MortalHook(settings, tmp_path, _HURRIED) for _ in range(2)]
        # A kill comes while one is on its way, or just after; the one begun then may never come.
        deaths = sorted(chance.sample(range(1, _MISSED - _WHILE_DELIVERING), _WHILE_DELIVERING))

        to.on_post = lambda _event: time.sleep(0.05)
        try:
            for hook in group:
                hook.start()
            group[0].wait()
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            audit = partial(requests.post, f"{group[0].url}/api/audit/loja", headers=bearer)
            wait_until(lambda: audit(timeout=10).status_code == 202, "the audit")
            for death in deaths:
                wait_until(lambda: len(to.events) >= death, f"so many posts: {seed}")  # noqa: B023
                time.sleep(chance.random() * 0.06)
                for hook in group:
                    hook.kill()
                for hook in group:
                    hook.start()
            ended = ("delivered", "unknown")
            wait_until(
                lambda: (
                    [one for one, _ in state().values() if one in ended] != []
                    and all(one in ended for one, _ in state().values())
                ),
                f"every message to have its end: {seed}",
            )
        finally:
            for hook in group:
                hook.close()

    posted = Counter(event["payload"]["id"].split("_")[2] for event in to.events)
    told = state()
    engine.dispose()
    assert set(told) == set(ids)
    assert max(posted.values()) == 1, seed
    assert {one for one, (result, _) in told.items() if result == "delivered"} <= posted.keys()
    unknown = {one: words for one, (result, words) in told.items() if result == "unknown"}
    assert set(ids) - posted.keys() <= unknown.keys()
    assert set(unknown.values()) <= {DIED}
    assert len(unknown) <= _WHILE_DELIVERING


_REPLAYS = sa.text("SELECT id, replay, replay_detail FROM missed_message")
