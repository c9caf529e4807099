"""WPPConnect Server's bearer tokens, one for each session, made from the secret key."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from whatsapp.gateways.answers import Answer, Failure
from whatsapp.gateways.connection import Calls
from whatsapp.gateways.gateway import Reason


class Tokens:
    """Makes tokens where they are wanted and remembers them; safe to share between threads."""

    def __init__(self, key: str) -> None:
        """``key`` is the secret key as a part of a path."""
        self._key = key
        self._lock = threading.Lock()
        self._tokens: dict[str, str] = {}

    def send(
        self,
        calls: Calls,
        method: str,
        session: str,
        path: str,
        body: Mapping[str, object] | None = None,
    ) -> Answer:
        """Return the answer to a call about a session (quoted), with a new token after a 401."""
        with self._lock:
            token = self._tokens.get(session)
        if token is not None:
            answer = calls.send(method, f"/api/{session}/{path}", body, token=token)
            if answer.status != 401:
                return answer
        token = self._make(calls, session)
        return calls.send(method, f"/api/{session}/{path}", body, token=token)

    def _make(self, calls: Calls, session: str) -> str:
        answer = calls.post(f"/api/{session}/{self._key}/generate-token")
        if answer.status == 400:
            raise Failure(Reason.UNAUTHORIZED, "HTTP 400, wrong secret key?")
        token = answer.checked().get("token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise Failure(Reason.INVALID, "JSON without a token")
        with self._lock:
            self._tokens[session] = token
        return token
