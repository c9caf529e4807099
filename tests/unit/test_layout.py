"""The floors: no import upwards, no import circle, no class name twice, no flood of modules."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from demo.configuration import ROOT

_PACKAGES = ("zapwatch", "exporter", "reconnect_hook")
_MOST_MODULES = 90
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


@cache
def _tests() -> dict[Path, ast.Module]:
    """Return the syntax tree of each file of tests, by its path in the checkout."""
    return {
        path.relative_to(ROOT): ast.parse(path.read_text(), str(path))
        for path in (ROOT / "tests").rglob("*.py")
    }


@cache
def _imports(tree: ast.Module) -> frozenset[str]:
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
    return frozenset(names)


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


class TestProduct:
    @pytest.mark.parametrize("package", _PACKAGES)
    def test_no_import_runs_upwards(self, package: str) -> None:
        upwards = {
            f"{module} imports {name}"
            for module, tree in _modules().items()
            if _is_in(module, package)
            for name in _imports(tree)
            for above in _FLOORS[package]
            if _is_in(name, above)
        }
        assert upwards == set()

    def test_only_the_program_imports_the_dashboard(self) -> None:
        dashboard = "reconnect_hook.dashboard"
        importers = {
            module
            for module, tree in _modules().items()
            if not _is_in(module, dashboard)
            and any(_is_in(name, dashboard) for name in _imports(tree))
        }
        assert importers == {_ABOVE_THE_DASHBOARD}

    def test_no_modules_import_each_other_in_a_circle(self) -> None:
        modules = _modules()
        graph = {
            module: {name for name in _imports(tree) if name in modules and name != module}
            for module, tree in modules.items()
        }
        assert sum(map(len, graph.values())) > len(modules)
        TopologicalSorter(graph).prepare()  # raises CycleError with the circle

    def test_no_class_name_stands_for_two_things(self) -> None:
        names = Counter(
            node.name
            for tree in _modules().values()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
        )
        assert [name for name, times in names.items() if times > 1] == []

    def test_there_are_no_more_modules_than_a_newcomer_can_keep_in_mind(self) -> None:
        """An ``__init__`` with nothing but its docstring is no module to read."""
        read = [
            name
            for name, tree in _modules().items()
            if not all(isinstance(node, ast.Expr) for node in tree.body)
        ]
        assert len(read) <= _MOST_MODULES


@cache
def _calls_of_tests() -> list[tuple[str, ast.Call]]:
    """Return each call that stands in a test, and where."""
    return [
        (f"{path}:{node.lineno}", node)
        for path, tree in _tests().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


_TIMES = {"time", "now", "monotonic", "sleep", "datetime"}


_SERVERS = {"subprocess", "socket", "http.server", "requests", "demo.simulator.server"}


class TestTests:
    def test_what_tests_share_stands_in_support(self) -> None:
        """No test imports from a test, nor from the helpers of another folder of tests."""
        benchmarks = {
            path.relative_to(ROOT): ast.parse(path.read_text(), str(path))
            for path in (ROOT / "benchmarks").glob("*.py")
        }
        strays = {
            f"{path} imports {name}"
            for path, tree in {**_tests(), **benchmarks}.items()
            for name in _imports(tree)
            if name.startswith("tests.") and not _is_in(name, "tests.support")
            if not name.startswith(".".join(path.parts[:2]))
            or name.split(".")[2:3] == ["conftest"]
            or (name.split(".")[2:3] and name.split(".")[2].startswith("test_"))
        }
        assert strays == set()

    def test_no_test_replaces_the_time(self) -> None:
        """A test hands in a clock instead: see tests/support/clock.py."""
        patches = {
            place
            for place, call in _calls_of_tests()
            if isinstance(call.func, ast.Attribute) and call.func.attr in {"setattr", "patch"}
            for target in call.args[:2]
            if isinstance(target, ast.Constant) and str(target.value).rpartition(".")[2] in _TIMES
        }
        assert patches == set()

    def test_the_fast_profile_shortens_each_property_test(self) -> None:
        """Literal ``max_examples`` would override it: see tests/support/examples.py."""
        literal = {
            place
            for place, call in _calls_of_tests()
            for keyword in call.keywords
            if keyword.arg == "max_examples" and not isinstance(keyword.value, ast.Call)
        }
        assert [place for place in literal if "/support/" not in place] == []

    def test_a_unit_test_needs_no_server_and_no_other_process(self) -> None:
        """What does belongs in tests/integration, so that ``make test-fast`` stays fast."""
        names = {f"tests.unit.{path.stem}" for path in (ROOT / "tests/unit").glob("test_*.py")}
        needed: dict[str, str] = {}
        seen: set[str] = set()
        while names:
            name = names.pop()
            seen.add(name)
            tree = _tests().get(Path(name.replace(".", "/")).with_suffix(".py"))
            if tree is not None:
                imported = _imports(tree)
                needed.update(dict.fromkeys(imported & _SERVERS, name))
                names |= {one for one in imported if _is_in(one, "tests")} - seen
        assert needed == {}
