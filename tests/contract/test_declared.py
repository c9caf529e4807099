"""The adapter for described gateways, with one that Zapwatch also has an adapter for."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tests.contract.suite import GatewayContract
from zapwatch.channels import Status
from zapwatch.gateways.declaration import Declaration, read_file

_WAHA = read_file(Path(__file__).with_name("declared_waha.yaml"))["described-waha"]


class TestDescribedWaha(GatewayContract):
    kind = "waha"
    declaration: ClassVar[Declaration | None] = _WAHA
    statuses = {  # noqa: RUF012
        "WORKING": Status.CONNECTED,
        "STOPPED": Status.DISCONNECTED,
        "FAILED": Status.DISCONNECTED,
        "STARTING": Status.INITIALIZING,
        "SCAN_QR_CODE": Status.QR_REQUIRED,
    }
    heals_with: ClassVar[list[str]] = ["restart"]
