"""Learning from real logs: what is read, what is pinned, and what happens when that fails."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

import pytest

from demo.simulator.apis.openwa import openwa_id
from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from exporter.event_buffer import Post
from exporter.pollers import GatewayState, StateStore
from exporter.silence import learner
from exporter.silence.explain import explain
from exporter.silence.learner import Learner
from exporter.silence.model import bounds_of, load
from exporter.supervisor import GatewayMonitor
from tests.support.clock import HandMovedClock
from tests.support.hooks import SECRET, TOKEN
from tests.support.message_logs import WrittenLog
from tests.support.waiting import wait_until
from zapwatch.channels import Channel, Status
from zapwatch.clock import Clock
from zapwatch.config import Settings, parse
from zapwatch.messages import history
from zapwatch.messages.event_store import Batch, EventStore, Last, Minutes
from zapwatch.messages.history import read_histories
from zapwatch.messages.message import make_token
from zapwatch.messages.source import open_source
from zapwatch.messages.webhook_log import MessageLog

_DAY = 86_400.0
_CHANNELS = tuple(Channel(name, Status.CONNECTED) for name in ("Lo Ja", "nova", "never"))


def _settings(directory: Path, log: WrittenLog, **more: str) -> Settings:
    return parse(
        {
            "WPP_GATEWAY_BASE_URL": "https://gateway.example.com:8443",
            "WPP_GATEWAY_SECRET": "x",
            "MESSAGE_LOG_URL": log.reader.render_as_string(hide_password=False),
            "SILENCE_MODE": "adaptive",
            "SILENCE_STATE_FILE": str(directory / "silence.json"),
            **more,
        }
    )


@pytest.fixture
def settings(tmp_path: Path, sqlite_log: WrittenLog) -> Settings:
    return _settings(tmp_path, sqlite_log)


@pytest.fixture
def board() -> StateStore:
    made = StateStore()
    made.update(gateway=GatewayState(up=True, channels=_CHANNELS))
    return made


def _listed(board: StateStore) -> tuple[Channel, ...]:
    return board.snapshot.gateway.channels if board.snapshot.gateway else ()


def _learner(settings: Settings, board: StateStore, clock: Clock | None = None) -> Learner:
    [gateway] = settings.gateways
    source = open_source(settings, gateway, lambda: _listed(board))
    assert source is not None
    return Learner(gateway, bounds_of(settings), source, board, clock=clock)


def _every(seconds: float, days: float) -> list[float]:
    """Return ages, the oldest first."""
    return [seconds * n for n in range(int(days * _DAY / seconds), -1, -1)]


@pytest.fixture
def busy_log(sqlite_log: WrittenLog) -> WrittenLog:
    sqlite_log.write_history("loja", _every(1800, 20))
    sqlite_log.write_history("nova", _every(1800, 5))
    sqlite_log.write_history("unlisted", _every(1800, 20))
    return sqlite_log


def test_histories_hold_28_days_of_the_wanted_channels_and_no_echo(written: WrittenLog) -> None:
    written.write_history("loja", [40 * _DAY, 28 * _DAY, 27 * _DAY, 3600, 3600, 0])
    written.write_history("other", [60])
    written.write("nova", age_seconds=120)
    written.write("nova", age_seconds=60, event_type="presence.update")
    written.write("nova", age_seconds=30, words=make_token("nova"))
    written.postdate(written.write("nova"), 3600)
    log = MessageLog(written.reader)
    pauses: list[int] = []
    histories = read_histories(log, {"loja", "nova"}, lambda: pauses.append(1))
    log.close()
    assert {key: history.messages for key, history in histories.items()} == {"loja": 4, "nova": 1}
    assert histories["loja"].begins == histories["nova"].begins
    assert sum(histories["loja"].busy_minutes()) == 3
    assert len(pauses) == 1


def test_reading_goes_in_chunks_and_ends_where_rows_are_too_old(
    sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_CHUNK", 10)
    sqlite_log.write_history("loja", [40 * _DAY] * 50)
    sqlite_log.write_history("loja", [3600 * (35 - n) for n in range(35)])
    pauses: list[int] = []
    log = MessageLog(sqlite_log.reader)
    histories = read_histories(log, {"loja"}, lambda: pauses.append(1))
    assert histories["loja"].messages == 35
    assert len(pauses) == 4, "the fifth chunk is all too old"


def test_what_is_learned_is_pinned_and_saved(
    settings: Settings,
    board: StateStore,
    busy_log: WrittenLog,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    closed: list[bool] = []
    monkeypatch.setattr(MessageLog, "close", lambda _log: closed.append(True))
    made = _learner(settings, board)
    made.remember()
    assert made.is_due()
    made.learn_once()
    model = board.snapshot.silence
    assert model is not None
    assert model.channels.keys() == {"Lo Ja"}
    assert model.messages == len(_every(1800, 20))
    assert time.time() - 60 < model.learned_at <= time.time()
    assert "silence: learned thresholds of 1 channels from 961 messages" in caplog.text
    assert not made.is_due()
    assert len(closed) == 1, "no connection is kept until tomorrow"

    restarted = StateStore()
    restarted.update(gateway=board.snapshot.gateway)
    second = _learner(settings, restarted)
    second.remember()
    assert not second.is_due(), "a restart does not repeat it"
    assert restarted.snapshot.silence is not None
    assert restarted.snapshot.silence.channels.keys() == {"Lo Ja"}


def test_it_is_learned_again_a_day_later_or_when_the_clock_was_wrong(
    settings: Settings, board: StateStore, busy_log: WrittenLog
) -> None:
    clock = HandMovedClock()
    made = _learner(settings, board, clock)
    made.learn_once()
    learned_at = clock.time()
    for moved, due in ((0.0, False), (_DAY - 60, False), (_DAY + 60, True), (-3600.0, True)):
        clock.forward(601)  # so that it may be tried again
        clock.set_time(learned_at + moved)
        assert made.is_due() is due, moved


@pytest.mark.parametrize("wrong", [730 * _DAY, -1.7e9])
def test_a_wrong_clock_at_the_machines_start_replaces_nothing_learned(
    settings: Settings, board: StateStore, busy_log: WrittenLog, wrong: float
) -> None:
    _learner(settings, board).learn_once()
    clock = HandMovedClock(uptime=60)
    clock.set_time(time.time() + wrong)
    made = _learner(settings, board, clock)
    assert made.is_due()
    made.remember()
    assert not made.is_due()
    clock.forward(3600)
    assert made.is_due()


def test_a_channel_that_a_starting_gateway_does_not_list_yet_is_learned_again(
    settings: Settings, board: StateStore, sqlite_log: WrittenLog
) -> None:
    sqlite_log.write_history("nova", _every(1800, 20))
    _learner(settings, board).learn_once()
    restarted = StateStore()
    restarted.update(gateway=GatewayState(up=True, channels=_CHANNELS[:1]))
    made = _learner(settings, restarted)
    made.remember()

    def learned() -> set[str]:
        made.learn_once()
        model = restarted.snapshot.silence
        return set(model.channels) if model else set()

    assert [learned(), learned()] == [{"nova"}, {"nova"}]
    sqlite_log.purge()
    assert not learned(), "a removed one goes with its messages"


def test_nothing_is_learned_before_the_channels_are_known(settings: Settings) -> None:
    board = StateStore()
    made = _learner(settings, board)
    assert not made.is_due()
    board.update(gateway=GatewayState(up=False))
    assert not made.is_due()
    board.update(gateway=GatewayState(up=True, channels=_CHANNELS))
    assert made.is_due()


def test_a_log_that_fails_leaves_what_is_known_and_is_asked_again_later(
    settings: Settings, board: StateStore, busy_log: WrittenLog, caplog: pytest.LogCaptureFixture
) -> None:
    made = _learner(settings, board)
    made.learn_once()
    model = board.snapshot.silence
    busy_log.run("DROP TABLE webhook_raw_logs")
    made.learn_once()
    assert board.snapshot.silence is model
    (record,) = caplog.records
    assert record.getMessage().startswith("silence thresholds cannot be learned: no such")

    fresh = StateStore()
    fresh.update(gateway=board.snapshot.gateway)
    second = _learner(settings, fresh)
    second.learn_once()
    assert fresh.snapshot.silence is None
    assert not second.is_due(), "not at once again"


def test_a_state_that_cannot_be_written_or_used_is_told_and_changes_nothing_else(
    tmp_path: Path, board: StateStore, busy_log: WrittenLog, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not JSON")
    settings = _settings(tmp_path, busy_log, SILENCE_STATE_FILE=str(tmp_path / "file" / "state"))
    made = _learner(settings, board)
    made.learn_once()
    assert board.snapshot.silence is not None
    assert "cannot be written: " in caplog.text

    caplog.clear()
    unusable = _settings(tmp_path, busy_log, SILENCE_STATE_FILE=str(tmp_path / "file"))
    fresh = StateStore()
    _learner(unusable, fresh).remember()
    assert fresh.snapshot.silence is None
    assert caplog.messages == [
        f"the silence profile is discarded and learned again: {tmp_path / 'file'} is not JSON"
    ]


def test_a_channel_is_explained(
    settings: Settings, board: StateStore, busy_log: WrittenLog
) -> None:
    assert explain(settings, settings.gateways[0], "LoJa")[2].endswith(
        "nothing has been learned yet: the exporter does that in the background"
    )
    _learner(settings, board).learn_once()
    model = load(settings.gateways[0].silence_state_file, bounds_of(settings))
    assert model is not None
    head, age, learned, *rest = explain(settings, settings.gateways[0], "LoJa")
    assert head.startswith("LoJa: may be silent for ")
    assert head.endswith(" (adaptive)")
    assert age.startswith("  last message ")
    assert age.endswith(" 0m ago")
    assert learned.endswith(" from 961 messages of 28 days")
    days = [line for line in rest if line.strip()[:3] in {"Mon", "Tue", "Wed", "Thu", "Fri"}]
    assert len(days) == 5
    assert all("█" in day for day in days)
    assert max(map(len, rest)) <= 100


def test_why_a_threshold_is_fixed_is_told(
    tmp_path: Path, settings: Settings, board: StateStore, busy_log: WrittenLog
) -> None:
    _learner(settings, board).learn_once()

    def why(name: str, **more: str) -> str:
        settings = _settings(tmp_path, busy_log, **more)
        head, _age, reason, *_ = explain(settings, settings.gateways[0], name)
        assert head.endswith(" (fixed)")
        return reason

    assert why("loja", SILENCE_MODE="fixed") == "  fixed, since SILENCE_MODE is fixed"
    assert "SILENT_HOURS_OVERRIDES names it" in why("loja", SILENT_HOURS_OVERRIDES="lo ja=9")
    assert "less than 7 days" in why("nova")
    assert "learned for other settings" in why("loja", SILENCE_CEILING_HOURS="48")
    busy_log.run("DELETE FROM webhook_raw_logs")
    assert "its last message is not known" in why("loja")
    busy_log.run("DROP TABLE webhook_raw_logs")
    lines = explain(settings, settings.gateways[0], "loja")
    assert lines[1].startswith("  the message log cannot be read: no such table")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("MESSAGE_LOOKBACK_HOURS", "300"),
        ("SILENT_HOURS", "300"),
        ("SILENT_HOURS_OVERRIDES", "nova=300,loja=2"),
        ("SILENCE_CEILING_HOURS", "300"),
    ],
)
def test_a_message_is_found_as_far_back_as_a_channel_may_be_silent(
    tmp_path: Path, sqlite_log: WrittenLog, setting: str, value: str
) -> None:
    sqlite_log.write_history("nova", [240 * 3600])
    sqlite_log.write_history("loja", [200 * 3600] * 2001)
    settings = _settings(tmp_path, sqlite_log, **{setting: value})
    assert explain(settings, settings.gateways[0], "nova")[1].endswith(", 240h ago")
    settings = _settings(tmp_path, sqlite_log)
    assert explain(settings, settings.gateways[0], "nova")[1] == (
        "  no message in the last 168h under this name; the channel list cannot be read"
    )


def test_channels_with_other_names_in_events_are_learned_while_the_gateway_is_down(
    tmp_path: Path, sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "_RETRY_SECONDS", 0.0)
    batch = Batch({openwa_id("loja"): Last(1, 1, 1)})
    now = int(time.time() // 3600)
    for hour in range(now - 20 * 24, now):
        batch.minutes[openwa_id("loja"), hour] = Minutes(1 | 1 << 30, 3)
    with SimulatorServer(SECRET, api="openwa") as server:
        Simulator(server.url).put_channel("loja")
        settings = _settings(
            tmp_path,
            sqlite_log,
            WPP_GATEWAY_BASE_URL=server.url,
            WPP_GATEWAY_SECRET=SECRET,
            WPP_GATEWAY_TYPE="openwa",
            MESSAGE_SOURCE="events",
            MESSAGES_TOKEN=TOKEN,
            MESSAGES_STATE_URL=f"sqlite:///{tmp_path}/messages.sqlite3",
            EXPORTER_POLL_SECONDS="1",
        )
        post = Post(settings)
        post.store.write({"wpp": batch}, time.time())
        post.follow(settings.gateways)
        monitor = GatewayMonitor(settings, settings.gateways[0], post, logging.getLogger(__name__))
        store = monitor.store
        monitor.start()
        wait_until(lambda: store.snapshot.silence is not None, "the first model")
    assert store.snapshot.silence is not None
    old = replace(store.snapshot.silence, learned_at=0.0)
    assert old.channels.keys() == {"loja"}
    wait_until(lambda: store.snapshot.gateway and not store.snapshot.gateway.up, "the outage")
    store.update(silence=old)
    wait_until(lambda: store.snapshot.silence is not old, "the next model")
    monitor.stop()
    post.store.close()
    assert store.snapshot.silence is not None
    assert store.snapshot.silence.channels.keys() == {"loja"}


def test_it_rests_as_long_as_it_worked_but_a_second_at_most() -> None:
    clock = HandMovedClock()
    pace = learner._Pace(clock)
    for worked in (0.2, 0.0, 5.0):
        clock.forward(worked)
        pace.pause()
    assert clock.pauses == pytest.approx([0.2, 0.0, 1.0], abs=0.001)


def test_events_teach_as_a_log_does(
    tmp_path: Path, sqlite_log: WrittenLog, board: StateStore
) -> None:
    store = {"MESSAGES_STATE_URL": f"sqlite:///{tmp_path}/messages.sqlite3"}
    settings = _settings(tmp_path, sqlite_log, **store, MESSAGE_SOURCE="events")
    now = int(time.time() // 3600)
    batch, other = Batch({"loja": Last(1, 1, 1)}), Batch()
    for hour in range(now - 20 * 24, now):
        batch.minutes["loja", hour] = Minutes(1 | 1 << 30, 3)
        other.minutes["nova", hour] = Minutes(1, 1)
        batch.minutes["unlisted", hour] = Minutes(1, 1)
    batch.minutes["loja", now - 40 * 24] = Minutes(1, 1)
    written = EventStore(settings.messages_state_url)
    written.write({"wpp": batch, "another": other}, time.time())
    learner = _learner(settings, board)
    learner.learn_once()
    model = board.snapshot.silence
    assert model is not None
    assert model.channels.keys() == {"Lo Ja"}
    assert model.channels["Lo Ja"].messages == 20 * 24 * 3
    # Two busy minutes an hour, half an hour apart: hours of silence are strange at any time.
    threshold = model.channels["Lo Ja"].threshold(time.time(), bounds_of(settings))
    assert 1800 <= threshold < 12 * 3600
    written.close()
