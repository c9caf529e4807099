"""Four gateways at once, one of each kind: each has a drop, a zombie and a QR code, all at once.

Three have a message log; WAHA posts its messages to the exporter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.installation import Installation, Watched
from tests.support.loop import SILENT_SECONDS
from tests.support.waiting import wait_until
from zapwatch.gateways.registry import ADAPTERS

_SECONDS = 120.0
_CHANNELS = ("caiu", "zumbi", "sem-par", "bem")
_SETTINGS = {
    "SILENT_HOURS": str(SILENT_SECONDS / 3600),
    "RECONNECT_VERIFY_SECONDS": "20",
}


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    gateways = [
        Watched(
            f"the-{kind}",
            kind,
            _CHANNELS,
            None if kind == "waha" else f"sqlite:///{tmp_path / f'{kind}.sqlite3'}",
        )
        for kind in ADAPTERS
    ]
    with Installation(tmp_path, gateways, _SETTINGS) as made:
        yield made


def _wait_for(installation: Installation, wanted: dict[str, str]) -> None:
    """Wait until the channels of each gateway are as wanted, by the page's own words."""
    everywhere = {
        (gateway, channel): wanted.get(channel, "connected")
        for gateway in installation.of
        for channel in _CHANNELS
    }
    with suppress(AssertionError):
        wait_until(lambda: installation.statuses() == everywhere, _SECONDS, "all statuses")
    assert installation.statuses() == everywhere


def test_each_kind_of_gateway_has_its_drop_its_zombie_and_its_code(
    installation: Installation,
) -> None:
    _wait_for(installation, {})
    heard = "count(whatsapp_channel_seconds_since_last_message < 5)"
    everyone = [str(len(ADAPTERS) * len(_CHANNELS))]
    wait_until(
        lambda: [one["value"][1] for one in installation.query(heard)] == everyone,
        _SECONDS,
        "a message of each channel",
    )
    for simulator in installation.of.values():
        simulator.drop("caiu")
        simulator.zombie("zumbi")
        simulator.unpair("sem-par")
    expected = {
        "caiu": ("disconnected", "reconnected"),
        "zumbi": ("silent", "reconnected"),
        "sem-par": ("disconnected", "qr_required"),
        "bem": None,
    }
    wanted = {(at, channel): one for at in installation.of for channel, one in expected.items()}
    wait_until(
        lambda: {place: installation.first_repair(*place) for place in wanted} == wanted,
        _SECONDS,
        "every repair",
    )
    _wait_for(installation, {"sem-par": "needs-scan"})
    for simulator in installation.of.values():
        simulator.scan("sem-par")
    _wait_for(installation, {})
    for program in ("exporter", "reconnect_hook"):
        assert "urllib3" not in (installation.loop.folder / f"{program}.log").read_text()
