"""What all adapters share: one server, a secret, the time that a call may take."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import quote

from whatsapp.channels import is_usable_id
from whatsapp.gateways.answers import Failure, expect_image
from whatsapp.gateways.connection import Connection
from whatsapp.gateways.gateway import Gateway, Observer, Operation, Reason

HINTS = {
    Reason.TIMEOUT: "the gateway hangs, or a firewall drops what is sent to this port",
    Reason.CONNECTION: "nothing answers there: is the port right, and does the gateway run?",
    Reason.TLS: "the certificate or TLS itself: is it https, and the host's own name?",
    Reason.UNAUTHORIZED: "the secret is wrong: compare the fingerprint with the gateway's",
    Reason.HTML: "a web server or proxy answered, not the gateway: is the port right?",
    Reason.HTTP: "the gateway answered, but not with its list: look at its log",
    Reason.INVALID: "no channel found or invalid answer: is this the gateway's base URL?",
}
"""What is most likely wrong with any gateway; an adapter replaces what it knows better."""


class HttpGateway(Gateway):
    """A gateway with an HTTP API. ``ca_file``: PEM certificates to trust instead of public ones."""

    credential_header: ClassVar[str | None] = None
    """The header that carries the secret, where it is the same one in each call."""

    def __init__(
        self,
        base_url: str,
        secret: str,
        *,
        list_timeout: float = 90.0,
        qr_timeout: float = 60.0,
        ca_file: str | None = None,
        observe: Observer = lambda _operation, _seconds, _reason: None,
    ) -> None:
        """Let the list take ``list_timeout`` seconds, and every other call ``qr_timeout``."""
        self._base_url = base_url.rstrip("/")
        self._list_timeout = list_timeout
        self._qr_timeout = qr_timeout
        self._connection = Connection(
            self._base_url,
            secret,
            headers={self.credential_header: secret} if self.credential_header else {},
            ca_file=ca_file,
            observe=observe,
        )

    def get_image(self, url: str) -> bytes:
        """Return the image that a QR answer links to; the gateway's own server is asked alone."""
        with self._connection.operation(Operation.QR, self._qr_timeout) as calls:
            if not url.startswith(f"{self._base_url}/"):
                raise Failure(Reason.INVALID, "a QR code at some other server")
            return expect_image(calls.get(url.removeprefix(self._base_url)))

    def close(self) -> None:
        """Let go of what the calls share."""
        self._connection.close()


def in_path(channel_id: str) -> str:
    """Return an id as one part of a path; raise Failure where no URL can hold it."""
    if not is_usable_id(channel_id):
        raise Failure(Reason.INVALID, "a channel id that no URL can hold")
    return quote(channel_id, safe="")
