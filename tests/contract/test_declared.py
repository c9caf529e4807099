"""The adapter for described gateways, with one that Zapwatch also has an adapter for."""

from __future__ import annotations

from typing import ClassVar

from tests.contract.suite import DECLARED_WAHA, GatewayContract
from zapwatch.channels import Status
from zapwatch.gateways.declaration import Declaration


class TestDescribedWaha(GatewayContract):
    kind = "waha"
    declaration: ClassVar[Declaration | None] = DECLARED_WAHA
    statuses = {  # noqa: RUF012
        "WORKING": Status.CONNECTED,
        "STOPPED": Status.DISCONNECTED,
        "FAILED": Status.DISCONNECTED,
        "STARTING": Status.INITIALIZING,
        "SCAN_QR_CODE": Status.QR_REQUIRED,
    }
    heals_with: ClassVar[list[str]] = ["restart"]
