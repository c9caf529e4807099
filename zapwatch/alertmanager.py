"""Client of Alertmanager's API, and the command ``zapwatch notify`` that uses it."""

from __future__ import annotations

import argparse
import enum
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlencode, urlsplit

import yaml

from zapwatch.cli import WRONG_USAGE, manual, parser, printable
from zapwatch.config.load import collect
from zapwatch.config.readers import Reader, SettingsError, is_nested_too_deep, refuse_pipe
from zapwatch.config.settings import BY_NAME
from zapwatch.http import PLAIN_ACCESS, HttpAccess, HttpClient, HttpError, one_line
from zapwatch.server import fail

TEST_ALERT = "WhatsAppNotificationTest"
"""Alert name of a test message; the shipped routes send it to people without delay."""

NTFY_MARK = "{{/* ntfy */}}"
"""Template comment in an entry of Discord whose URL is ntfy's; Alertmanager hides the URL."""

OWN_PATHS = ("/alerts", "/notifications", "/heartbeat")
"""Paths of the hook's webhooks, which do not reach people."""

_CONNECT_SECONDS = 1.0
_TEST_HOURS = 2 / 60
_AMTOOL_SECONDS = 60.0
_COUNTER = re.compile(r'^alertmanager_(\w+)\{integration="(\w+)"[^}]*\} (\S+)$', re.MULTILINE)


class AlertmanagerError(Exception):
    """Alertmanager or its file is unusable. ``str()`` is one line."""


@dataclass(frozen=True, slots=True)
class Deliveries:
    """Counters of one integration since Alertmanager's start."""

    done: float
    """Requests that ended, failed ones included; ``notifications_total`` counts at their start."""
    failed: float
    """Failed requests; Alertmanager may have retried them."""


def ways_to_people(config: Mapping[str, Any]) -> Counter[str]:
    """Count the ways that reach people: email, telegram, ...; the hook's own webhooks do not."""
    return Counter(
        way for entries in _entries(config) for _, way, entry in entries if not is_own(entry)
    )


def way_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Map each integration of the receivers for people to its ways: ``discord`` may be ntfy."""
    found = {(integration, way) for entries in _entries(config) for integration, way, _ in entries}
    return {
        integration: ", ".join(sorted(way for one, way in found if one == integration))
        for integration, _ in sorted(found)
    }


def _entries(config: Mapping[str, Any]) -> Iterator[list[tuple[str, str, Any]]]:
    """Yield integration, way and entry of all entries of each receiver that reaches people."""
    for receiver in config.get("receivers") or ():
        found = [
            (integration, "ntfy" if NTFY_MARK in str(entry) else integration, entry)
            for key, entries in receiver.items()
            for integration, suffix, _ in [key.partition("_configs")]
            if suffix
            for entry in entries or ()
        ]
        if not all(is_own(entry) for *_, entry in found):
            yield found


def is_own(entry: Any) -> bool:
    """Whether a receiver's entry is a webhook of the hook.

    Newer Alertmanagers hide its URL; its token file identifies it then.
    """
    if not isinstance(entry, dict) or "url" not in entry:
        return False
    authorization = (entry.get("http_config") or {}).get("authorization") or {}
    has_token = Path(str(authorization.get("credentials_file", ""))).name.endswith("hook-token")
    return urlsplit(str(entry["url"])).path in OWN_PATHS or (
        entry["url"] == "<secret>" and has_token
    )


class AlertmanagerApi:
    """Client of one Alertmanager; each method raises AlertmanagerError."""

    def __init__(self, url: str, access: HttpAccess = PLAIN_ACCESS) -> None:
        self.url = url
        self._secrets = access.secrets
        self._client = HttpClient(url, access=access, connect_timeout=_CONNECT_SECONDS)

    def answers(self, seconds: float) -> bool:
        """Whether the API responds; raises nothing."""
        try:
            return self._call("GET", "/api/v2/status", seconds).parsed is not None
        except AlertmanagerError:
            return False

    def config(self, seconds: float) -> dict[str, Any]:
        """Return the active configuration, with secrets masked."""
        answer = self._call("GET", "/api/v2/status", seconds).parsed
        try:
            text = answer["config"]["original"].encode()
            parsed: Any = None if is_nested_too_deep(text) else yaml.safe_load(text)
            ways_to_people(parsed)
        except (TypeError, KeyError, AttributeError, ValueError, yaml.YAMLError):
            why = f"{self.url} returns no configuration: is it an Alertmanager?"
            raise AlertmanagerError(why) from None
        return dict(parsed)

    def deliveries(self, seconds: float) -> dict[str, Deliveries]:
        """Return the delivery counters by integration."""
        text = self._call("GET", "/metrics", seconds).raw.decode(errors="replace")
        counts: Counter[tuple[str, str]] = Counter()
        for metric, integration, value in _COUNTER.findall(text):
            counts[integration, metric] += float(value)  # type: ignore[assignment]
        return {
            integration: Deliveries(
                counts[integration, "notification_requests_total"],
                counts[integration, "notification_requests_failed_total"],
            )
            for integration, _ in counts
        }

    def send_test(self, seconds: float) -> None:
        """Post a test alert, which resolves by itself after two minutes."""
        alert = {
            "labels": {
                "alertname": TEST_ALERT,
                # Many mute "info", and "critical" may call a phone.
                "severity": "warning",
                # Puts each test in its own group, where no earlier test delays it.
                "test": secrets.token_hex(4),
            },
            "annotations": {
                "summary": "Test message of Zapwatch: nothing is wrong",
                "description": "This is a test of Zapwatch's notifications. Nothing is to be done.",
            },
            **_period(hours=_TEST_HOURS),
        }
        self._call("POST", "/api/v2/alerts", seconds, [alert])

    def mute(self, labels: Mapping[str, str], comment: str, hours: float, seconds: float) -> None:
        """Create a silence for alerts with these labels, for ``hours``."""
        silence = {
            "matchers": [
                {"name": name, "value": value, "isRegex": False, "isEqual": True}
                for name, value in labels.items()
            ],
            **_period(hours),
            "createdBy": "Zapwatch",
            "comment": comment,
        }
        self._call("POST", "/api/v2/silences", seconds, silence)

    def muted(self, alert: str, seconds: float) -> set[tuple[str, str]]:
        """Return gateway and channel of each silenced alert of this name."""
        asked = {"filter": f'alertname="{alert}"', "active": "false", "inhibited": "false"}
        found = self._call("GET", f"/api/v2/alerts?{urlencode(asked)}", seconds).parsed
        try:
            labels = [one["labels"] for one in found]
            return {(str(one["gateway"]), str(one["channel"])) for one in labels}
        except (TypeError, KeyError):
            raise AlertmanagerError(
                f"{self.url} returns no alerts: is it an Alertmanager?"
            ) from None

    def reload(self, seconds: float) -> None:
        """Trigger a reload of its file."""
        self._call("POST", "/-/reload", seconds)

    def _call(self, method: str, path: str, seconds: float, body: Any = None) -> Any:
        try:
            answer = self._client.request(method, path, seconds, body=body)
        except HttpError as error:
            detail = one_line(error.detail)
            raise AlertmanagerError(f"{self.url} does not answer: {detail}") from None
        if not answer.is_success:
            text = answer.raw[:1000].decode(errors="replace").strip()
            said = one_line(text, secrets=self._secrets)
            raise AlertmanagerError(f"{self.url} answers HTTP {answer.status}: {said}")
        return answer


def _period(hours: float) -> dict[str, str]:
    """Return begin and end of a period from now on, as the API has them."""
    now = datetime.now(UTC)
    return {"startsAt": now.isoformat(), "endsAt": (now + timedelta(hours=hours)).isoformat()}


def check_file(path: Path) -> dict[str, Any]:
    """Check a configuration file with amtool and return it; raise AlertmanagerError."""
    amtool = shutil.which("amtool")
    if amtool is None:
        raise AlertmanagerError("amtool is not installed: it comes with Alertmanager")
    try:
        refuse_pipe(path)
    except OSError as error:
        raise AlertmanagerError(f"{path}: {error.strerror}") from None
    done = subprocess.run(  # noqa: S603 - the operator's own file
        [amtool, "check-config", str(path)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=_AMTOOL_SECONDS,
    )
    if done.returncode != 0:
        _, _, wrong = done.stdout.partition("FAILED: ")
        raise AlertmanagerError(f"{path}: {one_line((wrong or done.stderr).strip())}")
    parsed = yaml.safe_load(path.read_bytes())
    return dict(parsed)


def reload_with(path: Path, api: AlertmanagerApi, seconds: float) -> dict[str, Any]:
    """Check a file, reload Alertmanager, and return its active configuration.

    Raises AlertmanagerError if the file is invalid or Alertmanager reads a different one.
    """
    wanted = _names(check_file(path))
    api.reload(seconds)
    running = api.config(seconds)
    if _names(running) != wanted:
        raise AlertmanagerError(
            f"{api.url} reads another file than {path}: its --config.file names it "
            "(ps -C prometheus-alertmanager,alertmanager -o args=)"
        )
    return running


def _names(config: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return the parts of the receivers that every version of Alertmanager shows."""
    return sorted(
        (
            str(receiver.get("name")),
            sorted((key, len(of)) for key, of in receiver.items() if key.endswith("_configs")),
        )
        for receiver in config.get("receivers") or ()
    )


_NOTIFY_SECONDS = 10.0  # timeout of a call by the command
WAIT_SECONDS = 75.0  # longer than a group_wait of 30 s or a minute
"""Time-out of a test message's delivery."""
_LOOK_SECONDS = 0.2
_NOTHING = Deliveries(0, 0)


class Fate(enum.Enum):
    """Result of a test message."""

    DELIVERED = enum.auto()
    FAILED = enum.auto()
    LATE = enum.auto()
    """Not delivered in time; there may be no route to that receiver."""


_FATES = {
    Fate.DELIVERED: "delivered",
    Fate.FAILED: "failed; see Alertmanager's log (journalctl -u prometheus-alertmanager; with make "
    "run: var/run/alertmanager.log)",
    Fate.LATE: f"not delivered within {WAIT_SECONDS:g} s; does its route lead to people?",
}
_NO_PEOPLE = (
    "no one is notified: Alertmanager has no receiver for people and only writes the hook's log. "
    "Set one up: zapwatch init"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = collect(options.env_file, pixelhub_env=options.pixelhub_env).values
        read = Reader(settings)
        url, *access = (
            BY_NAME[f"ALERTMANAGER_{name}"].read(read)
            for name in ("URL", "CA_FILE", "USER", "PASSWORD")
        )
        api = AlertmanagerApi(url, HttpAccess(*access))
        file = options.reload or BY_NAME["ALERTMANAGER_FILE"].read(read)
    except SettingsError as error:
        fail("notify", str(error))
    try:
        if options.reload is not None:
            if not file:
                fail("notify", "which file? Name it: --reload FILE, or set ALERTMANAGER_FILE")
            config = reload_with(Path(file), api, _NOTIFY_SECONDS)
            _tell(f"{file} is right, and Alertmanager has read it")
        else:
            config = api.config(_NOTIFY_SECONDS)
        ways = ways_to_people(config)
        if not ways:
            _tell(_NO_PEOPLE)
            return 1
        _tell(f"Alertmanager notifies people by {', '.join(ways)}")
        if not options.test:
            return 0
        fates = send_test(api, config)
        for way, fate in fates.items():
            _tell(f"{way}: {_FATES[fate]}")
        return 0 if set(fates.values()) == {Fate.DELIVERED} else 1
    except AlertmanagerError as error:
        _tell(f"notify: {error}", sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    made = parser(
        "zapwatch notify",
        manual(
            "Shows how Alertmanager notifies people; sends them a test message; checks its changed "
            "file with amtool and makes it read that file.",
            settings="ALERTMANAGER_*",
            exit_codes={
                0: "people are notified; with --test: the message was delivered",
                1: "no one is notified, a message failed, or the file is wrong and was not loaded",
                2: WRONG_USAGE,
            },
            examples=[
                "zapwatch notify --test",
                "zapwatch notify --reload /etc/prometheus/alertmanager.yml --test",
            ],
        ),
    )
    made.add_argument("--test", action="store_true", help="send a test message, and wait for it")
    made.add_argument(
        "--reload",
        metavar="FILE",
        nargs="?",
        const="",
        help="check Alertmanager's file and make it read the file again "
        "(default: ALERTMANAGER_FILE)",
    )
    return made


def send_test(api: AlertmanagerApi, config: Mapping[str, Any]) -> dict[str, Fate]:
    """Send a test message and wait until each entry of the receivers for people has delivered it.

    Returns the result by way; raises AlertmanagerError if a call to Alertmanager fails.
    """
    # The hook's log included.
    expected = Counter(integration for entries in _entries(config) for integration, *_ in entries)
    before = api.deliveries(_NOTIFY_SECONDS)
    api.send_test(_NOTIFY_SECONDS)
    fates: dict[str, Fate] = dict.fromkeys(expected, Fate.LATE)
    until = time.monotonic() + WAIT_SECONDS
    while Fate.LATE in fates.values() and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
        now = api.deliveries(_NOTIFY_SECONDS)
        for way, count in expected.items():
            old, new = before.get(way, _NOTHING), now.get(way, _NOTHING)
            if fates[way] is Fate.LATE and new.failed > old.failed:
                fates[way] = Fate.FAILED
            elif fates[way] is Fate.LATE and new.done - old.done >= count:
                fates[way] = Fate.DELIVERED
    names = way_names(config)
    return {names[integration]: fate for integration, fate in fates.items()}


def _tell(line: str, to: TextIO | None = None) -> None:
    print(printable(line), file=to, flush=True)
