"""WEB_CONFIG_FILE: TLS and passwords of the programs' own server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import requests
import yaml

from demo.configuration import ROOT
from demo.loop import Children
from demo.simulator.client import Simulator
from tests.support.alerts import alert, payload
from tests.support.certificates import self_signed, signed
from tests.support.hooks import TOKEN, hook_settings, log_lines
from tests.support.notify_socket import NotifySocket
from tests.support.ports import free
from tests.support.programs import Fork, Program, environment, run_here
from tests.support.prometheus import Prometheus
from tests.support.waiting import TIMEOUT, wait_until
from zapwatch.config import SettingsError
from zapwatch.config.files import read_web_config

_PASSWORD = "not-a-real-password"
_LOGIN = ("prometheus", _PASSWORD)


def _hash(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def _write(folder: Path, content: object) -> Path:
    path = folder / "web.yml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def _config(password: str = _PASSWORD, **tls: str) -> dict[str, Any]:
    return {
        "tls_server_config": {"cert_file": "certificate.pem", "key_file": "key.pem", **tls},
        "basic_auth_users": {"prometheus": _hash(password)},
    }


@pytest.fixture
def simulator(simulator: Simulator) -> Simulator:
    simulator.put_channel("loja", reconnect_seconds=0)
    return simulator


def _settings(simulator: Simulator, path: Path, **more: str) -> dict[str, str]:
    more = {"EXPORTER_LISTEN": "127.0.0.1:0", "WEB_CONFIG_FILE": str(path), **more}
    return hook_settings(simulator.url, **more)


def _status(program: Program, path: str, verify: Path, **more: Any) -> int:
    url = f"{program.url}{path}"
    return requests.get(url, verify=str(verify), timeout=TIMEOUT, **more).status_code


def test_prometheus_scrapes_over_tls_with_a_password(tmp_path: Path, simulator: Simulator) -> None:
    certificate, _ = self_signed(tmp_path)
    settings = _settings(simulator, _write(tmp_path, _config()))
    with Fork(tmp_path, "exporter", settings=settings) as program:
        assert program.url.startswith("https://127.0.0.1:")
        assert _status(program, "/metrics", certificate) == 401
        guesses = (("prometheus", "x"), ("x", _PASSWORD)) * 3
        told = [_status(program, "/metrics", certificate, auth=guess) for guess in guesses]
        assert told == [401] * 5 + [429]
        assert _status(program, "/metrics", certificate, auth=_LOGIN) == 200
        assert _status(program, "/-/healthy", certificate) == 200
        job = {
            "scheme": "https",
            "tls_config": {"ca_file": str(certificate)},
            "basic_auth": {"username": "prometheus", "password": _PASSWORD},
        }
        target = program.url.removeprefix("https://")
        with Prometheus(tmp_path, target, **job) as prometheus:
            wait_until(lambda: prometheus.query("whatsapp_gateway_up == 1"), "the scrape")


def test_the_hook_takes_alerts_by_its_token_and_shows_metrics_by_the_password(
    tmp_path: Path, simulator: Simulator
) -> None:
    certificate, _ = self_signed(tmp_path)
    settings = _settings(simulator, _write(tmp_path, _config()))
    with Fork(tmp_path, "reconnect_hook", "serve", settings=settings) as program:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        for headers, status in ((bearer, 202), ({"Authorization": "Bearer x"}, 401)):
            answer = requests.post(
                f"{program.url}/alerts",
                payload(),
                headers=headers,
                verify=str(certificate),
                timeout=TIMEOUT,
            )
            assert answer.status_code == status
        guess = {"Authorization": "Bearer x"}
        told = [_status(program, "/-/ready", certificate, headers=guess) for _ in range(5)]
        assert told == [401] * 4 + [429], "with the one above"
        assert _status(program, "/metrics", certificate) == 401
        assert _status(program, "/metrics", certificate, auth=_LOGIN) == 200
        unknown = _status(program, f"/scan/{'x' * 32}", certificate)
        assert unknown == 404, "a scan link holds its own key, and this is none"
        # The password opens the way to the page, whose own door is the token's.
        at_door = {"auth": _LOGIN, "allow_redirects": False}
        assert _status(program, "/", certificate, **at_door) == 303
        with requests.Session() as browser:
            browser.auth, browser.trust_env = _LOGIN, False
            browser.verify = str(certificate)
            browser.post(f"{program.url}/login", {"token": TOKEN}, timeout=TIMEOUT)
            assert browser.cookies
            page = browser.get(program.url, allow_redirects=False, timeout=TIMEOUT)
            assert page.status_code == 200


def test_prometheus_and_alertmanager_may_have_tls_and_passwords_too(
    tmp_path: Path, simulator: Simulator
) -> None:
    certificate, _ = self_signed(tmp_path)
    web = _write(tmp_path, _config())
    (tmp_path / "password").write_text(_PASSWORD)
    at = {name: str(free()) for name in ("PROMETHEUS", "ALERTMANAGER")}
    settings = _settings(simulator, web)
    for name, address in at.items():
        settings |= {
            f"{name}_URL": f"https://{address}",
            f"{name}_USER": "prometheus",
            f"{name}_PASSWORD_FILE": str(tmp_path / "password"),
            f"{name}_CA_FILE": str(certificate),
        }
    with Fork(tmp_path, "reconnect_hook", "serve", settings=settings) as hook:
        _write_configurations(tmp_path, hook.url)

        def troubles() -> list[str]:
            answer = requests.get(
                f"{hook.url}/api/channels",
                auth=("anybody", TOKEN),
                verify=str(certificate),
                timeout=TIMEOUT,
            )
            return [one for one in answer.json()["troubles"] if one.upper() in at]

        wait_until(lambda: len(troubles()) == 2, "both to be missed")
        children = Children(tmp_path)
        alertmanager = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
        for name, program, flag in (
            ("PROMETHEUS", "prometheus", "--storage.tsdb.path"),
            ("ALERTMANAGER", alertmanager, "--storage.path"),
        ):
            command = [
                str(program),
                f"--config.file={tmp_path / name}.yml",
                f"{flag}={tmp_path / name}",
                f"--web.listen-address={at[name]}",
                f"--web.config.file={web}",
            ]
            more = ["--cluster.listen-address="] if name == "ALERTMANAGER" else []
            children.start(name, [*command, *more], os.environ)
        try:
            wait_until(lambda: not troubles(), "both to be read")
            # Alertmanager posts over TLS, with the token as the password of some user.
            requests.post(
                f"https://{at['ALERTMANAGER']}/api/v2/alerts",
                json=[{"labels": alert()["labels"]}],
                auth=_LOGIN,
                verify=str(certificate),
                timeout=TIMEOUT,
            ).raise_for_status()
            wait_until(lambda: log_lines(tmp_path), "the alert to be taken")
        finally:
            children.stop()


def _write_configurations(folder: Path, hook: str) -> None:
    (folder / "PROMETHEUS.yml").write_text("{}")
    webhook = {
        "url": f"{hook}/alerts",
        "http_config": {
            "basic_auth": {"username": "alertmanager", "password": TOKEN},
            "tls_config": {"ca_file": str(folder / "certificate.pem")},
        },
    }
    config = {
        "route": {"receiver": "hook", "group_wait": "10ms"},
        "receivers": [{"name": "hook", "webhook_configs": [webhook]}],
    }
    (folder / "ALERTMANAGER.yml").write_text(yaml.safe_dump(config))


def test_certificates_and_users_are_read_again_when_they_change(
    tmp_path: Path, simulator: Simulator
) -> None:
    (tmp_path / "new").mkdir()
    self_signed(tmp_path)
    old = tmp_path / "old.pem"
    shutil.copy(tmp_path / "certificate.pem", old)
    settings = _settings(simulator, _write(tmp_path, _config()))
    with Fork(tmp_path, "exporter", settings=settings) as program:
        assert _status(program, "/metrics", old, auth=_LOGIN) == 200
        (tmp_path / "web.yml").write_text("basic_auth_users: {a: not-a-hash}")
        wait_until(lambda: "stay as they are" in program.stderr, "the refusal")
        assert _status(program, "/metrics", old, auth=_LOGIN) == 200
        for path in self_signed(tmp_path / "new"):
            shutil.copy(path, tmp_path / path.name)
        _write(tmp_path, _config("another"))

        def is_new(password: str, status: int) -> bool:
            login, new = ("prometheus", password), tmp_path / "certificate.pem"
            try:
                return _status(program, "/metrics", new, auth=login) == status
            except requests.exceptions.ConnectionError:
                return False

        wait_until(lambda: is_new("another", 200), "the new certificate and password")
        wait_until(lambda: is_new(_PASSWORD, 401), "the old password to be refused")
        assert program.end() == 0


def test_clients_may_need_a_certificate_and_systemd_sees_that_it_answers(
    tmp_path: Path, simulator: Simulator
) -> None:
    certificate, _ = self_signed(tmp_path)
    client = signed(tmp_path)
    config = _config(
        client_auth_type="RequireAndVerifyClientCert", client_ca_file="certificate.pem"
    )
    with NotifySocket(tmp_path / "notify") as systemd:
        more = systemd.settings(0.5)
        settings = _settings(simulator, _write(tmp_path, config), **more)
        with Fork(tmp_path, "exporter", settings=settings) as program:
            systemd.wait_for("WATCHDOG=1", 2)
            with pytest.raises(requests.exceptions.ConnectionError):
                _status(program, "/-/healthy", certificate)
            compose = yaml.safe_load((ROOT / "deploy" / "container" / "compose.yaml").read_text())
            _, _, *check = compose["services"]["exporter"]["healthcheck"]["test"]
            check = [text.replace("/etc/zapwatch/zapwatch.env", os.devnull) for text in check]
            at = {"EXPORTER_LISTEN": program.url.removeprefix("https://")}
            subprocess.run([sys.executable, *check], env=environment(settings | at), check=True)
            pair = tuple(map(str, client))
            assert _status(program, "/metrics", certificate, cert=pair, auth=_LOGIN) == 200


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([], "must have keys"),
        ({"tls": {}}, "the key 'tls', which is not supported"),
        ({"tls_server_config": {}}, "the certificates cannot be used"),
        ({"tls_server_config": {"min_version": "SSL3"}}, "min_version must be TLS12 or TLS13"),
        ({"tls_server_config": {"client_auth_type": "x"}}, "client_auth_type must be NoClientCert"),
        ({"tls_server_config": {"cipher_suites": []}}, "'cipher_suites', which is not supported"),
        ({"basic_auth_users": {"a": "plain"}}, "needs a hash of bcrypt for 'a'"),
        ({"basic_auth_users": ["a"]}, "must have keys"),
        ("[" * 100_000, "its brackets nest too deeply"),
        ("basic_auth_users: {a: 2026-13-45}", "is not valid YAML"),
        ("basic_auth_users: {a: !!bool plain}", "is not valid YAML"),
        ("basic_auth_users: {a: !!timestamp plain}", "is not valid YAML"),
        ("basic_auth_users: {a: *plain}", "line 1: found undefined alias"),
        ("basic_auth_users: {a: !plain x}", "could not determine a constructor for the tag"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, content: object, why: str) -> None:
    with pytest.raises(SettingsError, match=r"^WEB_CONFIG_FILE: \S+web.yml") as caught:
        read_web_config(_write(tmp_path, content))
    assert why in str(caught.value)
    assert "plain" not in str(caught.value)


def test_a_file_that_is_not_there_is_told_in_one_line(tmp_path: Path, simulator: Simulator) -> None:
    settings = _settings(simulator, tmp_path / "nowhere.yml")
    for program in (["exporter"], ["reconnect_hook", "serve"]):
        for option in ([], ["--config.check"]):
            done = run_here(tmp_path, *program, *option, settings=settings)
            said = f"{program[0]}: WEB_CONFIG_FILE: {tmp_path}/nowhere.yml cannot be read"
            assert (done.returncode, done.stderr.count("\n")) == (2, 1)
            assert said in done.stderr
