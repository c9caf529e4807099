"""The whole loop: real Prometheus, Alertmanager and MariaDB, the shipped configuration."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.loop import SILENT_SECONDS, World
from tests.support.mariadb import MariaDb
from tests.support.waiting import wait_until

_CHANNELS = ("Pixel12 Digital", "imobsites", "Loja Centro", "atendimento", "em baixo")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, mariadb: MariaDb) -> Iterator[World]:
    name = mariadb.create_database()
    with World(tmp_path_factory.mktemp("world"), mariadb.url(name), _CHANNELS) as made:
        yield made
    mariadb.drop_database(name)


@pytest.fixture
def world(running: World) -> World:
    """The module's one world. Each test uses channels of its own and leaves all of them well."""
    running.simulator.clear_requests()
    return running


def test_a_dropped_channel_is_reconnected_and_its_alert_resolved(world: World) -> None:
    world.simulator.drop("Pixel12 Digital")
    world.wait_for_event("fires", "Pixel12 Digital", "WhatsAppChannelDisconnected")
    world.wait_for_event("repair", "Pixel12 Digital", "reconnected")
    world.wait_for_event("resolved", "Pixel12 Digital", "WhatsAppChannelDisconnected")
    assert world.qr_calls("Pixel12 Digital") == 1
    assert world.qr_calls("imobsites") == 0
    (line,) = world.log_lines("Pixel12 Digital")
    assert " reason=disconnected action=getQr outcome=reconnected attempt=1 seconds=" in line
    attempts = 'whatsapp_reconnect_attempts_total{channel="Pixel12 Digital",outcome="reconnected"}'
    wait_until(lambda: world.value(attempts) == 1, "the attempt in Prometheus")


def test_a_zombie_is_asked_to_reconnect_until_its_messages_come_again(world: World) -> None:
    world.simulator.zombie("imobsites")
    world.wait_for_event("fires", "imobsites", "WhatsAppChannelSilent")
    world.wait_for_event("repair", "imobsites", "reconnected")
    world.wait_for_event("resolved", "imobsites", "WhatsAppChannelSilent")
    assert world.qr_calls("imobsites") == 1
    assert world.qr_calls("Pixel12 Digital") == 0
    assert "reason=silent action=getQr outcome=reconnected" in world.log_lines("imobsites")[0]


def test_people_are_called_when_a_qr_code_waits_and_the_alert_ends_with_the_scan(
    world: World,
) -> None:
    world.simulator.unpair("Loja Centro")
    world.wait_for_event("repair", "Loja Centro", "qr_required")
    world.wait_for_event("fires", "Loja Centro", "WhatsAppChannelNeedsQrScan")
    line = world.wait_for_notification("firing WhatsAppChannelNeedsQrScan")
    assert "Loja Centro" in line
    world.simulator.scan("Loja Centro")
    world.wait_for_event("resolved", "Loja Centro", "WhatsAppChannelNeedsQrScan")
    world.wait_for_event("repair", "Loja Centro", "recovered")
    for path in (*world.loop.folder.glob("*.log"), world.log_file):
        assert "iVBORw0KGgo" not in path.read_text(), f"the QR code is in {path.name}"


def test_a_gateway_that_is_down_makes_one_alert_and_not_one_call(world: World) -> None:
    world.simulator.fault("list", "html_502")
    world.simulator.drop("atendimento")
    world.wait_for_notification("firing WhatsAppGatewayDown")
    alerts = {alert["metric"]["alertname"] for alert in world.query('ALERTS{alertstate="firing"}')}
    assert alerts == {"WhatsAppGatewayDown", "Watchdog"}
    assert world.qr_calls() == 0
    world.simulator.clear_faults()
    # The loop goes on by itself.
    world.wait_for_event("repair", "atendimento", "reconnected")
    world.wait_for_event("resolved", "", "WhatsAppGatewayDown")


def test_a_database_that_is_down_makes_no_channel_look_silent(
    world: World, mariadb: MariaDb
) -> None:
    silent = 'ALERTS{alertname="WhatsAppChannelSilent"}'
    wait_until(lambda: not world.query(silent), "the silence of another test to end")
    begin = time.time()
    mariadb.stop()
    try:
        # Samples are taken every 3 s: long enough for threshold and `for`.
        down = f"count_over_time((whatsapp_message_log_up == 0)[10m:1s]) > {2 * SILENT_SECONDS}"
        wait_until(lambda: world.query(down), "the log to be down for long enough")
        ages = "whatsapp_channel_seconds_since_last_message"
        wait_until(lambda: not world.query(ages), "the ages to be absent")
        assert not world.query(f"max_over_time({silent}[{time.time() - begin:.0f}s])")
        assert world.qr_calls() == 0
        # A drop is still repaired.
        world.simulator.drop("em baixo")
        world.wait_for_event("repair", "em baixo", "reconnected")
    finally:
        mariadb.start()
    wait_until(lambda: len(world.query(ages)) == len(_CHANNELS), "the ages to be back")
    assert not world.query(silent)
    down = 'ALERTS{alertname="WhatsAppMessageLogDown"}'
    wait_until(lambda: not world.query(down), "its own alert to end")
