"""Secrets of a simulated gateway as keys of an entry in gateways.yaml."""

from __future__ import annotations

from collections.abc import Iterable

from demo.simulator.apis.whapi import token_of
from zapwatch.gateways import NAMED_CHANNELS


def secrets_of(kind: str, secret: str, channels: Iterable[str]) -> dict[str, object]:
    """Return the gateway's secret; for a gateway without a list, one for each channel."""
    if kind not in NAMED_CHANNELS:
        return {"secret": secret}
    return {"channels": [{"name": one, "secret": token_of(secret, one)} for one in channels]}
