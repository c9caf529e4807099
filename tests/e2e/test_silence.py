"""The whole loop with learned thresholds: two channels are silent for as long, and one may be."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import groupby

import pytest

from tests.support.loop import World
from tests.support.mariadb import MariaDb
from tests.support.message_logs import WrittenLog, on_mariadb
from tests.support.waiting import wait_until

BUSY, QUIET = "Loja Centro", "imobsites"
SILENT_SECONDS = 45 * 60
DAY_SECONDS = 86400
LEARNED = "whatsapp_silence_last_learned_timestamp_seconds"


def write_four_weeks(log: WrittenLog) -> None:
    """Write about a message a minute of the one and five a day of the other, then silence."""
    chance = random.Random(1)
    rows = []
    for channel, pause in ((BUSY, 60), (QUIET, DAY_SECONDS / 5)):
        age = float(SILENT_SECONDS)
        while age < 28 * DAY_SECONDS:
            rows.append((age, channel))
            age += pause * chance.uniform(0.5, 1.5)
    rows.sort(reverse=True)
    for channel, group in groupby(rows, key=lambda row: row[1]):
        log.write_history(channel, [age for age, _ in group])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mariadb: MariaDb) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with on_mariadb(mariadb) as log:
        write_four_weeks(log)
        settings = {
            "MESSAGE_LOG_URL": log.reader.render_as_string(hide_password=False),
            "SILENT_HOURS": "4",  # by which neither would be silent
            "SILENCE_MODE": "adaptive",
            "SILENCE_STATE_FILE": str(folder / "silence.json"),
        }
        url = log.engine.url
        with World(folder, url, (BUSY, QUIET), settings, zombies=True) as made:
            wait_until(lambda: both_adaptive(made), "the thresholds to be learned")
            yield made


def both_adaptive(world: World) -> bool:
    return len(world.query('whatsapp_channel_silence_mode{mode="adaptive"} == 1')) == 2


def threshold(world: World, channel: str) -> float:
    seconds = world.value(f'whatsapp_channel_silence_threshold_seconds{{channel="{channel}"}}')
    assert seconds is not None
    return seconds


def wait_for_repair(world: World) -> None:
    age = f'whatsapp_channel_seconds_since_last_message{{channel="{BUSY}"}}'
    wait_until(lambda: world.query(f"{age} < 60"), "messages of the busy channel")
    wait_until(lambda: world.log_lines(BUSY), "the repair in the log")


def test_of_two_silent_channels_the_busy_one_is_reconnected_and_the_quiet_one_left_alone(
    world: World,
) -> None:
    wait_for_repair(world)
    alert = f'max_over_time(ALERTS{{alertname="WhatsAppChannelSilent",channel="{BUSY}"}}[10m])'
    assert world.query(alert)
    (line,) = world.log_lines(BUSY)
    assert "reason=silent action=getQr outcome=reconnected" in line
    assert world.qr_calls(BUSY) == 1

    age = world.value(f'whatsapp_channel_seconds_since_last_message{{channel="{QUIET}"}}')
    assert age is not None
    # It had been as silent as the other all the time, and that was known.
    assert threshold(world, BUSY) < SILENT_SECONDS < age < threshold(world, QUIET)
    assert not world.query(f'max_over_time(ALERTS{{channel="{QUIET}"}}[10m])')
    assert not world.log_lines(QUIET)
    assert world.qr_calls(QUIET) == 0


def test_an_exporter_that_is_killed_knows_what_it_had_learned(world: World) -> None:
    wait_for_repair(world)
    learned, quiet = world.value(LEARNED), threshold(world, QUIET)
    world.loop.children.kill("exporter")
    wait_until(lambda: not world.query(LEARNED), "Prometheus to miss the exporter")
    world.loop.start_one("exporter")
    wait_until(lambda: both_adaptive(world), "the learned thresholds to be back")
    assert world.value(LEARNED) == learned
    assert threshold(world, QUIET) == pytest.approx(quiet, rel=1e-4)  # the file is rounded
    output = (world.loop.folder / "exporter.log").read_text()
    assert "silence: learned" not in output
