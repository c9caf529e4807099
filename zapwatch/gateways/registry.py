"""Which adapters there are, and how many requests a month each may send.

Both programs ask the same account and share nothing, so each has a part of its budget of its own:
the exporter three quarters, for its lists, and whatever else makes calls the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from zapwatch.channels import NamedChannel
from zapwatch.clock import Clock
from zapwatch.gateways.base import NO_BUDGET, ChannelList, Gateway, Observer, RequestBudget
from zapwatch.gateways.declaration import Declaration
from zapwatch.gateways.declared import adapter_for, shipped
from zapwatch.gateways.evolution import EvolutionGateway
from zapwatch.gateways.waha import WahaGateway
from zapwatch.gateways.whapi import WhapiGateway
from zapwatch.gateways.wppconnect import WppconnectGateway
from zapwatch.gateways.wrapper import WrapperGateway
from zapwatch.http import HttpAccess

_List = TypeVar("_List")
MONTH_SECONDS = 30 * 86400.0
_FOR_LISTS = 0.75
_AT_ONCE = 0.1  # of what calls may cost in a month
_UNSENT = ("connection", "tls")  # reasons of errors

ADAPTERS: Mapping[str, type[Gateway]] = {
    "wrapper": WrapperGateway,
    "wppconnect": WppconnectGateway,
    "evolution": EvolutionGateway,
    "waha": WahaGateway,
    "whapi": WhapiGateway,
    **{name: adapter_for(declared) for name, declared in shipped().items()},
}
"""The adapters by the ``type`` that the settings name: zapwatch.gateways.TYPES."""


class CallBudget(RequestBudget):
    """The part for calls: a tenth of it at once, the rest as the month goes by.

    So no 30 days have more than the whole, wherever they begin. Safe to share between threads.
    """

    def __init__(self, per_month: int, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        calls = per_month * (1 - _FOR_LISTS)
        self._most = calls * _AT_ONCE
        self._per_second = calls * (1 - _AT_ONCE) / MONTH_SECONDS
        self._left = self._most
        self._at = self._clock.monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take one request out of the budget; false where none is left."""
        with self._lock:
            self._refill()
            if self._left < 1:
                return False
            self._left -= 1
            return True

    def spares(self, requests: int) -> bool:
        """Whether half of what may be used at once remains after this many requests."""
        with self._lock:
            self._refill()
            return self._left - requests >= self._most / 2

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now


class ListBudget(RequestBudget):
    """The part for lists: one as often as the month allows, and the last one again in between.

    For one thread. An error is kept as a list is, so that a gateway which fails costs no more,
    unless no request has reached the gateway.
    """

    def __init__(self, per_month: int, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._per_month = per_month * _FOR_LISTS
        self._next = float("-inf")
        self._answer: Any = None

    def listed(self, requests: int, ask: Callable[[], _List]) -> _List:
        """Return the list that ``ask`` makes with so many requests, or the last one."""
        now = self._clock.monotonic()
        if now >= self._next:
            # So many lists have one pause less between them.
            pauses = max(1, self._per_month // requests - 1)
            self._next = now + MONTH_SECONDS / pauses
            try:
                self._answer = ask()
            except Exception as error:  # noqa: BLE001 - it is raised below
                self._answer = error
                if getattr(error, "reason", None) in _UNSENT:
                    self._next = now
        if isinstance(self._answer, Exception):
            raise self._answer.with_traceback(None)
        return self._answer  # type: ignore[no-any-return]


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
