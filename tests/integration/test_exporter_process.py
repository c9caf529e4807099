"""The exporter as a process, against a simulated gateway that fails in every known way."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.hooks import SECRET, hook_settings
from tests.support.message_logs import WrittenLog
from tests.support.ports import free_port
from tests.support.programs import Fork, Program, run_here
from tests.support.raw_server import Conversation, RawServer, answering
from tests.support.samples import Metrics
from tests.support.waiting import TIMEOUT, wait_until
from zapwatch.gateways.base import MAX_CHANNELS

_END_SECONDS = 10.0

# What a poll in another thread could not bear; all others are in contract/suite.py.
_FAULTS = {"hang": "timeout", "redirect": "http", "huge": "invalid"}


def _settings(url: str, **more: str) -> dict[str, str]:
    usual = {"EXPORTER_LISTEN": "127.0.0.1:0", "EXPORTER_POLL_SECONDS": "0.1"}
    return hook_settings(url, **{"WPP_GATEWAY_TIMEOUT": "4", **usual, **more})


def _with_a_channel(simulator: Simulator) -> Simulator:
    simulator.put_channel("Pixel12 Digital")
    return simulator


@pytest.fixture
def simulator(simulator: Simulator) -> Simulator:
    return _with_a_channel(simulator)


@pytest.fixture(scope="module")
def failing() -> Iterator[Simulator]:
    with SimulatorServer(SECRET) as server:
        yield _with_a_channel(Simulator(server.url))


@pytest.fixture(scope="module")
def polling(failing: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Run one exporter for all the failures: it has to come back from each of them."""
    directory = tmp_path_factory.mktemp("exporter")
    with Program(directory, "exporter", settings=_settings(failing.url)) as program:
        yield program


def _wait_for(program: Program, up: float) -> Metrics:
    def metrics_then() -> Metrics | None:
        now = program.metrics()
        return now if now.get("whatsapp_gateway_up", gateway="wpp") == up else None

    found = wait_until(metrics_then, f"whatsapp_gateway_up {up}")
    assert found is not None
    return found


def _errors(metrics: Metrics) -> dict[str, float]:
    name = "whatsapp_gateway_request_errors_total"
    found = metrics.all(name, gateway="wpp", operation="list")
    return {reason: value for (reason,), value in found.items() if value}


@pytest.mark.parametrize("fault", _FAULTS)
def test_each_failure_of_the_list_shows_and_passes(
    polling: Program, failing: Simulator, fault: str
) -> None:
    before = _wait_for(polling, 1)
    assert before.get("whatsapp_channel_connected", channel="Pixel12 Digital") == 1
    mark = len(polling.lines)

    failing.fault("list", fault)
    during = _wait_for(polling, 0)
    assert not during.all("whatsapp_channel_connected")
    assert not during.all("whatsapp_channel_status")
    reason = _FAULTS[fault]
    assert _errors(during).get(reason, 0) > _errors(before).get(reason, 0)

    failing.clear_faults()
    after = _wait_for(polling, 1)
    assert after.get("whatsapp_channel_connected", channel="Pixel12 Digital") == 1
    others = [{r: n for r, n in _errors(m).items() if r != reason} for m in (before, after)]
    assert others[0] == others[1], "no other reason was counted"
    wait_until(lambda: len(polling.lines) >= mark + 2, "two lines")
    failed, again = polling.lines[mark:]
    assert f'level=warning logger=exporter msg="channel list cannot be read: {reason}: ' in failed
    assert 'level=info logger=exporter msg="channel list can be read again, after ' in again
    assert SECRET not in polling.stderr
    assert not failing.requests("elsewhere"), "the secret is for the gateway alone"


def test_a_gateway_that_is_not_there_is_found_when_it_comes(tmp_path: Path) -> None:
    port = free_port()
    with Fork(tmp_path, "exporter", settings=_settings(f"http://127.0.0.1:{port}")) as program:
        down = _wait_for(program, 0)
        assert _errors(down).keys() == {"connection"}
        assert program.get("/-/ready").status_code == 200
        with SimulatorServer(SECRET, port=port) as server:
            _with_a_channel(Simulator(server.url))
            # Until the channel is there, the list is empty.
            wait_until(lambda: "read again" in program.stderr, "the recovery")
        assert "channel list cannot be read: connection: Connection refused" in program.lines[1]


def test_sessions_whose_names_differ_in_case_are_two_series(
    tmp_path: Path, simulator: Simulator, mariadb_log: WrittenLog
) -> None:
    simulator.put_channel("pixel12digital")
    simulator.drop("pixel12digital")
    simulator.put_channel("Loja")
    for name, age in {"Pixel12 Digital": 600, "pixel12digital": 6000, "LOJA": 60}.items():
        mariadb_log.write(name, age_seconds=age)
    url = mariadb_log.reader.render_as_string(hide_password=False)
    limits = "pixel12digital=1,loja=2"
    settings = _settings(simulator.url, MESSAGE_LOG_URL=url, SILENT_HOURS_OVERRIDES=limits)
    name = "whatsapp_channel_seconds_since_last_message"
    with Fork(tmp_path, "exporter", settings=settings) as program:
        wait_until(lambda: len(program.metrics().all(name)) == 3, "their ages")
        now = program.metrics()

        def values(metric: str) -> dict[str, float]:
            return {channel: value for (channel,), value in now.all(metric, gateway="wpp").items()}

        shown = values(name)
        assert shown["Pixel12 Digital"] < 6000 <= shown["pixel12digital"]
        assert shown["Loja"] < 600, "no other one is meant"
        twins = {"Pixel12 Digital": 1, "pixel12digital": 0}
        assert values("whatsapp_channel_connected") == {**twins, "Loja": 1}
        assert values("whatsapp_channel_silence_threshold_seconds") == {
            "Pixel12 Digital": 4 * 3600,
            "pixel12digital": 3600,
            "Loja": 2 * 3600,
        }
        assert not any(values("whatsapp_gateway_channels_left_out").values())


def test_what_is_learned_becomes_the_threshold_and_outlasts_a_restart(
    tmp_path: Path, simulator: Simulator, sqlite_log: WrittenLog
) -> None:
    sqlite_log.write_history("pixel12digital", range(20 * 86_400, -1, -1200))
    settings = _settings(
        simulator.url,
        MESSAGE_LOG_URL=sqlite_log.reader.render_as_string(),
        SILENCE_MODE="adaptive",
        SILENCE_STATE_FILE="state/silence.json",
    )
    of_channel = {"gateway": "wpp", "channel": "Pixel12 Digital"}

    def learned(program: Program) -> Metrics | None:
        now = program.metrics()
        mode = now.get("whatsapp_channel_silence_mode", **of_channel, mode="adaptive")
        return now if mode else None

    with Fork(tmp_path, "exporter", settings=settings) as program:
        first = wait_until(lambda: learned(program), "a learned threshold")
        assert first is not None
        threshold = first.get("whatsapp_channel_silence_threshold_seconds", **of_channel)
        assert threshold is not None
        assert 1200 <= threshold < 4 * 3600
        assert first.get("whatsapp_silence_learned_messages", gateway="wpp") == 1441
        wait_until((tmp_path / "state" / "silence.json").exists, "the state file")
        assert program.end() == 0
        assert "silence: learned thresholds of 1 channels" in program.stderr
    # So many that reading them takes longer than the first polls.
    state = tmp_path / "state" / "silence.json"
    kept = json.loads(state.read_bytes())
    [one] = kept["channels"].values()
    kept["channels"] |= {f"other {number}": one for number in range(6000)}
    state.write_text(json.dumps(kept))

    def with_age(program: Program) -> Metrics | None:
        now = program.metrics()
        return now if now.all("whatsapp_channel_seconds_since_last_message") else None

    with Fork(tmp_path, "exporter", settings=settings) as program:
        again = wait_until(lambda: with_age(program), "the age after a restart")
        assert again is not None
        assert again.get("whatsapp_channel_silence_threshold_seconds", **of_channel) == (
            pytest.approx(threshold, rel=1e-5)
        )
        when = "whatsapp_silence_last_learned_timestamp_seconds"
        assert again.get(when, gateway="wpp") == first.get(when, gateway="wpp")
        assert "silence: learned" not in program.stderr

    told = run_here(tmp_path, "exporter", "explain", "pixel12 digital", settings=settings)
    assert (told.returncode, told.stderr) == (0, "")
    assert " (adaptive)\n" in told.stdout


def _listing(*ids: str) -> bytes:
    return json.dumps({"channels": [{"id": one, "status": "connected"} for one in ids]}).encode()


def test_a_list_of_too_many_channels_is_watched_up_to_the_limit(tmp_path: Path) -> None:
    ids = [f"channel{number}" for number in range(MAX_CHANNELS + 5)]
    listing = _listing(*ids, " channel1 ", ids[2], "x" * 1_000_000, 'a"\n} 1\nwhatsapp_up 1')
    with RawServer(answering(listing)) as gateway:
        one_poll = {"WPP_GATEWAY_TIMEOUT": "60", "EXPORTER_POLL_SECONDS": "60"}
        settings = _settings(gateway.url, **one_poll)
        with Fork(tmp_path, "exporter", settings=settings) as program:
            now = _wait_for(program, 1)
            assert len(now.all("whatsapp_channel_connected", gateway="wpp")) == MAX_CHANNELS
            left_out = now.all("whatsapp_gateway_channels_left_out", gateway="wpp")
            assert left_out == {("unusable_id",): 2, ("duplicate",): 2, ("over_limit",): 5}
            _, line = program.lines
            assert line.endswith(
                'level=warning logger=exporter msg="channel list: 9 entries are left out: '
                "2 with an id that is there already, "
                f'2 without a usable id, 5 over the limit of {MAX_CHANNELS} channels"'
            )


def _silent(conversation: Conversation) -> None:
    conversation.read_request()


def test_it_ends_and_answers_while_gateway_and_database_hang(
    tmp_path: Path, simulator: Simulator
) -> None:
    simulator.fault("list", "hang")
    with RawServer(_silent) as database:
        settings = _settings(
            simulator.url,
            WPP_GATEWAY_TIMEOUT="3600",
            MESSAGE_LOG_URL=f"mysql://a:b@{database.url.removeprefix('http://')}/pixel_hub",
        )
        with Fork(tmp_path, "exporter", settings=settings) as program:
            assert program.get("/-/ready").status_code == 503
            wait_until(lambda: simulator.requests("list"), "the call that hangs")
            started = time.monotonic()
            assert program.metrics().get("whatsapp_gateway_up") is None
            assert program.get("/-/healthy").status_code == 200
            assert program.end() == 0
            assert time.monotonic() - started < _END_SECONDS
            assert len(program.lines) == 1, program.stderr


def test_statuses_are_served_while_the_database_has_not_answered_yet(
    tmp_path: Path, simulator: Simulator
) -> None:
    with RawServer(_silent) as database:
        url = f"mysql://a:b@{database.url.removeprefix('http://')}/pixel_hub"
        settings = _settings(simulator.url, MESSAGE_LOG_URL=url)
        with Fork(tmp_path, "exporter", settings=settings) as program:
            now = _wait_for(program, 1)
            assert now.all("whatsapp_channel_connected", gateway="wpp") == {("Pixel12 Digital",): 1}
            assert now.get("whatsapp_message_log_up", gateway="wpp") is None


def test_the_landing_page_and_the_formats_are_served(polling: Program) -> None:
    assert polling.get("/").headers["Content-Type"].startswith("text/html")
    accept = {"Accept": "application/openmetrics-text", "Accept-Encoding": "gzip"}
    first, page, head = (
        requests.request(method, f"{polling.url}/metrics", headers=accept, timeout=TIMEOUT)
        for method in ("GET", "GET", "HEAD")
    )
    assert first.headers.keys() == page.headers.keys() == head.headers.keys()
    assert not head.content
    assert page.headers["Content-Encoding"] == "gzip"
    assert page.headers["Content-Type"].startswith("application/openmetrics-text")
    assert page.text.endswith("# EOF\n")
    assert not page.headers["Server"], "who it is, is nobody's business"
    shown = polling.stderr + polling.get("/metrics").text + polling.get("/").text
    assert SECRET not in shown + Path(f"/proc/{polling.process.pid}/cmdline").read_text()
