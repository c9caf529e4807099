"""A real Alertmanager with the shipped configuration, in which all examples are made real."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Self

import requests
import yaml

from demo.loop import Children, answers
from tests.support.inbox import Inbox
from tests.support.ports import free
from tests.support.shipped import ALERTMANAGER, EXAMPLES, seconds, uncomment
from tests.support.waiting import wait_until

ADDRESS = "https://zapwatch.example.com"
ZONE = "America/Sao_Paulo"


class Alertmanager:
    """Sends to the inbox; every wait is ``faster`` times as short as shipped.

    ``by_case``: alerts are grouped by their label ``case`` alone, and each message says its case
    and how many alerts fire and have ended, where the shipped configuration says nothing.
    """

    def __init__(
        self, folder: Path, inbox: Inbox, language: str, *, faster: float, by_case: bool = False
    ) -> None:
        self._at = free()
        self.url = f"http://{self._at}"
        self._children = Children(folder)
        self._folder = shutil.copytree(ALERTMANAGER, folder / "alertmanager")
        # Alertmanager 0.33 hides the hook's address: its token's file tells which webhook it is.
        (self._folder / "hook-token").write_text("token")
        _replace(self._folder / "templates" / "address.tmpl", "http://127.0.0.1:9862", ADDRESS)
        path = self._folder / "alertmanager.yml"
        _replace(path, "- templates/pt-BR/*.tmpl", f"- templates/{language}/*.tmpl")
        text = path.read_text()
        for example in EXAMPLES:
            text = uncomment(text, example)
        config = yaml.safe_load(text)
        _send_to(config, inbox)
        for route in (config["route"], *config["route"]["routes"]):
            for name in ("group_wait", "group_interval", "repeat_interval"):
                if name in route:
                    route[name] = f"{max(1, round(seconds(route[name]) / faster * 1000))}ms"
        if by_case:
            _say_case(config)
        path.write_text(yaml.safe_dump(config))
        self.file = path

    def post(self, *alerts: dict[str, Any]) -> None:
        requests.post(f"{self.url}/api/v2/alerts", json=alerts, timeout=10).raise_for_status()

    def _is_ready(self) -> bool:
        self._children.check()
        return answers(f"{self.url}/-/ready")

    def __enter__(self) -> Self:
        program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
        assert program, "Alertmanager is not installed: run `make test`"
        self._children.start(
            "alertmanager",
            [
                program,
                f"--config.file={self._folder / 'alertmanager.yml'}",
                f"--storage.path={self._folder / 'data'}",
                f"--web.listen-address={self._at}",
                "--cluster.listen-address=",
                "--log.level=warn",
            ],
            {**os.environ, "TZ": ZONE},
        )
        try:
            wait_until(self._is_ready, "Alertmanager to be ready")
        except BaseException:
            self._children.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._children.stop()


def _replace(path: Path, shipped: str, other: str) -> None:
    text = path.read_text()
    assert text.count(shipped) == 1, f"{shipped} in {path}"
    path.write_text(text.replace(shipped, other))


def _send_to(config: dict[str, Any], inbox: Inbox) -> None:
    """Change addresses and secrets, and nothing of what is said."""
    people = config["receivers"][-1]
    for webhook in (entry for one in config["receivers"] for entry in one["webhook_configs"]):
        webhook["url"] = webhook["url"].replace("http://127.0.0.1:9862", inbox.http)
    (mail,) = people["email_configs"]
    mail |= {"smarthost": str(inbox.smtp), "require_tls": False, "hello": "localhost"}
    del mail["auth_username"], mail["auth_password_file"]
    (telegram,) = people["telegram_configs"]
    telegram["api_url"] = inbox.http
    (slack,) = people["slack_configs"]
    del slack["api_url_file"]
    slack["api_url"] = f"{inbox.http}/slack"


def _say_case(config: dict[str, Any]) -> None:
    for route in (config["route"], *config["route"]["routes"]):
        route["group_by"] = ["case"]
    people = config["receivers"][-1]
    case = "{{ .GroupLabels.case }} {{ len .Alerts.Firing }} {{ len .Alerts.Resolved }}"
    people["email_configs"][0]["headers"]["X-Case"] = case
    people["telegram_configs"][0]["message"] += f"#{case}"
    people["slack_configs"][0]["footer"] = case
