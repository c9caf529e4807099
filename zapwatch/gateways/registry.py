"""Which adapters there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from zapwatch.gateways.base import Gateway, Observer
from zapwatch.gateways.evolution import EvolutionGateway
from zapwatch.gateways.waha import WahaGateway
from zapwatch.gateways.wppconnect import WppconnectGateway
from zapwatch.gateways.wrapper import WrapperGateway

ADAPTERS: Mapping[str, type[Gateway]] = {
    "wrapper": WrapperGateway,
    "wppconnect": WppconnectGateway,
    "evolution": EvolutionGateway,
    "waha": WahaGateway,
}
"""The adapters by the ``type`` that the settings name: zapwatch.gateways.TYPES."""


class Access(Protocol):
    """How a gateway is reached: the part of its settings that an adapter needs."""

    @property
    def type(self) -> str:
        """A name in ADAPTERS."""

    @property
    def base_url(self) -> str:
        """Without a slash at its end."""

    @property
    def secret(self) -> str:
        """Which every call carries."""

    @property
    def timeout(self) -> float:
        """Seconds for the list."""

    @property
    def qr_timeout(self) -> float:
        """Seconds for every other call."""

    @property
    def ca_file(self) -> str | None:
        """Certificates to trust instead of the public ones."""


def make_gateway(access: Access, *, observe: Observer) -> Gateway:
    """Return the adapter for a gateway."""
    return ADAPTERS[access.type](
        access.base_url,
        access.secret,
        list_timeout=access.timeout,
        qr_timeout=access.qr_timeout,
        ca_file=access.ca_file,
        observe=observe,
    )
