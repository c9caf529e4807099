"""Six gateways at once, of each kind: each has a drop, a zombie and a QR code, all at once.

Four have a message log; WAHA and OpenWA post their messages to the exporter. OpenWA stands for
those that are described. Whapi has no list, no cure for a zombie, and channels that were stopped.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import requests

from demo.simulator.messages import SimulatedMessage
from tests.e2e.installation import Installation, Watched
from tests.support.http_servers import ConsumerWebhook
from tests.support.loop import SILENT_SECONDS, TOKEN
from tests.support.waiting import wait_until

_POSTING = ("waha", "openwa")
_KINDS = ("wrapper", "wppconnect", "evolution", "whapi", *_POSTING)
_PLACES = [
    *((kind, channel) for kind in _KINDS for channel in ("caiu", "zumbi", "sem-par", "bem")),
    ("whapi", "parado"),
]
_SETTINGS = {"SILENT_HOURS": str(SILENT_SECONDS / 3600), "RECONNECT_VERIFY_SECONDS": "20"}


def _wait_for(installation: Installation, wanted: dict[str, str]) -> None:
    """Wait until the channels of each gateway are as wanted, by the page's own words."""
    everywhere = {place: wanted.get(place[1], "connected") for place in _PLACES}
    with suppress(AssertionError):
        wait_until(lambda: installation.statuses() == everywhere, "all statuses")
    assert installation.statuses() == everywhere


def test_each_kind_of_gateway_has_its_drop_its_zombie_and_its_code(tmp_path: Path) -> None:
    gateways = [
        Watched(
            kind,
            kind,
            tuple(channel for at, channel in _PLACES if at == kind),
            None if kind in _POSTING else f"sqlite:///{tmp_path / f'{kind}.sqlite3'}",
        )
        for kind in _KINDS
    ]
    with Installation(tmp_path, gateways, _SETTINGS) as installation:
        _wait_for(installation, {})
        heard = "count(whatsapp_channel_seconds_since_last_message < 5)"
        wait_until(
            lambda: [one["value"][1] for one in installation.query(heard)] == [str(len(_PLACES))],
            "a message of each channel",
        )
        whapi = installation.of["whapi"]
        for simulator in installation.of.values():
            simulator.drop("caiu")
            simulator.zombie("zumbi")
            simulator.unpair("sem-par")
        whapi.put_channel("parado", status="disconnected", status_text="STOP")
        expected = {
            "caiu": ("disconnected", "reconnected"),
            "zumbi": ("silent", "reconnected"),
            "sem-par": ("disconnected", "qr_required"),
            "parado": ("disconnected", "failed"),
            "bem": None,
        }
        incurable = {("whapi", "zumbi"): ("silent", "failed")}
        installation.wait_for_repairs({place: expected[place[1]] for place in _PLACES} | incurable)
        _expect_only_repairs_to_start_whapis(installation)
        whapi.put_channel("parado", status="connected", status_text="(as it is)")
        whapi.connect("zumbi")
        _wait_for(installation, {"sem-par": "needs-scan"})
        for simulator in installation.of.values():
            simulator.scan("sem-par")
        _wait_for(installation, {})
        for program in ("exporter", "reconnect_hook"):
            assert "urllib3" not in (installation.loop.folder / f"{program}.log").read_text()


def _expect_only_repairs_to_start_whapis(installation: Installation) -> None:
    """Not one look has started what was stopped, and a person has the rest."""
    calls = installation.of["whapi"].requests()
    assert "careless" not in {call["operation"] for call in calls}
    woken = {call["channel"] for call in calls if call["operation"] == "restart"}
    assert woken == {"caiu", "sem-par"}
    for channel, words in (
        ("parado", "trial or subscription is over"),
        ("zumbi", "restart it in Whapi's panel"),
    ):
        attempts = installation.api(f"attempts/{channel}?gateway=whapi")["attempts"]
        assert words in attempts[-1]["detail"]


_LISTING = ("waha", "evolution", "wppconnect", "whapi")
_POSTED_BY = {"message": "waha", "messages.upsert": "evolution", "onmessage": "wppconnect"}
_LOST = ("LOST1", "LOST2", "LOST3")
_DELIVERY = {
    "PROBE": "delivery",
    # Longer than group_interval, as in test_probes.py.
    "PROBE_AFTER_MINUTES": "0.4",
    "PROBE_PAUSE_MINUTES": "0.3",
}


def test_what_a_broken_webhook_dropped_is_told_found_and_delivered_again_once(
    tmp_path: Path,
) -> None:
    with ConsumerWebhook() as webhook:
        gateways = [
            Watched(kind, kind, ("bem",), None, {"replay_url": webhook.url}) for kind in _LISTING
        ]
        with Installation(tmp_path, gateways, _DELIVERY, quiet=True) as installation:
            _let_break(installation, tmp_path / "messages.sqlite3")
            firing = "ALERTS{{alertname='{}',alertstate='firing'}}".format
            broken, missing = firing("WhatsAppDeliveryBroken"), firing("WhatsAppMessagesMissed")
            wait_until(lambda: len(installation.query(broken)) == 4, "the broken deliveries")

            for kind in _LISTING:
                installation.of[kind].webhook(token=TOKEN)
                _let_come(installation, kind, "AFTER")
            wait_until(lambda: not installation.query(broken), "the deliveries to work")

            def missed() -> set[str]:
                series = installation.query("whatsapp_channel_messages_missed")
                return {one["value"][1] for one in series if len(series) == 4}

            for kind in _LISTING:
                installation.api(f"audit/bem?gateway={kind}", "POST")
            wait_until(lambda: missed() == {"3"}, "the audits")
            for kind in _LISTING:
                told = installation.api(f"missed/bem?gateway={kind}")["missed"]
                assert sorted(one["id"] for one in told) == list(_LOST)
            wait_until(lambda: len(installation.query(missing)) == 4, "the alerts")

            _deliver_again_with_a_death(installation, webhook, tmp_path / "state.sqlite3")
            wait_until(lambda: missed() == {"0"}, "nothing to be missed")
            wait_until(lambda: not installation.query(missing), "the alerts to end")
            for simulator in installation.of.values():
                asked = {one["operation"] for one in simulator.requests()}
                assert not asked & {"qr", "reconnect", "restart", "start_session", "close_session"}
    texts = [str(event) for event in webhook.events]
    assert Counter(one for text in texts for one in _LOST if one in text) == dict.fromkeys(_LOST, 4)
    assert len(texts) == 12
    assert all(headers["X-Zapwatch-Replay"] == "true" for headers in webhook.headers)


def _let_break(installation: Installation, file: Path) -> None:
    """Let messages arrive, some hours ago, and others be refused that came half an hour ago."""
    for kind in _LISTING:
        _let_come(installation, kind, "BEFORE", ago=3600)

    with closing(sqlite3.connect(file)) as store, store:
        arrived = "SELECT COUNT(*) FROM arrived_ids"
        wait_until(
            lambda: store.execute(arrived).fetchone() == (len(_LISTING),), "all to be stored"
        )
        # As if the exporter had run for hours.
        store.execute("UPDATE hash_key SET since = since - 7200")
        store.execute("UPDATE last_messages SET last_in = last_in - 7200")
    for kind in _LISTING:
        installation.of[kind].webhook(token="a-token-that-is-not-right")
        _let_come(installation, kind, *_LOST)


def _deliver_again_with_a_death(
    installation: Installation, webhook: ConsumerWebhook, file: Path
) -> None:
    """Deliver again what was missed; kill the hook before it has the second answer."""
    loop, first, died = installation.loop, _LISTING[0], threading.Event()

    def take(event: dict[str, Any]) -> None:
        kind = _POSTED_BY.get(str(event["event"]), "whapi")
        place = f"http://{installation.at.exporter}/messages/{kind}?token={TOKEN}"
        requests.post(place, json=event, timeout=10).raise_for_status()
        if len(webhook.events) == 2:
            loop.children.kill("reconnect_hook")
            died.set()

    webhook.on_post = take
    installation.api(f"replay/bem?gateway={first}", "POST")
    wait_until(died.is_set, "the hook to be killed")
    with closing(sqlite3.connect(file)) as state, state:
        # As if the dead hook's claim had expired.
        state.execute("UPDATE message_audit SET replay_at = replay_at - 300")
    loop.start_one("reconnect_hook")
    loop.wait_until_ready()
    for kind in _LISTING[1:]:
        installation.api(f"replay/bem?gateway={kind}", "POST")


def _let_come(installation: Installation, kind: str, *ids: str, ago: float = 1800) -> None:
    """Let messages come in that are old enough to be judged, and be posted or refused."""
    before = _posted(installation, kind)
    for one in ids:
        message = SimulatedMessage("bem", outgoing=False, id=one, at=time.time() - ago)
        installation.births[kind].bear(message)
    done = before + len(ids)
    wait_until(lambda: _posted(installation, kind) == done, "each to be posted")


def _posted(installation: Installation, kind: str) -> int:
    return sum(installation.of[kind].state()["webhook"]["answers"].values())
