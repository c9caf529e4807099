"""The Alertmanager configuration: who gets which alert, and what holds it back."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.shipped import (
    ALERTMANAGER,
    ALERTS,
    EXAMPLES,
    PROMETHEUS,
    Alert,
    label_sets,
    read_yaml,
    run,
    seconds,
    uncomment,
)

FOR_PEOPLE = (
    *("WhatsAppChannelNeedsQrScan", "WhatsAppChannelFlapping", "WhatsAppChannelGone"),
    *("WhatsAppChannelStillSilent", "WhatsAppChannelsLeftOut", "WhatsAppReconnectFailing"),
    *("WhatsAppGatewayDown", "WhatsAppGatewayUnknown", "WhatsAppMessageLogDown"),
    *("WhatsAppDeliveryBroken", "WhatsAppMessagesMissed", "WhatsAppMessageLogStalled"),
    *("WhatsAppExporterDown", "WhatsAppReconnectHookDown", "WhatsAppAlertDeliveryFailing"),
    "WhatsAppConfigReloadFailing",
)
RECEIVER_OF = {
    "WhatsAppChannelDisconnected": "reconnect-hook",
    "WhatsAppChannelSilent": "reconnect-hook",
    "WhatsAppChannelNeverHeard": "reconnect-hook",
    "WhatsAppChannelSuspect": "reconnect-hook",
    **dict.fromkeys(FOR_PEOPLE, "people"),
    "Watchdog": "heartbeat",
}
OF_HOURS = {"WhatsAppChannelFlapping", "WhatsAppChannelsLeftOut"}
OUTAGES = {"WhatsAppGatewayDown", "WhatsAppMessageLogDown"}
COOLDOWN_SECONDS = 300
MATCHER = re.compile(r'(?P<label>\w+)(?P<operator>=~|!~|!=|=)"(?P<value>.*)"')

each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
each_example = pytest.mark.parametrize("key", EXAMPLES)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a copy of the configuration, with the token that whoever runs it adds."""
    folder = shutil.copytree(ALERTMANAGER, tmp_path / "alertmanager")
    (folder / "hook-token").write_text("token")
    return folder / "alertmanager.yml"


@pytest.fixture
def shipped() -> Any:
    return read_yaml(ALERTMANAGER / "alertmanager.yml")


def receiver(config: Any, name: str) -> Any:
    (found,) = (entry for entry in config["receivers"] if entry["name"] == name)
    return found


def matches(matchers: list[str], labels: dict[str, str]) -> bool:
    """Whether Alertmanager would find all the matchers true of the labels."""
    for matcher in matchers:
        parsed = MATCHER.fullmatch(matcher)
        assert parsed, matcher
        value = labels.get(parsed["label"], "")
        equal = (
            re.fullmatch(parsed["value"], value) is not None
            if "~" in parsed["operator"]
            else value == parsed["value"]
        )
        if equal == parsed["operator"].startswith("!"):
            return False
    return True


def test_amtool_accepts_the_configuration_and_sends_an_unknown_alert_to_people(
    config: Path,
) -> None:
    said = run("amtool", "check-config", config)
    assert "3 receivers" in said
    assert "2 templates" in said
    said = run("amtool", "config", "routes", "test", f"--config.file={config}", "alertname=New")
    assert said.split() == ["people"]


def test_every_promised_alert_exists_once() -> None:
    assert sorted(alert.name for alert in ALERTS) == sorted(RECEIVER_OF)


@each_alert
def test_an_alert_reaches_its_receiver_and_no_other(config: Path, alert: Alert) -> None:
    sets = label_sets(alert)
    assert sets
    for labels in sets:
        # In quotes: Alertmanager 0.27 and newer warn of values that were read differently before.
        pairs = [f"{name}={json.dumps(value)}" for name, value in labels.items()]
        said = run("amtool", "config", "routes", "test", f"--config.file={config}", *pairs)
        # When these end, the hook audits the messages.
        also = ["reconnect-hook"] if alert.name in OUTAGES else []
        assert said.replace(",", " ").split() == [*also, RECEIVER_OF[alert.name]]


def test_each_channel_is_sent_by_itself_at_once_and_again_after_the_cooldown(shipped: Any) -> None:
    route, of_probes = shipped["route"]["routes"][1:3]
    assert of_probes == {**route, "matchers": ['remediation="probe"']}
    assert route == {
        "matchers": ['remediation="reconnect"'],
        "receiver": "reconnect-hook",
        "group_by": ["gateway", "channel"],
        "group_wait": "0s",
        "group_interval": "5s",
        "repeat_interval": "15m",
    }
    assert seconds(route["repeat_interval"]) > COOLDOWN_SECONDS
    (group,) = read_yaml(PROMETHEUS / "rules" / "channels.yml")["groups"]
    (drop,) = (alert.rule for alert in ALERTS if alert.name == "WhatsAppChannelDisconnected")
    # Alertmanager does not report an alert that ends and fires again within group_interval.
    assert seconds(route["group_interval"]) < seconds(group["interval"]) + seconds(drop["for"])


def test_people_get_one_message_for_an_episode(shipped: Any) -> None:
    route = {key: value for key, value in shipped["route"].items() if key != "routes"}
    assert route == {
        "receiver": "people",
        "group_by": ["alertname", "gateway"],
        "group_wait": "1m",
        "group_interval": "1m",
        "repeat_interval": "24h",
    }
    assert shipped["route"]["routes"][3:] == [
        {
            "matchers": ['alertname="WhatsAppNotificationTest"'],
            "receiver": "people",
            "group_by": ["alertname", "test"],
            "group_wait": "0s",
        },
        {
            "matchers": ['alertname=~"WhatsAppGatewayDown|WhatsAppMessageLogDown"'],
            "receiver": "reconnect-hook",
            "continue": True,
        },
        {
            "matchers": ['alertname=~"WhatsAppGatewayDown|WhatsAppMessageLogDown"'],
            "receiver": "people",
        },
        {
            "matchers": ['channel=~".+"'],
            "receiver": "people",
            "group_by": ["gateway", "channel"],
            "group_wait": "2m",
        },
    ]


@each_alert
def test_people_hear_nothing_of_what_is_over_within_two_minutes(shipped: Any, alert: Alert) -> None:
    if RECEIVER_OF[alert.name] == "people":
        whole, of_channels = shipped["route"], shipped["route"]["routes"][-1]
        route = of_channels if "channel" in label_sets(alert)[0] else whole
        waited = seconds(alert.rule.get("for", "0s")) + seconds(route["group_wait"])
        # Nor do they wait longer than they must. What lasts for hours may wait a quarter of one.
        longest = 1020 if alert.name in OF_HOURS else 420
        assert 120 <= waited <= longest


@pytest.mark.parametrize(
    ("name", "path"), [("reconnect-hook", "/alerts"), ("people", "/notifications")]
)
def test_the_hook_gets_everything_with_its_token(shipped: Any, name: str, path: str) -> None:
    assert receiver(shipped, name) == {
        "name": name,
        "webhook_configs": [
            {
                "url": f"http://127.0.0.1:9862{path}",
                "http_config": {
                    "authorization": {"credentials_file": "hook-token"},
                    "follow_redirects": False,
                },
                "send_resolved": True,
                "max_alerts": 0,
            }
        ],
    }
    assert "global" not in shipped, "what stands there, as a token, is sent to every receiver"


@each_alert
def test_a_dead_gateway_holds_back_its_channels_alerts_and_no_others(
    shipped: Any, alert: Alert
) -> None:
    rule = shipped["inhibit_rules"][0]
    assert rule["equal"] == ["gateway"]
    for labels in label_sets(alert):
        assert matches(rule["target_matchers"], labels) == ("channel" in labels)
        assert matches(rule["source_matchers"], labels) == (alert.name == "WhatsAppGatewayDown")


def _held_back_by(config: Any, firing: Alert) -> set[str]:
    (source,) = label_sets(firing)[:1]
    return {
        alert.name
        for rule in config["inhibit_rules"][1:]
        for alert in ALERTS
        if matches(rule["source_matchers"], source)
        and any(matches(rule["target_matchers"], labels) for labels in label_sets(alert))
    }


def test_one_cause_is_one_message(shipped: Any) -> None:
    held_back = {alert.name: found for alert in ALERTS if (found := _held_back_by(shipped, alert))}
    assert held_back == {
        "WhatsAppChannelNeedsQrScan": {"WhatsAppReconnectFailing", "WhatsAppChannelStillSilent"},
        "WhatsAppChannelGone": {
            "WhatsAppChannelNeedsQrScan",
            "WhatsAppReconnectFailing",
            "WhatsAppChannelStillSilent",
            "WhatsAppDeliveryBroken",
        },
        "WhatsAppDeliveryBroken": {"WhatsAppChannelStillSilent"},
        "WhatsAppReconnectFailing": {"WhatsAppChannelFlapping"},
        "WhatsAppGatewayDown": {"WhatsAppMessageLogStalled", "WhatsAppChannelStillSilent"},
        "WhatsAppMessageLogDown": {"WhatsAppMessageLogStalled", "WhatsAppChannelStillSilent"},
        # An alert never holds itself back.
        "WhatsAppMessageLogStalled": {"WhatsAppMessageLogStalled", "WhatsAppChannelStillSilent"},
    }
    for rule in shipped["inhibit_rules"][1:]:
        of_one_channel = "WhatsAppMessageLogStalled" not in rule["source_matchers"][0]
        assert rule["equal"] == (["gateway", "channel"] if of_one_channel else ["gateway"])


def test_an_example_is_there_for_each_way_to_reach_people() -> None:
    text = (ALERTMANAGER / "alertmanager.yml").read_text(encoding="utf-8")
    assert re.findall(r"^ +# (\w+_configs):$", text, re.MULTILINE) == EXAMPLES


@each_example
def test_amtool_accepts_each_example_whose_secret_files_are_found_from_any_folder(
    config: Path, key: str
) -> None:
    config.write_text(uncomment(config.read_text(), key))
    people = receiver(read_yaml(config), "people")
    run("amtool", "check-config", config)
    assert set(people) == {"name", "webhook_configs", key}
    (example,) = people[key]
    assert example["send_resolved"] is True
    # Alertmanager does not look for these beside its configuration, as it does for the token.
    paths = {name: Path(value) for name, value in example.items() if name.endswith("_file")}
    assert all(path.is_absolute() for path in paths.values()), paths
    assert paths or "bot_token" in example


def test_amtool_accepts_all_examples_at_once(config: Path) -> None:
    text = config.read_text()
    for key in EXAMPLES:
        text = uncomment(text, key)
    config.write_text(text)
    run("amtool", "check-config", config)
    assert set(EXAMPLES) < set(receiver(read_yaml(config), "people"))
