"""docs/install.md, followed on a Debian machine with a real systemd, as far as the first repair.

Its apt-get is not run, since the machine has no network; what it installs is there already.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.guides import LOG, SECRET, Guided, blocks, simulate
from tests.support.machine import Machine
from tests.support.release import ROOT
from zapwatch import __version__

_SERVICES = ("zapwatch-exporter", "zapwatch-hook")
_MOST_EXPOSED = 15  # tenths of systemd's points


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guided]:
    with Machine(tmp_path_factory.mktemp("machine"), ROOT) as machine:
        yield Guided(machine)


def test_the_guide_leads_to_the_first_metric(guided: Guided) -> None:
    assert f"Zapwatch {__version__} is installed.\nNow fill in /etc/zapwatch" in guided.installed
    assert guided.checked.stdout.startswith("2 channels listed\n")
    assert 'whatsapp_channel_connected{channel="Loja Centro",gateway="wpp"} 1' in (
        guided.first_metric
    )
    assert "metrics at http://127.0.0.1:9861/metrics" in guided.journal
    assert SECRET not in guided.journal


def test_the_portuguese_guide_has_the_same_commands() -> None:
    assert blocks("pt-BR/install.md") == blocks()


def test_a_drop_is_repaired_and_logrotate_may_move_the_log(guided: Guided) -> None:
    machine = guided.machine
    for channel in ("Loja Centro", "imobsites"):
        simulate(machine, f"drop({channel!r})")
        line = machine.wait_for(f"grep '{channel}' {LOG}", "the repair").strip()
        assert "reason=disconnected action=getQr outcome=reconnected attempt=1 seconds=" in line
        assert machine.run(f"stat --format '%U %a' {LOG}").stdout == "zapwatch 640\n"
        machine.run("logrotate --force /etc/logrotate.d/zapwatch")
        assert machine.run(f"ls {LOG}", check=False).returncode != 0
    assert "Loja Centro" in machine.run(f"zcat {LOG}.2.gz").stdout


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
    files = "/etc/zapwatch/zapwatch.env /etc/zapwatch/hook-token"
    modes = guided.machine.run(f"stat --format '%U %G %a' {files}").stdout
    assert modes == "root zapwatch 640\n" * 2
    assert guided.machine.run("stat --format '%U %a' /etc/prometheus/hook-token").stdout == (
        "prometheus 400\n"
    )
    state = guided.machine.run("stat --format '%U %a' /var/lib/zapwatch/*.sqlite3").stdout
    assert state == "zapwatch 600\n"


@pytest.mark.parametrize("service", _SERVICES)
def test_a_reload_reads_the_settings_again(guided: Guided, service: str) -> None:
    machine, pid = guided.machine, guided.pid(service)
    hours = 5 + _SERVICES.index(service)  # another number than whoever was restarted has read
    machine.run(f"sed -i 's#^SILENT_HOURS=.*#SILENT_HOURS={hours}#' /etc/zapwatch/zapwatch.env")
    machine.run(f"systemctl reload {service}")
    told = "'settings were read again: changed wpp (silent_hours)'"
    machine.wait_for(f"journalctl --no-pager --unit {service} | grep {told}", "the new settings")
    machine.wait_for(f"systemctl is-active {service}", "the end of the reload")
    assert guided.pid(service) == pid


@pytest.mark.parametrize("service", _SERVICES)
def test_a_program_that_hangs_or_dies_is_started_anew(guided: Guided, service: str) -> None:
    machine = guided.machine
    folder = f"/run/systemd/system/{service}.service.d"
    quick = r"[Service]\nWatchdogSec=2\nRestartSec=100ms\n"
    machine.run(f"mkdir -p {folder}; printf '{quick}' >{folder}/quick.conf")
    machine.run(f"systemctl daemon-reload; systemctl restart {service}")
    for signal in ("STOP", "KILL"):
        old = guided.pid(service)
        machine.run(f"systemctl kill --kill-who=main --signal={signal} {service}")
        anew = f'pid=$(systemctl show --value --property=MainPID {service}); test "$pid" != {old}'
        # Only when it is ready does systemd call it active.
        machine.wait_for(f"{anew}; systemctl is-active {service}", f"{service} after {signal}")
        assert guided.pid(service) not in {"0", old}


def test_an_update_leaves_the_operators_files_alone(guided: Guided) -> None:
    machine = guided.machine
    changed = "/etc/zapwatch/zapwatch.env /etc/logrotate.d/zapwatch"
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
