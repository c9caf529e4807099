"""Runs the commands of the docs' guides on a test machine."""

from __future__ import annotations

import re
from urllib.parse import quote

from tests.support.machine import CHECKOUT, Machine
from tests.support.release import ROOT

SECRET = "not-a-real-secret-of-the-machine"
GATEWAY = "http://127.0.0.1:8443"
LOG = "/var/log/zapwatch/healthcheck-sessions.log"

# The checkout's packages replace the download of `make install`.
CHECKOUT_PACKAGES = f"""
python3 -m venv --without-pip /opt/zapwatch
echo {CHECKOUT}/.venv/lib/python3*/site-packages \
    >"$(echo /opt/zapwatch/lib/python3*/site-packages)/locked.pth"
sha256sum <requirements-run.lock >/opt/zapwatch/locked
"""
# A name of its own: systemd may remember an earlier unit for minutes.
_START_GATEWAY = f"""
systemd-run --quiet --collect --unit=gateway-$(cat /proc/sys/kernel/random/uuid) \
    --working-directory={CHECKOUT} --setenv=SIMULATOR_SECRET={SECRET} \
    .venv/bin/python -m demo.simulator --listen 127.0.0.1:8443
"""
FILL_IN = f"""
sed -i -e 's#^WPP_GATEWAY_BASE_URL=.*#WPP_GATEWAY_BASE_URL={GATEWAY}#' \
    -e 's#^WPP_GATEWAY_SECRET=.*#WPP_GATEWAY_SECRET={SECRET}#' \
    -e 's#^MESSAGE_LOG_URL=.*#MESSAGE_LOG_URL=none#' /etc/zapwatch/zapwatch.env
"""


def blocks(guide: str = "install.md", language: str = "sh") -> list[str]:
    """Return the shell commands of a guide, or its code of another language, one per block."""
    text = (ROOT / "docs" / guide).read_text()
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)


def simulate(machine: Machine, channel: str, action: str = "") -> None:
    """Let the machine's simulated gateway drop, unpair or scan a channel, or make it if it is new.

    By curl: Python needs a fifth of a second for its client.
    """
    channel_url = f"{GATEWAY}/sim/channels/{quote(channel, safe='')}"
    make = "--request PUT --json '{\"reconnect_seconds\": 1.0}'"
    request = f"--request POST {channel_url}/{action}" if action else f"{make} {channel_url}"
    machine.run(f"curl --silent --fail-with-body {request}")


def indented(guide: str) -> list[str]:
    """Return a guide's indented blocks, which have no fences."""
    text = (ROOT / "docs" / guide).read_text()
    return re.findall(r"^\n((?: {4}\S.*\n)+)", text, re.MULTILINE)


def start_gateway(machine: Machine, secret: str = SECRET, *channels: str) -> None:
    """Start the simulated gateway with these channels; they reconnect in a second."""
    machine.run(_START_GATEWAY.replace(SECRET, secret))
    machine.wait_for(f"curl --silent {GATEWAY}/sim/state", "the simulated gateway")
    for channel in channels:
        simulate(machine, channel)


class Guided:
    """A machine installed by the commands of docs/install.md."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.run(CHECKOUT_PACKAGES)
        apt, servers, install, check, start, loop, every_day = blocks()
        assert all("apt-get install" in packages for packages in (apt, servers))
        # A common umask for root.
        self.installed = machine.run(f"umask 077\n{install}").stdout
        start_gateway(machine, SECRET, "Loja Centro", "imobsites")
        machine.run(FILL_IN)
        self.checked = machine.run(check)
        self.first_metric = machine.wait_for(start, "the first metric")
        machine.run(loop)
        machine.wait_for("curl --silent --fail http://127.0.0.1:9090/-/ready", "Prometheus")
        machine.wait_for("curl --silent --fail http://127.0.0.1:9093/-/ready", "Alertmanager")
        self.journal = machine.run(every_day).stdout
        files = "/etc/zapwatch/zapwatch.env /etc/zapwatch/hook-token /etc/prometheus/hook-token"
        self.secrets = machine.run(f"stat --format '%U %G %a' {files}").stdout

    def alert(self, channel: str) -> None:
        """Send Alertmanager the alert about a dropped channel, as Prometheus does.

        Waits until the exporter has the drop: no real alert fires within a second.
        """
        seen = f'^whatsapp_channel_connected{{.*"{channel}".*}} 0'
        self.machine.wait_for(
            f"curl --silent http://127.0.0.1:9861/metrics | grep '{seen}'", "the drop to be seen"
        )
        self.machine.run(
            "amtool --alertmanager.url=http://127.0.0.1:9093 alert add WhatsAppChannelDisconnected"
            f" gateway=wpp channel='{channel}' remediation=reconnect"
        )

    def repaired(self, channel: str) -> str:
        """Wait for the log line of the channel's repair, and return it."""
        return self.machine.wait_for(self._repairs(channel), f"the repair of {channel}")

    def was_repaired(self, channel: str) -> bool:
        return self.machine.run(self._repairs(channel), check=False).returncode == 0

    def _repairs(self, channel: str) -> str:
        # Other lines name a channel too: a link made for it, a check, a message sent.
        return f"grep -E 'channel=\"?{channel}\"? .*action=getQr' {LOG}"

    def show(self, service: str, name: str) -> str:
        """Return a systemd property of a service."""
        return self.machine.run(
            f"systemctl show --value --property={name} {service}"
        ).stdout.strip()

    def pid(self, service: str) -> str:
        return self.show(service, "MainPID")
