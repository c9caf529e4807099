"""What a program loads before it knows what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from demo.configuration import ROOT
from reconnect_hook.schema import open_state

_CONFIG = "import zapwatch.config"
_PAGE = "import zapwatch.config, reconnect_hook.dashboard.register"
_HELP = """
import sys, reconnect_hook.__main__
try:
    reconnect_hook.__main__.main(["check", "--help"])
except SystemExit as end:
    assert end.code == 0
"""

# The tables of the state are those of this version already.
_CHECK = """
import reconnect_hook.check
from reconnect_hook.schema import open_state
from sqlalchemy import make_url
open_state(make_url("sqlite:///STATE")).close()
"""


@pytest.mark.parametrize(
    ("program", "heavy"),
    [
        (_CONFIG, {"requests", "urllib3", "pymysql", "flask", "alembic", "cryptography"}),
        (_PAGE, {"pymysql", "alembic", "cryptography"}),
        (_HELP, {"flask", "alembic", "babel"}),
        (_CHECK, {"flask", "alembic", "babel", "pygments", "granian"}),
    ],
    ids=["settings", "page", "check --help", "check"],
)
def test_nothing_heavy_is_loaded(program: str, heavy: set[str], tmp_path: Path) -> None:
    state = tmp_path / "state.sqlite3"
    open_state(make_url(f"sqlite:///{state}")).close()
    program = program.replace("STATE", str(state))
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "zapwatch.config" in loaded
    assert not loaded & heavy
