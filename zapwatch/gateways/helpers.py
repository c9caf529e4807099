"""What the adapters share: ids in paths, numbers, codes, parallel calls, starts."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from urllib.parse import quote

from zapwatch.channels import is_usable_id
from zapwatch.clock import Clock
from zapwatch.gateways.base import Failure, GatewayErrorKind, PairingCode


def in_path(channel_id: str) -> str:
    """Return an id as one part of a path; raise Failure where no URL can hold it."""
    if not is_usable_id(channel_id):
        raise Failure(GatewayErrorKind.INVALID, "a channel id that no URL can hold")
    return quote(channel_id, safe="")


_LONGEST = 15  # digits of a phone number, by ITU-T E.164


def number_of(jid: object) -> str | None:
    """Return the digits of ``55...@c.us`` or ``55...[.0]:7@s.whatsapp.net``; else None.

    ``@lid`` names an account without its number.
    """
    if not isinstance(jid, str):
        return None
    digits, _, server = jid.partition("@")
    digits = digits.partition(":")[0].partition(".")[0].removeprefix("+")
    known = server in {"", "c.us", "s.whatsapp.net"}
    return digits if known and _is_number(digits) else None


_SHORTEST = 8
_WITH_NINTH = re.compile(r"(55[1-9]{2})9(\d{8})")
_WITHOUT_NINTH = re.compile(r"(55[1-9]{2})([6-9]\d{7})")  # those of mobile phones


def phone_number(text: str) -> str | None:
    """Return the digits of a number as people type it, None where it cannot be one.

    Its country code must be there: no such code begins with a zero.
    """
    digits = re.sub(r"[\s().+-]", "", text)
    usable = _is_number(digits) and len(digits) >= _SHORTEST and not digits.startswith("0")
    return digits if usable else None


def other_form(number: str) -> str | None:
    """Return a Brazilian mobile number with the ninth digit, or without where it has one.

    WhatsApp knows a number in the form in which it was registered. None for any other number.
    """
    if found := _WITH_NINTH.fullmatch(number):
        return "".join(found.groups())
    if found := _WITHOUT_NINTH.fullmatch(number):
        return "9".join(found.groups())
    return None


_PAIRING_CODE = re.compile(r"([A-Z0-9]{4})-?([A-Z0-9]{4})")


def read_pairing_code(told: object, seconds: float) -> PairingCode:
    """Return what a gateway tells as a pairing code; raise Failure where it is none."""
    found = _PAIRING_CODE.fullmatch(told) if isinstance(told, str) else None
    if found is None:
        raise Failure(GatewayErrorKind.INVALID, "an answer without a pairing code")
    return PairingCode("-".join(found.groups()), seconds)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST


_T = TypeVar("_T")
_AT_ONCE = 8


def map_concurrently(ids: Sequence[str], ask: Callable[[str], _T]) -> list[_T | Failure]:
    """Return what ``ask`` returns for each id, or the Failure that it raised.

    Where all of them failed it is the gateway that did: the first Failure is raised.
    """

    def asked(channel_id: str) -> _T | Failure:
        try:
            return ask(channel_id)
        except Failure as failure:
            return failure

    if not ids:
        return []
    with ThreadPoolExecutor(min(_AT_ONCE, len(ids)), thread_name_prefix="sessions") as pool:
        answers = list(pool.map(asked, ids))
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    if len(failures) == len(answers):
        raise failures[0]
    return answers


class SessionStartTracker:
    """Session starts of one gateway; safe to share between threads."""

    def __init__(self, *, settle_seconds: float, clock: Clock | None = None) -> None:
        """Take the grace period after a start."""
        self._settle_seconds = settle_seconds
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._started_at: dict[str, float] = {}

    def started(self, channel_id: str) -> None:
        """Record a start."""
        with self._lock:
            self._started_at[channel_id] = self._clock.monotonic()

    def in_grace_period(self, channel_id: str) -> bool:
        """Whether it was started so recently that no call about it may be made."""
        with self._lock:
            started_at = self._started_at.get(channel_id)
            if started_at is None:
                return False
            if self._clock.monotonic() - started_at < self._settle_seconds:
                return True
            del self._started_at[channel_id]
            return False
