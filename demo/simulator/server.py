"""The simulator's HTTP server, in this process."""

import contextlib
import socket
import ssl
import threading
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Engine
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from demo.simulator.apis.registry import APIS
from demo.simulator.app import create_app
from demo.simulator.control import Control
from demo.simulator.faults import FaultBook
from demo.simulator.journal import Journal
from demo.simulator.model import SimulatedGateway
from demo.simulator.responses import resets_on_close
from demo.simulator.traffic import Traffic
from demo.simulator.webhook import Webhook
from zapwatch.clock import Clock

_BACKLOG = 128


class _Handler(WSGIRequestHandler):
    """Handler without log: the journal records the calls."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        """Log nothing."""

    def connection_dropped(self, *_: Any, **__: Any) -> None:
        """Close the connection of a truncated response; werkzeug leaves it open for a next call."""
        self.close_connection = True


class _Server(ThreadedWSGIServer):
    """One thread per connection, so that calls on hold never delay others."""

    def shutdown_request(self, request: Any) -> None:
        """Close a connection; one that is marked for a reset gets only the reset."""
        with contextlib.suppress(OSError):
            if resets_on_close(request):
                self.close_request(request)
                return
        super().shutdown_request(request)


class SimulatorServer:
    """A simulated gateway in this process; use it in a `with` statement, or start and stop it."""

    def __init__(
        self,
        secret: str,
        *,
        api: str = "wrapper",
        host: str = "127.0.0.1",
        port: int = 0,
        message_log: Engine | None = None,
        traffic_seconds: float = 3.0,
        clock: Clock | None = None,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        self.gateway = SimulatedGateway(clock)
        self.faults = FaultBook()
        journal = Journal(self.gateway.clock)
        self.calls = journal.calls
        self._traffic = Traffic(self.gateway, message_log, traffic_seconds, api)
        self._webhook = Webhook(self.gateway, APIS[api])
        app = create_app(
            APIS[api](self.gateway, self.faults, journal, secret).blueprint(),
            Control(self.gateway, self.faults, journal, self._traffic, self._webhook).blueprint(),
        )
        self._server = _listen(host, port, app)
        if tls is not None:
            _use_tls(self._server, *tls)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if tls is None else 'https'}://{shown}:{self._server.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="simulator", daemon=True
        )

    def start(self) -> None:
        """Start server, webhook and traffic."""
        self._thread.start()
        self._webhook.start()
        self._traffic.start()

    def stop(self) -> None:
        """Stop listening, release the calls on hold, and stop the traffic."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self.faults.clear()
        self._traffic.stop()
        self._webhook.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _listen(host: str, port: int, app: Any) -> _Server:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Bound here, because werkzeug exits the process if it cannot bind.
    with socket.create_server((host, port), family=family, backlog=_BACKLOG) as listener:
        return _Server(host, port, app, handler=_Handler, fd=listener.fileno())


def _use_tls(server: _Server, certificate: Path, key: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    # The connection's own thread does the handshake: otherwise a client that never completes it
    # would block all other connections.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.ssl_context = context
