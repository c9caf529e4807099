"""docs/tls.md, followed with the real nginx, Prometheus and Alertmanager, up to a repair."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from tests.support.guides import Guided, blocks, simulate
from tests.support.machine import Machine
from tests.support.release import ROOT

_HOST = "zapwatch.example.com"
_URL = f"https://{_HOST}:9443"
_CURL = (
    "curl --silent --output /dev/null --write-out '%{http_code}'"
    " --cacert /etc/nginx/zapwatch/certificate.pem"
)
_PASSWORD = '"prometheus:$(cat /etc/nginx/zapwatch/metrics-password)"'


def _write(machine: Machine, path: str, config: object) -> None:
    machine.run(f"cat >{path} <<'EOF'\n{yaml.safe_dump(config)}EOF")


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guided]:
    with Machine(tmp_path_factory.mktemp("machine"), ROOT) as made:
        guided = Guided(made)
        made.run(f"echo 127.0.0.1 {_HOST} >>/etc/hosts")
        apt, *nginx, prometheus_files, prometheus, manager_files, manager = blocks("tls.md")
        assert apt.startswith("apt-get install")
        for block in nginx:
            made.run(block)
        jobs, webhook = map(yaml.safe_load, blocks("tls.md", "yaml"))
        made.run(prometheus_files)
        config = yaml.safe_load(made.run("cat /etc/prometheus/prometheus.yml").stdout)
        named = {job["job_name"]: job for job in jobs["scrape_configs"]}
        config["scrape_configs"] = [
            named.get(job["job_name"], job) for job in config["scrape_configs"]
        ]
        _write(made, "/etc/prometheus/prometheus.yml", config)
        made.run(prometheus)
        made.run(manager_files)
        config = yaml.safe_load(made.run("cat /etc/prometheus/alertmanager.yml").stdout)
        for receiver in config["receivers"]:
            for shipped in receiver["webhook_configs"]:
                path = shipped["url"].rpartition("/")[2]
                shipped.update(webhook, url=webhook["url"].replace("alerts", path))
        _write(made, "/etc/prometheus/alertmanager.yml", config)
        made.run(manager)
        yield guided


@pytest.fixture
def machine(guided: Guided) -> Machine:
    return guided.machine


def test_prometheus_scrapes_both_programs_by_way_of_the_proxy(machine: Machine) -> None:
    for job in ("zapwatch-exporter", "zapwatch-hook"):
        query = f'up{{job="{job}", instance="{_HOST}:9443"}} == 1'
        machine.wait_for(
            f"promtool query instant http://127.0.0.1:9090 '{query}' | grep {job}", f"up of {job}"
        )
    machine.wait_for(
        "promtool query instant http://127.0.0.1:9090 whatsapp_channel_connected | grep imobsites",
        "the channels",
    )


def test_alertmanager_tells_the_hook_by_way_of_the_proxy(guided: Guided) -> None:
    machine = guided.machine
    simulate(machine, "Loja Centro", "drop")
    guided.alert("Loja Centro")
    assert "outcome=reconnected" in guided.repaired("Loja Centro")
    assert '"POST /alerts HTTP/1.1" 202' in machine.run("cat /var/log/nginx/access.log").stdout


@pytest.mark.parametrize("path", ["/metrics", "/exporter/metrics"])
def test_the_metrics_need_the_password(machine: Machine, path: str) -> None:
    for login, status in (
        ("", "401"),
        ("--user prometheus:wrong", "401"),
        (f"--user {_PASSWORD}", "200"),
    ):
        assert machine.run(f"{_CURL} {login} {_URL}{path}").stdout == status, login


def test_the_hook_asks_for_its_token_through_the_proxy(machine: Machine) -> None:
    post = f"{_CURL} --data x {_URL}/alerts"
    assert machine.run(post).stdout == "401"
    # The password of the metrics is none of the hook's.
    assert machine.run(f"{post} --user {_PASSWORD}").stdout == "401"
    token = '--header "Authorization: Bearer $(cat /etc/zapwatch/hook-token)"'
    assert machine.run(f"{post} {token}").stdout == "400"
    # It is the hook that says what is too large, not nginx.
    large = f"head --bytes=2000000 /dev/zero | {post.replace('--data x', '--data-binary @-')}"
    assert machine.run(f"{large} {token}").stdout == "400"


@pytest.mark.parametrize("body", ["--upload-file /tmp/large", "--upload-file - </tmp/large"])
def test_no_body_is_awaited_without_the_token(machine: Machine, body: str) -> None:
    machine.run("head --bytes=10000000 /dev/zero >/tmp/large")
    slowly = "--max-time 30 --limit-rate 10k --header Expect: --request POST"
    assert machine.run(f"{_CURL} {slowly} {_URL}/alerts {body}", check=False).stdout == "401"


def test_a_session_of_the_page_is_for_tls_alone(machine: Machine) -> None:
    cookies = machine.run(
        "curl --silent --output /dev/null --dump-header -"
        f" --cacert /etc/nginx/zapwatch/certificate.pem {_URL}/login"
        ' --data-urlencode "token=$(cat /etc/zapwatch/hook-token)"'
    ).stdout
    (cookie,) = re.findall(r"(?i)^set-cookie: (.*)$", cookies, re.MULTILINE)
    assert "Secure" in cookie


def test_without_tls_or_the_certificate_there_is_no_answer_to_read(machine: Machine) -> None:
    plain = "curl --silent --output /dev/null --write-out '%{http_code}'"
    assert machine.run(f"{plain} http://{_HOST}:9443/metrics").stdout == "400"
    assert machine.run(f"{plain} {_URL}/metrics", check=False).stdout == "000"


def test_the_programs_themselves_listen_on_this_machine_only(machine: Machine) -> None:
    listening = machine.run("ss --listening --tcp --numeric --no-header").stdout
    for port in (9861, 9862, 9090, 9093):
        found = re.findall(rf"\s(\S+):{port}\s", listening)
        assert found == ["127.0.0.1"], listening


def test_no_log_of_the_proxy_has_a_scan_link_while_the_hook_is_down(machine: Machine) -> None:
    machine.run("systemctl stop zapwatch-hook")
    try:
        assert machine.run(f"{_CURL} {_URL}/scan/key-of-a-link").stdout == "502"
        assert machine.run(f"{_CURL} {_URL}/login").stdout == "502"
    finally:
        machine.run("systemctl start zapwatch-hook")
    logs = machine.run("cat /var/log/nginx/*.log").stdout
    assert "/login" in logs
    assert "key-of-a-link" not in logs


def test_only_the_proxy_may_read_the_passwords(machine: Machine) -> None:
    files = "key.pem metrics-password users"
    modes = machine.run(f"cd /etc/nginx/zapwatch; stat --format '%U %a' {files}").stdout
    assert modes == "root 600\nroot 600\nwww-data 400\n"
