"""The Alertmanager configuration: who gets which alert, and what holds it back."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from .shipped import ALERTMANAGER, ALERTS, Alert, label_sets, read_yaml, run, seconds

RECEIVER_OF = {
    "WhatsAppChannelDisconnected": "reconnect-hook",
    "WhatsAppChannelSilent": "reconnect-hook",
    "WhatsAppChannelNeverHeard": "reconnect-hook",
    "WhatsAppChannelNeedsQrScan": "people",
    "WhatsAppReconnectFailing": "people",
    "WhatsAppGatewayDown": "people",
    "WhatsAppMessageLogDown": "people",
    "WhatsAppMessageLogStalled": "people",
    "WhatsAppExporterDown": "people",
    "WhatsAppReconnectHookDown": "people",
    "WhatsAppAlertDeliveryFailing": "people",
}
COOLDOWN_SECONDS = 300
EXAMPLES = ["email_configs", "telegram_configs", "slack_configs"]
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


def uncomment(text: str, key: str) -> str:
    """Take the "# " off the lines of the example that begins with ``key``."""
    lines = text.split("\n")
    first = lines.index(f"    # {key}:")
    for number in range(first, len(lines)):
        if not lines[number].strip():
            break
        assert lines[number].startswith("    # "), lines[number]
        lines[number] = "    " + lines[number].removeprefix("    # ")
    return "\n".join(lines)


def with_example(config: Path, key: str) -> Any:
    """Return the configuration with one example uncommented."""
    config.write_text(uncomment(config.read_text(), key))
    return read_yaml(config)


def render(config: Path, text: str, data: Path) -> str:
    """Return what a text becomes with the templates that the configuration names."""
    globs = [f"--template.glob={config.parent / g}" for g in read_yaml(config)["templates"]]
    return run(
        "amtool", "template", "render", *globs, f"--template.text={text}", f"--template.data={data}"
    )


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


def test_amtool_accepts_the_configuration(config: Path) -> None:
    said = run("amtool", "check-config", config)
    assert "2 receivers" in said
    assert "1 templates" in said


def test_every_alert_has_an_expected_receiver() -> None:
    assert {alert.name for alert in ALERTS} == set(RECEIVER_OF)


@each_alert
def test_an_alert_reaches_its_receiver_and_no_other(config: Path, alert: Alert) -> None:
    sets = label_sets(alert)
    assert sets
    for labels in sets:
        pairs = [f"{name}={value}" for name, value in labels.items()]
        said = run("amtool", "config", "routes", "test", f"--config.file={config}", *pairs)
        assert said.split() == [RECEIVER_OF[alert.name]]


def test_an_alert_that_nobody_thought_of_goes_to_people(config: Path) -> None:
    said = run("amtool", "config", "routes", "test", f"--config.file={config}", "alertname=New")
    assert said.split() == ["people"]


def test_each_channel_is_sent_by_itself_at_once_and_again_after_the_cooldown(shipped: Any) -> None:
    (route,) = shipped["route"]["routes"]
    assert route == {
        "matchers": ['remediation="reconnect"'],
        "receiver": "reconnect-hook",
        "group_by": ["gateway", "channel"],
        "group_wait": "0s",
        "group_interval": "15s",
        "repeat_interval": "15m",
    }
    assert seconds(route["repeat_interval"]) > COOLDOWN_SECONDS


def test_people_get_few_messages(shipped: Any) -> None:
    route = {key: value for key, value in shipped["route"].items() if key != "routes"}
    assert route == {
        "receiver": "people",
        "group_by": ["alertname", "gateway"],
        "group_wait": "10s",
        "group_interval": "1m",
        "repeat_interval": "4h",
    }


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


def test_the_token_goes_to_the_hook_alone(shipped: Any) -> None:
    """What stands under ``global`` is sent to every receiver."""
    assert "global" not in shipped


@each_alert
def test_a_dead_gateway_holds_back_its_channels_alerts_and_no_others(
    shipped: Any, alert: Alert
) -> None:
    (rule,) = shipped["inhibit_rules"]
    for labels in label_sets(alert):
        assert matches(rule["target_matchers"], labels) == ("channel" in labels)
        assert matches(rule["source_matchers"], labels) == (alert.name == "WhatsAppGatewayDown")


def test_a_dead_gateway_holds_back_its_own_channels_only(shipped: Any) -> None:
    (rule,) = shipped["inhibit_rules"]
    assert rule["equal"] == ["gateway"]


def test_an_example_is_there_for_each_way_to_reach_people() -> None:
    text = (ALERTMANAGER / "alertmanager.yml").read_text(encoding="utf-8")
    assert re.findall(r"^ +# (\w+_configs):$", text, re.MULTILINE) == EXAMPLES


@each_example
def test_amtool_accepts_each_example(config: Path, key: str) -> None:
    people = receiver(with_example(config, key), "people")
    run("amtool", "check-config", config)
    assert set(people) == {"name", "webhook_configs", key}
    (example,) = people[key]
    assert example["send_resolved"] is True


def test_amtool_accepts_all_examples_at_once(config: Path) -> None:
    text = config.read_text()
    for key in EXAMPLES:
        text = uncomment(text, key)
    config.write_text(text)
    run("amtool", "check-config", config)
    assert set(EXAMPLES) < set(receiver(read_yaml(config), "people"))


@each_example
def test_an_examples_secret_files_are_found_from_any_folder(config: Path, key: str) -> None:
    """Alertmanager does not look for these beside its configuration, as it does for the token."""
    (example,) = receiver(with_example(config, key), "people")[key]
    paths = {name: Path(value) for name, value in example.items() if name.endswith("_file")}
    assert all(path.is_absolute() for path in paths.values()), paths
    assert paths or "bot_token" in example


@each_example
@pytest.mark.parametrize("status", ["firing", "resolved"])
def test_an_example_sends_the_alerts_own_words(
    config: Path, tmp_path: Path, key: str, status: str
) -> None:
    alert = {
        "status": status,
        "labels": {"alertname": "WhatsAppChannelNeedsQrScan"},
        "annotations": {
            "summary": "the summary",
            "description": "the description",
            "runbook_url": "https://example.com/runbook",
        },
        "startsAt": "2026-02-09T08:15:02Z",
        "endsAt": "2026-02-09T08:20:02Z",
    }
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"status": status, "alerts": [alert, alert]}))
    (example,) = receiver(with_example(config, key), "people")[key]
    rendered = render(config, example.get("text", example.get("message")), data)
    assert rendered.count("the summary") == 2
    if status == "firing":
        assert rendered.count("the description") == 2
        assert "Since 2026-02-09 08:15:02 UTC\nhttps://example.com/runbook" in rendered
    else:
        assert "Resolved at 2026-02-09 08:20:02 UTC: the summary" in rendered


@pytest.mark.parametrize(
    ("firing", "resolved", "subject"),
    [
        (1, 0, "the summary"),
        (3, 1, "the summary (and 2 more)"),
        (0, 1, "Resolved: the summary"),
        (0, 2, "Resolved: the summary (and 1 more)"),
    ],
)
def test_the_subject_is_one_line_that_says_what_is_wrong(
    config: Path, tmp_path: Path, firing: int, resolved: int, subject: str
) -> None:
    annotations = {"summary": "the summary"}
    alerts = [{"status": "firing", "annotations": annotations}] * firing
    alerts += [{"status": "resolved", "annotations": annotations}] * resolved
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"status": "firing" if firing else "resolved", "alerts": alerts}))
    rendered = render(config, '{{ template "zapwatch.subject" . }}', data)
    assert rendered == subject
