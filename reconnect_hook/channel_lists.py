"""One channel list for all repairs that want one at the same time: the call is dear."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from whatsapp.channels import Channel
from whatsapp.gateway import GatewayClient, GatewayError


class ChannelLists:
    """Hands out the gateway's list; for any number of threads."""

    def __init__(self, client: GatewayClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._answer: Mapping[str, Channel] | GatewayError = {}

    def since(self, moment: float) -> Mapping[str, Channel]:
        """Return the channels by key, from a list that was asked for at ``moment`` or later.

        ``moment`` is of time.monotonic(). Raises GatewayError, also the one that another thread
        got from such a list.
        """
        # Who waits here for another thread's call finds its answer, unless it came too early.
        with self._lock:
            if self._asked_at < moment:
                asked_at = time.monotonic()
                try:
                    listed = self._client.list_channels().channels
                    self._answer = {channel.key: channel for channel in listed}
                except GatewayError as error:
                    self._answer = error
                self._asked_at = asked_at
            answer = self._answer
        if isinstance(answer, GatewayError):
            raise answer.with_traceback(None)
        return answer
