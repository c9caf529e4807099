"""What Prometheus answers is hostile until parsed; a strip is asked for once, then added to."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from reconnect_hook.dashboard.readings import (
    Prometheus,
    Series,
    SourceError,
    quote_label,
    read_metrics,
)
from reconnect_hook.dashboard.timeline import (
    QUARTER_SECONDS,
    QUARTERS,
    DayTimelines,
    TimelineState,
)
from tests.support.gateways import answer, sample
from tests.support.http_servers import Exposition
from tests.support.raw_server import RawServer, answering
from tests.support.states import StateClock
from zapwatch.alertmanager import AlertmanagerApi, AlertmanagerError
from zapwatch.http import HttpAccess


@pytest.fixture
def server() -> Iterator[Exposition]:
    made = Exposition("")
    yield made
    made.close()


def test_what_is_no_answer_is_a_failure(server: Exposition) -> None:
    prometheus = Prometheus(f"http://{server.at}")
    for text in (
        *("", "<html>", "null", "[]", "7", "[" * 100_000),
        *('{"data": 1}', '{"data": {"result": {}}}', '{"data": {"alerts": {}}}'),
    ):
        server.text = text
        with pytest.raises(SourceError):
            prometheus.now("up", 5)
        with pytest.raises(SourceError):
            prometheus.over_time("up", 0, 1, 1, 5)
        with pytest.raises(SourceError):
            prometheus.firing(5)


def test_what_is_no_configuration_is_a_failure(server: Exposition) -> None:
    for text in (
        *(7, None, "7", "{", "a: 2026-99-99", "[" * 100_000, "receivers: 7", "receivers: [7]"),
        *("receivers: [{a_configs: 7}]", "receivers: [{a_configs: [{url: 'http://['}]}]"),
        "receivers: [{a_configs: [{url: x, http_config: 7}]}]",
    ):
        server.text = json.dumps({"config": {"original": text}})
        with pytest.raises(AlertmanagerError, match="returns no configuration"):
            AlertmanagerApi(f"http://{server.at}").config(5)


def test_what_alertmanager_repeats_of_the_password_is_not_told() -> None:
    header = base64.b64encode(b"ops:a-password").decode()
    with RawServer(answering({"error": f"a-password {header}"}, status=500)) as server:
        access = HttpAccess(user="ops", password="a-password")
        with pytest.raises(AlertmanagerError) as caught:
            AlertmanagerApi(server.url, access).config(5)
    assert "[secret] [secret]" in str(caught.value)


def test_of_an_answer_only_what_can_be_read_counts(server: Exposition) -> None:
    prometheus = Prometheus(f"http://{server.at}")
    server.text = (
        '{"data": {"result": [7, {}, {"metric": 1, "value": [1, "x"]}, {"value": [1, "NaN"]},'
        f'{{"value": [1{"0" * 400}, "1"]}}, {{"value": [1, "1e12"]}}, {{"value": [-1e12, "1"]}},'
        '{"metric": {"a": "b", "c": 1, "d": "\\ud800"}, "value": [1, "2"]}]}}'
    )
    (one,) = prometheus.now("up", 5)
    assert (one.labels, one.value) == ({"a": "b", "d": "?"}, 2)
    server.text = (
        '{"data": {"alerts": [null, {"state": "pending"}, {"state": "firing", "labels":'
        ' {"alertname": "A"}, "annotations": {"runbook_url": "javascript:alert(1)"}}]}}'
    )
    (alert,) = prometheus.firing(5)
    assert (alert.name, alert.runbook_url) == ("A", ""), "nothing that a browser would execute"


def test_nobody_there_is_a_failure() -> None:
    with pytest.raises(SourceError):
        Prometheus("http://127.0.0.1:1").now("up", 1)
    assert not AlertmanagerApi("http://127.0.0.1:1").answers(1)


def test_a_gateways_name_cannot_leave_its_quotes() -> None:
    assert quote_label('a"b\\c\nd') == '"a\\"b\\\\c\\nd"'


def test_of_two_exporters_the_worst_connection_and_the_newest_message_count(
    server: Exposition,
) -> None:
    age = "channel_seconds_since_last_message"
    server.text = answer(
        [
            sample("gateway_up", "wpp", 0, instance="a"),
            sample("gateway_up", "wpp", 1, instance="b"),
            sample("channel_connected", "wpp", 1, channel="Loja", instance="a"),
            sample("channel_connected", "wpp", 0, channel="loja", instance="b"),
            sample(age, "wpp", 500, channel="loja", instance="a"),
            sample(age, "wpp", 5, channel="loja", instance="b"),
        ]
    )
    found = read_metrics(Prometheus(f"http://{server.at}"), ["wpp"], 1_000.0)[0]["wpp"]
    assert found.gateway_up is True
    assert found.log_up is None
    loja = found.channels["loja"]
    assert loja.connected is False
    assert loja.last_message is not None
    assert 0 < found.at - loja.last_message < 100


class _Past(Prometheus):
    """Knows a channel that was down in some quarters, and notes what it is asked for."""

    def __init__(self, down: set[int]) -> None:
        super().__init__("http://127.0.0.1:1")
        self.asked: list[tuple[int, int]] = []
        self._down = down

    def over_time(
        self, query: str, start: float, end: float, step: int, _seconds: float
    ) -> list[Series]:
        if "ALERTS" in query:
            return []
        first, last = round(start / step), round(end / step)
        self.asked.append((first, last))
        values = tuple(
            (q * float(step), float(q not in self._down)) for q in range(first, last + 1)
        )
        return [Series({"channel": "Loja"}, values)]


def test_a_strip_is_asked_for_once_and_then_only_what_is_new() -> None:
    now = 2_000_000
    past = _Past({now - 10, now - 9, now})
    clock = StateClock()
    clock.seconds = now * QUARTER_SECONDS
    made = DayTimelines(past, "wpp", clock=clock)
    first = now - QUARTERS + 1
    expected = dict.fromkeys(range(first, now), TimelineState.CONNECTED) | dict.fromkeys(
        (now - 10, now - 9, now), TimelineState.DISCONNECTED
    )
    assert made.refresh() == {"Loja": expected}
    assert made.refresh() == {"Loja": expected}
    clock.seconds += 3 * QUARTER_SECONDS
    later = dict.fromkeys(range(now + 1, now + 4), TimelineState.CONNECTED)
    moved = {quarter: expected[quarter] for quarter in range(first + 3, now + 1)} | later
    assert made.refresh() == {"Loja": moved}
    assert past.asked == [(now - QUARTERS + 1, now), (now - 1, now), (now - 1, now + 3)]
    assert QUARTER_SECONDS * QUARTERS == 86400
