"""What an entry of gateways.yaml says of the secrets of a simulated gateway."""

from __future__ import annotations

from collections.abc import Iterable

from demo.simulator.apis.whapi import token_of
from zapwatch.gateways import NAMED_CHANNELS


def secrets_of(kind: str, secret: str, channels: Iterable[str]) -> dict[str, object]:
    """Return its secret, or its channels with one each where the gateway has no list."""
    if kind not in NAMED_CHANNELS:
        return {"secret": secret}
    return {"channels": [{"name": one, "secret": token_of(secret, one)} for one in channels]}
