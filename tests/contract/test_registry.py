"""Whatever the registry names has all that an adapter needs."""

from __future__ import annotations

import importlib

import pytest

from demo.configuration import ROOT
from demo.simulator.apis.registry import APIS
from tests.contract.suite import GatewayContract
from zapwatch.gateways import TYPES
from zapwatch.gateways.registry import ADAPTERS


def test_the_settings_know_each_adapter() -> None:
    assert tuple(ADAPTERS) == TYPES


def test_each_adapter_has_a_simulator() -> None:
    assert set(APIS) == set(ADAPTERS)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_each_adapter_has_its_contract_test_and_its_page(kind: str) -> None:
    module = importlib.import_module(f"tests.contract.test_{kind.replace('-', '_')}")
    tested = [
        one.kind
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, GatewayContract) and one is not GatewayContract
    ]
    assert tested == [kind]
    folder = ROOT / "docs" / "gateways"
    assert (folder / f"{kind}.md").is_file()
    assert f"]({kind}.md)" in (folder / "README.md").read_text()
