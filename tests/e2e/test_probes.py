"""The whole loop with probes: only who is dead is repaired, and who is only quiet is left in peace.

Settings are half minutes where the defaults are half hours; rules and routes are the shipped ones.
One loop watches all gateways, so that their minutes of waiting are the same ones.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.simulator.messages import SimulatedMessage
from demo.simulator.model import FIRST_NUMBER
from tests.e2e.installation import Installation, Watched
from tests.support.mariadb import MariaDb
from tests.support.waiting import wait_until

_SETTINGS = {
    "EXPORTER_POLL_SECONDS": "4",  # what it shows counts by half minutes here
    "SILENT_HOURS": "4",
    # As shipped: the proof of a repair is an echo, which has to wait for those of others.
    "RECONNECT_VERIFY_SECONDS": "60",
    "PROBE": "echo",
    # Longer than group_interval: a suspicion that comes back sooner is no news to Alertmanager.
    "PROBE_AFTER_MINUTES": "0.4",
    "PROBE_PAUSE_MINUTES": "0.3",
    "PROBE_ECHOES_PER_DAY": "500",
}
_NIGHT_SECONDS = 150.0

_GATEWAYS: dict[str, tuple[str, tuple[str, ...], dict[str, object]]] = {
    "query": ("waha", ("sem-socket", "fala"), {"probe": "query"}),
    "deaf": ("evolution", ("sem-eventos", "calma"), {}),
    "webhook": ("evolution", ("sem-webhook", "com-webhook"), {"probe": "delivery"}),
    "panel": ("wrapper", ("loja", "obra"), {}),
    "receiver": ("wrapper", ("morto-que-recebe", "vivo-que-fala"), {}),
    "sender": ("wppconnect", ("morto-que-envia", "vivo-quieto"), {}),
    "three": ("wrapper", ("dois", "tres", "morto-de-tres"), {}),
    "night": ("wrapper", ("um", "outro"), {"silent_hours": _NIGHT_SECONDS / 3600}),
}

# Who is dead, and by which reason and with which proof it is repaired.
_DEAD = {
    ("query", "sem-socket"): ("probe_failed", "requested"),  # no echo there, hence no proof
    ("deaf", "sem-eventos"): ("echo_lost", "reconnected"),
    ("panel", "loja"): ("echo_lost", "reconnected"),
    ("receiver", "morto-que-recebe"): ("echo_lost", "reconnected"),
    ("sender", "morto-que-envia"): ("probe_failed", "reconnected"),
    ("three", "morto-de-tres"): ("echo_lost", "reconnected"),
}
_DO_NOT_TELL = ("wrapper", "wppconnect")  # the numbers of their channels
_POSTS = ("deaf", "webhook")  # their messages to the exporter
_TALKING = (("query", "fala"), ("receiver", "vivo-que-fala"), ("webhook", "sem-webhook"))


@pytest.fixture
def installation(tmp_path: Path, mariadb: MariaDb) -> Iterator[Installation]:
    names = [mariadb.create_database() for _ in _GATEWAYS]
    gateways = [
        Watched(
            name,
            kind,
            channels,
            None if name in _POSTS else mariadb.url(database).render_as_string(hide_password=False),
            {
                **keys,
                **({"probe_echo_numbers": _numbers(channels)} if kind in _DO_NOT_TELL else {}),
            },
        )
        for database, (name, (kind, channels, keys)) in zip(names, _GATEWAYS.items(), strict=True)
    ]
    try:
        with Installation(tmp_path, gateways, _SETTINGS) as made:
            yield made
    finally:
        for name in names:
            mariadb.drop_database(name)


def _numbers(channels: tuple[str, ...]) -> dict[str, str]:
    """Return the numbers that the simulator gives them, which the wrapper does not tell."""
    return {channel: str(FIRST_NUMBER + n) for n, channel in enumerate(channels)}


def test_only_the_dead_are_repaired(installation: Installation) -> None:
    heard = "count(whatsapp_channel_seconds_since_last_heard)"
    channels = sum(len(one) for _, one, _ in _GATEWAYS.values())
    wait_until(
        lambda: [one["value"][1] for one in installation.query(heard)] == [str(channels)],
        "Prometheus to know a message of each channel",
    )
    for simulator in installation.of.values():
        simulator.traffic(paused=True)
    night_began = time.monotonic()
    # Who was heard last is who sends the echoes of the others: here it is the dead one.
    _hear(installation, "three", "morto-de-tres")
    for gateway, channel in _DEAD:
        simulator = installation.of[gateway]
        simulator.deafen(channel) if gateway in {"deaf", "panel"} else simulator.zombie(channel)

    # It talks on: its gateway receives, and posts nothing any more.
    installation.of["webhook"].put_channel("sem-webhook", posting="wiped")

    def broken() -> set[str]:
        firing = "ALERTS{alertname='WhatsAppDeliveryBroken',alertstate='firing'}"
        return {one["metric"]["channel"] for one in installation.query(firing)}

    with _talking(installation):
        wait_until(lambda: broken() == {"sem-webhook"}, "a person to be told of the webhook")
        installation.of["webhook"].put_channel("sem-webhook", posting="set")
        wait_until(lambda: not broken(), "its alert to end")
        installation.wait_for_repairs(_DEAD)
        wait_until(
            lambda: time.monotonic() - night_began > _NIGHT_SECONDS + 30, "the night to be over"
        )
    for gateway, simulator in installation.of.items():
        called = {
            one["channel"]
            for operation in ("qr", "reconnect", "start", "restart")
            for one in simulator.requests(operation)
        }
        assert called <= {channel for at, channel in _DEAD if at == gateway}
    why = "max_over_time(whatsapp_channel_webhook_fault{channel='sem-webhook'}[15m])"
    assert {one["metric"]["fault"] for one in installation.query(why)} <= {"gone", "missing"}
    assert installation.query(why)
    assert (
        installation.query("count_over_time(ALERTS{alertname='WhatsAppChannelSilent'}[15m])") == []
    )
    alive = "whatsapp_channel_probe_success{gateway='night',kind='echo'} == 1"
    assert {one["metric"]["channel"] for one in installation.query(alive)} == {"um", "outro"}
    passed = (
        "whatsapp_channel_probes_total{channel='sem-eventos',kind='echo',outcome='failed'} >= 1"
    )
    assert installation.query(passed), "it answered the query, and lost the echo"


@contextmanager
def _talking(installation: Installation) -> Iterator[None]:
    """Let some be heard all the while, and one whose panel sends without being heard."""
    ended = threading.Event()

    def talk() -> None:
        while not ended.wait(2.0):
            for place in _TALKING:
                _hear(installation, *place)
            installation.births["panel"].bear(SimulatedMessage("loja", outgoing=True, by_api=True))

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _hear(installation: Installation, gateway: str, channel: str) -> None:
    installation.births[gateway].bear(SimulatedMessage(channel, outgoing=False))
