"""``zapwatch notify`` and the page's button, with a real Alertmanager."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.simulator.server import SimulatorServer
from reconnect_hook.dashboard.channel_view import GONE_ALERT
from tests.notifications.alertmanager import Alertmanager
from tests.support.hooks import SECRET, TOKEN
from tests.support.http_servers import Exposition
from tests.support.inbox import Inbox
from tests.support.shipped import ALERTMANAGER, read_yaml
from tests.support.site import NOBODY, Site
from tests.support.waiting import wait_until
from zapwatch.alertmanager import main, ways_to_people
from zapwatch.setup.ways import WAYS

_BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    with Inbox() as made:
        yield made


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, inbox: Inbox) -> Iterator[Alertmanager]:
    with Alertmanager(tmp_path_factory.mktemp("notify"), inbox, "en", faster=30) as made:
        yield made


@pytest.fixture
def alertmanager(
    running: Alertmanager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Alertmanager]:
    """Return the module's one; a test may change its file, and what runs then is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALERTMANAGER_URL", running.url)
    monkeypatch.setenv("ALERTMANAGER_FILE", str(running.file))
    text = running.file.read_text()
    yield running
    if running.file.read_text() != text:
        running.file.write_text(text)
        assert main(["--reload"]) == 0


def _without_people(file: Path) -> None:
    config = read_yaml(file)
    config["receivers"][-1] = {"name": "people"}
    file.write_text(yaml.safe_dump(config))


def test_a_test_message_arrives_everywhere_and_says_what_it_is(
    alertmanager: Alertmanager, inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--test"]) == 0
    said = capsys.readouterr().out
    assert all(f"{way}: delivered" in said for way in ("email", "telegram", "slack"))
    assert inbox.mails[-1]["Subject"] == "Test message: nothing is wrong"
    assert "Test message" in inbox.telegrams[-1]["text"]
    assert 'href="https://zapwatch.example.com/"' in inbox.telegrams[-1]["text"]
    assert "Test message" in inbox.slacks[-1]["attachments"][0]["title"]


def test_a_way_that_fails_is_named(
    alertmanager: Alertmanager, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read_yaml(alertmanager.file)
    config["receivers"][-1]["telegram_configs"][0]["api_url"] = "http://127.0.0.1:1"
    # An entry of Discord, whose address Alertmanager does not show.
    key, ntfy = WAYS["ntfy"].build({"url": "http://127.0.0.1:1/topic", "token": ""}, "")
    config["receivers"][-1][key] = [ntfy]
    alertmanager.file.write_text(yaml.safe_dump(config))
    assert main(["--reload", "--test"]) == 1
    said = capsys.readouterr().out
    assert "telegram: failed" in said
    assert "ntfy: failed" in said
    assert "slack: delivered" in said


def test_a_wrong_file_is_not_taken(
    alertmanager: Alertmanager, capsys: pytest.CaptureFixture[str]
) -> None:
    right = alertmanager.file.read_text()
    alertmanager.file.write_text(right.replace("receiver: people", "receiver: persons"))
    assert main(["--reload"]) == 1
    assert "persons" in capsys.readouterr().err
    assert main([]) == 0
    alertmanager.file.write_text(right)


def test_a_pipe_in_place_of_the_file_is_not_waited_for(
    alertmanager: Alertmanager, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert main(["--reload", str(tmp_path / "pipe")]) == 1
    assert capsys.readouterr().err == f"notify: {tmp_path}/pipe: it is a named pipe\n"


def test_a_file_in_another_encoding_is_one_line(
    alertmanager: Alertmanager, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "alertmanager.yml"
    other.write_text("route: {receiver: me}\nreceivers: [{name: me}]\n", encoding="utf-16")
    assert main(["--reload", str(other)]) == 1
    assert f"reads another file than {other}" in capsys.readouterr().err
    assert main(["--reload", os.fsdecode(bytes(tmp_path / "\udcff"))]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_that_alertmanager_does_not_read_is_told(
    alertmanager: Alertmanager, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "alertmanager.yml"
    other.write_text("route: {receiver: me}\nreceivers: [{name: me}]\n")
    assert main(["--reload", str(other)]) == 1
    assert f"reads another file than {other}" in capsys.readouterr().err


def test_a_team_that_mutes_infos_gets_the_test(
    alertmanager: Alertmanager, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read_yaml(alertmanager.file)
    config["receivers"].insert(0, {"name": "muted"})
    config["route"]["routes"].insert(0, {"matchers": ['severity="info"'], "receiver": "muted"})
    alertmanager.file.write_text(yaml.safe_dump(config))
    assert main(["--reload", "--test"]) == 0, capsys.readouterr().out


def test_nobody_is_told_is_said_with_what_to_do(
    alertmanager: Alertmanager, capsys: pytest.CaptureFixture[str]
) -> None:
    _without_people(alertmanager.file)
    assert main(["--reload", "--test"]) == 1
    assert "no one is notified" in capsys.readouterr().out


def test_no_alertmanager_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALERTMANAGER_URL", "http://127.0.0.1:1")
    assert main(["--test"]) == 1
    assert capsys.readouterr().err == (
        "notify: http://127.0.0.1:1 does not answer: Connection refused\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["--reload"])
    assert ended.value.code == 2


def test_the_hooks_own_webhooks_reach_no_person() -> None:
    shipped: dict[str, Any] = read_yaml(ALERTMANAGER / "alertmanager.yml")
    assert ways_to_people(shipped) == {}
    # Alertmanager 0.26 and newer.
    for receiver in shipped["receivers"]:
        for webhook in receiver["webhook_configs"]:
            webhook["url"] = "<secret>"
    assert ways_to_people(shipped) == {}
    shipped["receivers"].append({"name": "n", "webhook_configs": [{"url": "<secret>"}]})
    assert ways_to_people(shipped) == {"webhook": 1}


@pytest.fixture
def page(alertmanager: Alertmanager) -> Iterator[Site]:
    made = Site(NOBODY, ALERTMANAGER_URL=alertmanager.url, HEARTBEAT_URL=NOBODY)
    yield made
    made.close()


def _shown(page: Site, path: str) -> str:
    answer = page.browser().get(path, headers=_BEARER)
    assert answer.status_code == http.client.OK
    return answer.get_data(as_text=True)


def test_the_button_sends_a_test_message(page: Site, inbox: Inbox) -> None:
    before = inbox.counts
    assert page.browser().post("/notify").status_code == 401
    answer = page.browser().post("/notify", headers=_BEARER)
    assert answer.status_code == 303
    assert "accepted the test message" in _shown(page, answer.headers["Location"])
    after = tuple(count + 1 for count in before)
    wait_until(lambda: inbox.counts == after, "the test message everywhere")


def test_the_page_says_whether_anybody_is_told(page: Site, alertmanager: Alertmanager) -> None:
    assert "<strong>email, slack, telegram</strong>" in _shown(page, "/notify")
    assert "Notifications are not set up" not in _shown(page, "/")
    _without_people(alertmanager.file)
    assert main(["--reload"]) == 1
    page.clock.ahead += 20
    assert "Notifications are not set up" in _shown(page, "/")
    assert "As notificações não estão configuradas" in _shown(page, "/?lang=pt_BR")


@pytest.fixture
def gone() -> Iterator[Exposition]:
    """Return a Prometheus for which channels of the gateway have left its list."""

    def labels(name: str, channel: str) -> dict[str, str]:
        return {"alertname": name, "gateway": "wpp", "channel": channel}

    up = {"metric": {"__name__": "whatsapp_gateway_up", "gateway": "wpp"}, "value": [0, "1"]}
    here = {"__name__": "whatsapp_channel_connected", "gateway": "wpp", "channel": "fica"}
    alerts = [labels(GONE_ALERT, name) for name in ("Some", "Outro")]
    firing = [{"state": "firing", "labels": one} for one in alerts]
    result = [up, {"metric": here, "value": [0, "1"]}]
    server = Exposition(json.dumps({"data": {"result": result, "alerts": firing}}))
    yield server
    server.close()


def test_who_was_removed_on_purpose_is_muted_and_leaves_the_page(
    alertmanager: Alertmanager, gone: Exposition, tmp_path: Path
) -> None:
    alertmanager.post(
        *({"labels": one["labels"]} for one in json.loads(gone.text)["data"]["alerts"])
    )
    addresses = {"PROMETHEUS_URL": f"http://{gone.at}", "ALERTMANAGER_URL": alertmanager.url}
    with SimulatorServer(SECRET) as server, closing(Site(server.url, **addresses)) as site:
        browser = site.browser()

        def shown() -> dict[str, str]:
            told = browser.get("/api/channels", headers=_BEARER).get_json()["channels"]
            return {one["channel"]: one["status"] for one in told}

        def forget(path: str) -> int:
            return browser.post(path, headers=_BEARER).status_code

        assert shown() == {"Outro": "gone", "Some": "gone", "fica": "connected"}
        page = browser.get("/channels/Some", headers=_BEARER).get_data(as_text=True)
        assert "It was removed on purpose" in page
        assert "Reconnect now" not in page
        assert [forget(f"/api/forget/{name}") for name in ("fica", "nada", "Some")] == [
            409,
            404,
            202,
        ]
        assert shown() == {"Outro": "gone", "fica": "connected"}
        assert [forget(f"/forget/{name}") for name in ("fica", "Outro")] == [404, 303]
        assert shown() == {"fica": "connected"}
    with SimulatorServer(SECRET) as server:
        away = {**addresses, "ALERTMANAGER_URL": NOBODY}
        with closing(Site(server.url, **away)) as site:
            answers = [
                site.browser().post(f"{at}/forget/Some", headers=_BEARER) for at in ("", "/api")
            ]
    assert [answer.status_code for answer in answers] == [502, 502]
    assert all("does not answer" in answer.get_data(as_text=True) for answer in answers)


def test_the_page_says_how_the_heartbeat_is(page: Site) -> None:
    assert "No heartbeat has come from Alertmanager yet" in _shown(page, "/notify")
    page.heartbeat.send()
    assert "did not accept the last heartbeat: connection" in _shown(page, "/notify")
    page.clock.ahead += 301
    assert "No heartbeat comes from Alertmanager" in _shown(page, "/notify")
    assert "The heartbeat is not delivered" in _shown(page, "/")
