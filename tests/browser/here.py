"""A hook in the tests' own process, whose long waits a test can shorten."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from werkzeug.serving import make_server

from reconnect_hook.app import create_app
from reconnect_hook.dashboard.register import add_page
from reconnect_hook.metrics import HookMetrics
from reconnect_hook.supervisor import HookSupervisor, open_store
from tests.support.hooks import TOKEN
from zapwatch.config import parse


@contextmanager
def hook_here(values: Mapping[str, str], api: str = "wrapper") -> Iterator[str]:
    """Run it with these settings for a gateway with this API; give its address."""
    settings = parse(dict(values))
    metrics = HookMetrics()
    supervisor = HookSupervisor(settings, open_store(settings), metrics)
    supervisor.apply_config([replace(settings.gateways[0], type=api)])
    app = create_app(supervisor, metrics, token=TOKEN)
    add_page(app, supervisor, settings)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line for each request
    server = make_server("127.0.0.1", 0, app, threaded=True)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
        supervisor.stop(5)
