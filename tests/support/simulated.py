"""HTTP calls to the simulated gateway's API."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any
from urllib.parse import quote

import requests

from tests.support.hooks import SECRET

PNG = b"\x89PNG\r\n\x1a\n"
CONNECTED = {
    "success": True,
    "qr": None,
    "status": "CONNECTED",
    "message": "The session is connected, no QR code is needed",
}


class Api:
    """Calls the gateway, by default with the right secret."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __call__(
        self, method: str, path: str, secret: str | bytes | None = SECRET, **options: Any
    ) -> requests.Response:
        headers = {} if secret is None else {"X-Gateway-Secret": secret}
        with requests.Session() as session:
            session.trust_env = False
            url = f"{self.url}/api/{path}"
            return session.request(method, url, headers=headers, timeout=20, **options)

    def qr(self, channel: str) -> Any:
        return self("GET", f"channels/{quote(channel, safe='')}/qr").json()

    def start_session(self, channel: str) -> Any:
        return self("POST", f"channels/{quote(channel, safe='')}/start-session").json()

    def statuses(self) -> dict[str, str]:
        return {one["id"]: one["status"] for one in self("GET", "channels").json()["channels"]}


def in_background(api: Api, method: str, path: str) -> Future[requests.Response]:
    """Make a call in another thread."""
    answer = Future[requests.Response]()
    call = threading.Thread(target=lambda: answer.set_result(api(method, path)), daemon=True)
    call.start()
    return answer
