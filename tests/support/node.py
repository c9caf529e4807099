"""One of two machines of deploy/ha/, with other addresses and shorter waits."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa

from demo.configuration import ALERTMANAGER, ROOT, RULES, Addresses
from demo.loop import Children, find_program, get
from tests.support.ports import free
from tests.support.relay import Relay
from tests.support.samples import Metrics
from zapwatch.config import Listen, parse_env

HA = ROOT / "deploy" / "ha"
TOKEN = "the-token-of-the-cluster"
STATE = "mysql+pymysql://zapwatch:state-password@state-database:3306/zapwatch?charset=utf8mb4"
HEARTBEAT = "https://gateway.example.com/put-the-address-of-your-heartbeat-here"
STORE = "http://long-term-storage:9009/api/v1/push"

_SHORTER = {
    r"\b(scrape_interval|scrape_timeout|evaluation_interval): 3s": r"\1: 1s",
    r"\binterval: (15s|3s)": "interval: 1s",
    r"\bfor: 15s": "for: 3s",
    r"\bfor: 2m": "for: 10s",
    r"\bgroup_wait: \dm": "group_wait: 2s",
    r"\bgroup_interval: (1m|30s)": "group_interval: 1s",
    r"\brepeat_interval: 50s": "repeat_interval: 1s",
}
# Shorter than the defaults, so that a dead peer is soon detected and a live one found, and so that
# Alertmanager soon resolves alerts that no Prometheus sends any more.
_SHORTER_OPTIONS = {
    "alertmanager": (
        "--cluster.peer-timeout=2s",
        "--cluster.gossip-interval=50ms",
        "--cluster.pushpull-interval=2s",
        "--cluster.probe-interval=500ms",
        "--cluster.probe-timeout=250ms",
        "--cluster.reconnect-interval=1s",
        "--cluster.settle-timeout=10s",
    ),
    "prometheus": ("--rules.alert.resend-delay=2s",),
}


class Node:
    """One machine of the cluster. Tests can cut two of its links: ``gossip`` and ``state``."""

    def __init__(
        self, name: str, folder: Path, state: sa.URL, stack: ExitStack, *, shorter: bool
    ) -> None:
        self.name = name
        self.at = Addresses(free(), free(), free(), free())
        self.gossips_at = free()
        self.gossip = stack.enter_context(Relay(self.gossips_at.port))
        assert state.port
        self.state = stack.enter_context(Relay(state.port))
        self._state_url = state.set(port=self.state.at.port)
        self._folder = folder / name
        self._etc = self._folder / "etc"
        self._shorter = shorter
        self._commands: dict[str, list[str]] = {}
        self._env: dict[str, str] = {}
        self._folder.mkdir()
        self.children = Children(self._folder)

    def join(
        self, nodes: Mapping[str, Node], env: Mapping[str, str], words: dict[str, str]
    ) -> None:
        """Prepare the start as one of ``nodes``; ``words`` are further replacements."""
        words = {**words, "this-machine:9094": str(self.gossips_at), "this-machine": self.name}
        words[STATE] = self._state_url.render_as_string(hide_password=False)
        for word, node in {**nodes, "this-machine": self}.items():
            # All gossip passes through the links.
            words.setdefault(f"{word}:9094", str(node.gossip.at))
            for port, listen in (
                (9090, node.at.prometheus),
                (9093, node.at.alertmanager),
                (9861, node.at.exporter),
                (9862, node.at.hook),
            ):
                words[f"{word}:{port}"] = str(listen)
        self._write_files(words)
        self._env = {
            **env,
            **parse_env((self._etc / "zapwatch.env").read_text()),
            "HOOK_TOKEN": TOKEN,
            "HOOK_LOG_FILE": str(self._folder / "healthcheck-sessions.log"),
        }
        self._commands = {
            "exporter": [sys.executable, "-m", "exporter"],
            "reconnect_hook": [sys.executable, "-m", "reconnect_hook", "serve"],
            "alertmanager": [
                find_program("prometheus-alertmanager", "alertmanager"),
                f"--storage.path={self._folder / 'alertmanager'}",
                f"--cluster.advertise-address={self.gossip.at}",
                *self._options("prometheus-alertmanager", "alertmanager"),
            ],
            "prometheus": [
                find_program("prometheus"),
                f"--storage.tsdb.path={self._folder / 'prometheus'}",
                *self._options("prometheus", "prometheus"),
            ],
        }

    def _write_files(self, words: Mapping[str, str]) -> None:
        """Write the files that docs/high-availability.md puts into /etc/prometheus."""
        shutil.copytree(RULES, self._etc / "rules")
        shutil.copytree(ALERTMANAGER / "templates", self._etc / "templates")
        shutil.copytree(HA, self._etc, dirs_exist_ok=True)
        (self._etc / "hook-token").write_text(TOKEN)
        config = self._etc / "prometheus.yml"
        config.write_text(config.read_text() + (self._etc / "remote-write.yml").read_text())
        found = re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))))
        for path in self._etc.rglob("*"):
            if path.is_file():
                text = found.sub(lambda match: words[match[0]], path.read_text())
                for shipped, shorter in _SHORTER.items() if self._shorter else ():
                    text = re.sub(shipped, shorter, text)
                path.write_text(text)

    def _options(self, service: str, program: str) -> list[str]:
        """Return the program's options, as set for Debian's service of that name."""
        defaults = parse_env((self._etc / "default" / service).read_text())
        self._env |= {name: value for name, value in defaults.items() if name != "ARGS"}
        return [
            f"--config.file={self._etc / program}.yml",
            *shlex.split(defaults["ARGS"]),
            *(_SHORTER_OPTIONS[program] if self._shorter else ()),
            "--log.level=warn",
        ]

    def start(self, program: str) -> None:
        self.children.start(program, self._commands[program], self._env)

    def kill(self, program: str) -> None:
        self.children.kill(program)

    def answers(self) -> bool:
        """Whether all programs answer; an exporter that waits for the gateway counts too."""
        self.children.check()
        ready = (self.at.hook, self.at.alertmanager, self.at.prometheus)
        return bool(text(self.at.exporter, "/-/healthy")) and all(
            text(a, "/-/ready") for a in ready
        )

    def partners(self) -> int | None:
        """Return the number of this Alertmanager's peers, None until it is ready."""
        cluster = _json(self.at.alertmanager, "/api/v2/status").get("cluster", {})
        return len(cluster["peers"]) - 1 if cluster.get("status") == "ready" else None

    def firing(self, matcher: str = "channel!=%22%22") -> list[str]:
        """Return the channel of each such alert in Alertmanager."""
        alerts = _json(self.at.alertmanager, f"/api/v2/alerts?filter={matcher}")
        return [alert["labels"]["channel"] for alert in alerts]

    def asking(self) -> list[str]:
        return self.firing("remediation=%22reconnect%22")

    def delivered(self) -> float:
        """Return the number of firing alerts that the hook has received since its start."""
        page = text(self.at.hook, "/metrics")
        told = Metrics(page).all("whatsapp_reconnect_alerts_total", status="firing")
        return sum(told.values())

    def is_ready(self) -> bool:
        return bool(text(self.at.hook, "/-/ready"))


def text(at: Listen, path: str) -> str:
    """Return a page, an empty string without an answer."""
    try:
        answer = get(f"http://{at}{path}")
    except requests.RequestException:
        return ""
    return answer.text if answer.ok else ""


def _json(at: Listen, path: str) -> Any:
    try:
        return get(f"http://{at}{path}").json()
    except (requests.RequestException, ValueError):
        return {}
