"""The floors: no import upwards, no import circle, no class name twice, no flood of modules."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter

import pytest

from demo.configuration import ROOT

_PACKAGES = ("zapwatch", "exporter", "reconnect_hook")
_MOST_MODULES = 92
# What the modules of each package must not import, at the top or inside a function.
_FLOORS = {
    "zapwatch": ("exporter", "reconnect_hook", "demo", "tests", "benchmarks"),
    "exporter": ("reconnect_hook", "demo", "tests", "benchmarks"),
    "reconnect_hook": ("exporter", "demo", "tests", "benchmarks"),
}
# The composition root: the program that puts the dashboard on top of the hook.
_ABOVE_THE_DASHBOARD = "reconnect_hook.__main__"


@cache
def _modules() -> dict[str, ast.Module]:
    """Return each product module's syntax tree by its dotted name."""
    found = {}
    for package in _PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = ast.parse(path.read_text(), str(path))
    return found


def _imports(tree: ast.Module) -> set[str]:
    """Return every dotted name that a module imports; ``from a import b`` gives a and a.b."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("package", _PACKAGES)
def test_no_import_runs_upwards(package: str) -> None:
    upwards = {
        f"{module} imports {name}"
        for module, tree in _modules().items()
        if _is_in(module, package)
        for name in _imports(tree)
        for above in _FLOORS[package]
        if _is_in(name, above)
    }
    assert upwards == set()


def test_only_the_program_imports_the_dashboard() -> None:
    dashboard = "reconnect_hook.dashboard"
    importers = {
        module
        for module, tree in _modules().items()
        if not _is_in(module, dashboard) and any(_is_in(name, dashboard) for name in _imports(tree))
    }
    assert importers == {_ABOVE_THE_DASHBOARD}


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = _modules()
    graph = {
        module: {name for name in _imports(tree) if name in modules and name != module}
        for module, tree in modules.items()
    }
    assert sum(map(len, graph.values())) > len(modules)
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_no_class_name_stands_for_two_things() -> None:
    names = Counter(
        node.name
        for tree in _modules().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, times in names.items() if times > 1] == []


def test_there_are_no_more_modules_than_a_newcomer_can_keep_in_mind() -> None:
    """An ``__init__`` with nothing but its docstring is no module to read."""
    read = [
        name
        for name, tree in _modules().items()
        if not all(isinstance(node, ast.Expr) for node in tree.body)
    ]
    assert len(read) <= _MOST_MODULES
