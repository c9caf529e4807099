"""The whole loop with echoes: who is only quiet is left in peace, and who no longer hears is found.

Settings are half minutes where the defaults are half hours; rules and routes are the shipped ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from stack.simulator.messages import Message
from stack.simulator.model import FIRST_NUMBER
from tests.e2e.world import World
from tests.support.waiting import wait_until

_CHANNELS = ("loja", "obra", "Casa Nova")
_SETTINGS = {
    "SILENT_HOURS": "4",
    # As shipped: the proof of a repair is an echo, which has to wait for those of others.
    "RECONNECT_VERIFY_SECONDS": "60",
    "PROBE": "echo",
    # Longer than group_interval: a suspicion that comes back sooner is no news to Alertmanager.
    "PROBE_AFTER_MINUTES": "0.4",
    "PROBE_PAUSE_MINUTES": "0.3",
    "PROBE_ECHOES_PER_DAY": "500",
    "PROBE_ECHO_NUMBERS": ",".join(
        f"{name}={FIRST_NUMBER + n}" for n, name in enumerate(_CHANNELS)
    ),
}


@pytest.fixture
def world(tmp_path: Path, database: sa.URL) -> Iterator[World]:
    with World(tmp_path, database, _CHANNELS, _SETTINGS) as made:
        made.simulator.traffic(paused=True)
        yield made


def test_the_quiet_are_asked_and_only_who_no_longer_hears_is_repaired(world: World) -> None:
    alive = 'count(whatsapp_channel_probe_success{kind="echo"} == 1)'
    wait_until(lambda: world.value(alive) == len(_CHANNELS), 120, "all to have heard an echo")
    assert world.qr_calls() == 0, "nobody who is only quiet is reconnected"
    assert world.log_lines("loja") == [], "nor is there a line about it"

    # Its panel goes on sending: that is no sign that it hears.
    world.simulator.deafen("loja")

    def repaired() -> bool:
        world.births.bear(Message("loja", outgoing=True, by_api=True))
        return any("action=getQr" in line for line in world.log_lines("loja"))

    wait_until(repaired, 240, "the channel that no longer hears to be repaired")
    probed, *repairs = world.log_lines("loja")
    assert "probe=echo outcome=failed" in probed
    assert "reason=echo_lost" in repairs[0]
    # Whether an echo has proved it in time depends on who else was being asked.
    assert re.search("outcome=(reconnected|requested)", repairs[0])
    assert world.qr_calls("obra") == world.qr_calls("Casa Nova") == 0
    hears = "whatsapp_channel_seconds_since_last_heard{channel='loja'} < 20"
    wait_until(lambda: world.query(hears), 180, "it to hear again")
    fired = "count_over_time(ALERTS{alertname='WhatsAppChannelSilent'}[10m])"
    assert world.query(fired) == []
