"""``python -m reconnect_hook probe`` against a simulated gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from demo.simulator.traffic import open_message_log
from reconnect_hook.__main__ import main
from tests.support.message_logs import WrittenLog
from tests.support.probing import SECRET, shorten_waits


@pytest.fixture
def simulator(
    tmp_path: Path, sqlite_log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Simulator]:
    shorten_waits(monkeypatch)
    monkeypatch.setattr("reconnect_hook.__main__.end_on_signals", lambda **_: None)
    engine = open_message_log(sqlite_log.engine.url.render_as_string(hide_password=False))
    with SimulatorServer(SECRET, message_log=engine, traffic_seconds=3600) as server:
        made = Simulator(server.url)
        made.traffic(paused=True)
        made.put_channel("Lo Ja")
        made.put_channel("obra")
        numbers = {c["id"]: c["number"] for c in made.state()["channels"]}
        (tmp_path / ".env").write_text(
            f"WPP_GATEWAY_BASE_URL={server.url}\nWPP_GATEWAY_SECRET={SECRET}\n"
            f"MESSAGE_LOG_URL={sqlite_log.reader.render_as_string(hide_password=False)}\n"
            f"HOOK_STATE_URL=sqlite:///{tmp_path}/state.sqlite3\n"
            f"HOOK_LOG_FILE={tmp_path}/hook.log\nPROBE=echo\n"
            f"PROBE_ECHO_NUMBERS=loja={numbers['Lo Ja']},obra={numbers['obra']}\n"
        )
        yield made


def _run(tmp_path: Path, *arguments: str) -> int:
    return main(["probe", *arguments, "--env-file", str(tmp_path / ".env")])


def test_it_says_that_a_channel_is_alive(
    tmp_path: Path, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(tmp_path, "LOJA") == 0
    assert capsys.readouterr().out == "Lo Ja: working, probed by echo\n"
    assert len(simulator.requests("send")) == 1


def test_a_spelling_that_may_mean_several_channels_is_told_with_their_names(
    tmp_path: Path, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.put_channel("loja")
    assert _run(tmp_path, "LOJA") == 1
    line = "wpp: LOJA may be any of Lo Ja, loja: letter case and blanks matter here\n"
    assert capsys.readouterr().out == line
    assert _run(tmp_path, "Lo Ja") == 1
    line = "Lo Ja: cannot be probed: an echo needs its number in PROBE_ECHO_NUMBERS\n"
    assert capsys.readouterr().out == line, "the number is that of the exact name"
    assert simulator.requests("send") == []


def test_it_says_that_a_channel_is_dead_and_repairs_nothing(
    tmp_path: Path, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.deafen("Lo Ja")
    assert _run(tmp_path, "loja") == 1
    said = capsys.readouterr().out
    assert "Lo Ja: not responding, probed by echo" in said
    assert simulator.requests("qr") == []


def test_dry_run_and_what_cannot_be_asked_send_nothing(
    tmp_path: Path, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(tmp_path, "loja", "--dry-run") == 0
    assert "would be probed by echo" in capsys.readouterr().out
    assert _run(tmp_path, "nova") == 1
    assert "no gateway lists such a channel" in capsys.readouterr().out
    assert _run(tmp_path, "loja", "--kind", "query") == 1
    assert "has no query; PROBE=echo asks by a message" in capsys.readouterr().out
    simulator.drop("obra")
    assert _run(tmp_path, "obra") == 1
    assert "disconnected, so there is nothing to probe" in capsys.readouterr().out
    assert simulator.requests("send") == []


@pytest.mark.parametrize(
    ("setting", "arguments", "said"),
    [
        ("PROBE=off", [], "Lo Ja: cannot be probed: PROBE or PROBE_OVERRIDES is off\n"),
        ("PROBE_OVERRIDES=loja=off", [], "PROBE or PROBE_OVERRIDES is off\n"),
        ("PROBE=delivery", [], "its messages cannot be compared: the gateway lists none"),
        ("PROBE=delivery", ["--kind", "query"], "this kind of gateway has no query"),
        ("PROBE=query", ["--kind", "echo"], "Lo Ja: cannot be probed: an echo needs PROBE=echo\n"),
        ("MESSAGE_LOG_URL=none", [], "an echo needs a message log or events: see MESSAGE_SOURCE"),
        ("PROBE_ECHO_NUMBERS=", [], "an echo needs its number in PROBE_ECHO_NUMBERS\n"),
        ("MESSAGE_LOG_URL=sqlite:////dev/null/log", [], "the message log cannot be read: "),
    ],
)
def test_it_says_what_keeps_a_channel_from_being_asked(
    tmp_path: Path,
    simulator: Simulator,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    arguments: list[str],
    said: str,
) -> None:
    with (tmp_path / ".env").open("a") as file:
        file.write(f"{setting}\n")
    assert _run(tmp_path, "loja", *arguments) == 1
    line = capsys.readouterr().out
    assert said in line
    assert line.count("\n") == 1
    assert simulator.requests("send") == []


def test_a_gateway_that_cannot_be_read_is_not_one_without_the_channel(
    tmp_path: Path, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.fault("list", "http_500_json")
    assert _run(tmp_path, "loja") == 1
    line = capsys.readouterr().out
    assert line.startswith("wpp: list: http: HTTP 500")
    assert line.count("\n") == 1
