"""What was learned outlasts a restart, and nothing else is taken for it; which threshold counts."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.silence.model import (
    Bounds,
    Learned,
    Model,
    ModelError,
    Threshold,
    Thresholds,
    bounds_of,
    load,
    save,
)
from exporter.silence.profile import WEEK_HOURS, Profile
from tests.support.hooks import hook_settings
from zapwatch.channels import Channel, Status
from zapwatch.config import Settings, SilenceMode, parse

_BOUNDS = Bounds(false_alarms=1, floor=600, ceiling=86_400)
_RATES = [1 + hour / 7 for hour in range(WEEK_HOURS)]
_MODEL = Model(1_700_000_000.5, {"loja": Learned(Profile(_RATES), 12.5, 3.5, 3456)})
_SHOP = Channel("Lo Ja", Status.CONNECTED)
_NOW = 1_700_000_000.0


def _content(path: Path) -> Any:
    save(path, _MODEL, _BOUNDS)
    return json.loads(path.read_text())


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "var" / "silence.json"
    assert load(path, _BOUNDS) is None
    save(path, Model(1, {}), _BOUNDS)
    save(path, _MODEL, _BOUNDS)
    loaded = load(path, _BOUNDS)
    assert loaded is not None
    assert loaded.learned_at == _MODEL.learned_at
    assert loaded.channels.keys() == {"loja"}
    learned = loaded.channels["loja"]
    assert (learned.level, learned.suspect_level, learned.messages) == (12.5, 3.5, 3456)
    assert learned.profile.rates == pytest.approx(_RATES, rel=1e-5)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path], "nothing is left beside it"


def test_what_was_learned_for_other_settings_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "silence.json"
    save(path, _MODEL, _BOUNDS)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Kathmandu")
        time.tzset()
        with pytest.raises(ModelError, match="another time zone"):
            load(path, _BOUNDS)
    time.tzset()
    assert load(path, _BOUNDS) is not None
    for other in (
        replace(_BOUNDS, false_alarms=2),
        replace(_BOUNDS, floor=300),
        replace(_BOUNDS, ceiling=3 * 86_400),
    ):
        with pytest.raises(ModelError, match="learned for other settings"):
            load(path, other)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", "1", "{}", '{"version": 1}', "[" * 100_000, "\x00"),
        '{"version": 2, "bounds": {}, "learned_at": 1, "channels": {}}',
    ],
)
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "silence.json"
    path.write_text(text)
    with pytest.raises(ModelError) as caught:
        load(path, _BOUNDS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rates", [1.0] * 167),
        ("rates", [1.0] * 167 + [0.0]),
        ("rates", [1.0] * 167 + [float("nan")]),
        ("rates", [1.0] * 167 + ["x"]),
        ("rates", None),
        ("level", float("inf")),
        ("level", -1),
        ("level", None),
        ("messages", "many"),
    ],
)
def test_a_number_that_cannot_be_is_refused(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "silence.json"
    content = _content(path)
    content["channels"]["loja"][name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="has invalid contents"):
        load(path, _BOUNDS)


def test_a_file_that_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        load(tmp_path / "folder", _BOUNDS)
    with pytest.raises(OSError, match="Is a directory"):
        save(tmp_path / "folder", _MODEL, _BOUNDS)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def _settings(**more: str) -> Settings:
    log = {"MESSAGE_LOG_URL": "sqlite:///log", "SILENT_HOURS": "3"}
    return parse(hook_settings("http://127.0.0.1:1", **log, **more))


def _thresholds(*, can_query: bool = False, **more: str) -> Thresholds:
    settings = _settings(**more)
    return Thresholds(settings.gateways[0], bounds_of(settings), can_query=can_query)


def test_the_bounds_of_the_settings_are_in_seconds() -> None:
    limits = {"SILENCE_FLOOR_MINUTES": "45", "SILENCE_CEILING_HOURS": "7"}
    settings = _settings(SILENCE_FALSE_ALARMS_PER_MONTH="2", **limits)
    assert bounds_of(settings) == Bounds(2.0, 2700.0, 25_200.0)


def test_the_learned_threshold_counts_where_there_is_one() -> None:
    thresholds = _thresholds()
    flat = Model(0, {"loja": Learned(Profile([10.0] * WEEK_HOURS), 5, 2, 1)})
    fixed = Threshold(3 * 3600, SilenceMode.FIXED)
    assert thresholds.of(_SHOP, {_SHOP.key: _NOW}, None) == fixed
    assert thresholds.of(_SHOP, {_SHOP.key: _NOW}, Model(0, {})) == fixed
    assert thresholds.of(_SHOP, {}, flat) == fixed, "no message is known, so no age either"
    assert thresholds.of(Channel("other", Status.CONNECTED), {"other": _NOW}, flat) == fixed
    found = thresholds.of(_SHOP, {_SHOP.key: _NOW}, flat)
    assert found.seconds == pytest.approx(1800)
    assert found.mode is SilenceMode.ADAPTIVE


def test_what_an_operator_has_set_for_a_channel_counts_more() -> None:
    found = _thresholds(SILENT_HOURS_OVERRIDES="loja=72").of(_SHOP, {_SHOP.key: _NOW}, _MODEL)
    assert found == Threshold(72 * 3600, SilenceMode.FIXED)


def test_a_threshold_follows_the_last_message_and_what_was_learned_anew() -> None:
    thresholds = _thresholds()
    first = thresholds.of(_SHOP, {_SHOP.key: _NOW}, _MODEL)
    assert thresholds.of(_SHOP, {_SHOP.key: _NOW}, _MODEL) is first, "it is not computed again"
    later = thresholds.of(_SHOP, {_SHOP.key: _NOW + 40 * 3600}, _MODEL)
    assert later.seconds < first.seconds
    again = Model(0, {"loja": replace(_MODEL.channels["loja"], level=25.0)})
    assert thresholds.of(_SHOP, {_SHOP.key: _NOW + 40 * 3600}, again).seconds > later.seconds


def test_a_channel_is_asked_only_where_it_can_be() -> None:
    def asked(can_query: bool, **more: str) -> bool:
        found = _thresholds(can_query=can_query, **more)
        return found.suspicion(_SHOP, {_SHOP.key: _NOW}, None, 14_400) is not None

    numbers = {"PROBE_ECHO_NUMBERS": "lo ja=5500000000001,other=5500000000002"}
    assert asked(True)
    assert not asked(False), "the default is a query, and there is none"
    assert not asked(True, PROBE="off")
    assert not asked(False, PROBE="echo"), "there is no number for it"
    assert asked(True, PROBE="echo"), "a query does instead"
    assert asked(False, PROBE="echo", **numbers)
    assert asked(False, PROBE_OVERRIDES="LOJA=echo", **numbers)
    assert not asked(True, PROBE="echo", PROBE_OVERRIDES="LOJA=off", **numbers)
    assert not asked(False, PROBE="off", **numbers), "numbers alone send nothing"
    watched = replace(_SHOP, repairable=False)
    every = _thresholds(can_query=True)
    assert every.suspicion(watched, {watched.key: _NOW}, None, 14_400) is None, "never called"


def test_a_channel_is_asked_before_it_counts_as_silent() -> None:
    thresholds = _thresholds(can_query=True, PROBE_AFTER_MINUTES="40")
    learned = _MODEL.channels["loja"]
    assert thresholds.suspicion(_SHOP, {_SHOP.key: _NOW}, None, 14_400) == 2400
    assert thresholds.suspicion(_SHOP, {_SHOP.key: _NOW}, None, 600) == 600
    assert thresholds.suspicion(_SHOP, {}, _MODEL, 14_400) == 2400
    soon = thresholds.suspicion(_SHOP, {_SHOP.key: _NOW}, _MODEL, 14_400)
    assert soon == learned.suspicion(_NOW, _BOUNDS)
    assert soon < learned.threshold(_NOW, _BOUNDS)
    assert thresholds.suspicion(_SHOP, {_SHOP.key: _NOW}, _MODEL, 61) == 61
    later = thresholds.suspicion(_SHOP, {_SHOP.key: _NOW + 40 * 3600}, _MODEL, 14_400)
    assert later == learned.suspicion(_NOW + 40 * 3600, _BOUNDS) != soon
    again = Model(0, {"loja": replace(learned, suspect_level=7.0)})
    relearned = thresholds.suspicion(_SHOP, {_SHOP.key: _NOW + 40 * 3600}, again, 14_400)
    assert relearned is not None
    assert later is not None
    assert relearned > later
