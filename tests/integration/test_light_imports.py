"""What a program loads before it knows what to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from demo.configuration import ROOT

_CONFIG = "import zapwatch.config"
_HELP = """
import sys, reconnect_hook.__main__
try:
    reconnect_hook.__main__.main(["check", "--help"])
except SystemExit as end:
    assert end.code == 0
"""


@pytest.mark.parametrize(
    ("program", "heavy"),
    [
        (_CONFIG, {"requests", "urllib3", "pymysql", "flask", "alembic"}),
        (_HELP, {"flask", "alembic", "babel"}),
    ],
    ids=["settings", "check --help"],
)
def test_nothing_heavy_is_loaded(program: str, heavy: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print('loaded', *sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.rpartition("loaded ")[2].split())
    assert "zapwatch.config" in loaded
    assert not loaded & heavy
