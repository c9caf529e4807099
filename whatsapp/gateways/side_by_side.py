"""Asks a gateway about many sessions at a time, so that one that hangs does not hold up others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from whatsapp.gateways.answers import Failure

_T = TypeVar("_T")
_AT_ONCE = 8


def ask_each(ids: Sequence[str], ask: Callable[[str], _T]) -> list[_T | Failure]:
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
