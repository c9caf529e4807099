"""What the hook makes of what is posted to it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconnect_hook.alerts import (
    Alert,
    AlertStatus,
    Notification,
    Outage,
    PayloadError,
    Target,
    parse_alerts,
    parse_notifications,
)
from reconnect_hook.models import RepairCause
from tests.support.alerts import alert, payload
from tests.support.examples import examples

_JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


_GATEWAYS = {"wpp", "loja"}


def _parse_body(body: bytes) -> list[Alert]:
    return parse_alerts(body, _GATEWAYS)


def _parse(*alerts: Any) -> list[Alert]:
    return _parse_body(payload(*alerts))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("WhatsAppChannelDisconnected", RepairCause.DISCONNECTED),
        ("WhatsAppChannelSilent", RepairCause.SILENT),
        ("WhatsAppChannelNeverHeard", RepairCause.NEVER_HEARD),
        ("MyOwnRule", RepairCause.MANUAL),
        (None, RepairCause.MANUAL),
        (7, RepairCause.MANUAL),
    ],
)
def test_an_alert_names_a_channel_and_the_reason(name: Any, reason: RepairCause) -> None:
    (parsed,) = _parse(alert("Pixel12 Digital", alertname=name))
    assert parsed == Alert(AlertStatus.FIRING, Target("Pixel12 Digital", reason), "wpp")
    assert parsed.target is not None
    assert parsed.target.key == "Pixel12 Digital"


def test_each_alert_has_its_own_status() -> None:
    parsed = _parse(alert("a"), alert("b", "resolved"), alert("c"))
    assert [one.status for one in parsed] == ["firing", "resolved", "firing"]
    assert [one.target.channel for one in parsed if one.target] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "stranger",
    [
        *(alert(remediation=one) for one in (None, "people", True)),
        *(alert(gateway=one) for one in ("other", None, ["wpp"])),
        *(alert(channel=one) for one in (None, "", " \t", ".", "..", "a\nb", "a\x00b", "\ud800")),
        *(alert(channel=one) for one in ("x" * 256, "x" * 1_000_000, 7, ["loja"], {"id": "loja"})),
        *(alert(status=one) for one in ("pending", None, ["firing"])),
        {**alert(), "labels": None},
        {**alert(), "labels": ["channel", "loja"]},
        {"labels": alert()["labels"]},
        {},
        None,
        7,
        "firing",
        ["firing"],
    ],
    ids=lambda stranger: repr(stranger)[:60],
)
def test_what_is_not_for_this_hook_has_no_target_and_harms_no_other(stranger: Any) -> None:
    first, strange, last = _parse(alert("a"), stranger, alert("b"))
    assert strange.target is None
    assert [one.target.channel for one in (first, last) if one.target] == ["a", "b"]


def test_each_alert_is_for_its_own_gateway() -> None:
    parsed = _parse(alert("a"), alert("a", gateway="loja"), alert("a", gateway="LOJA"))
    assert [(one.gateway, one.target is not None) for one in parsed] == [
        ("wpp", True),
        ("loja", True),
        ("LOJA", False),
    ]


@pytest.mark.parametrize(
    "channel", ["../../etc", "a%2Fb", "a/b", "-", "loja?x#y", "{{ .x }}", "ação"]
)
def test_odd_channels_are_channels(channel: str) -> None:
    (parsed,) = _parse(alert(channel))
    assert parsed.target == Target(channel, RepairCause.DISCONNECTED)


def test_fields_that_are_new_or_missing_do_not_matter() -> None:
    assert _parse_body(b'{"version": "4", "alerts": [], "notification_reason": 7}') == []
    bare = {"status": "firing", "labels": alert()["labels"], "new": {"a": []}}
    bodies = (json.dumps({"version": version, "alerts": [bare]}).encode() for version in "41")
    first, second = map(_parse_body, bodies)
    assert first == second
    assert first[0].target


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"alerts=1",
        b"[" * 100_000,
        b'{"version": "4", "alerts": [' + b"9" * 10_000 + b"]}",
        b"null",
        b"[]",
        b'"4"',
        b"{}",
        b'{"version": 4, "alerts": []}',
        b'{"version": "3", "alerts": []}',
        b'{"version": "4"}',
        b'{"version": "4", "alerts": null}',
        b'{"version": "4", "alerts": {}}',
    ],
    ids=lambda body: repr(body[:40]),
)
def test_another_body_is_refused_in_one_short_line(body: bytes) -> None:
    for parse in (lambda: _parse_body(body), lambda: parse_notifications(body)):
        with pytest.raises(PayloadError) as caught:
            parse()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 100


@settings(max_examples=examples(50))
@given(st.lists(_JSON, max_size=4))
def test_any_json_where_an_alert_belongs_is_just_ignored(entries: list[Any]) -> None:
    parsed = _parse(*entries, alert())
    assert len(parsed) == len(entries) + 1
    assert parsed[-1].target == Target("loja", RepairCause.DISCONNECTED)
    assert len(parse_notifications(payload(*entries))) == len(entries)


@given(_JSON, _JSON, _JSON)
def test_any_json_where_a_label_belongs_is_just_ignored(one: Any, two: Any, three: Any) -> None:
    entry = alert(channel=one, alertname=two)
    entry["annotations"] = three
    (parsed,) = _parse(entry)
    assert parsed.target is None or parsed.target.channel == one


def test_people_are_told_name_and_summary() -> None:
    told = parse_notifications(payload(alert("loja"), alert("loja", "resolved", alertname=7)))
    assert told == [
        Notification(AlertStatus.FIRING, "WhatsAppChannelDisconnected", "loja is not connected"),
        Notification(AlertStatus.RESOLVED, "", "loja is not connected"),
    ]


_BEGAN = 1_770_624_902.0  # of tests.support.alerts


@pytest.mark.parametrize(
    ("labels", "outage"),
    [
        ({"alertname": "WhatsAppChannelSilent"}, Outage("loja", _BEGAN, silent=True)),
        ({"alertname": "WhatsAppChannelNeverHeard"}, Outage("loja", _BEGAN, silent=True)),
        ({"alertname": "WhatsAppChannelDisconnected"}, Outage("loja", _BEGAN)),
        ({"alertname": "WhatsAppGatewayDown", "remediation": None}, Outage("", _BEGAN)),
        ({"alertname": "WhatsAppMessageLogDown", "remediation": None}, Outage("", _BEGAN)),
        ({"alertname": "WhatsAppChannelSuspect", "remediation": "probe"}, None),
        ({"alertname": "WhatsAppGatewayDown", "gateway": "other"}, None),
        ({"alertname": "MyOwnRule"}, None),
    ],
)
def test_an_outage_is_over_when_its_alert_is(labels: Any, outage: Outage | None) -> None:
    (ended,) = _parse(alert("loja", "resolved", **labels))
    assert ended.outage == outage
    (fires,) = _parse(alert("loja", "firing", **labels))
    assert fires.outage is None


@pytest.mark.parametrize("channel", [None, "", ".", "a\nb", "\ud800", "x" * 256, 7, ["loja"]])
def test_what_can_be_no_channel_has_no_outage(channel: Any) -> None:
    (ended,) = _parse(alert(channel, "resolved", alertname="WhatsAppChannelSilent"))
    assert ended.outage is None


@pytest.mark.parametrize("began", [None, 7, "", "soon", "9999-12-31T23:59:59+99:00", {}])
def test_an_outage_without_a_beginning_is_none(began: Any) -> None:
    ended = alert("loja", "resolved", alertname="WhatsAppChannelSilent")
    (parsed,) = _parse(ended | {"startsAt": began})
    assert parsed.target is not None
    assert parsed.outage is None
