"""Following a guide of the docs on a machine of a test's own."""

from __future__ import annotations

import re

from tests.support.machine import CHECKOUT, Machine
from tests.support.release import ROOT

SECRET = "not-a-real-secret-of-the-machine"
GATEWAY = "http://127.0.0.1:8443"
LOG = "/var/log/zapwatch/healthcheck-sessions.log"

# What `make install` would get from the network: the checkout's packages stand in for it.
CHECKOUT_PACKAGES = f"""
python3 -m venv --without-pip /opt/zapwatch
echo {CHECKOUT}/.venv/lib/python3*/site-packages \
    >"$(echo /opt/zapwatch/lib/python3*/site-packages)/locked.pth"
sha256sum <requirements-run.lock >/opt/zapwatch/locked
"""
START_GATEWAY = f"""
systemd-run --quiet --unit=gateway --working-directory={CHECKOUT} \
    --setenv=SIMULATOR_SECRET={SECRET} \
    .venv/bin/python -m stack.simulator --listen 127.0.0.1:8443
"""
_FILL_IN = f"""
sed -i -e 's#^WPP_GATEWAY_BASE_URL=.*#WPP_GATEWAY_BASE_URL={GATEWAY}#' \
    -e 's#^WPP_GATEWAY_SECRET=.*#WPP_GATEWAY_SECRET={SECRET}#' \
    -e 's#^MESSAGE_LOG_URL=.*#MESSAGE_LOG_URL=none#' /etc/zapwatch/zapwatch.env
"""


def blocks(guide: str = "install.md") -> list[str]:
    """Return what a guide says is to be typed, block by block."""
    text = (ROOT / "docs" / guide).read_text()
    return re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def simulate(machine: Machine, call: str) -> None:
    """Call a method of the simulated gateway's client."""
    code = f"from stack.simulator.client import Simulator; Simulator('{GATEWAY}').{call}"
    machine.run(f'.venv/bin/python -c "{code}"')


def fill_in(machine: Machine) -> None:
    """Let the settings lead to the simulated gateway, with two channels, and no message log."""
    machine.run(START_GATEWAY)
    machine.wait_for(f"curl --silent {GATEWAY}/sim/state", "the simulated gateway")
    for channel in ("Loja Centro", "imobsites"):
        simulate(machine, f"put_channel({channel!r}, reconnect_seconds=1.0)")
    machine.run(_FILL_IN)


class Guided:
    """The machine on which docs/install.md was followed."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.run(CHECKOUT_PACKAGES)
        apt, install, check, start, loop, every_day = blocks()
        assert apt.startswith("apt-get install")
        # As root is set up in many places.
        self.installed = machine.run(f"umask 077\n{install}").stdout
        fill_in(machine)
        self.checked = machine.run(check)
        self.first_metric = machine.wait_for(start, "the first metric")
        machine.run(loop)
        machine.wait_for("curl --silent --fail http://127.0.0.1:9090/-/ready", "Prometheus")
        machine.wait_for("curl --silent --fail http://127.0.0.1:9093/-/ready", "Alertmanager")
        self.journal = machine.run(every_day).stdout

    def show(self, service: str, name: str) -> str:
        """Return a property that systemd has for a service."""
        return self.machine.run(
            f"systemctl show --value --property={name} {service}"
        ).stdout.strip()

    def pid(self, service: str) -> str:
        """Return the pid of a service's program."""
        return self.show(service, "MainPID")
