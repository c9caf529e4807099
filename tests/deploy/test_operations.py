"""The operator's pages, typed command by command on machines where docs/install.md was followed.

They have a real systemd. The apt-get of the guide is not run, since a machine has no network; what
it installs is there already. Each test brings its own channels, since a channel is left alone for
five minutes after a repair, and leaves the settings as the services have read them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.guides import (
    CHECKOUT_PACKAGES,
    GATEWAY,
    LOG,
    SECRET,
    Guided,
    blocks,
    indented,
    simulate,
    start_gateway,
)
from tests.support.machine import Machine
from tests.support.release import ROOT, build
from zapwatch import __version__

_SERVICES = ("zapwatch-exporter", "zapwatch-hook")
_MOST_EXPOSED = 15  # tenths of systemd's points
_ENV = "/etc/zapwatch/zapwatch.env"
_METRICS = "curl --silent --fail http://127.0.0.1:9862/metrics"
_API = 'curl --silent --fail --user me:"$(cat /etc/zapwatch/hook-token)" http://127.0.0.1:9862/api'


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guided]:
    with Machine(tmp_path_factory.mktemp("machine"), ROOT) as machine:
        yield Guided(machine)


def _pause(machine: Machine, channel: str) -> None:
    """Pause a channel that is new: the page knows it when Prometheus does."""
    simulate(machine, channel)
    pause = "-X POST --header 'Content-Type: application/json' --data '{\"hours\": 8}'"
    machine.wait_for(f"{_API}/pause/{channel} {pause}", f"the pause of {channel}")
    assert channel in _paused(machine)


def _paused(machine: Machine) -> str:
    return machine.wait_for(f"{_METRICS} | grep '^whatsapp_reconnect_paused'", "a pause")


def test_a_new_channel_is_there_with_a_threshold_of_its_own(guided: Guided) -> None:
    machine = guided.machine
    simulate(machine, "imobsites")
    simulate(machine, "Loja Nova")
    listed, thresholds, ages = (block.replace("\n   ", "\n") for block in blocks("add-channel.md"))
    seen = f"{listed.strip()} | grep 'Loja Nova'"
    assert machine.wait_for(seen, "the new channel").endswith(" 1.0\n")
    page = (ROOT / "docs" / "add-channel.md").read_text()
    (line,) = re.findall(r"SILENT_HOURS_OVERRIDES=\S+", page)
    # Another test on this machine may have set SILENT_HOURS before.
    default = "s/^SILENT_HOURS=.*/SILENT_HOURS=4/"
    machine.run(f"sed -i 's/^SILENT_HOURS_OVERRIDES=.*/{line}/; {default}' {_ENV}")
    shown = machine.wait_for(thresholds, "the thresholds")
    assert 'channel="imobsites",gateway="wpp"} 259200.0' in shown
    assert 'channel="Loja Nova",gateway="wpp"} 14400.0' in shown
    assert machine.run(ages).stdout == "no message yet\n"  # there is no message log here


def test_a_silence_leaves_a_channel_in_peace_until_its_end(guided: Guided) -> None:
    machine = guided.machine
    for channel in ("Loja Centro", "imobsites"):
        simulate(machine, channel)
    days, weekend, query, expire, pause = blocks("holiday.md")
    machine.run(days)
    machine.run(weekend)
    silences = machine.run(query).stdout
    assert "closed for the holidays" in silences
    assert "weekend" in silences
    simulate(machine, "Loja Centro", "drop")
    guided.alert("Loja Centro")
    suppressed = "http://127.0.0.1:9093/api/v2/alerts?active=false"
    machine.wait_for(f"curl --silent '{suppressed}' | grep 'Loja Centro'", "the silenced alert")
    assert not guided.was_repaired("Loja Centro")
    machine.run(expire)
    assert machine.run(query).stdout.count("\n") <= 1  # the heading
    assert "outcome=reconnected" in guided.repaired("Loja Centro")
    machine.wait_for(f"{_API}/channels/Loja%20Centro", "the page to know the channel")
    shown = machine.run(pause).stdout
    assert 'whatsapp_reconnect_paused{channel="Loja Centro",gateway="wpp"} 1.0' in shown
    assert "Loja Centro" not in machine.run(_METRICS + " | grep _paused").stdout


def test_who_waits_for_a_scan_is_listed_until_it_is_done(guided: Guided) -> None:
    """By the commands of both languages, which wait for the same."""
    machine = guided.machine
    channel = "Canal sem par"
    listed = [
        f"({who.strip()}) | grep '{channel}'"
        for guide in ("qr.md", "pt-BR/qr.md")
        for who in blocks(guide)
        if "qr_required" in who
    ]
    assert len(listed) == 2
    simulate(machine, channel)
    simulate(machine, channel, "unpair")
    for one in listed:
        machine.wait_for(one, "the wish for a scan")
    simulate(machine, channel, "scan")
    for one in listed:
        machine.wait_for(f"! {one}", "the scan to be noticed")


def test_links_are_made_listed_and_ended(guided: Guided) -> None:
    machine = guided.machine
    simulate(machine, "loja")
    machine.wait_for(f"{_API}/channels/loja", "the page to know the channel")
    for_scans, for_status, _pairing, _waiting = blocks("qr.md")
    *shown, end = for_scans.splitlines()
    token = "HOOK_TOKEN=$(cat /etc/zapwatch/hook-token)"
    answers = machine.run("\n".join([token, *shown, for_status])).stdout
    made, listed, status = (json.loads(answer) for answer in re.split(r"(?<=})\s*(?={)", answers))
    assert [one["id"] for one in listed["links"]] == [made["id"]]
    assert "/scan/" in status["url"]
    machine.run(f"{token}\n{end.replace('ID', made['id'])}")
    rest = json.loads(machine.run(f"{token}\n{shown[1]}").stdout)["links"]
    assert [one["id"] for one in rest] == [status["id"]]


def test_the_commands_for_an_alert_show_what_is_wrong(guided: Guided) -> None:
    check, journal = blocks("pt-BR/runbook/README.md")
    assert "channels listed\n" in guided.machine.run(check).stdout
    assert "metrics at http://127.0.0.1:9861/metrics" in guided.machine.run(journal).stdout


def test_the_pages_own_commands_work(guided: Guided) -> None:
    machine = guided.machine
    simulate(machine, "Canal da API")
    machine.wait_for(f"{_API}/channels/Canal%20da%20API", "the page to know the channel")
    (calls,) = blocks("page.md")
    # The gateway here has no query, lists no messages, still lists the channel, and is alone.
    typed = [
        line.replace("Loja%20Centro", "Canal%20da%20API")
        for line in calls.splitlines()
        if not any(
            words in line for words in ("/ask/", "/audit", "/replay", "/forget/", "gateway=NAME")
        )
    ]
    answers = machine.run("\n".join(["HOOK_TOKEN=$(cat /etc/zapwatch/hook-token)", *typed])).stdout
    assert '"accepted": true' in answers
    assert '"error"' not in answers


def test_an_alert_of_ones_own_makes_a_message(guided: Guided) -> None:
    _, reload, zone, test, send = blocks("notifications.md")
    machine = guided.machine
    short = 'zapwatch() { /opt/zapwatch/bin/zapwatch "$@"; }\n'
    # Nobody is told in this installation: both say so, and fail.
    taken = machine.run(short + reload, check=False)
    assert "is right, and Alertmanager has read it" in taken.stdout
    assert "no one is notified" in taken.stdout
    assert machine.run(short + test, check=False).returncode == 1
    machine.run(zone)
    machine.wait_for("curl --silent --fail http://127.0.0.1:9093/-/ready", "Alertmanager again")
    machine.run(send)
    query = "amtool --alertmanager.url=http://127.0.0.1:9093 alert query WhatsAppChannelNeedsQrScan"
    assert "Loja Centro" in guided.machine.run(f"{query} --output=extended").stdout


def test_init_writes_what_the_services_may_read_and_nobody_else(guided: Guided) -> None:
    machine = guided.machine
    (init,) = [line for line in indented("install.md") if "zapwatch init" in line]
    typed = f"{init.strip()} --yes --overwrite --set SILENT_HOURS=5"
    machine.run(f"cp -p {_ENV} {_ENV}.kept")
    said = machine.run(typed).stdout
    assert "systemctl enable --now zapwatch-exporter zapwatch-hook" in said
    assert "Prometheus: docs/install.md, step 4" in said
    files = f"{_ENV} /etc/prometheus/alertmanager.yml /etc/prometheus/hook-token"
    assert machine.run(f"stat --format '%U %G %a' {files}").stdout == (
        "root zapwatch 640\nroot prometheus 640\nroot prometheus 640\n"
    )
    machine.run(f"runuser -u zapwatch -- grep '^SILENT_HOURS=5$' {_ENV}")
    # Alertmanager goes on with the new file.
    taken = machine.run(
        f"/opt/zapwatch/bin/zapwatch notify --env-file {_ENV} --reload", check=False
    )
    assert "is right, and Alertmanager has read it" in taken.stdout
    machine.run(f"mv {_ENV}.kept {_ENV}")


def test_init_lets_the_services_read_pixelhubs_file(guided: Guided) -> None:
    machine = guided.machine
    theirs = "/var/www/pixelhub/.env"
    machine.run(
        f"install -D -m 0640 -g www-data /dev/null {theirs}; echo DB_HOST=localhost >{theirs}"
    )
    (init,) = [line for line in indented("install.md") if "zapwatch init" in line]
    typed = f"{init.strip()} --yes --set WPP_GATEWAY_BASE_URL={GATEWAY} --pixelhub-env {theirs}"
    machine.run(f"cp -p {_ENV} {_ENV}.kept\n{typed}\nmv {_ENV}.kept {_ENV}")
    machine.run(f"runuser -u zapwatch -- test -r {theirs}")


def _gateway_takes(machine: Machine, secret: str) -> None:
    machine.run("systemctl stop 'gateway-*'")
    start_gateway(machine, secret, "Loja Centro", "imobsites")


def test_secrets_are_changed_without_losing_an_alert(guided: Guided) -> None:
    machine = guided.machine
    token, check, restart, reload = blocks("secrets.md")
    old = machine.run("cat /etc/zapwatch/hook-token").stdout.strip()
    machine.run(token)
    files = "/etc/zapwatch/hook-token /etc/prometheus/hook-token"
    modes = machine.run(f"stat --format '%U %G %a' {files}").stdout
    assert modes == "root zapwatch 640\nprometheus prometheus 400\n"
    machine.wait_for(f"{_API}/channels", "the new token")
    refused = machine.run(f"curl --silent --user me:{old} http://127.0.0.1:9862/api/channels")
    assert "Unauthorized" in refused.stdout
    simulate(machine, "Canal do Token")
    simulate(machine, "Canal do Token", "drop")
    guided.alert("Canal do Token")
    assert "outcome=reconnected" in guided.repaired("Canal do Token")

    new = "another-secret-that-is-not-real"
    _gateway_takes(machine, new)
    try:
        refused = machine.run(check, check=False)
        assert refused.returncode == 1
        assert "unauthorized" in refused.stderr
        assert SECRET not in refused.stdout + refused.stderr
        machine.run(f"sed -i 's/{SECRET}/{new}/' {_ENV}")
        assert machine.run(check).stdout.startswith("2 channels listed\n")
        machine.run(restart)
        up = "curl --silent http://127.0.0.1:9861/metrics | grep '^whatsapp_gateway_up.* 1'"
        machine.wait_for(up, "the gateway to be up")
    finally:
        machine.run(f"sed -i 's/{new}/{SECRET}/' {_ENV}")
        _gateway_takes(machine, SECRET)
        machine.run(restart)
    machine.run(reload)


def test_what_was_backed_up_is_there_after_a_loss(guided: Guided) -> None:
    machine = guided.machine
    _pause(machine, "guardado")
    backup, restore = blocks("backup.md")
    said = machine.run(backup).stdout
    assert "etc/zapwatch/zapwatch.env\n" in said
    assert "FAILED" not in said
    assert machine.run("stat --format %a /var/backups/zapwatch").stdout == "700\n"
    _pause(machine, "depois")
    machine.run("cp --preserve /var/lib/zapwatch/*-wal /root/")
    lost = "/etc/zapwatch /etc/prometheus/rules /var/lib/zapwatch /var/lib/zapwatch-exporter"
    # Like a new machine, where install.md has enabled nothing.
    machine.run(f"systemctl disable --now zapwatch-hook zapwatch-exporter\nrm -r {lost}")
    # As a hook leaves it that was killed.
    machine.run("mkdir /var/lib/zapwatch\nmv /root/*-wal /var/lib/zapwatch/")
    assert machine.run(restore).stdout == "active\n" * 4
    enabled = machine.run(f"systemctl is-enabled {' '.join(_SERVICES)}").stdout
    assert enabled == "enabled\n" * 2
    assert "guardado" in _paused(machine)
    assert "depois" not in _paused(machine)
    assert (
        machine.run("stat --format '%U %a' /var/lib/zapwatch/*.sqlite3").stdout == "zapwatch 600\n"
    )
    machine.run("promtool check config /etc/prometheus/prometheus.yml")


def test_it_moves_to_another_machine_with_all_it_knows(guided: Guided, tmp_path: Path) -> None:
    old = guided.machine
    _pause(old, "mudança")
    leave, fetch, check, start = blocks("move.md")
    with Machine(tmp_path, ROOT) as new:
        new.run(CHECKOUT_PACKAGES)
        new.run("make install")
        start_gateway(new, SECRET, "mudança")
        try:
            old.run(leave)
            # What stands in for the network.
            new.write("/srv/move.tar.gz", old.read("/root/move.tar.gz"))
        finally:
            services = "zapwatch-exporter zapwatch-hook prometheus prometheus-alertmanager"
            old.run(f"systemctl enable --now {services}")
        new.write("/usr/bin/scp", b'#!/bin/sh\ncp /srv/move.tar.gz "$2"\n')
        new.run(f"chmod +x /usr/bin/scp\n{fetch}")
        assert new.run(check).stdout.startswith("1 channels listed\n")
        assert "active\n" * 4 in new.wait_for(start.replace("\nrm ", "\nrm -f "), "the new machine")
        assert "mudança" in _paused(new)
        tokens = [one.read("/etc/zapwatch/hook-token") for one in (old, new)]
        assert tokens[0] == tokens[1]
        past = "promtool query instant http://127.0.0.1:9090 'count_over_time(up[1h]) > 0'"
        new.wait_for(f"{past} | grep zapwatch-hook", "the past of Prometheus")


def test_an_upgrade_and_the_way_back(guided: Guided, tmp_path: Path) -> None:
    machine = guided.machine
    machine.write("/srv/source.tar.gz", build("sdist", ROOT, tmp_path).read_bytes())
    machine.run(_TWO_RELEASES)
    here = "cd /srv/checkout\n"
    before, programs, settings, rules, differences, works, empty = blocks("upgrade.md")
    assert machine.run(here + before).stdout == f"v{__version__}\n"
    machine.run(
        f"sed -i '/^SILENCE_CEILING_HOURS=/d' {_ENV}\necho >/etc/prometheus/rules/channels.yml"
    )
    env = machine.read(_ENV)
    assert "Zapwatch 99.0.0 is installed.\n" in machine.run(here + programs).stdout
    assert machine.read(_ENV) == env
    new = machine.run(settings).stdout
    assert new == "new: SILENCE_CEILING_HOURS=\nnew: HOOK_TOKEN=\n"
    machine.run(rules)
    shipped = "/opt/zapwatch/share/zapwatch/prometheus/rules"
    machine.run(f"diff -r {shipped} /etc/prometheus/rules")
    machine.run("echo '# mine' >>/etc/prometheus/alertmanager.yml")
    assert "+# mine" in machine.run(differences).stdout
    assert machine.wait_for(works, "the new version").startswith(
        "active\nactive\nzapwatch 99.0.0\n"
    )
    (back,) = (block for block in indented("upgrade.md") if "git checkout" in block)
    said = machine.run(here + back.replace("v1.0.0", f"v{__version__}")).stdout
    assert f"Zapwatch {__version__} is installed.\n" in said
    machine.run(empty)
    machine.wait_for("curl --silent --fail http://127.0.0.1:9862/-/ready", "an empty state")


_TWO_RELEASES = f"""
export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x@example.com
export GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x@example.com
mkdir /srv/upstream
cd /srv/upstream
tar --extract --gzip --strip-components=1 --no-same-owner --file /srv/source.tar.gz
git init --quiet --initial-branch=main
git add --all
git commit --quiet --message=old
git tag --annotate --message=old v{__version__}
sed -i 's/{__version__}/99.0.0/' zapwatch/__init__.py
git commit --quiet --all --message=new
git tag --annotate --message=new v99.0.0
git clone --quiet /srv/upstream /srv/checkout
cd /srv/checkout
git checkout --quiet v{__version__}
"""


def test_the_guide_leads_to_the_first_metric(guided: Guided) -> None:
    assert f"Zapwatch {__version__} is installed.\nNow fill in /etc/zapwatch" in guided.installed
    assert guided.checked.stdout.startswith("2 channels listed\n")
    assert 'whatsapp_channel_connected{channel="Loja Centro",gateway="wpp"} 1' in (
        guided.first_metric
    )
    assert "metrics at http://127.0.0.1:9861/metrics" in guided.journal
    assert SECRET not in guided.journal


def test_a_drop_is_repaired_and_logrotate_may_move_the_log(guided: Guided) -> None:
    machine = guided.machine
    for channel in ("Canal um", "Canal dois"):
        simulate(machine, channel)
        machine.wait_for(f"{_API}/channels/{quote(channel)}", "the page to know the channel")
        simulate(machine, channel, "drop")
        line = machine.wait_for(f"grep '{channel}' {LOG}", "the repair").strip()
        assert "reason=disconnected action=getQr outcome=reconnected attempt=1 seconds=" in line
        assert machine.run(f"stat --format '%U %a' {LOG}").stdout == "zapwatch 640\n"
        machine.run("logrotate --force /etc/logrotate.d/zapwatch")
        assert machine.run(f"ls {LOG}", check=False).returncode != 0
    assert "Canal um" in machine.run(f"zcat {LOG}.2.gz").stdout


@pytest.mark.parametrize("service", _SERVICES)
def test_systemd_finds_no_fault_with_a_unit(guided: Guided, service: str) -> None:
    unit = guided.show(service, "FragmentPath")
    found = guided.machine.run(f"systemd-analyze verify {unit}")
    assert (found.stdout, found.stderr) == ("", "")
    rated = guided.machine.run(
        f"systemd-analyze security --no-pager --offline=true --threshold={_MOST_EXPOSED} {unit}"
    )
    print(rated.stdout.splitlines()[-1])  # noqa: T201


@pytest.mark.parametrize("service", _SERVICES)
def test_a_service_has_no_rights_and_little_memory(guided: Guided, service: str) -> None:
    machine = guided.machine
    assert machine.run(f"stat --format %U /proc/{guided.pid(service)}").stdout == "zapwatch\n"
    status = machine.run(f"cat /proc/{guided.pid(service)}/status").stdout
    values = dict(line.split(":\t", 1) for line in status.splitlines())
    assert {name: values[name] for name in ("CapBnd", "CapEff", "NoNewPrivs", "Seccomp")} == {
        "CapBnd": "0" * 16,
        "CapEff": "0" * 16,
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }
    limit = int(guided.show(service, "MemoryMax"))
    assert int(values["VmHWM"].removesuffix(" kB")) * 1024 < limit / 4
    # Not even root could, from where the service stands.
    for path in ("/etc/zapwatch/zapwatch.env", "/opt/zapwatch/locked", "/usr/x", "/root/x"):
        inside = f"nsenter --target {guided.pid(service)} --mount sh -c 'echo x >>{path}'"
        assert "Read-only file system" in machine.run(inside, check=False).stderr, path


def test_only_the_operator_and_the_services_may_read_the_secrets(guided: Guided) -> None:
    assert guided.secrets == "root zapwatch 640\n" * 2 + "prometheus prometheus 400\n"
    state = guided.machine.run("stat --format '%U %a' /var/lib/zapwatch/*.sqlite3").stdout
    assert state == "zapwatch 600\n"


@pytest.mark.parametrize("service", _SERVICES)
def test_a_reload_reads_the_settings_again(guided: Guided, service: str) -> None:
    machine, pid = guided.machine, guided.pid(service)
    hours = 5 + _SERVICES.index(service)  # not the number with which it started
    machine.run(f"sed -i 's#^SILENT_HOURS=.*#SILENT_HOURS={hours}#' {_ENV}")
    machine.run(f"systemctl reload {service}")
    told = "'settings were read again: changed wpp (silent_hours)'"
    machine.wait_for(f"journalctl --no-pager --unit {service} | grep {told}", "the new settings")
    machine.wait_for(f"systemctl is-active {service}", "the end of the reload")
    assert guided.pid(service) == pid


@pytest.mark.parametrize("service", _SERVICES)
def test_a_program_that_hangs_or_dies_is_started_anew(guided: Guided, service: str) -> None:
    machine = guided.machine
    folder = f"/run/systemd/system/{service}.service.d"
    machine.run(f"mkdir -p {folder}")
    for signal, watchdog in (("STOP", 2), ("KILL", 120)):  # 120, which is shipped, is for all tests
        quick = rf"[Service]\nWatchdogSec={watchdog}\nRestartSec=100ms\n"
        machine.run(f"printf '{quick}' >{folder}/quick.conf; systemctl daemon-reload")
        if signal == "STOP":
            machine.run(f"systemctl restart {service}")
        old = guided.pid(service)
        machine.run(f"systemctl kill --kill-who=main --signal={signal} {service}")
        restarted = (
            f'pid=$(systemctl show --value --property=MainPID {service}); test "$pid" != {old}'
        )
        # Only when it is ready does systemd call it active.
        machine.wait_for(f"{restarted}; systemctl is-active {service}", f"{service} after {signal}")
        assert guided.pid(service) not in {"0", old}


def test_an_update_leaves_the_operators_files_alone(guided: Guided) -> None:
    machine = guided.machine
    changed = f"{_ENV} /etc/logrotate.d/zapwatch"
    machine.run(f"for file in {changed}; do echo '# mine' >>$file; done")
    files = f"{changed} /etc/zapwatch/hook-token"
    before = machine.run(f"cat {files}").stdout
    pids = [guided.pid(service) for service in _SERVICES]
    done = machine.run("make install")
    assert "Broken pipe" not in done.stderr
    assert f"Zapwatch {__version__} is installed.\n" in done.stdout
    assert "Now fill in" not in done.stdout
    assert machine.run(f"cat {files}").stdout == before
    for service, old in zip(_SERVICES, pids, strict=True):
        assert guided.pid(service) not in {"0", old}
