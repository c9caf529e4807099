"""What a type of gateway can do, as the command tells it and as the page does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from demo.configuration import ROOT
from zapwatch.gateways.__main__ import main
from zapwatch.gateways.registry import ADAPTERS


def _told(capsys: pytest.CaptureFixture[str], kind: str) -> dict[str, str]:
    assert main(["describe", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line[:22].rstrip(): line[22:] for line in lines}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_page_has_what_the_command_tells(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    page = (ROOT / "docs" / "gateways" / "README.md").read_text()
    table = page.partition("## What Zapwatch calls")[2].partition("## Another")[0]
    rows = (re.split(r" *\| *", line.replace("`", "")) for line in table.splitlines())
    (row,) = (cells for cells in rows if cells[1:2] == [kind])
    down, zombie, stuck, proof, code, messages, taken_back, lost = row[2:10]

    told = _told(capsys, kind)
    assert told["repair if down"] == down
    assert told["repair if a zombie"] == zombie
    assert told["repair if stuck"] == stuck
    assert told["probe"] == (proof or "none")
    assert told["pairing code"] == code
    assert told["received messages"] == messages
    assert told["echo taken back"] == taken_back
    assert told["pairing lost by"] == f"{lost} (only with RECONNECT_ALLOW_RESTART)"


@pytest.mark.parametrize(
    ("kind", "title", "words"),
    [
        ("whapi", "channels", "named in the settings"),
        ("waha", "channels", "listed by the gateway"),
        ("evolution", "QR code needed", "known by the call for the code only"),
        ("waha", "QR code needed", "listed"),
        ("wwebjs-api", "own number", "by a call"),
        ("wwebjs-api", "channel then", "is recreated"),
        ("wwebjs-api", "events", "with a token"),
        ("waha", "events", "signed in X-Webhook-Hmac"),
        ("whapi", "events", "with a token"),
        ("whapi", "pairing code", "users/login with the number"),
        ("gowa", "events", "signed in X-Hub-Signature-256"),
        ("gowa", "type", "gowa, described in YAML"),
        ("wuzapi", "pairing code", "POST /session/pairphone"),
        ("openwa", "activity in the list", "yes"),
        ("waha", "activity in the list", "yes"),
        ("wppconnect", "activity in the list", "no"),
    ],
)
def test_what_a_type_can_do_is_told(
    capsys: pytest.CaptureFixture[str], kind: str, title: str, words: str
) -> None:
    assert _told(capsys, kind)[title] == words


_OWN = """
types:
  own:
    auth: {bearer: true}
    list: {call: GET /list, items: "@", id: id, status: state}
    statuses: {up: connected, down: disconnected, failed: disconnected}
    repair: {disconnected: start, failed: restart}
    calls:
      start: ["POST /start/{id}"]
      restart: ["POST /restart/{id}"]
      qr: [{call: "GET /qr/{id}", value: qr}]
      send: [POST /send]
      lose_pairing: ["POST /logout/{id}"]
"""


def _settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "types.yaml").write_text(_OWN)
    gateway = "name: mine, type: own, url: 'http://127.0.0.1:9', secret: x, messages: none"
    text = f"types_file: {folder / 'types.yaml'}\ngateways:\n  - {{{gateway}}}\n"
    (folder / "gateways.yaml").write_text(text)
    (folder / ".env").write_text(f"GATEWAYS_FILE={folder / 'gateways.yaml'}\n")
    monkeypatch.chdir(folder)


def test_a_type_of_ones_own_is_told_by_the_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _settings(tmp_path, monkeypatch)
    told = _told(capsys, "own")
    assert told["repair if down"] == "POST /start/{id}; POST /restart/{id} where it is failed"
    assert told["repair if a zombie"] == "nothing: a person is notified"
    assert told["repair if stuck"] == "waits"
    assert told["probe"] == told["events"] == "none"
    assert told["pairing code"] == "none"


@pytest.mark.parametrize("settings", [True, False])
def test_an_unknown_type_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    settings: bool,
) -> None:
    if settings:
        _settings(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["describe", "telegram"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gateways: no type 'telegram': there are wrapper, wppconnect, ")


def test_a_mistake_in_the_description_is_all_that_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _settings(tmp_path, monkeypatch)
    path = tmp_path / "types.yaml"
    path.write_text(_OWN.replace("POST /start", "POST start"))
    with pytest.raises(SystemExit) as ended:
        main(["describe", "own"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gateways: {path}: own: calls: start: call must be like")
