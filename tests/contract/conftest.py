"""What all tests of adapters need."""

from __future__ import annotations

import pytest

from zapwatch.gateways import evolution, wppconnect


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no adapter wait until a session has settled."""
    monkeypatch.setattr(wppconnect, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(evolution, "_STEADY_PAUSE", 0.0)
