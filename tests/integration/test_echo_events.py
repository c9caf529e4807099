"""An echo that no message log tells of: from a real hook, through a gateway, to a real exporter."""

from __future__ import annotations

from pathlib import Path

from demo.simulator.client import Simulator
from demo.simulator.server import SimulatorServer
from tests.support.hooks import SECRET
from tests.support.programs import Program, run_here
from tests.support.waiting import wait_until

_TOKEN = "not-a-real-token-of-messages"
_HEARD = "whatsapp_channel_seconds_since_last_heard"


def test_the_command_hears_its_echo_in_what_the_exporter_was_posted(
    tmp_path: Path,
) -> None:
    with SimulatorServer(SECRET, api="waha") as server:
        simulator = Simulator(server.url)
        simulator.traffic(paused=True)
        for name in ("loja", "obra"):
            simulator.put_channel(name)
        (tmp_path / "gateways.yaml").write_text(
            f"gateways:\n- {{name: wpp, type: waha, url: '{server.url}', secret: {SECRET},"
            f" messages: events, messages_token: {_TOKEN}, probe: echo}}\n"
        )
        settings = {
            "GATEWAYS_FILE": str(tmp_path / "gateways.yaml"),
            "MESSAGES_STATE_URL": f"sqlite:///{tmp_path}/messages.sqlite3",
            "EXPORTER_LISTEN": "127.0.0.1:0",
            "EXPORTER_POLL_SECONDS": "0.1",
            "HOOK_STATE_URL": f"sqlite:///{tmp_path}/state.sqlite3",
        }
        with Program(tmp_path, "exporter", settings=settings) as exporter:
            simulator.webhook(url=f"{exporter.url}/messages/wpp", token=_TOKEN)
            wait_until(lambda: exporter.get("/-/ready").status_code == 200, 60, "all sources")

            asked = run_here(tmp_path, "reconnect_hook", "probe", "loja", settings=settings)

            assert (asked.returncode, asked.stdout) == (0, "loja: working, probed by echo\n")
            heard = wait_until(
                lambda: exporter.metrics().all(_HEARD, gateway="wpp"), 60, "the clock to move"
            )
            assert list(heard) == [("loja",)], "not the sender's"
            traffic = exporter.metrics().all("whatsapp_channel_messages_total", gateway="wpp")
            assert sum(traffic.values()) == 0
        assert server.gateway.still_there() == []
