"""The hook's application in the test's process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flask.testing import FlaskClient
from werkzeug.serving import make_server

from reconnect_hook.app import Heartbeat, create_app
from reconnect_hook.dashboard.register import add_page
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.supervisor import HookSupervisor, open_store
from tests.support.clock import AheadClock
from tests.support.hooks import TOKEN, hook_settings
from zapwatch.config import Settings, parse

NOBODY = "http://127.0.0.1:1"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class HookApp:
    """The hook's application with workers."""

    def __init__(self, settings: Settings) -> None:
        self.clock = AheadClock()
        self.metrics = HookMetrics()
        self._store = open_store(settings)
        self.supervisor = HookSupervisor(settings, self._store, self.metrics)
        self.supervisor.apply_config(settings.gateways)
        self.state_url = settings.hook_state_url
        token = settings.hook_token
        self.app = create_app(self.supervisor, self.metrics, token=token, clock=self.clock)
        self.heartbeat = Heartbeat(settings.heartbeat_url, self.clock)
        add_page(self.app, self.supervisor, settings, self.heartbeat, clock=self.clock)
        self.http = self.app.test_client()

    def close(self) -> None:
        self.supervisor.stop(5)
        self._store.database.close()

    def browser(self) -> FlaskClient:
        return self.app.test_client()

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve it on a port and give its address; closed afterwards."""
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line for each request
        server = make_server("127.0.0.1", 0, self.app, threaded=True)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()
            server.server_close()
            self.close()


class Site(HookApp):
    """That of a gateway at a URL, without Prometheus and Alertmanager."""

    def __init__(self, url: str, token: str = TOKEN, **more: str) -> None:
        away = {"PROMETHEUS_URL": NOBODY, "ALERTMANAGER_URL": NOBODY}
        super().__init__(parse(hook_settings(url, HOOK_TOKEN=token, **{**away, **more})))
