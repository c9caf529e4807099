"""Following a guide of the docs on a machine of a test's own."""

from __future__ import annotations

import re

from tests.support.machine import CHECKOUT, Machine
from tests.support.release import ROOT

SECRET = "not-a-real-secret-of-the-machine"
GATEWAY = "http://127.0.0.1:8443"

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


def blocks(guide: str = "install.md") -> list[str]:
    """Return what a guide says is to be typed, block by block."""
    text = (ROOT / "docs" / guide).read_text()
    return re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def simulate(machine: Machine, call: str) -> None:
    """Call a method of the simulated gateway's client."""
    code = f"from stack.simulator.client import Simulator; Simulator('{GATEWAY}').{call}"
    machine.run(f'.venv/bin/python -c "{code}"')
