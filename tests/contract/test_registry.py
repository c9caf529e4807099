"""Whatever the registry names has all that an adapter needs, in files of its own name."""

from __future__ import annotations

import importlib
import re

import pytest

from demo.configuration import ROOT
from demo.simulator.apis.registry import APIS
from tests.contract.suite import GatewayContract
from zapwatch.gateways import TYPES
from zapwatch.gateways.declared import shipped
from zapwatch.gateways.registry import ADAPTERS


def test_the_settings_know_each_adapter() -> None:
    assert tuple(ADAPTERS) == TYPES


def test_each_adapter_has_a_simulator() -> None:
    assert set(APIS) == set(ADAPTERS)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_each_part_of_a_gateway_has_its_name_and_stands_in_the_table(kind: str) -> None:
    name = kind.replace("-", "_")
    parts = [
        f"zapwatch/gateways/{kind}.yaml" if kind in shipped() else f"zapwatch/gateways/{name}.py",
        f"demo/simulator/apis/{name}.py",
        f"tests/contract/test_{name}.py",
        f"docs/gateways/{kind}.md",
        f"docs/pt-BR/gateways/{kind}.md",
    ]
    assert [part for part in parts if not (ROOT / part).is_file()] == []
    assert APIS[kind].__module__ == f"demo.simulator.apis.{name}"
    page = (ROOT / "docs/gateways/README.md").read_text().partition("### Where each one is")[2]
    [row] = [line for line in page.splitlines() if line.startswith(f"| `{kind}` |")]
    told = [re.sub(r".*\((.*)\)", r"docs/gateways/\1", cell.strip("` ")) for cell in row.split("|")]
    assert [part.replace("gateways/../", "") for part in told[2:-1]] == parts


@pytest.mark.parametrize("kind", ADAPTERS)
def test_each_adapter_has_its_contract_test(kind: str) -> None:
    module = importlib.import_module(f"tests.contract.test_{kind.replace('-', '_')}")
    tested = [
        one.kind
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, GatewayContract) and "kind" in vars(one)
    ]
    assert set(tested) == {kind}
