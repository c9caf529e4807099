"""The watch over QR codes, on a simulated gateway."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from demo.simulator.client import Simulator
from demo.simulator.qr_image import png
from demo.simulator.server import SimulatorServer
from reconnect_hook.dashboard import qr
from reconnect_hook.dashboard.qr import QrState, QrWatches
from tests.support.hooks import SECRET
from tests.support.waiting import TIMEOUT, wait_until
from zapwatch.gateways.wrapper import WrapperGateway


@pytest.fixture
def simulator(simulator: Simulator) -> Simulator:
    simulator.put_channel("loja", session="unpaired")
    return simulator


class Watched:
    """The watches, and what they told."""

    def __init__(self, simulator: Simulator) -> None:
        self.connected: list[str] = []
        client = WrapperGateway(simulator.url, SECRET, qr_timeout=TIMEOUT)
        self.watches = QrWatches(client, self.connected.append)

    def wait_for(self, state: QrState, channel: str = "loja") -> int:
        wait_until(lambda: self.watches.look(channel)[0] is state, state)
        return self.watches.look(channel)[1]


@pytest.fixture
def watched(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr(qr, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(qr, "_FAILED_PAUSE_SECONDS", 0.05)
    yield Watched(simulator)
    monkeypatch.setattr(qr, "_LOOKED_AT_SECONDS", 0.0)
    simulator.clear_faults()
    wait_until(lambda: not _asking(), "the asking to end")


def _asking() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "qr"]


def test_a_code_is_renewed_until_it_is_scanned(simulator: Simulator, watched: Watched) -> None:
    first = watched.wait_for(QrState.CODE)
    wait_until(lambda: watched.watches.look("loja")[1] > first + 1, "other codes")
    assert watched.watches.image("loja") is not None
    assert watched.connected == []
    simulator.scan("loja")
    watched.wait_for(QrState.CONNECTED)
    assert watched.connected == ["loja"]
    assert watched.watches.scanned("loja")
    assert watched.watches.image("loja") is None
    wait_until(lambda: not _asking(), "the asking to end")
    asked = len(simulator.requests("qr"))
    assert watched.watches.look("loja")[0] is QrState.CONNECTED
    assert len(simulator.requests("qr")) == asked, "it is known"


def test_it_ends_when_nobody_looks_any_more(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.wait_for(QrState.CODE)
    monkeypatch.setattr(qr, "_LOOKED_AT_SECONDS", 0.2)
    wait_until(lambda: not _asking(), "the asking to end")
    assert watched.watches.image("loja") is None, "and the code is forgotten"
    monkeypatch.setattr(qr, "_LOOKED_AT_SECONDS", 5.0)
    watched.wait_for(QrState.CODE)


def test_a_session_that_was_not_started_is_started_once(
    simulator: Simulator, watched: Watched
) -> None:
    simulator.put_channel("nova", session="not_started", start_seconds=3600)
    watched.wait_for(QrState.STARTING, "nova")
    simulator.put_channel("nova", session="unpaired")
    watched.wait_for(QrState.CODE, "nova")
    assert len(simulator.requests("start_session")) == 1


def test_a_link_to_the_gateways_own_server_is_followed(
    simulator: Simulator, watched: Watched
) -> None:
    simulator.put_channel("loja", qr_text=f"{simulator.url}/sim/qr-images/7.png")
    watched.wait_for(QrState.CODE)
    image = watched.watches.image("loja")
    assert image is not None
    assert image.data == png(7)


def test_a_link_to_elsewhere_is_not_followed(simulator: Simulator, watched: Watched) -> None:
    with SimulatorServer(SECRET) as other:
        # What stands before the @ is a user's name: this is the other server's address.
        link = f"{simulator.url}@{other.url.removeprefix('http://')}/sim/qr-images/1.png"
        simulator.put_channel("loja", qr_text=link)
        watched.wait_for(QrState.FAILED)
        assert watched.watches.image("loja") is None


def test_a_gateway_that_fails_is_asked_again(simulator: Simulator, watched: Watched) -> None:
    simulator.fault("qr", "html_502")
    watched.wait_for(QrState.FAILED)
    simulator.clear_faults()
    watched.wait_for(QrState.CODE)


def test_what_is_no_image_is_told(simulator: Simulator, watched: Watched) -> None:
    simulator.put_channel("loja", qr_text="data:image/svg+xml;base64,PHN2Zz4=")
    watched.wait_for(QrState.UNREADABLE)
    assert watched.watches.image("loja") is None


def test_only_so_many_codes_are_asked_for_at_a_time(
    simulator: Simulator, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qr, "MOST_AT_ONCE", 1)
    simulator.put_channel("other", session="unpaired")
    watched.wait_for(QrState.CODE)
    assert watched.watches.look("other") == (QrState.BUSY, 0)
    assert len(_asking()) == 1
