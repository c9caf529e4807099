"""How much memory JSON from outside may take."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from reconnect_hook.alerts import PayloadError, parse_alerts
from tests.support.memory import least_peak
from zapwatch import http
from zapwatch.gateways.waha import WahaGateway
from zapwatch.http import MAX_BODY_BYTES, HttpResponse, parse_json
from zapwatch.messages.message import EventError, parse_event

_SMALLEST = [
    *("[]", "{}", "[1]", '{"a":1}', "0", "1.5", '"ab"', "null", "[[]]", '{"":{}}', "12345"),
    *('"\U0001f600"', '{"\U0001f600":"\U0001f600"}', f'"{"a" * 40}\\ud83d\\ude00"'),
]


def _many(value: str, size: int) -> bytes:
    return f"[{','.join([value] * (size // (len(value) + 1)))}]".encode()


def _members(value: str, size: int) -> bytes:
    members = (f'"{number:06}":{value}' for number in range(size // (len(value) + 10)))
    return f"{{{','.join(members)}}}".encode()


@pytest.mark.parametrize("value", ["[]", "{}", '{"a":1}', "[1]"])
def test_a_list_of_empty_values_is_no_channel_list(value: str) -> None:
    raw = _many(value, MAX_BODY_BYTES - 2**20)
    assert HttpResponse(200, "application/json", raw).parsed is None


@pytest.mark.parametrize("value", _SMALLEST)
@pytest.mark.parametrize("make", [_many, _members])
def test_no_text_takes_more_than_was_estimated(
    value: str, make: Callable[[str, int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = make(value, 100_000)
    peak = least_peak(lambda: json.loads(raw))
    monkeypatch.setattr(http, "MAX_JSON_MEMORY", peak)
    with pytest.raises(ValueError, match="too many values"):
        parse_json(raw)


@pytest.mark.parametrize("name", ["Loja", "Loja \U0001f600"])
def test_the_largest_list_of_channels_is_not_too_much(name: str) -> None:
    one = {f"field{number}": "a value" for number in range(30)} | {"nested": [{"id": 1}] * 3}
    raw = json.dumps([one | {"name": name}] * 20_000, ensure_ascii=False).encode()
    assert len(raw) < MAX_BODY_BYTES
    assert len(parse_json(raw)) == 20_000


def test_a_day_of_prometheus_with_thousands_of_channels_is_not_too_much() -> None:
    series = [
        {"metric": {"channel": f"loja{one}"}, "values": [[1_764_500_000, "1"]] * 96}
        for one in range(8_000)
    ]
    raw = json.dumps({"data": {"result": series}}, separators=(",", ":")).encode()
    assert len(parse_json(raw)["data"]["result"]) == 8_000


def test_a_string_without_an_end_is_read_once() -> None:
    with pytest.raises(ValueError, match="Unterminated"):
        parse_json(b'"' + rb"\"" * 2_000_000)


def test_what_is_posted_is_bounded_as_well() -> None:
    many = _many('{"a":1}', 10_000_000)
    with pytest.raises(PayloadError, match="not JSON"):
        parse_alerts(b'{"version": "4", "alerts": ' + many + b"}", {"wpp"})
    with pytest.raises(EventError, match="not JSON"):
        parse_event(
            WahaGateway.read_event,
            b'{"event": "message", "session": "a", "payload": ' + many + b"}",
            0.0,
        )
