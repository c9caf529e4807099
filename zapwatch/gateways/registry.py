"""Which adapters there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from zapwatch.channels import NamedChannel
from zapwatch.gateways.base import NO_BUDGET, ChannelList, Gateway, Observer
from zapwatch.gateways.budget import CallBudget, ListBudget
from zapwatch.gateways.declaration import Declaration
from zapwatch.gateways.declared import adapter_for, shipped
from zapwatch.gateways.evolution import EvolutionGateway
from zapwatch.gateways.waha import WahaGateway
from zapwatch.gateways.whapi import WhapiGateway
from zapwatch.gateways.wppconnect import WppconnectGateway
from zapwatch.gateways.wrapper import WrapperGateway
from zapwatch.http import HttpAccess

ADAPTERS: Mapping[str, type[Gateway]] = {
    "wrapper": WrapperGateway,
    "wppconnect": WppconnectGateway,
    "evolution": EvolutionGateway,
    "waha": WahaGateway,
    "whapi": WhapiGateway,
    **{name: adapter_for(declared) for name, declared in shipped().items()},
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

    @property
    def user(self) -> str:
        """Of a proxy before it; empty where none asks."""

    @property
    def password(self) -> str:
        """Of that user."""

    @property
    def channels(self) -> Sequence[NamedChannel]:
        """Those that the settings name."""

    @property
    def messages(self) -> str:
        """Where the ages come from: a MessageSourceKind."""

    @property
    def declaration(self) -> Declaration | None:
        """The description of its type, where that is a file of the user's."""

    @property
    def requests_per_month(self) -> int | None:
        """What all programs together may send; None where there is no such limit."""

    @property
    def ignore(self) -> frozenset[str]:
        """Keys of the channels that no list shall have."""

    @property
    def webhook(self) -> str:
        """Where WPPConnect's sessions post; empty where that is not told."""

    @property
    def ignore_stopped(self) -> bool:
        """Whether no list shall have sessions that are stopped."""


def adapter_of(access: Access) -> type[Gateway]:
    """Return the adapter's class for a gateway."""
    if access.declaration is not None:
        return adapter_for(access.declaration)
    return ADAPTERS[access.type]


def make_gateway(access: Access, *, observe: Observer, polls: bool = False) -> Gateway:
    """Return the adapter for a gateway, without the channels that its operator leaves out.

    ``polls``: it only lists, as often as it is allowed to.
    """
    per_month = access.requests_per_month
    kind = ListBudget if polls else CallBudget
    options: dict[str, Any] = {"activity": access.messages == "activity"} if access.channels else {}
    if access.type == "wppconnect":
        options["webhook"] = access.webhook
    gateway = adapter_of(access)(
        access.base_url,
        access.secret,
        list_timeout=access.timeout,
        qr_timeout=access.qr_timeout,
        access=HttpAccess(access.ca_file, access.user, access.password),
        channels=access.channels,
        budget=kind(per_month) if per_month else NO_BUDGET,
        observe=observe,
        **options,
    )
    if access.ignore or access.ignore_stopped:
        # Here, so that no adapter can forget it.
        list_all = gateway.list_channels
        gateway.list_channels = lambda: _leave_out(list_all(), access)  # type: ignore[method-assign]
    return gateway


def _leave_out(listed: ChannelList, access: Access) -> ChannelList:
    ignored = {
        channel.id
        for channel in listed.channels
        if channel.key in access.ignore or (access.ignore_stopped and channel.stopped)
    }
    channels = tuple(channel for channel in listed.channels if channel.id not in ignored)
    return ChannelList(channels, listed.left_out, tuple(sorted(ignored)))
